"""Derangements: nobody against himself, everyone rejected as often as chosen, several of them nowhere the same."""

import random

import pytest

from mipo_mlx.pairs.negatives import derangements, draw_kinds


@pytest.mark.parametrize("size", range(2, 65))
def test_derangement(size):
    count = min(size - 1, 7)
    found = derangements(size, count, random.Random(size))
    assert len(found) == count
    for partner in found:
        assert sorted(partner) == list(range(size))
        assert all(partner[i] != i for i in range(size))
    for i in range(size):
        assert len({partner[i] for partner in found}) == count


def test_derangement_follows_the_seed():
    assert derangements(9, 2, random.Random("a")) == derangements(9, 2, random.Random("a"))
    assert len({str(derangements(9, 1, random.Random(seed))) for seed in range(20)}) > 15


def test_kinds_follow_their_weights():
    rng = random.Random(0)
    drawn = [draw_kinds({"random_context": 3.0, "no_context": 1.0}, 1, 3, True, rng)[0] for _ in range(2000)]
    assert 0.70 < drawn.count("random_context") / 2000 < 0.80


def test_kinds_never_ask_for_more_answers_than_there_are():
    rng = random.Random(0)
    for _ in range(200):
        kinds = draw_kinds({"random_context": 1.0, "no_context": 5.0}, 3, 2, True, rng)
        assert kinds.count("no_context") == 1 and kinds.count("random_context") == 2
    assert draw_kinds({"random_context": 1.0}, 3, 2, True, rng) is None
    assert draw_kinds({"no_context": 1.0}, 1, 2, False, rng) is None
