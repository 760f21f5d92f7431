"""Reward, loss, margin and accuracy of a pair against hand-worked examples, and training's MLX arrays against them."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx import preference
from mipo_mlx.recipe import Training
from mipo_mlx.training import objectives


def test_a_hand_worked_pair():
    """Log-ratios +3 and -1 at beta 0.5: rewards 1.5 and -0.5, loss log(1 + e^-2)."""
    assert preference.rewards([-10.0, -21.0], [-13.0, -20.0], 0.5).tolist() == [1.5, -0.5]
    measured = preference.measure([-10.0, -21.0], [-13.0, -20.0], 0.5)
    assert measured.loss == pytest.approx(math.log(1 + math.exp(-2)))
    assert measured.information == pytest.approx(math.log(2) - measured.loss)
    assert (measured.accuracy, measured.margin) == (1.0, 2.0)
    assert (measured.chosen_reward, measured.rejected_reward) == (1.5, -0.5)


def test_several_rejected_answers_have_the_softmax_loss_and_mean_rewards():
    reward = np.array([1.0, 0.0, -1.0, 2.0])
    assert preference.loss(reward) == pytest.approx(-math.log(math.e / (math.e + 1 + math.exp(-1) + math.exp(2))))
    assert preference.loss(np.array([800.0, -800.0])) == 0.0 and preference.loss(np.array([-800.0, 800.0])) == 1600.0
    measured = preference.measure(reward, np.zeros(4), 1.0)
    assert measured.rejected_reward == pytest.approx(1 / 3) and measured.margin == pytest.approx(2 / 3)
    assert measured.accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize(("apart", "expected"), [(0.0, 0.5), (9e-4, 0.5), (-9e-4, 0.5), (1.1e-3, 1.0), (-1.1e-3, 0.0)])
@pytest.mark.parametrize("beta", [0.01, 0.1, 2.0])
def test_a_tie_counts_half_at_every_beta(beta, apart, expected):
    assert preference.measure([-10.0 + apart, -20.0], [-10.0, -20.0], beta).accuracy == expected
    assert preference.measure([-10.0 + apart, -20.0, -30.5], [-10.0, -20.0, -30.0], beta).accuracy == (expected + 1) / 2


@pytest.mark.parametrize("candidates", [2, 3, 5])
def test_training_computes_the_same_measures(candidates):
    rng = np.random.default_rng(candidates)
    reference = np.float32(-rng.uniform(20, 90, (12, candidates)))
    policy = np.float32(reference + rng.normal(0, 8, reference.shape))
    policy[3] = reference[3]  # an untrained model: all candidates tie
    policy[4, 1] = reference[4, 1] + (policy[4, 0] - reference[4, 0])
    settings, lengths = Training(beta=0.3), mx.full(reference.shape, 7)
    arrays = mx.array(policy), mx.array(reference), lengths, mx.ones(reference.shape, mx.bool_)
    result = {**objectives.metrics(*arrays, settings), "loss": objectives.losses(*arrays, settings)}
    for i, (own, base) in enumerate(zip(policy, reference, strict=True)):
        expected = preference.measure(own, base, 0.3)
        for name in ("loss", "accuracy", "margin", "chosen_reward", "rejected_reward"):
            assert result[name][i].item() == pytest.approx(getattr(expected, name), rel=1e-5, abs=1e-5), (name, i)
    assert result["accuracy"][3].item() == 0.5
    missing = objectives.metrics(*arrays[:3], mx.arange(candidates)[None] + mx.zeros((12, 1)) < 2, settings)
    for i, (own, base) in enumerate(zip(policy, reference, strict=True)):
        assert missing["accuracy"][i].item() == preference.measure(own[:2], base[:2], 0.3).accuracy
