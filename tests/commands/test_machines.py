"""`pairs RUN --part` and `--with`: a stand-in for ssh runs the command in another folder of this machine."""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from mipo_mlx.cli import main
from mipo_mlx.commands import machines
from mipo_mlx.errors import UserError
from mipo_mlx.files import read_json, read_jsonl
from mipo_mlx.pairs import make
from tests.test_kill import RECIPE, write_notes

SSH = """#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
host=$1; shift
[ "$host" = spy ] && { echo "$*" > "$STAND_IN/command"; head -n 1 > "$STAND_IN/sent"; exit 3; }
[ "$host" = gone ] && { echo 'ssh: connect to host gone port 22: No route to host' >&2; exit 255; }
cd "$STAND_IN/$host" && echo "Welcome to $host" && exec sh -c "$*"
"""


@pytest.fixture(scope="module")
def place(tiny_folder, tmp_path_factory):
    """Notes and a recipe, a stand-in for ssh on PATH, and samples.jsonl as one machine writes it."""
    home = tmp_path_factory.mktemp("machines")
    for name in ("notes", "bin", "mini", "studio"):
        (home / name).mkdir()
    write_notes(home / "notes")
    (home / "r.yaml").write_text(RECIPE.format(model=tiny_folder, notes=home / "notes"))
    (home / "bin" / "ssh").write_text(SSH)
    (home / "bin" / "ssh").chmod(stat.S_IRWXU)
    return home


@pytest.fixture
def run(place, monkeypatch):
    """Calls `mipo-mlx pairs` on this machine; returns what it says."""
    monkeypatch.setenv("PATH", f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN", str(place))
    monkeypatch.setenv("TMPDIR", str(place / "mini"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    def run(*words):
        done = CliRunner().invoke(
            main, ["pairs", str(place / "r.yaml"), "--runs", str(place / "runs"), "--set", "pairs.grids=6", *words]
        )
        assert done.exit_code == 0, done.output
        return done.output

    if not (place / "runs" / "whole").exists():
        run("--name", "whole")
    return run


def samples(home: Path, name: str) -> bytes:
    return (home / "runs" / name / "samples.jsonl").read_bytes()


@pytest.mark.process
def test_with_two_machines_of_which_one_is_gone(place, run, monkeypatch):
    part, real = place / "runs" / "with" / "parts" / "2-of-3.jsonl", make.Chunks.sampled

    def late(self, number, *rest):
        """This machine waits until the other one has sent a chunk."""
        until = time.monotonic() + 120
        while not (part.exists() and part.read_bytes().count(b"\n") >= 3) and time.monotonic() < until:
            time.sleep(0.05)
        return real(self, number, *rest)

    monkeypatch.setattr(make.Chunks, "sampled", late)
    output = run("--name", "with", "--with", "mini,gone")
    assert samples(place, "with") == samples(place, "whole")
    assert "gone: part 3/3 ended early (ssh: connect to host gone port 22: No route to host)" in output
    assert read_jsonl(part)[0]["part"] == "2/3"
    assert sum(read_json(place / "runs" / "with" / "manifest.json")["stages"]["pairs"]["summary"]["made_on"].values()) >= 1
    assert not list((place / "mini").glob("mipo-mlx-*"))  # nothing of the notes stays there


def test_a_part_by_hand_is_taken(place, run):
    run("--name", "other", "--part", "2/2")
    run("--name", "own", "--part", "1/2")
    part = place / "runs" / "other" / "parts" / "2-of-2.jsonl"
    (place / "runs" / "own" / "parts" / part.name).write_bytes(part.read_bytes())
    run("--name", "own")
    assert samples(place, "own") == samples(place, "whole")
    assert "answers_sampled" not in read_json(place / "runs" / "own" / "manifest.json")["stages"]["pairs"]["summary"]


def test_ssh_gets_the_files_that_docs_name_and_no_other(place, run):
    """The command line, which other users of a machine see, has nothing of the owner."""
    run("--name", "spied")
    folder = place / "runs" / "spied"
    for name in ("pairs.jsonl", "samples.jsonl"):
        (folder / name).unlink()
    for name in ("profile.md", "votes.jsonl", "memory.sqlite", "sources.choice", "adapters/adapters.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("I hide a key under the third pot.\n")
    assert "spy: part 2/2 ended early" in run("--name", "spied", "--with", "spy")
    sent = json.loads((place / "sent").read_text())
    assert set(sent) == {"files", "have"} and set(machines.SENT) >= set(sent["files"])
    assert set(sent["files"]) == {"recipe.yaml", "contexts.jsonl", "prompts.jsonl", "profile.md", "context.json"}
    docs = (Path(__file__).parents[2] / "docs" / "several-machines.md").read_text()
    assert all(f"`{name}`" in docs for name in machines.SENT)
    assert all(text == (folder / name).read_text() for name, text in sent["files"].items())
    command = (place / "command").read_text()
    assert "pairs - --part 2/2" in command and str(place) not in command and "spied" not in command


@pytest.mark.process
def test_a_machine_ends_with_its_input(place, run):
    """The machine that wants the part is gone: the other one stops, and keeps nothing."""
    folder = place / "runs" / "whole"
    scratch = place / "studio"
    order = {"files": {name: (folder / name).read_text() for name in machines.SENT if (folder / name).exists()}, "have": []}
    command = [sys.executable, "-m", "mipo_mlx.cli", "pairs", "-", "--part", "1/1"]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(scratch)})
    other.stdin.write(json.dumps(order).encode() + b"\n")
    other.stdin.flush()
    head = json.loads(other.stdout.readline())
    [held] = scratch.glob("mipo-mlx-*")
    assert head["part"] == "1/1" and held.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in held.iterdir() if path.name[0] != "."} >= set(order["files"])
    begin = time.monotonic()
    other.stdin.close()
    assert other.wait(30) == 1 or other.returncode == 0  # it may have been done
    assert time.monotonic() - begin < 30 and not list(scratch.glob("mipo-mlx-*"))
    other.stdout.close()


@pytest.mark.parametrize("hosts", ["-oProxyCommand=touch x", "a,,b", "", "a b", "mini;ls"])
def test_no_host(hosts):
    with pytest.raises(UserError, match="is no host"):
        machines._hosts(hosts)
