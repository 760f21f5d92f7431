"""Bootstrap intervals against closed forms and a plain loop."""

import math

import numpy as np
import pytest

from mipo_mlx.evaluation import statistics
from mipo_mlx.evaluation.statistics import Estimate, Form, Resampler
from mipo_mlx.records import key_for


def single(values, clusters, draws, seed, **options) -> Estimate:
    return Resampler(clusters, draws, seed).mean(values, **options)


def paired(before, after, clusters, draws, seed, *, weights=None, **form) -> statistics.Measure:
    return Resampler(clusters, draws, seed).paired(before, after, Form(**form), weights)


def test_the_interval_of_a_mean_is_close_to_the_normal_one():
    rng = np.random.default_rng(0)
    values = rng.normal(2.0, 1.0, size=400)
    low, high = single(values, [range(400)], 4000, 1).interval
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.02) and high == pytest.approx(values.mean() + half, abs=0.02)


def test_groups_are_resampled_whole():
    """Ten copies of each of 30 values tell no more than the 30 values do."""
    values = np.random.default_rng(1).normal(size=30)
    copies, labels = np.repeat(values, 10), np.repeat(np.arange(30), 10)
    alone = single(values, [range(30)], 3000, 5).interval
    assert single(copies, [labels], 3000, 5).interval == pytest.approx(alone)
    naive = single(copies, [range(300)], 3000, 5).interval
    assert naive[1] - naive[0] < 0.5 * (alone[1] - alone[0])


def test_a_group_counts_as_often_as_it_is_drawn():
    """The vectorised sums equal a plain loop over the same multinomial counts."""
    values, labels = np.array([1.0, 2, 4, 8, 16, 32, 64]), [0, 0, 1, 2, 3, 4, 5]
    weights = np.ones(7)
    counts = np.random.default_rng(key_for(9, "resample 6 groups")).multinomial(6, np.full(6, 1 / 6), size=500)
    means = [np.concatenate([np.tile(values[np.array(labels) == g], n) for g, n in enumerate(row)]).mean() for row in counts]
    low, high = np.quantile(means, [0.025, 0.975])
    result = Resampler([labels], 500, 9).interval(np.stack([values, weights], 1), lambda s: s[:, 0] / s[:, 1])
    stretch, mean = math.sqrt(6 / 5) * 2.5706 / 1.96, values.mean()  # t with five degrees of freedom, from a table
    assert result == pytest.approx([mean - stretch * (mean - low), mean + stretch * (high - mean)], rel=1e-2)


@pytest.mark.parametrize(("freedom", "quantile"), [(5, 2.5706), (7, 2.3646), (10, 2.2281), (20, 2.0860), (60, 2.0003)])
def test_the_quantiles_of_students_t(freedom, quantile):
    assert statistics.student(freedom) == pytest.approx(quantile, abs=2e-3)


@pytest.mark.parametrize("groups", [6, 8, 16])
def test_few_groups_miss_the_truth_as_rarely_as_many(groups):
    """95 % of the intervals cover the truth; without the stretch it is 86 % for six groups."""
    rng = np.random.default_rng(groups)
    covered = 0
    for trial in range(600):
        low, high = single(rng.normal(size=groups), [range(groups)], 400, trial).interval
        covered += low <= 0 <= high
    assert 0.92 <= covered / 600 <= 0.98


@pytest.mark.parametrize("shape", [(6, 12), (18, 12), (12, 12)])
def test_effects_of_notes_and_of_requests_add_up(shape):
    """Two crossed random effects: the variances add, so the wider grouping alone covers the truth in 85 to 90 % only."""
    rng = np.random.default_rng(shape[0])
    notes, requests = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    covered = 0
    for trial in range(400):
        values = rng.normal(size=shape[0])[notes] + rng.normal(size=shape[1])[requests] + rng.normal(size=len(notes))
        low, high = single(values, [notes, requests], 300, trial).interval
        covered += low <= 0 <= high
    assert 0.92 <= covered / 400 <= 0.985


def test_of_two_groupings_the_wider_interval_is_given():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=8)
    values = (rows[:, None] + 0.01 * rng.normal(size=(8, 8))).ravel()
    by_row, by_column = np.repeat(np.arange(8), 8), np.tile(np.arange(8), 8)
    wide, narrow = (single(values, [by], 1000, 0).interval for by in (by_row, by_column))
    assert single(values, [by_column, by_row], 1000, 0).interval == wide
    assert narrow[1] - narrow[0] < 0.2 * (wide[1] - wide[0])


