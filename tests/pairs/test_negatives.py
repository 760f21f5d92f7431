"""Derangements: nobody against himself, everyone rejected as often as chosen, several of them nowhere the same."""

import itertools
import random

import numpy as np
import pytest

from mipo_mlx.pairs.negatives import derangements, draw_kinds, hard_derangements


@pytest.mark.parametrize("size", range(2, 65))
def test_derangement(size):
    count = min(size - 1, 7)
    result = derangements(size, count, random.Random(size))
    assert len(result) == count
    for partner in result:
        assert sorted(partner) == list(range(size))
        assert all(partner[i] != i for i in range(size))
    for i in range(size):
        assert len({partner[i] for partner in result}) == count


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


@pytest.mark.parametrize("size", range(2, 65))
def test_hard_ones_are_deranged_too(size):
    rng = random.Random(size)
    cost = np.random.default_rng(size).normal(size=(size, size)) * 10
    count = min(size - 1, 5)
    taken = derangements(size, count // 2, rng)
    everything = taken + hard_derangements(cost, count - len(taken), taken)
    for partner in everything:
        assert sorted(partner) == list(range(size))
        assert all(partner[i] != i for i in range(size))
    for i in range(size):
        assert len({partner[i] for partner in everything}) == count


@pytest.mark.parametrize("seed", range(20))
def test_hardest_is_the_cheapest_of_all_derangements(seed):
    size = 2 + seed % 5
    cost = np.random.default_rng(seed).normal(size=(size, size))
    (result,) = hard_derangements(cost, 1, [])
    deranged = [p for p in itertools.permutations(range(size)) if all(i != j for i, j in enumerate(p))]
    price = {p: sum(cost[i, j] for i, j in enumerate(p)) for p in deranged}
    assert tuple(result) == min(price, key=price.get)


def test_all_that_can_be_asked_for():
    result = hard_derangements(np.zeros((5, 5)), 4, [])
    assert all(sorted(partner[i] for partner in result) == sorted({0, 1, 2, 3, 4} - {i}) for i in range(5))
