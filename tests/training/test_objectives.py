"""Every objective against its formula, written out in NumPy from the source that is named."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx.recipe import Training
from mipo_mlx.training import objectives

OBJECTIVES = ["dpo", "ipo", "hinge", "dpop", "infonce", "sft", "infonce_authors", "sami"]
BETA = 0.1


def random_batch(pairs: int = 4, candidates: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 60, (pairs, candidates))
    reference = -rng.uniform(0.5, 3, (pairs, candidates)) * lengths
    return reference + rng.normal(0, 8, (pairs, candidates)), reference, lengths


def losses(logps, reference, lengths, mask=None, **settings) -> np.ndarray:
    mask = np.ones(logps.shape, bool) if mask is None else mask
    arrays = (mx.array(np.asarray(x, np.float32)) for x in (logps, reference, lengths))
    return np.array(objectives.losses(*arrays, mx.array(mask), Training(**settings)))


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -x)


def test_dpo_equals_trl_sigmoid():
    logps, reference, lengths = random_batch(candidates=2)
    delta = (logps[:, 0] - reference[:, 0]) - (logps[:, 1] - reference[:, 1])  # trl DPOTrainer: delta_score
    np.testing.assert_allclose(losses(logps, reference, lengths), -log_sigmoid(BETA * delta), rtol=1e-4)


def test_hinge_equals_trl():
    logps, reference, lengths = random_batch(candidates=2)
    delta = (logps[:, 0] - reference[:, 0]) - (logps[:, 1] - reference[:, 1])
    np.testing.assert_allclose(losses(logps, reference, lengths, objective="hinge"), np.maximum(1 - BETA * delta, 0), rtol=1e-4)


def test_ipo_equals_trl():
    logps, reference, lengths = random_batch(candidates=2)
    mean = (logps - reference) / lengths  # trl DPOTrainer, loss_type "ipo": scores per completion token
    expected = (mean[:, 0] - mean[:, 1] - 1 / (2 * BETA)) ** 2
    np.testing.assert_allclose(losses(logps, reference, lengths, objective="ipo"), expected, rtol=1e-4)


def test_label_smoothing_is_conservative_dpo():
    logps, reference, lengths = random_batch(candidates=2)
    delta = BETA * ((logps - reference) @ [1, -1])
    expected = -0.9 * log_sigmoid(delta) - 0.1 * log_sigmoid(-delta)  # Mitchell 2023, eq. 3
    np.testing.assert_allclose(losses(logps, reference, lengths, label_smoothing=0.1), expected, rtol=1e-4)


def test_dpop_penalises_a_falling_chosen_likelihood():
    logps, reference, lengths = random_batch(candidates=2)
    d = logps - reference
    expected = -log_sigmoid(BETA * (d[:, 0] - d[:, 1] - 5.0 * np.maximum(-d[:, 0], 0)))  # Pal et al. 2024, eq. 3
    assert (d[:, 0] < 0).any()
    np.testing.assert_allclose(losses(logps, reference, lengths, objective="dpop"), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", ["dpo", "infonce"])
def test_many_candidates_are_a_softmax(objective):
    logps, reference, lengths = random_batch()
    scores = BETA * (logps - reference)
    expected = np.log(np.exp(scores).sum(axis=1)) - scores[:, 0]
    np.testing.assert_allclose(losses(logps, reference, lengths, objective=objective), expected, rtol=1e-4)


def test_sft_is_the_chosen_answers_likelihood():
    logps, reference, lengths = random_batch()
    np.testing.assert_allclose(losses(logps, reference, lengths, objective="sft"), -logps[:, 0], rtol=1e-5)


def grid_matrix(logps: np.ndarray) -> np.ndarray:
    """s[i, j] = log p(answer j | context i) from rows whose first candidate is their own."""
    return np.stack([np.roll(row, i) for i, row in enumerate(logps)])


def cross_entropy(scores: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(scores, axis=1) - np.diag(scores)


def test_infonce_authors_is_the_papers_code():
    logps, reference, lengths = random_batch()
    # InfoNCELoss of the authors' code: for each answer, cross-entropy over contexts, divided by a temperature of 100.
    expected = cross_entropy(grid_matrix(logps).T / 100)
    np.testing.assert_allclose(losses(logps, reference, lengths, objective="infonce_authors"), expected, rtol=1e-4)


def test_sami_is_its_authors_code():
    logps, reference, lengths = random_batch()
    matrix = grid_matrix(logps)
    rows, columns = cross_entropy(matrix), cross_entropy(matrix.T)  # sami_trainer.py: sami_loss
    np.testing.assert_allclose(losses(logps, reference, lengths, objective="sami"), (rows + columns) / 2, rtol=1e-4, atol=1e-3)


def test_the_objectives_differ_on_the_same_batch():
    """All but dpo and infonce, which are one function by definition."""
    batch = random_batch()
    result = {objective: losses(*batch, objective=objective).mean() for objective in OBJECTIVES if objective != "infonce"}
    values = sorted(result.values())
    assert min(b - a for a, b in zip(values, values[1:], strict=False)) > 1e-3, result


@pytest.mark.parametrize("candidates", [2, 4])
@pytest.mark.parametrize("objective, expected", [("dpo", None), ("infonce", None), ("dpop", None), ("hinge", 1.0), ("ipo", 25.0)])
def test_the_loss_where_policy_equals_reference(objective, expected, candidates):
    _, reference, lengths = random_batch(candidates=candidates)
    result = losses(reference, reference, lengths, objective=objective)
    np.testing.assert_allclose(result, math.log(candidates) if expected is None else expected, atol=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("change", [{"beta": 0.3}, {"label_smoothing": 0.2}, {"length_normalized": True}, {"nll_weight": 0.5}])
def test_every_setting_changes_the_loss(objective, change):
    if (objective, *change) in {("sft", "beta"), ("ipo", "length_normalized")}:
        pytest.skip("sft has no beta, and ipo is always normalised by length")
    batch = random_batch()
    assert abs(losses(*batch, objective=objective, **change).mean() - losses(*batch, objective=objective).mean()) > 1e-3


def test_the_nll_term_is_the_chosen_answers_mean_per_token():
    logps, reference, lengths = random_batch()
    extra = losses(logps, reference, lengths, nll_weight=2.0) - losses(logps, reference, lengths)
    np.testing.assert_allclose(extra, -2 * logps[:, 0] / lengths[:, 0], rtol=1e-3)


@pytest.mark.parametrize("objective", ["dpo", "ipo", "hinge", "dpop", "infonce", "sft"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_missing_candidates_do_not_count(objective, label_smoothing):
    logps, reference, lengths = random_batch(candidates=3)
    padded = [np.concatenate([x, np.zeros((4, 2))], axis=1) for x in (logps, reference, lengths)]
    mask = np.arange(5) < np.full((4, 1), 3)
    settings = {"objective": objective, "label_smoothing": label_smoothing}
    np.testing.assert_allclose(losses(*padded, mask, **settings), losses(logps, reference, lengths, **settings), rtol=1e-6)


def test_metrics_are_of_each_pair_against_all_its_negatives():
    reference = np.full((2, 3), -10.0)
    logps = reference + [[2.0, 1.0, -1.0], [2.0, 3.0, -9.0]]
    reference[0, 2] = np.nan
    arrays = [mx.array(np.asarray(x, np.float32)) for x in (logps, reference, np.full((2, 3), 4))]
    mask = mx.ones((2, 3), mx.bool_)
    result = {k: np.array(v) for k, v in objectives.metrics(*arrays, mask, Training(beta=0.5)).items()}
    np.testing.assert_allclose(result["chosen_reward"], [1.0, 1.0])
    np.testing.assert_allclose(result["rejected_reward"], [0.5, -1.5])  # the unknown reference is left out
    np.testing.assert_allclose(result["margin"], [0.5, 2.5])
    assert result["accuracy"].tolist() == [1.0, 0.5]  # the share of the negatives that it beats
    np.testing.assert_allclose(result["kl"], [-0.5, -0.5])
    np.testing.assert_allclose(result["nll"], [2.0, 2.0])
    np.testing.assert_allclose(result["chosen_logp"], [-8.0, -8.0])
    np.testing.assert_allclose(result["rejected_logp"], [-10.0, -13.0])
