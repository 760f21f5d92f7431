"""The warning signs: each says nothing is wrong on a healthy run, and speaks up on its own failure alone."""

import copy

import pytest

from mipo_mlx.files import read_json, read_jsonl
from mipo_mlx.recipe import Recipe
from mipo_mlx.report.signs import signs

from .helpers import make_finished

RECIPE = Recipe(model="x")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    folder = make_finished(tmp_path_factory.mktemp("healthy"), hostile=False)
    return read_json(folder / "eval.json"), read_jsonl(folder / "metrics.jsonl"), read_json(folder / "pairs.json")


def changed(value, low, high):
    return {"change": {"value": value, "interval": [low, high]}}


FAILURES = {
    "Both likelihoods fall, text decays": lambda result, rows, pairs: rows[-2].update(chosen_reward=-1.6),
    "Answers grow or shrink": lambda result, rows, pairs: result["fresh"]["metrics"].update(tokens=changed(0.3, 0.1, 0.5)),
    "Negatives are trivial": lambda result, rows, pairs: [row.update(accuracy=0.99) for row in rows if "accuracy" in row],
    "Pairs say nothing": lambda result, rows, pairs: pairs["histogram"].update(train=[30, 20, 5, 20, 10, 3]),
    "Odd, rare words": lambda result, rows, pairs: result["fresh"]["metrics"].update(perplexity=changed(0.2, 0.1, 0.3)),
    "Parrots the user": lambda result, rows, pairs: result["fresh"]["metrics"].update(parroting=changed(0.05, 0.01, 0.1)),
    "Recites private text": lambda result, rows, pairs: result["leak"].update(signs=["a canary sings"]),
}


def test_a_healthy_run_shows_every_row_and_no_fault(healthy):
    found = signs(*healthy, None, RECIPE)
    assert {sign.failure for sign in found} == {*FAILURES, "Drifts from the base"}
    assert not [sign for sign in found if sign.bad]


@pytest.mark.parametrize("failure", FAILURES)
def test_each_failure_is_seen_alone_and_has_a_remedy(healthy, failure):
    broken = copy.deepcopy(healthy)
    FAILURES[failure](*broken)
    bad = [sign for sign in signs(*broken, None, RECIPE) if sign.bad]
    assert [sign.failure for sign in bad] == [failure] and bad[0].remedy


def test_an_early_stop_is_told(healthy):
    [drift] = [sign for sign in signs(*healthy, "the KL from the base reached 0.6", RECIPE) if sign.bad]
    assert drift.failure == "Drifts from the base" and "reached 0.6" in drift.seen


def test_a_change_that_may_be_chance_is_no_fault(healthy):
    result, rows, pairs = copy.deepcopy(healthy)
    result["fresh"]["metrics"].update(tokens=changed(0.3, -0.1, 0.7), parroting=changed(0.05, -0.01, 0.1))
    assert not [sign for sign in signs(result, rows, pairs, None, RECIPE) if sign.bad]


def test_a_change_without_an_interval_is_neither_fine_nor_bad(healthy):
    result, rows, pairs = copy.deepcopy(healthy)
    for name in ("tokens", "perplexity", "parroting"):
        result["fresh"]["metrics"][name] = {"change": {"value": 0.3, "interval": None}}
    open_ones = [sign for sign in signs(result, rows, pairs, None, RECIPE) if sign.bad is None]
    assert [sign.failure for sign in open_ones] == ["Answers grow or shrink", "Odd, rare words", "Parrots the user"]
    assert all(sign.seen.endswith("too few to tell that from chance") for sign in open_ones)


@pytest.mark.parametrize("edges, counts, share", [([-1, 0, 1], [6, 4], "60%"), ([1, 2], [5], "0%"), ([-2, -1], [5], "100%")])
def test_uninformative_pairs_are_counted_whether_or_not_they_were_filtered(edges, counts, share):
    [sign] = signs({}, [], {"histogram": {"edges": edges, "train": counts}}, None, RECIPE)
    assert sign.seen.startswith(f"in {share} of the sampled pairs") and sign.bad == (share != "0%")


def test_what_was_not_measured_is_left_out():
    assert signs({}, [], {}, None, RECIPE) == []
