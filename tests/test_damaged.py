"""Damaged files of a run: each is named with a remedy, and the remedy ends with the same bytes as before the damage."""

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optimizers
import pytest
from click.testing import CliRunner

from mipo_mlx import cli, recipe_loading, run
from mipo_mlx.errors import Failure, UserError
from mipo_mlx.evaluation.outcome import FORMAT
from mipo_mlx.files import dump, sha256, write_json, write_text
from mipo_mlx.progress import Reporter
from mipo_mlx.training import checkpoints
from tests.test_bad_input import refused
from tests.test_kill import KEPT, RECIPE, write_notes

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory) -> Path:
    """A working folder with notes, a recipe for the tiny model, and its finished run."""
    home = tmp_path_factory.mktemp("damaged")
    write_notes(home / "notes")
    (home / "r.yaml").write_text(RECIPE.format(model=tiny_folder, notes=home / "notes"))
    result = CliRunner().invoke(cli.main, ["train", str(home / "r.yaml"), "--runs", str(home / "runs"), "--quiet"])
    assert result.exit_code == 0, result.output
    return home


@pytest.fixture
def home(trained, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(shutil.copytree(trained, tmp_path / "home"))
    return tmp_path / "home"


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


DAMAGES = [
    ("manifest.json", half, ["train", "r.yaml"], "broken JSON"),
    ("manifest.json", lambda _: b"", ["train", "r.yaml", "--fresh"], "broken JSON"),
    ("eval.json", half, ["eval", "r"], "broken JSON"),
    ("eval.json", lambda _: b"[]", ["report", "r"], "no JSON object"),
    ("sources.json", half, ["report", "r"], "broken JSON"),
    ("pairs.json", half, ["report", "r"], "broken JSON"),
    ("pairs.jsonl", half, ["eval", "r"], "cut off or broken"),
    ("contexts.jsonl", half, ["eval", "r"], "cut off or broken"),
    ("prompts.jsonl", lambda data: data.replace(b"}", b"", 1), ["eval", "r"], "cut off or broken"),
]


@pytest.mark.process
def test_what_is_damaged_is_named_and_made_again(home):
    folder = home / "runs" / "r"

    def train() -> dict[str, bytes]:
        result = CliRunner().invoke(cli.main, ["train", "r.yaml", "--quiet"])
        assert result.exit_code == 0, result.output
        return {name: (folder / name).read_bytes() for name in KEPT}

    whole = train()
    for name, damage, command, message in DAMAGES:
        path = folder / name
        sound = path.read_bytes()
        path.write_bytes(damage(sound))
        line = refused(*command, code=1)
        assert f"runs/r/{name}: " in line and message in line and "remove" in line
        path.write_bytes(sound)
    for name in dict.fromkeys(name for name, *_ in DAMAGES):
        (folder / name).unlink()
        assert train() == whole, name


def test_a_file_that_is_gone_is_named_and_nothing_is_evaluated_without_it(tmp_path):
    opened = run.open_run(recipe_loading.parse("model: x"), "one", tmp_path, fresh=False)
    stages = {"sources": {"state": "done", "sha256": {"contexts.jsonl": "0", "prompts.jsonl": "0"}}}
    write_json(opened.folder / "manifest.json", {"stages": stages})
    with pytest.raises(Failure, match=r"one/contexts.jsonl: gone since sources wrote it"):
        run.check_files(opened, "evaluation", QUIET)
    run.check_files(opened, "training", QUIET)  # which does not read it


CUTS = [("state.json", lambda _: b""), ("adapters.safetensors", lambda _: b""), ("optimizer.safetensors", half)]


@pytest.mark.process
def test_a_damaged_checkpoint_is_named_and_training_goes_on_without_it(home):
    folder = home / "runs" / "r"
    trained = (folder / "adapters" / "adapters.safetensors").read_bytes()
    for name, damage in CUTS:
        (folder / "adapters" / "adapters.safetensors").unlink()
        newest = sorted((folder / "checkpoints").iterdir())[-1]
        (newest / name).write_bytes(damage((newest / name).read_bytes()))
        line = refused("train", "r.yaml", code=1)
        assert f"runs/r/checkpoints/{newest.name}: damaged; remove it and run the same command" in line
        shutil.rmtree(newest)
        opened = run.existing_run(folder, home)
        run.execute(opened, "training", QUIET)
        assert (folder / "adapters" / "adapters.safetensors").read_bytes() == trained, name


def test_without_the_best_checkpoint_all_of_them_go(tmp_path):
    optimizer = optimizers.AdamW(learning_rate=0.1)
    optimizer.init({"a": mx.zeros(3)})
    for step in (2, 4):
        checkpoints.save(tmp_path, checkpoints.State(step, 0, best_step=2), {"a": mx.zeros(3)}, optimizer)
    (tmp_path / "step-000002" / "adapters.safetensors").write_bytes(b"")
    for _ in range(2):  # damaged, then gone
        with pytest.raises(Failure, match=rf"{tmp_path}/step-000002: damaged; remove {tmp_path} and run the same command"):
            checkpoints.load_weights(tmp_path, 2)
        shutil.rmtree(tmp_path / "step-000002", ignore_errors=True)


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    happened = []  # inodes that were flushed, and the rename
    monkeypatch.setattr(os, "fsync", lambda handle: happened.append(os.fstat(handle).st_ino))
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda path, to: (happened.append("renamed"), rename(path, to)))
    optimizer = optimizers.AdamW(learning_rate=0.1)
    optimizer.init({"a": mx.zeros(3)})
    checkpoints.save(tmp_path / "c", checkpoints.State(1, 0), {"a": mx.zeros(3)}, optimizer)
    folder = tmp_path / "c" / "step-000001"
    place = happened.index("renamed")
    assert set(happened[:place]) == {path.stat().st_ino for path in (folder, *folder.iterdir())}
    assert happened[place + 1 :] == [(tmp_path / "c").stat().st_ino]


