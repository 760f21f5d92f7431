"""Rounds: the second one samples fresh grids from the trained policy against the base, trains on, and counts only where held-out
information grows; killed anywhere, it ends with the same bytes."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from mipo_mlx import recipe_loading, run
from mipo_mlx.cli import main
from mipo_mlx.commands.start import require
from mipo_mlx.engine import logprobs
from mipo_mlx.files import read_json, read_records
from mipo_mlx.models import adapters, load
from mipo_mlx.pairs import make as pairs_stage
from mipo_mlx.progress import Reporter
from mipo_mlx.records import TRAIN, Context, Grid, Pair
from mipo_mlx.training import metrics, rounds, train
from tests.test_kill import write_notes

QUIET = Reporter(quiet=True)
RECIPE = """
model: {model}
seed: 10  # at which a second round learns at the default rate, and overshoots at four times of it
rounds: {rounds}
sources: {{notes: {notes}, min_tokens: 8, heldout_contexts: 0.4}}
pairs:
  system: "About the user: {{context}} Answer with the user in mind, in two sentences."
  grids: 8
  validation_grids: 2
  heldout_grids: 3
  contexts_per_grid: 3
  max_tokens: 16
  batch: 6
  filters: {{min_pmi: null, repeated_ngrams: null, quotes_context: null, first_person: false, near_duplicates: null}}
training:
  learning_rate: {rate}
  checkpoint_every: 3
  evaluate_every: 3
  max_kl: null
  min_chosen_reward: null
  lora: {{rank: 4}}
