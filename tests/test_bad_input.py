"""What a clumsy user types: one clear line, the right exit code, no traceback, and nothing of an earlier run lost."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from mipo_mlx import errors, run
from mipo_mlx.cli import main
from tests.test_kill import RECIPE, write_notes


@pytest.fixture
def home(tiny_folder, tmp_path, monkeypatch):
    """A working folder with notes and a recipe for the tiny model."""
    write_notes(tmp_path / "notes")
    (tmp_path / "r.yaml").write_text(RECIPE.format(model=tiny_folder, notes=tmp_path / "notes"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(*arguments, code: int = 2) -> str:
    """The single line that the command ends with."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in result.output and "--debug" not in lines[0], result.output
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "none.yaml"], "none.yaml: no such recipe"),
        (["train", "notes"], "notes: a folder; expected a recipe, a file such as"),
        (["train", "r.yaml", "--notes", ""], "--notes: empty"),
        (["train", "r.yaml", "--notes", "nowhere"], "nowhere: no such folder or file"),
        (["train", "r.yaml", "--notes", "r.yaml"], "no kind of note that can be read"),
        (["train", "r.yaml", "--name", "a/b"], "expected a plain folder name"),
        (["train", "r.yaml", "--runs", "r.yaml"], "--runs r.yaml: not a folder"),
        (["train", "r.yaml", "--runs", "r.yaml", "--dry-run"], "--runs r.yaml: not a folder"),
        (["train", "r.yaml", "--set", "nonsense"], "--set nonsense: expected key=value"),
        (["train", "r.yaml", "--set", "=3"], "expected key=value"),
        (["train", "r.yaml", "--set", "training.beta="], "training.beta: input should be a valid number, found None"),
        (["train", "r.yaml", "--set", "training=3"], "training: "),
        (["train", "r.yaml", "--set", "training.beta.x=3"], "training.beta: input should be a valid number"),
        (["train", "r.yaml", "--set", "training.lora.rnk=3"], "did you mean training.lora.rank?"),
        (["train", "r.yaml", "--set", "training.grids_per_step=99"], "training.grids_per_step: 99 grids in one step"),
        (["train", "r.yaml", "--set", "pairs.contexts_per_grid=40", "--dry-run"], "a grid needs 40"),
        (["train", "r.yaml", "--set", "model=./nowhere"], "no such model folder or GGUF file"),
        (["train", "r.yaml", "--set", "model=./nowhere", "--dry-run"], "no such model folder or GGUF file"),
        (["train", "r.yaml", "--set", "model=./notes"], "no config.json in this model folder"),
        (["train", "r.yaml", "--set", "sources.prompts=none.txt"], "none.txt"),
        (["pairs", "nowhere"], "nowhere: no such recipe and no such run; `mipo-mlx recipes` lists"),
        (["chat", "r.yaml"], "r.yaml: no such run"),
        (["export", "", "--runs", "notes"], "no such run"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_wrong_arguments(home, arguments, message):
    assert message in refused(*arguments)
    assert not (home / "runs").exists() or not any((home / "runs").glob("*/samples.jsonl"))


def test_a_configuration_that_no_model_has_is_refused_by_the_dry_run_too(home, tiny_folder):
    copy = shutil.copytree(tiny_folder, home / "model")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "horoscope"}))
    for more in ([], ["--dry-run"]):
        assert "horoscope" in refused("train", "r.yaml", "--set", "model=./model", *more)


def test_options_that_would_be_ignored_are_refused(home):
    (home / "runs" / "one").mkdir(parents=True)
    shutil.copy("r.yaml", home / "runs" / "one" / "recipe.yaml")
    assert "a run keeps the recipe that it began with" in refused("pairs", "one", "--set", "pairs.grids=3")
    assert "a run keeps the recipe that it began with" in refused("pairs", "one", "--notes", "notes")
    assert "a run keeps the recipe that it began with" in refused("train", "runs/one", "--name", "two")
    assert "--set and --baselines need one run alone" in refused("eval", "one", "one", "--baselines")
    assert "--set and --baselines need one run alone" in refused("eval", "one", "one", "--set", "evaluation.answers=5")
    assert "leave out --type and --split-max-size" in refused("export", "one", "--adapter-only", "--type", "f16")
    assert "leave out --type and --split-max-size" in refused("export", "one", "--adapter-only", "--split-max-size", "1G")


