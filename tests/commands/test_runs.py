"""`mipo-mlx runs` and `mipo-mlx rm`: every run is in the list, and nothing is removed that no run wrote."""

import fcntl
import shutil

import pytest
from click.testing import CliRunner

from mipo_mlx import run
from mipo_mlx.cli import main
from mipo_mlx.commands import nightly, runs
from mipo_mlx.commands.options import RunOptions
from mipo_mlx.files import write_json
from mipo_mlx.recipe_loading import parse


@pytest.fixture
def begun(tmp_path):
    opened = run.open_run(parse("model: x\n"), "one", tmp_path)
    run.prepare(opened, fresh=False)
    (opened.folder / "pairs.jsonl").write_text("x" * 2_000_000)
    return opened


def invoke(*arguments, expect=0, lines=None):
    result = CliRunner().invoke(main, [str(a) for a in arguments], input=lines)
    assert result.exit_code == expect, result.output
    return result.output


def test_the_list_has_state_verdict_size_and_date(begun, tmp_path, monkeypatch):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "recipe.yaml").write_text("model: x\n")
    (tmp_path / "broken" / "manifest.json").write_text("{")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "recipe.yaml").write_text("modle: x\n")
    (tmp_path / "no run").mkdir()
    listed = {line.split("  ")[0]: line.split() for line in invoke("runs", "--runs", tmp_path).splitlines()}
    assert listed["one"][1:] == ["stopped", "in", "sources", "2", "MB", begun.manifest["created"][:10]]
    assert listed["broken"][1] == "damaged" and listed["old"][1:4] == ["of", "another", "version"] and "no run" not in listed
    write_json(begun.folder / "eval.json", {"verdict": "It worked: 73% of the pairs"})
    monkeypatch.setattr(run.Run, "done", lambda self, step: bool(self.manifest))
    assert "  finished" in invoke("runs", "--runs", tmp_path) and "  It worked  " in invoke("runs", "--runs", tmp_path)
    with open(begun.folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "  at work" in invoke("runs", "--runs", tmp_path)
        assert "is working on this run" in invoke("rm", "one", "--runs", tmp_path, "--yes", expect=2)
    assert "no runs in" in invoke("runs", "--runs", tmp_path / "nowhere")


def test_a_run_is_removed_after_asking_and_its_folder_with_it(begun, tmp_path):
    assert "one stays" in invoke("rm", "one", "--runs", tmp_path, lines="n\n") and begun.folder.exists()
    assert "removed" in invoke("rm", "one", "--runs", tmp_path, lines="y\n") and not begun.folder.exists()
    assert "no such run" in invoke("rm", "one", "--runs", tmp_path, "--yes", expect=2)


def test_what_no_run_wrote_stays(begun, tmp_path):
    (begun.folder / "mine.gguf").write_text("x")
    (begun.folder / "profile.md").write_text("I keep bees.\n")
    output = invoke("rm", begun.folder, "--yes")
    assert output.strip().endswith("stays with what it did not write: mine.gguf, profile.md")
    assert sorted(path.name for path in begun.folder.iterdir()) == ["mine.gguf", "profile.md"]
    (tmp_path / "cake").mkdir()
    (tmp_path / "cake" / "recipe.yaml").write_text("flour: 1\n")
    assert "not written by a run" in invoke("rm", "cake", "--runs", tmp_path, "--yes", expect=2)
    assert (tmp_path / "cake" / "recipe.yaml").exists()


def test_a_run_of_another_version_can_be_removed(begun, tmp_path):
    (begun.folder / "recipe.yaml").write_text("modle: x\n")
    invoke("rm", "one", "--runs", tmp_path, "--yes")
    assert not begun.folder.exists()


def test_sizes_are_those_of_all_files(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"123")
    (tmp_path / "a" / "d").write_bytes(b"45")
    assert runs.size(tmp_path / "a") == 5 and runs.size(tmp_path / "a" / "d") == 2


def test_a_run_that_is_removed_is_no_longer_scheduled_and_one_of_its_name_elsewhere_is(begun, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(nightly, "_call", lambda command: True)
    other = shutil.copytree(begun.folder, tmp_path / "elsewhere" / "one")
    plans = [nightly.plan_of(RunOptions(str(folder), tmp_path), "3:30") for folder in (begun.folder, other)]
    for plan in plans:
        nightly.put(plan)
    assert "no longer scheduled" in invoke("rm", begun.folder, "--yes") and not begun.folder.exists()
    assert not plans[0].there() and plans[1].there()
    nightly.take_away(plans[1])
    assert "scheduled" not in invoke("rm", other, "--yes") and not other.exists()
