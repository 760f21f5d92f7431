"""The warning signs: each says that nothing is wrong on a healthy run, and warns of its own failure alone."""

import copy
import math

import pytest

from mipo_mlx.evaluation.outcome import parse
from mipo_mlx.files import read_json
from mipo_mlx.recipe import Recipe
from mipo_mlx.report.signs import signs
from mipo_mlx.training import metrics
from mipo_mlx.training.schedule import should_stop

from .helpers import ITEMS, make_finished

RECIPE = Recipe(model="x")
LOSSES = {"first_loss": 0.693, "best_loss": 0.546}
ROUND = {"round": 1, "taken": True, "steps": 24, "planned": 24, "best_step": 18, "stopped": None, **LOSSES}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    folder = make_finished(tmp_path_factory.mktemp("healthy"), hostile=False)
    return read_json(folder / "eval.json"), metrics.read(folder), [read_json(folder / "pairs.json")], [ROUND]


def changed(value, low, high):
    change = {"value": value, "interval": None if low is None else [low, high]}
    return {
        "before": {"value": 1.0, "interval": None},
        "after": {"value": 1.0, "interval": None},
        "change": change,
        "relative": True,
    }


def signs_of(result, rows, pairs, trained, recipe=RECIPE):
    """The signs of a run with this eval.json."""
    return signs(parse({"model": "x", **result}), rows, pairs, trained, recipe)


FAILURES = {
    "Both likelihoods fall, text decays": lambda result, rows, pairs, trained: rows[-2].update(chosen_reward=-1.6),
    "Answers grow or shrink": lambda result, rows, pairs, trained: result["fresh"]["metrics"].update(tokens=changed(0.3, 0.1, 0.5)),
    "Negatives are trivial": lambda result, rows, pairs, trained: [row.update(accuracy=0.99) for row in rows if "accuracy" in row],
    "Pairs say nothing": lambda result, rows, pairs, trained: pairs[0]["histogram"].update(train=[30, 20, 5, 20, 10, 3]),
    "Odd, rare words": lambda result, rows, pairs, trained: result["fresh"]["metrics"].update(perplexity=changed(0.2, 0.1, 0.3)),
    "Parrots the user": lambda result, rows, pairs, trained: result["fresh"]["metrics"].update(parroting=changed(0.05, 0.01, 0.1)),
    "Recites private text": lambda result, rows, pairs, trained: result["leak"].update(signs=["a canary sings"]),
    "Drifts from the base": lambda result, rows, pairs, trained: rows[-1].update(validation_kl=7.4),
    "Nothing is learned": lambda result, rows, pairs, trained: trained[0].update(best_loss=0.693),
}


def test_a_healthy_run_shows_every_row_and_no_fault(healthy):
    result = signs_of(*healthy)
    assert {sign.failure for sign in result} == set(FAILURES)
    assert not [sign for sign in result if sign.bad]


@pytest.mark.parametrize("failure", FAILURES)
def test_each_failure_is_seen_alone_and_has_a_remedy(healthy, failure):
    broken = copy.deepcopy(healthy)
    FAILURES[failure](*broken)
    bad = [sign for sign in signs_of(*broken) if sign.bad]
    assert [sign.failure for sign in bad] == [failure] and bad[0].remedy


STOPS = {
    "Drifts from the base": ({"validation_kl": 0.6}, "the estimated KL from the base reached 0.600"),
    "Both likelihoods fall, text decays": ({"validation_chosen_reward": -3.2}, "the chosen reward fell to -3.20"),
    "Training falls apart": ({"loss": math.nan}, "loss is nan at step 7"),
}


@pytest.mark.parametrize("failure", STOPS)
def test_an_early_stop_is_told_where_it_belongs_and_its_advice_once(healthy, failure):
    """With the reasons that the training itself gives."""
    result, rows, pairs, [trained] = healthy
    seen, line = STOPS[failure]
    reason = should_stop({"step": 7, **seen}, RECIPE.training)
    results = signs_of(result, rows, pairs, [{**trained, "steps": 7, "stopped": reason}])
    [sign] = [sign for sign in results if sign.bad]
    assert sign.failure == failure and line in sign.seen and "; lower" not in sign.seen and "lower training" in sign.remedy
    [learned] = [sign for sign in results if sign.failure == "Nothing is learned"]
    assert "the weights of step 18 are kept; training ended early, at step 7 of 24" in learned.seen