def test_no_end_of_a_share_leaves_its_range():
    outcomes = [1.0] * 11 + [0.0]
    assert single(outcomes, [range(12)], 500, 0).interval[1] > 1
    assert single(outcomes, [range(12)], 500, 0, share=True).interval[1] == 1
    assert single([1.0] * 8, [range(8)], 500, 0, share=True).interval == [pytest.approx(0.025 ** (1 / 8)), 1.0]


def test_a_weighted_mean():
    """2 nats on the one token of a short answer weigh little beside eleven answers of 64 tokens at 0.01."""
    estimate = single([2.0] + [0.01] * 11, [range(12)], 500, 0, weights=[1] + [64] * 11)
    assert estimate.value == pytest.approx((2 + 0.01 * 64 * 11) / (1 + 64 * 11))
    low, high = estimate.interval
    assert low < estimate.value < high


def test_too_few_groups_give_a_reason_in_place_of_an_interval():
    clusters = [[1, 1, 2, 2, 3, 3]]
    estimate = single([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], clusters, 200, 0)
    assert estimate == Estimate(pytest.approx(0.35), None)
    assert "3 independent ones, at least 6 needed" in statistics.too_few(clusters)
    assert statistics.too_few([range(6)]) is None
    assert statistics.show(estimate) == "0.35"


def test_a_model_compared_with_itself_changes_by_zero():
    values = np.random.default_rng(3).normal(5, 1, size=50)
    measure = paired(values, values, [range(50)], 500, 0)
    assert measure.change == Estimate(0.0, [0.0, 0.0])
    relative = paired(values, values, [range(50)], 500, 0, relative=True)
    assert relative.change == Estimate(0.0, [0.0, 0.0])


def test_two_noisy_measurements_of_one_model_have_an_interval_that_covers_zero():
    """Of 200 repetitions about 5 % may miss zero."""
    rng = np.random.default_rng(4)
    misses = 0
    for trial in range(200):
        a, b = rng.normal(size=(2, 40))
        low, high = paired(a, b, [range(40)], 300, trial).change.interval
        misses += not low <= 0 <= high
    assert 0 <= misses <= 24


def test_ratios_and_relative_changes():
    """Perplexity: exp of nats over tokens; two texts of 10 and 30 tokens."""
    tokens = ([10, 30], [10, 10])
    measure = paired([10.0, 60.0], [20.0, 20.0], [[0, 1]], 200, 0, weights=tokens, transform="exp", relative=True)
    assert measure.before.value == pytest.approx(np.exp(70 / 40))
    assert measure.after.value == pytest.approx(np.exp(2.0))
    assert measure.change.value == pytest.approx(np.exp(2.0) / np.exp(1.75) - 1)
    assert measure.relative


def test_the_same_seed_gives_the_same_interval_and_another_seed_another_one():
    values = np.random.default_rng(6).normal(size=20)
    first, again, other = (single(values, [range(20)], 200, seed).interval for seed in (1, 1, 2))
    assert first == again != other


def test_a_share_of_all_or_none_is_not_certain():
    """Ten of ten: the exact lower end solves x ** 10 = 0.025."""
    groups = [range(10), [0, 0, 1, 1, 2, 2, 3, 4, 5, 6]]
    measure = paired([0.0] * 10, [1.0] * 10, groups[:1], 200, 0, share=True)
    low, high = measure.after.interval
    assert low**10 == pytest.approx(0.025) and high == 1.0
    assert measure.before.interval == [0.0, pytest.approx(1 - low)]
    coarser = paired([0.0] * 10, [1.0] * 10, groups, 200, 0, share=True).after.interval
    assert coarser[0] ** 7 == pytest.approx(0.025)
    assert paired([0.0] * 10, [1.0] * 10, groups, 200, 0).after.interval == [1.0, 1.0]
    mixed = [0.0, 1.0] * 5
    plain, share = (paired(mixed, mixed, groups[:1], 200, 0, share=s).after.interval for s in (False, True))
    assert plain == share
    assert paired([1.0] * 4, [1.0] * 4, [range(4)], 200, 0, share=True).after.interval is None