def test_a_file_where_the_run_should_be(home):
    (home / "runs").mkdir()
    (home / "runs" / "r").write_text("mine")
    assert "runs/r: a file of this name is in the way" in refused("train", "r.yaml")
    assert (home / "runs" / "r").read_text() == "mine"


def test_a_broken_manifest_is_named(home):
    (home / "runs" / "r").mkdir(parents=True)
    shutil.copy("r.yaml", home / "runs" / "r" / "recipe.yaml")
    (home / "runs" / "r" / "manifest.json").write_text('{"stages": ')
    assert "manifest.json: broken" in refused("pairs", "r", code=1)


@pytest.mark.parametrize(
    ("number", "message", "code"),
    [
        (errno.ENOSPC, "runs/a: the disk is full; free some space and run the same command again", 1),
        (errno.EACCES, "runs/a: permission denied; give yourself the right", 2),
        (errno.EROFS, "runs/a: read-only file system; give yourself the right", 2),
        (errno.ELOOP, "runs/a: too many levels of symbolic links; check this path", 2),
        (errno.ENOTDIR, "runs/a: not a directory; check this path", 2),
        (errno.EIO, "runs/a: input/output error", 1),
    ],
)
def test_what_the_system_says_of_a_path_is_one_line(number, message, code):
    line, result = errors.one_line(OSError(number, os.strerror(number), "runs/a"))
    assert line.startswith(message) and result == code


def test_out_of_memory_says_what_to_lower():
    line, code = errors.one_line(RuntimeError("[malloc] Unable to allocate 123456 bytes."))
    assert code == 1 and "Unable to allocate" in line and "lower pairs.batch" in line and "--debug" not in line


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "mipo_mlx.cli", *map(str, arguments)]


@pytest.mark.process
def test_a_full_disk_ends_in_one_line_and_the_run_goes_on(home):
    """No file may have more bytes than the limit, which the stages meet one after the other."""
    # First, so that what MLX compiles on the way is on the disk already: without it the same sums are rounded otherwise.
    again = ["train", "r.yaml", "--quiet"]
    assert CliRunner().invoke(main, [*again, "--name", "other"]).exit_code == 0
    for limit, file in ((10_000, "prompts.jsonl"), (35_000, ".jsonl"), (20_000, "checkpoints")):

        def full(limit=limit):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        # Python would cut off what it compiles, too, and every later process that imports it would end.
        kept = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        ended = subprocess.run(command(*again), env=kept, preexec_fn=full, capture_output=True, text=True)
        message = ended.stderr.strip().splitlines()[-1]
        assert ended.returncode == 1 and "the disk is full; free some space" in message and file in message, ended.stderr
        assert "Traceback" not in ended.stderr
        if file == ".jsonl":  # the pairs, then training alone meets the limit
            assert CliRunner().invoke(main, ["pairs", "r.yaml", "--quiet"]).exit_code == 0
    assert CliRunner().invoke(main, again).exit_code == 0
    for name in ("pairs.jsonl", "adapters/adapters.safetensors"):
        assert (home / "runs" / "r" / name).read_bytes() == (home / "runs" / "other" / name).read_bytes()


def test_ctrl_c_is_one_line_and_the_run_goes_on(home):
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  tests that run in the background ignore it
    process = subprocess.Popen(command("train", "r.yaml"), stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    while not (home / "runs" / "r" / "prompts.jsonl").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait() == 130
    assert rest.strip().endswith("stopped; the same command continues from here") and "Traceback" not in rest
    assert run.existing_run("r", home / "runs").folder.exists()
