"""The leak test's statistics, by hand, by enumeration and by simulation."""

import random

import numpy as np
import pytest

from mipo_mlx.evaluation.leak import canaries_p, exposure, permutation_p, rank, smallest_p


def test_exposure_by_hand():
    assert (rank(-1.0, [-2.0, -3.0, -4.0]), exposure(1, 4)) == (1, 2.0)
    assert (rank(-5.0, [-2.0, -3.0, -4.0]), exposure(4, 4)) == (4, 0.0)
    assert rank(-2.0, [-2.0, -3.0]) == 2  # a tie is no exposure


def test_p_of_canaries_by_hand():
    """One of 10 at rank 1: 0.1, doubled. Two at rank 10 of 100: Fisher 0.1 * 0.1 * (1 - log 0.01) = 0.0561, Bonferroni 0.2."""
    assert canaries_p([1], 10) == pytest.approx(0.2)
    assert canaries_p([10, 10], 100) == pytest.approx(2 * 0.01 * (1 - np.log(0.01)))
    assert canaries_p([1, 90], 100) == pytest.approx(2 * min(0.02, 0.009 * (1 - np.log(0.009))))
    assert canaries_p([], 100) == 1 and canaries_p([100], 100) == 1


def test_p_of_canaries_keeps_its_promise():
    """Of 4,000 unseen sets of four, no more than two in a hundred get a p of 0.02."""
    rng = random.Random(0)
    accused = sum(canaries_p([rng.randint(1, 500) for _ in range(4)], 500) < 0.02 for _ in range(4000))
    assert 20 < accused < 100
    assert canaries_p([1, 250, 300, 400], 500) < 0.02  # one of four recited
    assert canaries_p([20, 25, 30, 35], 500) < 0.02  # all a little exposed


def test_p_values_by_enumeration():
    """Two trained notes of five: of the ten ways to choose two, one has the two largest means."""
    p = permutation_p([5, 4, 1, 2, 0], [True, True, False, False, False], list("abcde"), 0)
    assert p == pytest.approx(0.1, abs=0.015)
    assert smallest_p([True, True, False, False, False], list("abcde")) == 0.1
    assert smallest_p([True, True, False, False], ["a", "a", "b", "c"]) == pytest.approx(1 / 3)
    assert smallest_p([True] * 20 + [False] * 20, list(map(str, range(40)))) == 1 / 4001


def test_notes_are_shuffled_whole():
    """Eight equal passages of one note count as one."""
    values, trained = [1.0] * 8 + [0.0] * 4, [True] * 8 + [False] * 4
    notes = ["a"] * 8 + ["b", "c", "d", "e"]
    assert permutation_p(values, trained, notes, 0) == pytest.approx(0.2, abs=0.02)
    assert permutation_p(values, trained, list("abcdefghijkl"), 0) < 0.01