evaluation: {{bootstrap: 100, answers: 4, everyday: 2, kinds: 0, preferences: 0, leak_contexts: 2}}
export: {{mlx: false, gguf: [f16], fidelity: 0}}
"""
FIRST = ("samples.jsonl", "pairs.jsonl", "pairs.json")
SECOND = ("samples-2.jsonl", "pairs-2.jsonl", "pairs-2.json", "adapters-2/adapters.safetensors", "adapters/adapters.safetensors")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("rounds")
    write_notes(home / "notes")
    return home


@pytest.fixture(scope="module")
def start(home, tiny_folder):
    """Opens a run of so many rounds at a learning rate."""

    def start(name, rounds=2, rate=1e-4):
        values = recipe_loading.parse(RECIPE.format(model=tiny_folder, notes=home / "notes", rounds=rounds, rate=rate))
        opened = run.open_run(values, name, home / "runs", fresh=False)
        run.prepare(opened, fresh=False)
        return opened

    return start


@pytest.fixture(scope="module")
def two(start):
    """A run of two rounds up to the last training."""
    opened = start("two")
    run.execute(opened, "training-2", QUIET)
    return opened.folder


def test_one_round_is_the_first_of_two(start, two):
    one = start("one", rounds=1)
    run.execute(one, "training", QUIET)
    for name in FIRST:
        assert (one.folder / name).read_bytes() == (two / name).read_bytes(), name
    assert (one.folder / "adapters/adapters.safetensors").read_bytes() == (two / "adapters-1/adapters.safetensors").read_bytes()
    assert not any(path.name.endswith(("-1", "-2")) for path in one.folder.iterdir())
    assert run.steps(one.recipe) == list(run.STAGES)


def test_the_second_round_asks_anew_and_only_on_the_training_side(two):
    contexts = {context.id: context for context in read_records(two / "contexts.jsonl", Context)}
    first, second = read_records(two / "samples.jsonl", Grid), read_records(two / "samples-2.jsonl", Grid)
    assert [grid.id for grid in second] == list(range(len(first), len(first) + 8))
    assert {grid.split for grid in second} == {TRAIN} and {c for g in second for c in g.contexts} <= set(contexts)
    trained = {contexts[c].note for grid in first if grid.split == TRAIN for c in grid.contexts}
    away = {contexts[c].note for grid in first if grid.split != TRAIN for c in grid.contexts}
    assert {contexts[c].note for grid in second for c in grid.contexts} <= trained - away
    dealt = [[(g.prompt, tuple(g.contexts)) for g in grids if g.split == TRAIN] for grids in (first, second)]
    assert not set(dealt[0]) & set(dealt[1])


def test_the_policy_samples_and_the_base_is_the_reference(two, tiny_folder):
    grids = {grid.id: grid for grid in read_records(two / "samples-2.jsonl", Grid)}
    pairs = read_records(two / "pairs-2.jsonl", Pair)
    policy = adapters.load(load.load(str(tiny_folder)).model, two / "adapters-1")
    base = load.load(str(tiny_folder)).model
    jobs = [pair.prompt_tokens for pair in pairs], [pair.tokens for pair in pairs]
    apart = 0.0
    for pair, own, reference in zip(
        pairs, logprobs.token_logprobs(policy, *jobs), logprobs.token_logprobs(base, *jobs), strict=True
    ):
        assert pair.reference == pytest.approx([float(x.sum()) for x in reference], abs=1e-3)
        if pair.kinds == ["said_back"]:
            continue
        grid, row = grids[pair.grid], int(pair.id.split("-")[1])
        wrong = grid.contexts.index(pair.wrong_context_ids[0])
        scores = np.array(grid.scores)
        assert [scores[row][row], scores[row][wrong]] == pytest.approx([float(x.sum()) for x in own], abs=1e-3)
        assert pair.pmi[0] == pytest.approx(scores[row][row] - scores[wrong][row], abs=1e-4)
        apart = max(apart, abs(pair.reference[0] - scores[row][row]))
    assert apart > 0.01  # the policy is no longer the base


def test_the_second_round_trains_on_from_the_first(two):
    rows = metrics.read(two)
    assert [row["round"] for row in rows] == sorted(row["round"] for row in rows)
    first, second = ([row for row in rows if row["round"] == n] for n in (1, 2))
    best = min(row["validation_loss"] for row in first if "validation_loss" in row and row["step"])
    assert second[0]["step"] == 0 and second[0]["validation_loss"] == pytest.approx(best, abs=1e-4)  # the same validation pairs
    assert max(row["step"] for row in first) == max(row["step"] for row in second) == 8
    summary = read_json(two / "manifest.json")["stages"]["training-2"]["summary"]
    assert summary["round"] == 2 and summary["first_loss"] == second[0]["validation_loss"]
    assert summary["best_loss"] < summary["first_loss"] and summary["ends_rounds"] is None and summary["taken"]
    assert rounds.taken(two) == [1, 2] and len(rounds.pair_files(two)) == 2
    first, second, result = (two / name / "adapters.safetensors" for name in ("adapters-1", "adapters-2", "adapters"))
    assert first.read_bytes() != second.read_bytes() == result.read_bytes()


class Killed(BaseException):
    pass


def dying(function, call):
    """`function`, that kills the run instead of its `call`-th call."""
    left = call

    def called(*args, **kwargs):
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        return function(*args, **kwargs)

    return called


def as_before(step, two, opened):
    """Puts into a new run what `two` left before a step of its second round."""
    later = ["checkpoints-2", "adapters-2"] if step == "training-2" else ["*-2*"]
    shutil.copytree(two, opened.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*later, "recipe.yaml", ".lock"))
    shutil.copytree(two / "adapters-1", opened.folder / "adapters", dirs_exist_ok=True)
    done = run.steps(opened.recipe)
    done = done[: done.index(step)]
    run._update(opened, stages={name: entry for name, entry in opened.manifest["stages"].items() if name in done})
    rows = (two / "metrics.jsonl").read_text().splitlines(keepends=True)
    (opened.folder / "metrics.jsonl").write_text("".join(row for row in rows if json.loads(row)["round"] == 1))


@pytest.mark.parametrize(
    ("step", "place", "name", "calls"),
    [
        ("pairs-2", pairs_stage, "append_jsonl", (2,)),
        ("training-2", train.checkpoints, "save", (1, 3)),
        ("training-2", metrics, "append_jsonl", (6,)),
        ("training-2", train.adapters, "save", (1,)),
        ("training-2", rounds, "_copy", (1,)),
    ],
    ids=["sampling", "checkpoints", "metrics", "adapters", "taking"],
)
def test_killed_in_the_second_round_and_continued(step, place, name, calls, start, two, monkeypatch):
    opened = start(f"killed in {place.__name__} {name}")
    as_before(step, two, opened)
    for call in calls:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, dying(getattr(place, name), call))
            with pytest.raises(Killed):
                run.execute(opened, step, QUIET)
    run.execute(opened, "training-2", QUIET)
    for kept in SECOND:
        assert (opened.folder / kept).read_bytes() == (two / kept).read_bytes(), kept
    assert timeless(opened.folder) == timeless(two)


def timeless(folder):
    return [{k: v for k, v in row.items() if "second" not in k} for row in metrics.read(folder)]


def test_a_round_that_learns_nothing_is_the_last_and_changes_nothing(start, capsys):
    """At four times the learning rate the second round only overshoots."""
    opened = start("ended", rounds=3, rate=4e-4)
    run.execute(opened, "training-3", Reporter())
    stages = opened.manifest["stages"]
    assert list(stages) == ["sources", "pairs", "training", "pairs-2", "training-2"]
    summary = stages["training-2"]["summary"]
    assert stages["training"]["summary"]["ends_rounds"] is None
    assert summary["best_loss"] > summary["first_loss"] == stages["training"]["summary"]["best_loss"]
    assert summary["ends_rounds"] == "the validation loss no longer fell in round 2"
    output = capsys.readouterr().err
    assert "round 2: the validation loss did not fall" in output
    for left_out in ("[6/10] pairs-3", "[7/10] training-3"):
        assert f"{left_out}: left out, the validation loss no longer fell in round 2" in output
    assert not summary["taken"] and rounds.taken(opened.folder) == [1]
    first, second, result = (opened.folder / name / "adapters.safetensors" for name in ("adapters-1", "adapters-2", "adapters"))
    assert first.read_bytes() == result.read_bytes() != second.read_bytes()
    assert not (opened.folder / "samples-3.jsonl").exists()
    require(opened, "training")  # nothing is missing


def test_too_few_pairs_in_a_later_round_end_the_rounds_and_not_the_run(start, two, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(two, folder)
    (folder / "pairs-2.jsonl").write_text("")
    summary = rounds.run(folder, start("two").recipe, QUIET, 2)
    assert summary["ends_rounds"] == "too few pairs were left in round 2" and summary["taken"] is False
    one, last = (folder / f"adapters-{n}" / "adapters.safetensors" for n in (1, 2))
    assert one.read_bytes() == last.read_bytes()


def test_the_rest_of_the_run_works_with_rounds(start, two, home):
    opened = start("two")
    run.execute(opened, "report", QUIET)
    page = (two / "report.html").read_text()
    assert "Rounds" in page and "pairs of round 2" in page
    result = CliRunner().invoke(main, ["pairs", "two", "--runs", str(home / "runs"), "--show", "--quiet"])
    assert result.exit_code == 0, result.output
    assert "round 2" in result.output and "(train)" in result.output
    assert {*run.steps(opened.recipe)} == set(opened.manifest["stages"])
    run.erase(opened.folder)
    assert sorted(path.name for path in two.iterdir() if path.name != ".lock") == []


def test_the_plan_counts_every_round(start, home):
    from mipo_mlx.commands.dry_run import count

    one, three = (start(f"plan-{n}", rounds=n).recipe for n in (1, 3))
    contexts = read_records(home / "runs" / "one" / "contexts.jsonl", Context)
    a, b = count(one, contexts, []), count(three, contexts, [])
    assert (b.steps, b.pairs, b.trained) == (3 * a.steps, 3 * a.pairs, 3 * a.trained)
    assert b.answers == a.answers + 2 * 8 * 3 and b.scored > a.scored and b.sampled == a.sampled + 2 * 8 * 3 * 16
