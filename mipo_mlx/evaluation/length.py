"""The win rate that answers of equal length would have: judges like long answers, and a model that writes longer ones would win."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .intervals import Clusters, bootstrap, of_share

RIDGE = np.array([1e-3, 1e-1])  # on the intercept and on the length: finite also where one side always wins
STEPS = 50  # of Newton's method; it has converged after ten
OVERLAP = 0.05  # share of the requests in which either side must be the shorter one, else equal length is a guess


def controlled(
    outcomes: Sequence[float], lengths: Sequence[float], clusters: Clusters, draws: int, seed: int
) -> dict[str, Any] | None:
    """{"value", "interval"}: sigmoid(a) of the logistic regression outcome ~ a + b tanh(d / rms(d)) over the difference d in tokens
    (after Dubois et al. 2024, length-controlled AlpacaEval), b under a light ridge. outcomes: 1 win, 0.5 tie, 0 loss.

    None where nearly all answers of one side are the longer ones: how they would do at equal length cannot be seen from them.
    """
    low, high = np.quantile(lengths, [OVERLAP, 1 - OVERLAP]) if len(lengths) else (1, 0)
    if not low <= 0 <= high:
        return None
    # Resampled sums over the identity are how often each outcome was drawn.
    found = bootstrap(np.eye(len(outcomes)), clusters, lambda drawn: _fit(outcomes, lengths, drawn), draws, seed)
    interval = of_share(found, np.asarray(outcomes, dtype=np.float64), clusters)
    return {"value": float(_fit(outcomes, lengths, np.ones((1, len(outcomes))))[0]), "interval": interval}


def _fit(outcomes: Sequence[float], lengths: Sequence[float], weights: np.ndarray) -> np.ndarray:
    """(draws,) win rates at equal length for (draws, outcomes) weights, by Newton's method on the two coefficients."""
    y, d = np.asarray(outcomes, dtype=np.float64), np.asarray(lengths, dtype=np.float64)
    x = np.tanh(d / np.sqrt(np.mean(d * d))) if d.any() else np.zeros_like(d)
    a, b = np.zeros((2, len(weights)))
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-(a[:, None] + b[:, None] * x)))
        error, curve = weights * (p - y), weights * (p * (1 - p) + 1e-9)
        g0, g1 = error.sum(1) + RIDGE[0] * a, error @ x + RIDGE[1] * b
        h00, h01, h11 = curve.sum(1) + RIDGE[0], curve @ x, curve @ (x * x) + RIDGE[1]
        determinant = h00 * h11 - h01 * h01
        a, b = a - (h11 * g0 - h01 * g1) / determinant, b - (h00 * g1 - h01 * g0) / determinant
    return 1 / (1 + np.exp(-a))
