"""Identification, information and PMI on score tables small enough to work out by hand."""

import math

import numpy as np
import pytest

from mipo_mlx.evaluation import answers


def test_the_likeliest_context_is_found_and_ties_share_the_point():
    scores = [-10.0, -12.0, -9.0, -10.0]
    assert answers.identified(scores, 2, 4) == 1.0
    assert answers.identified(scores, 0, 4) == 0.0
    assert answers.identified(scores, 0, 2) == 1.0  # among its own and the next one
    assert answers.identified(scores, 3, 2) == 0.5  # the next one wraps around to the first: a tie
    assert answers.identified([-3.0] * 4, 1, 4) == 0.25


def test_information_of_a_posterior_worked_out_by_hand():
    """Likelihoods 1/2 and 1/4: posterior 2/3, so log 2 + log 2/3."""
    assert answers.information([math.log(1 / 2), math.log(1 / 4)], 0, 2) == pytest.approx(math.log(2 * 2 / 3))
    assert answers.information([-7.0] * 4, 2, 4) == pytest.approx(0)
    assert answers.information([0.0, -900.0, -900.0, -900.0], 0, 4) == pytest.approx(math.log(4))


def test_pmi_is_against_the_mean_of_the_other_contexts():
    scores = [math.log(0.5), math.log(0.1), math.log(0.3)]
    assert answers.pmi(scores, 0) == pytest.approx(math.log(0.5 / 0.2))


def test_token_pmi_against_a_plain_loop():
    table = np.log(np.random.default_rng(0).uniform(0.01, 1, size=(4, 7)))
    expected = [math.log(math.exp(table[1, t]) / np.mean([math.exp(table[i, t]) for i in (0, 2, 3)])) for t in range(7)]
    assert answers.token_pmi(table, 1) == pytest.approx(expected)


def test_more_contexts_than_were_scored_is_an_error():
    with pytest.raises(ValueError, match="4 contexts to tell apart, 2 scored"):
        answers.identified([-1.0, -2.0], 0, 4)
