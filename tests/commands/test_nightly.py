"""`mipo-mlx schedule`: the files parse, start the command with exactly its arguments, and are removed again."""

import os
import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mipo_mlx.cli import main
from mipo_mlx.commands import nightly
from mipo_mlx.errors import UserError
from mipo_mlx.run import existing_run

from .test_chat import with_notes

__all__ = ["with_notes"]
NAMES = [
    "mine",
    "two words",
    'it\'s 100% "mine"',
    "a$HOME & <b>",
    "back\\slash",
    "zo\u00eb \u732b",
    "tab\there",
    "-n",
    "%h $(id) `id`",
]


def plan(folder: Path, home: Path, mac: bool) -> nightly.Plan:
    return nightly.Plan(folder, 2, 5, mac, home)


def unquoted(line: str) -> list[str]:
    """The arguments of an ExecStart line, read as systemd.service(5) says."""
    arguments, at = [], 0
    while at < len(line):
        assert line[at] == '"'
        text, at = "", at + 1
        while line[at] != '"':
            if line[at] == "\\":
                text, at = text + {"n": "\n", "t": "\t", "\\": "\\", '"': '"'}[line[at + 1]], at + 2
            elif line[at] == "%":
                assert line[at + 1] == "%"
                text, at = text + "%", at + 2
            else:
                text, at = text + line[at], at + 1
        arguments.append(text)
        at += 2
    return arguments


@pytest.mark.parametrize("name", NAMES)
def test_any_folder_reaches_the_command_as_it_is(name, tmp_path):
    folder = tmp_path / "runs of mine" / name
    command = [sys.executable, "-m", "mipo_mlx", "update", str(folder), "--train", "--quiet"]
    (agent,) = plan(folder, tmp_path, mac=True).files().values()
    agent = plistlib.loads(agent)
    assert agent["ProgramArguments"][:2] == ["/bin/sh", "-c"] and agent["ProgramArguments"][4:] == command
    assert agent["StartCalendarInterval"] == {"Hour": 2, "Minute": 5}
    service, timer = (content.decode() for content in plan(folder, tmp_path, mac=False).files().values())
    (start,) = [line.removeprefix("ExecStart=:") for line in service.splitlines() if line.startswith("ExecStart=")]
    assert unquoted(start) == command
    assert "ConditionACPower=true" in service.splitlines()
    assert {"OnCalendar=*-*-* 02:05:00", "Persistent=true"} <= set(timer.splitlines())
    if shutil.which("systemd-analyze"):
        for path, content in plan(folder, tmp_path, mac=False).files().items():
            path.write_bytes(content)
            verify, environment = (
                ["systemd-analyze", "verify", "--user", str(path)],
                {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
            )
            done = subprocess.run(verify, capture_output=True, text=True, env=environment)
            assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize("power", ["AC Power", "Battery Power"])
def test_the_agent_starts_the_command_on_mains_power_alone(power, tmp_path):
    """With programs of the Mac's names in the path: the shell line of the agent, and its arguments, run as launchd runs them."""
    (tmp_path / "bin").mkdir()
    programs = {"pmset": f"echo \"Now drawing from '{power}'\"; echo more", "caffeinate": 'shift; "$@"'}
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    line = ["/bin/sh", "-c", nightly.ON_MAINS, "sh", "printf", "[%s]", "two words", "$HOME"]
    done = subprocess.run(line, capture_output=True, text=True, env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    assert done.stdout == ("[two words][$HOME]" if power == "AC Power" else "")


@pytest.mark.parametrize("mac", [True, False])
def test_it_is_written_once_and_removed(mac, tmp_path):
    calls: list[list[str]] = []
    one, other = (plan(tmp_path / name / "mine", tmp_path / "home", mac) for name in ("a", "b"))
    assert one.label != other.label  # runs of one name in two places

    def state() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (tmp_path / "home").rglob("*") if not path.is_dir()}

    def call(command: list[str]) -> bool:
        calls.append(command)
        return False

    assert "02:05" in nightly.put(one, call) and "with your next login" in nightly.put(one, lambda _: False)
    first = state()
    assert "next login" not in nightly.put(one, lambda _: True) and state() == first
    assert set(one.files()) <= set(first) and (mac or one.link.is_symlink())
    assert all(command[0] == ("launchctl" if mac else "systemctl") for command in calls) and calls
    nightly.put(other, call)
    assert "no longer" in nightly.take_away(one, call) and "nothing is scheduled" in nightly.take_away(one, call)
    nightly.take_away(other, call)
    assert state() == {}


def test_the_command_shows_writes_and_removes(with_notes, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(nightly, "_call", lambda command: True)

    def command(*options: str, expect: int = 0) -> str:
        result = CliRunner().invoke(main, ["schedule", str(with_notes), *options])
        assert result.exit_code == expect, result.output
        return result.output

    def written() -> list[Path]:
        return [path for path in tmp_path.rglob("*mipo-mlx.update.mine.*")]

    assert str(with_notes) in command("--show", "--at", "3:30") and not written()
    assert "each night at 03:30" in command("--at", "3:30") and written()
    assert "no longer scheduled" in command("--remove") and not written()
    for wrong in ("25:00", "2", "noon", "02:60"):
        assert "expected a time of day" in command("--at", wrong, expect=2)
    run = existing_run(with_notes, tmp_path)
    (run.folder / "adapters" / "adapters.safetensors").unlink()
    assert "training is not finished" in command(expect=2) and not written()


def test_other_systems_are_refused(with_notes):
    from mipo_mlx.commands.options import RunOptions

    with pytest.raises(UserError, match="neither launchd nor systemd is on win32"):
        nightly.plan_of(RunOptions(str(with_notes), Path()), "02:00", "win32")
