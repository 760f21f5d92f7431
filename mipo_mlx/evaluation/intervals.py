"""Bootstrap intervals over whole groups: pairs of one grid share answers, and one context is asked about several times, so
grids and contexts are resampled, never single pairs. Two models are always compared on the same resampled groups (paired)."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

FEWEST = 6  # groups; below that a resampled interval means nothing, and none is printed
LEVEL = 0.95

Clusters = Sequence[Sequence[Hashable]]  # one or more ways to group the items, each a label for every item


def bootstrap(
    columns: np.ndarray, clusters: Clusters, statistic: Callable[[np.ndarray], np.ndarray], draws: int, seed: int
) -> list[float] | None:
    """95 % percentile interval of a statistic of column sums, resampling groups with replacement (Efron and Tibshirani
    1993, chapter 13).

    columns: (items, m) values; statistic maps (draws, m) resampled sums to (draws,). With more than one grouping each is
    resampled alone and the wider interval is returned, so that neither dependence is overlooked. None where a grouping
    has fewer than FEWEST groups.
    """
    columns = np.asarray(columns, dtype=np.float64)
    widest: list[float] | None = None
    for labels in clusters:
        _, group = np.unique(np.array([str(label) for label in labels]), return_inverse=True)
        groups = int(group.max()) + 1 if len(group) else 0
        if groups < FEWEST:
            return None
        sums = np.zeros((groups, columns.shape[1]))
        np.add.at(sums, group, columns)
        # Seeded afresh for each grouping: two metrics over the same groups see the same resamples.
        counts = np.random.default_rng([seed, groups]).multinomial(groups, np.full(groups, 1 / groups), size=draws)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = statistic(counts @ sums)
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        tail = (1 - LEVEL) / 2
        low, high = (float(v) for v in np.quantile(values, [tail, 1 - tail]))
        if widest is None or high - low > widest[1] - widest[0]:
            widest = [low, high]
    return widest


def unanimous(values: np.ndarray, clusters: Clusters) -> list[float] | None:
    """The exact interval of a share where every item is 0, or every item 1: resampling cannot tell such a share from certainty
    (Clopper and Pearson 1934, for as many trials as there are groups in the coarser grouping). None for anything else.
    """
    if not len(values) or not (np.all(values == 0) or np.all(values == 1)):
        return None
    groups = min((len(set(labels)) for labels in clusters), default=0)
    if groups < FEWEST:
        return None
    edge = float(((1 - LEVEL) / 2) ** (1 / groups))
    return [edge, 1.0] if values[0] else [0.0, 1 - edge]


def paired(
    before: Sequence[float],
    after: Sequence[float],
    clusters: Clusters,
    draws: int,
    seed: int,
    *,
    weights: tuple[Sequence[float], Sequence[float]] | None = None,
    transform: Callable[[Any], Any] = lambda x: x,
    relative: bool = False,
    share: bool = False,
) -> dict[str, Any]:
    """One measure of two models on the same items: {"before", "after", "change"}, each {"value", "interval"}.

    The value is transform(sum of values / sum of weights); weights are 1 unless given as (before's, after's). `change` is
    after - before, or after / before - 1 where `relative`. A `share` is a mean of zeros and ones (see `unanimous`).
    """
    ones = np.ones(len(before))
    base_weight, tuned_weight = weights if weights is not None else (ones, ones)
    columns = np.stack([np.asarray(c, dtype=np.float64) for c in (before, base_weight, after, tuned_weight)], axis=1)

    def first(sums: np.ndarray) -> np.ndarray:
        return transform(sums[..., 0] / sums[..., 1])

    def second(sums: np.ndarray) -> np.ndarray:
        return transform(sums[..., 2] / sums[..., 3])

    def change(sums: np.ndarray) -> np.ndarray:
        return second(sums) / first(sums) - 1 if relative else second(sums) - first(sums)

    def estimate(statistic: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(columns.sum(0)))
        return {
            "value": value if np.isfinite(value) else None,
            "interval": bootstrap(columns, clusters, statistic, draws, seed),
        }

    found = {"before": estimate(first), "after": estimate(second), "change": estimate(change), "relative": relative}
    if share:
        for side, column in (("before", 0), ("after", 2)):
            found[side]["interval"] = unanimous(columns[:, column], clusters) or found[side]["interval"]
    return found


def single(values: Sequence[float], clusters: Clusters, draws: int, seed: int) -> dict[str, Any]:
    """A mean and its interval: {"value", "interval"}."""
    columns = np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], axis=1)
    return {
        "value": float(np.mean(columns[:, 0])) if len(values) else None,
        "interval": bootstrap(columns, clusters, lambda sums: sums[..., 0] / sums[..., 1], draws, seed),
    }


def enough(clusters: Clusters) -> str | None:
    """None, or one sentence that says why no interval can be given."""
    fewest = min((len(set(labels)) for labels in clusters), default=0)
    if fewest >= FEWEST:
        return None
    return f"too few held-out groups for an interval: {fewest} independent ones, at least {FEWEST} needed"


def show(estimate: dict[str, Any], form: str = ".2f") -> str:
    """'0.81 [0.74, 0.87]', or the value alone where there is no interval."""
    if estimate["value"] is None:
        return "n/a"
    text = format(estimate["value"], form)
    if estimate["interval"] is None:
        return text
    low, high = (format(v, form) for v in estimate["interval"])
    return f"{text} [{low}, {high}]"
