"""Measures of held-out pairs against hand-worked examples."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mipo_mlx.evaluation import heldout
from mipo_mlx.evaluation.statistics import Estimate
from mipo_mlx.recipe import Recipe
from mipo_mlx.records import Pair


def measured(pairs, policy, notes=None, beta=0.1, draws=200, seed=0):
    settings = Recipe.model_validate({"model": "x", "seed": seed, "training": {"beta": beta}, "evaluation": {"bootstrap": draws}})
    return heldout.evaluate(pairs, policy, notes or {}, settings)


def pair(number: int, reference: list[float]) -> Pair:
    return Pair(
        id=str(number), split="heldout", grid=number // 2, prompt=[], chosen=[], rejected=[], negatives=[], prompt_tokens=[1],
        tokens=[[2]] * len(reference), reference=reference, pmi=[], kinds=[], context_id=f"c{number}",
    )  # fmt: skip


@pytest.mark.parametrize("candidates", [2, 4])
def test_the_reference_itself_has_accuracy_one_half_and_no_information(candidates):
    pairs = [pair(i, list(np.random.default_rng(i).normal(-40, 5, size=candidates))) for i in range(16)]
    noisy = [[r + 1e-5 * (j - 1) for j, r in enumerate(p.reference)] for p in pairs]  # what another summation order does
    result = measured(pairs, noisy)
    metrics = result.metrics
    for side in ("before", "after"):
        assert getattr(metrics["accuracy"], side) == Estimate(0.5, [0.5, 0.5])
        assert getattr(metrics["loss"], side).value == pytest.approx(math.log(candidates), abs=1e-5)
        assert getattr(metrics["information"], side).value == pytest.approx(0, abs=1e-5)
    low, high = metrics["accuracy"].change.interval
    assert low <= 0 <= high
    assert result.candidates == candidates and result.pairs == 16 and result.grids == 8 and result.contexts == 16


def test_beta_scales_the_rewards_and_with_them_the_information():
    pairs = [pair(i, [-40.0, -40.0]) for i in range(16)]
    policy = [[-38.0 + 0.1 * i, -41.0] for i in range(16)]
    small, large = (measured(pairs, policy, beta=beta).metrics for beta in (0.1, 0.5))
    assert large["margin"].after.value == pytest.approx(5 * small["margin"].after.value)
    assert large["information"].after.value > small["information"].after.value > 0
    assert small["chosen_reward"].after.value == pytest.approx(0.1 * 2.75)
    assert small["rejected_reward"].after.value == pytest.approx(-0.1)


def test_the_number_of_draws_and_the_seed_change_the_interval():
    pairs = [pair(i, [-40.0, -40.0]) for i in range(24)]
    policy = [[-40 + (-1) ** i * 0.3 * i, -40.0] for i in range(24)]
    result = [measured(pairs, policy, draws=draws, seed=seed).metrics["loss"].after.interval for draws, seed in
             [(100, 0), (5000, 0), (100, 1)]]  # fmt: skip
    assert result[0] != result[1] and result[0] != result[2]


def test_passages_of_one_note_and_pairs_of_one_request_are_no_independent_cases():
    pairs = [replace(pair(i, [-40.0, -40.0]), prompt_id=f"p{i}") for i in range(24)]
    policy = [[-39.0 + (i % 6), -41.0] for i in range(24)]

    def width(pairs, notes):
        low, high = measured(pairs, policy, notes, draws=400).metrics["margin"].after.interval
        return high - low

    alone = width(pairs, {})
    assert width(pairs, {f"c{i}": f"n{i % 6}" for i in range(24)}) > 1.5 * alone
    assert width([replace(p, prompt_id=f"p{i % 6}") for i, p in enumerate(pairs)], {}) > 1.5 * alone
    few = measured(pairs, policy, {f"c{i}": f"n{i % 5}" for i in range(24)}, draws=400)
    assert "5 independent ones" in few.no_interval and few.metrics["margin"].after.interval is None