def test_pairs_that_a_person_picked_from_are_taken_as_they_stand(tmp_path):
    opened = run.open_run(recipe_loading.parse("model: x"), "one", tmp_path, fresh=False)
    pairs = opened.folder / "pairs.jsonl"
    pairs.write_text('{"id": 1}\n{"id": 2}\n')
    known = {"stages": {"pairs": {"state": "done", "sha256": {"pairs.jsonl": sha256(pairs)}}}}
    write_json(opened.folder / "manifest.json", known)
    message = []
    for text in ('{"id": 1}\n{"id": 2}\n', '{"id": 2}\n'):
        pairs.write_text(text)
        stream = io.StringIO()
        for step in ("training", "report"):  # the report reads no pairs
            run.check_files(opened, step, Reporter(stream=stream))
        message.append(stream.getvalue().count("is not as pairs left it"))
    assert message == [0, 1]


def test_an_evaluation_of_another_version_is_made_anew(tmp_path):
    opened = run.open_run(recipe_loading.parse("model: x"), "one", tmp_path, fresh=False)
    write_json(opened.folder / "manifest.json", {"stages": {"evaluation": {"state": "done"}}})
    for result, done in (({"format": FORMAT}, True), ({"format": 1}, False), ({}, False)):
        write_json(opened.folder / "eval.json", result)
        assert opened.done("evaluation") == done


@pytest.mark.parametrize("error", [UserError("no such judge"), Failure("the judge does not answer")])
def test_an_evaluation_that_fails_leaves_a_finished_run_finished(tmp_path, monkeypatch, error):
    def pretended(writes):
        def work(opened, reporter, round_number):
            for file in writes:
                (opened.folder / file).parent.mkdir(exist_ok=True)
                write_text(opened.folder / file, "" if file.endswith(".jsonl") else dump({"format": FORMAT}))
            return {}

        return work

    def refuse(*_):
        raise error

    for name, stage in run.STAGES.items():
        monkeypatch.setitem(run.STAGES, name, replace(stage, start=pretended(stage.writes)))
    opened = run.open_run(recipe_loading.parse("model: x"), "one", tmp_path, fresh=False)
    run.prepare(opened, fresh=False)
    run.execute(opened, "report", QUIET)
    monkeypatch.setattr(run.time, "monotonic", lambda: 0.0)  # a busy machine may spend a tenth of a second on refusing
    before = opened.manifest
    monkeypatch.setitem(run.STAGES, "evaluation", replace(run.STAGES["evaluation"], start=refuse))
    with pytest.raises(type(error)):
        run.run_stage(opened, "evaluation", QUIET)
    assert opened.manifest == before and opened.done("report")
    (opened.folder / "eval.json").unlink()
    with pytest.raises(type(error)):  # nothing to go back to
        run.execute(opened, "report", QUIET)
    assert not opened.done("evaluation") and not opened.done("report")
