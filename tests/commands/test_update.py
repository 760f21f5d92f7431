"""`mipo-mlx update`: notes that change are used by the next question, also of a talk that goes on; with --train, by the adapters,
where validation is no worse."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from mipo_mlx import recipe_loading
from mipo_mlx import run as runs
from mipo_mlx.cli import main
from mipo_mlx.commands import update as updating
from mipo_mlx.commands.start import require
from mipo_mlx.errors import UserError
from mipo_mlx.evaluation import evaluate
from mipo_mlx.evaluation import leak as leak_test
from mipo_mlx.files import read_json, read_records, write_json, write_records
from mipo_mlx.models import identity
from mipo_mlx.pairs import make
from mipo_mlx.progress import Reporter
from mipo_mlx.records import HELDOUT, TRAIN, VALIDATION, Context, Grid, Pair
from mipo_mlx.run import existing_run
from mipo_mlx.serving.assistant import AnswerOptions, Assistant
from mipo_mlx.sources import changes, renew
from mipo_mlx.training import rounds, train
from tests.test_kill import NOTES as PAST
from tests.test_kill import write_notes
from tests.training.test_rounds import Killed, dying

from .test_chat import COOK, trained, with_notes

__all__ = ["trained", "with_notes"]
TEA = "Which kinds of tea do I have in tins?"


def update(folder, *options: str, expect: int = 0) -> list[str]:
    result = CliRunner().invoke(main, ["update", str(folder), "--quiet", *options])
    assert result.exit_code == expect, result.output
    return result.output.splitlines()


def test_each_kind_of_change_is_one_line_and_the_talk_that_goes_on_uses_it(with_notes, tmp_path):
    run, notes = existing_run(with_notes, tmp_path), tmp_path / "notes"
    write_json(with_notes / "sources.json", {"hashes": changes.hashes(run.recipe.sources)})
    assert update(with_notes) == ["memory: new: 4 files (bees.md, choir.md, knee.md, ...)", "memory: 4 passages of 4 files"]
    talk = Assistant(with_notes, run.recipe, AnswerOptions(), Reporter(quiet=True))
    assert [match.place for match in talk.background(COOK).matches] == ["soup.md:3"] and not talk.background(TEA).matches
    (notes / "tea.md").write_text("# Tea\n\nI have thirty-one kinds of tea in tins on a shelf.\n")
    (notes / "knee.md").write_text("# Knee\n\nMy right knee is well again since the operation of last spring.\n")
    (notes / "soup.md").unlink()
    kinds = ["new: 1 file (tea.md)", "changed: 1 file (knee.md)", "gone: 1 file (soup.md)"]
    advice = f"`mipo-mlx update {with_notes} --train` trains on what is new and changed"
    lines = update(with_notes)
    assert lines[:3] == [f"memory: {kind}" for kind in kinds] and lines[3] == "memory: 4 passages of 4 files"
    assert lines[4:] == [*(f"since training: {kind}" for kind in kinds), advice]
    assert [match.place for match in talk.background(TEA).matches] == ["tea.md:3"] and not talk.background(COOK).matches
    assert update(with_notes)[0] == "memory: nothing has changed; 4 passages of 4 files"


def test_a_run_without_notes_has_nothing_to_update(trained):
    assert "has no notes of its owner" in update(trained, expect=2)[-1]


RECIPE = """
model: {model}
seed: 1
sources: {{notes: {notes}, min_tokens: 8, heldout_contexts: 0.4}}
pairs:
  system: "About the user: {{context}} Answer with the user in mind, in two sentences."
  distractors: [1]
  grids: 8
  validation_grids: 2
  heldout_grids: 3
  contexts_per_grid: 3
  max_tokens: 16
  batch: 6
  filters: {{min_pmi: null, repeated_ngrams: null, quotes_context: null, first_person: false, near_duplicates: null}}
training:
  learning_rate: 2e-4
  checkpoint_every: 3
  evaluate_every: 3
  max_kl: null
  min_chosen_reward: null
  lora: {{rank: 4}}