@pytest.mark.parametrize("budget, kl, bad", [(0.5, 0.6, True), (None, 7.4, True), (None, 0.3, False), (9.0, 7.4, False)])
def test_the_drift_is_measured_against_its_budget_or_the_usual_one(budget, kl, bad):
    recipe = Recipe(model="x", training={"max_kl": budget})
    [sign] = signs_of({}, [{"step": 1, "validation_kl": kl}], [], [], recipe)
    assert sign.bad is bad and ("usual" in sign.seen) == (budget is None)


def test_every_round_says_which_weights_are_kept():
    second = {**ROUND, "round": 2, "first_loss": 0.546, "best_loss": 0.55, "best_step": 6, "taken": False}
    short = {"round": 3, "pairs": 1, "taken": False, "ends_rounds": "too few pairs were left in round 3"}
    [sign] = signs_of({}, [], [], [ROUND, second, short])
    assert sign.bad is False
    assert sign.seen == (
        "round 1: validation loss 0.6930 before, 0.5460 at its best; the weights of step 18 are kept. round 2: validation loss "
        "0.5460 before, 0.5500 at its best; the weights of step 6 are left aside, those of the round before are kept"
    )
    [sign] = signs_of({}, [], [], [{**ROUND, "first_loss": None, "best_loss": None}])
    assert sign.bad is None and "no validation pairs; the weights of step 18 are kept" in sign.seen


def test_pairs_without_contexts_get_no_advice_about_contexts():
    rows = [{"step": step, "accuracy": 0.99} for step in range(20)]
    heldout = {
        "pairs": 1,
        "grids": 1,
        "contexts": 0,
        "candidates": 2,
        "beta": 0.1,
        "no_interval": None,
        "metrics": {},
        "items": ITEMS,
    }
    [sign] = signs_of({"heldout": heldout}, rows, [], [])
    assert sign.bad and "hard_context" not in sign.remedy
    [sign] = signs_of({"heldout": heldout}, [], [{"histogram": {"edges": [-1, 0, 1], "train": [9, 1]}}], [])
    assert "the request makes its own answer" in sign.seen and "notes" not in sign.remedy


def test_a_change_that_may_be_chance_is_no_fault(healthy):
    result, rows, pairs, trained = copy.deepcopy(healthy)
    result["fresh"]["metrics"].update(tokens=changed(0.3, -0.1, 0.7), parroting=changed(0.05, -0.01, 0.1))
    assert not [sign for sign in signs_of(result, rows, pairs, trained) if sign.bad]


def test_a_change_without_an_interval_is_neither_fine_nor_bad(healthy):
    result, rows, pairs, trained = copy.deepcopy(healthy)
    for name in ("tokens", "perplexity", "parroting"):
        result["fresh"]["metrics"][name] = changed(0.3, None, None)
    open_ones = [sign for sign in signs_of(result, rows, pairs, trained) if sign.bad is None]
    assert [sign.failure for sign in open_ones] == ["Answers grow or shrink", "Odd, rare words", "Parrots the user"]
    assert all(sign.seen.endswith("too few to tell that from chance") for sign in open_ones)


@pytest.mark.parametrize("edges, counts, share", [([-1, 0, 1], [6, 4], "60%"), ([1, 2], [5], "0%"), ([-2, -1], [5], "100%")])
def test_uninformative_pairs_are_counted_whether_or_not_they_were_filtered(edges, counts, share):
    [sign] = signs_of({}, [], [{"histogram": {"edges": edges, "train": counts}}], [])
    assert sign.seen.startswith(f"in {share} of the sampled pairs") and sign.bad == (share != "0%")


def test_pairs_of_every_round_are_looked_at():
    rounds = [{"histogram": {"edges": [-1, 0, 1], "train": train}} for train in ([1, 9], [8, 2])]
    [sign] = signs_of({}, [], rounds, [])
    assert sign.bad and sign.seen.startswith("in 10% (round 1), 80% (round 2) of the sampled pairs")


def test_what_was_not_measured_is_left_out():
    assert signs_of({}, [], [], []) == []