evaluation: {{bootstrap: 100, answers: 4, everyday: 2, kinds: 0, preferences: 0, leak_contexts: 2, unprompted: 4, use: 0}}
export: {{mlx: false, gguf: [f16], fidelity: 0}}
memory: {{embedder: words}}
"""
MORE = {
    "kite": "I build kites out of old tents, and I fly the largest one on the beach at Skagen every windy April weekend.",
    "chess": "I lose at chess against my neighbour Olga on Tuesdays, and she lets me take back exactly one move a game.",
    "radio": "I repair valve radios in the attic, and my favourite one receives a station in Reykjavik after midnight.",
    "plums": "My plum tree gave forty kilos this year, and I boiled all of them down to a dark paste without any sugar.",
    "stairs": "I count the stairs to my flat, there are ninety-one of them, and on the seventieth I always have to rest.",
}
ARCHERY = "Since last week all of that is over: I took up archery instead, together with my aunt in Odense."
KEPT = (
    "contexts.jsonl", "contexts-2.jsonl", "samples-2.jsonl", "pairs-2.jsonl", "adapters/adapters.safetensors",
    "adapters-2/adapters.safetensors", "adapters/adapter_config.json", "eval.json", "finished-f16.gguf",
)  # fmt: skip
QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def finished(tiny_folder, tmp_path_factory) -> Path:
    """A run that is finished, whose recipe names notes beside it that have changed since: five new ones, one changed, one gone."""
    home = tmp_path_factory.mktemp("update")
    write_notes(home / "notes", PAST)
    recipe = recipe_loading.parse(RECIPE.format(model=tiny_folder, notes=home / "notes"))
    run = runs.open_run(recipe, "finished", home / "runs")
    runs.prepare(run, fresh=False)
    runs.execute(run, "report", QUIET)
    trained = {c.note for c in read_records(run.folder / "contexts.jsonl", Context) if c.split == TRAIN} - validated(run.folder)
    changed, gone = sorted(trained)[:2]
    (home / "notes" / changed).write_text(f"# Over\n\n{ARCHERY}\n")
    (home / "notes" / gone).unlink()
    write_notes(home / "notes", MORE.items())
    return run.folder


def validated(folder: Path) -> set[str]:
    """The notes whose contexts stand in validation grids."""
    notes = {context.id: context.note for context in read_records(folder / "contexts.jsonl", Context)}
    return {
        notes[name] for grid in read_records(folder / "samples.jsonl", Grid) if grid.split == VALIDATION for name in grid.contexts
    }


def copy_of(finished: Path, root: Path) -> runs.Run:
    shutil.copytree(finished, root / "finished")
    return runs.existing_run(root / "finished", root)


@pytest.fixture(scope="module")
def updated(finished, tmp_path_factory) -> Path:
    run = copy_of(finished, tmp_path_factory.mktemp("updated"))
    (line,) = updating.train_on(run, QUIET)
    assert "new passages are trained on" in line, line
    return run.folder


def test_new_passages_are_trained_on_and_held_out_ones_never(updated, finished):
    first, new = (read_records(updated / name, Context) for name in ("contexts.jsonl", "contexts-2.jsonl"))
    sides = {context.note: context.split for context in first}
    assert {context.note for context in new} > {f"{name}.md" for name in MORE}
    assert {context.split for context in new} == {TRAIN, HELDOUT}
    assert all(context.split == sides[context.note] for context in new if context.note in sides)
    grids = read_records(updated / "samples-2.jsonl", Grid)
    by_id = {context.id: context for context in [*first, *new]}
    dealt = {by_id[name].note for grid in grids for name in grid.contexts}
    held = {context.note for context in by_id.values() if context.split == HELDOUT}
    assert not dealt & (held | validated(updated))
    assert {context.id for context in new if context.split == TRAIN} <= {name for grid in grids for name in grid.contexts}
    stale = set(read_json(updated / "sources-2.json")["stale"])
    assert stale and not stale & {name for grid in grids for name in grid.contexts}
    assert all(pair.split == TRAIN for pair in read_records(updated / "pairs-2.jsonl", Pair))
    for name in ("samples.jsonl", "pairs.jsonl", "contexts.jsonl"):
        assert (updated / name).read_bytes() == (finished / name).read_bytes()


def test_an_update_is_the_run_afterwards(updated, finished):
    run = runs.existing_run(updated, updated.parent)
    assert all(run.done(step) for step in run.steps()) and run.steps()[3:6] == ["sources-2", "pairs-2", "training-2"]
    adapters, own, before = (updated / name / "adapters.safetensors" for name in ("adapters", "adapters-2", "adapters-1"))
    assert adapters.read_bytes() == own.read_bytes() != before.read_bytes()
    assert before.read_bytes() == (finished / "adapters/adapters.safetensors").read_bytes()
    assert (updated / "finished-f16.gguf").read_bytes() != (finished / "finished-f16.gguf").read_bytes()
    summary = run.summary("training-2")
    assert summary["taken"] and summary["best_loss"] <= summary["first_loss"] and rounds.taken(updated) == [1, 2]
    leak = {context.id for context in leak_test.known_contexts(updated, run.recipe)}
    assert leak & {context.id for context in read_records(updated / "contexts-2.jsonl", Context)}
    assert "round 2" in (updated / "report.html").read_text() or "Rounds" in (updated / "report.html").read_text()
    before = {path: path.read_bytes() for path in updated.rglob("*") if path.is_file() and path.name != ".lock"}
    assert updating.train_on(run, QUIET) == ["training: nothing is new since the last one"]
    assert {path: path.read_bytes() for path in before} == before


def test_an_update_that_is_stopped_anywhere_ends_with_the_same_bytes(finished, updated, tmp_path, monkeypatch):
    """One update, stopped at each place in turn; in between, the run answers with the adapters that it had."""
    run = copy_of(finished, tmp_path)
    adapters = run.folder / "adapters/adapters.safetensors"
    old, new = (folder.joinpath("adapters/adapters.safetensors").read_bytes() for folder in (finished, updated))
    places = [
        (updating.shutil, "copytree", 1, old), (renew, "write_json", 1, old), (make, "append_jsonl", 2, old),
        (train.checkpoints, "save", 1, old), (train.checkpoints, "save", 2, old), (train.adapters, "save", 1, old),
        (rounds, "_copy", 1, old), (runs, "_update", 2, new), (updating, "write_json", 1, new), (evaluate.outcome, "write", 1, new),
    ]  # fmt: skip
    for place, name, call, expected in places:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, dying(getattr(place, name), call))
            with pytest.raises(Killed):
                updating.train_on(runs.existing_run(run.folder, tmp_path), QUIET)
        assert adapters.read_bytes() == expected, name
        identity.check_adapters(run.folder, run.recipe.model)
        require(runs.existing_run(run.folder, tmp_path), "training")  # as ask and chat do
    updating.train_on(runs.existing_run(run.folder, tmp_path), QUIET)
    for kept in KEPT:
        assert (run.folder / kept).read_bytes() == (updated / kept).read_bytes(), kept


def test_a_worse_result_is_not_taken_and_the_run_stays_as_it_was(finished, tmp_path):
    """At so large a learning rate the adapters are destroyed."""
    run = copy_of(finished, tmp_path)
    training = run.recipe.training.model_copy(update={"learning_rate": 0.3})
    run.recipe = run.recipe.model_copy(update={"training": training})

    def state() -> dict[str, bytes]:
        files = {path.relative_to(run.folder).as_posix(): path for path in run.folder.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in files.items() if name not in (".lock", "manifest.json")}

    before, stages = state(), run.manifest["stages"]
    (line,) = updating.train_on(run, QUIET)
    assert line.startswith("training: not taken, the validation loss rose from ")
    after = state()
    assert {name for name in after if name not in before} <= {
        f"adapters-1/{name}" for name in ("adapters.safetensors", "adapter_config.json")
    }
    assert {name: after[name] for name in before} == before and run.manifest["stages"] == stages
    (line,) = updating.train_on(runs.existing_run(run.folder, tmp_path), QUIET)
    assert line.startswith("training: not tried again until the notes change") and state() == after


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"context": "profile", "columns": {"note": "user"}}, "trained on profiles alone"), ({}, "no validation pairs")],
)
def test_a_run_that_nothing_could_judge_is_not_trained_on(finished, tmp_path, changes, message):
    run = copy_of(finished, tmp_path)
    run.recipe = run.recipe.model_copy(update={"sources": run.recipe.sources.model_copy(update=changes)})
    pairs = [pair for pair in read_records(run.folder / "pairs.jsonl", Pair) if pair.split != VALIDATION]
    write_records(run.folder / "pairs.jsonl", pairs)
    with pytest.raises(UserError, match=message):
        updating.train_on(run, QUIET)


@pytest.mark.process
def test_a_killed_update_goes_on(finished, updated, tmp_path):
    run = copy_of(finished, tmp_path)
    command = [sys.executable, "-m", "mipo_mlx.cli", "update", str(run.folder), "--train", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not (run.folder / "checkpoints-2" / "step-000000").exists() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert any("new passages are trained on" in line for line in update(run.folder, "--train"))
    for kept in KEPT:
        assert (run.folder / kept).read_bytes() == (updated / kept).read_bytes(), kept
