"""Bootstrap intervals over whole groups: pairs of one grid share answers, and one note or request is asked about several times,
so notes and requests are resampled, never single pairs. Two models are always compared on the same resampled groups (paired).

~~~ Measures gathered item by item: summed up with intervals for eval.json, and kept so that two runs can be compared later.

~~~ The win rate that answers of equal length would have: judges like long answers, and a model that writes longer ones would win.
"""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from ..files import dump

FEWEST = 6  # groups; below that a resampled interval means nothing, and none is printed
LEVEL = 0.95
NORMAL = 1.959964  # its quantile of the standard normal distribution

Clusters = Sequence[Sequence[Hashable]]  # one or two ways to group the items, each a label for every item


def bootstrap(
    columns: np.ndarray, clusters: Clusters, statistic: Callable[[np.ndarray], np.ndarray], draws: int, seed: int
) -> list[float] | None:
    """95 % interval of a statistic of column sums, resampling groups with replacement (Efron and Tibshirani 1993, chapter 13).

    columns: (items, m) values; statistic maps (draws, m) resampled sums to (draws,). The percentiles of each grouping are stretched
    for few groups, and what two groupings tell is joined (see `half_widths` and `joined`). None where a grouping has fewer than
    FEWEST groups.
    """
    columns = np.asarray(columns, dtype=np.float64)
    if enough(clusters):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(columns.sum(0, keepdims=True))[0])

    def over(labels: Sequence[Hashable]) -> np.ndarray:
        sums = group_sums(columns, labels)
        groups = len(sums)
        # Seeded afresh for each grouping: two metrics over the same groups see the same resamples.
        counts = np.random.default_rng([seed, groups]).multinomial(groups, np.full(groups, 1 / groups), size=draws)
        with np.errstate(divide="ignore", invalid="ignore"):
            return half_widths(value, statistic(counts @ sums), groups)

    down, up = joined([over(labels) for labels in clusters], over(crossing(clusters)) if len(clusters) > 1 else None)
    return [value - down, value + up] if np.isfinite(value + up + down) else None


def group_sums(columns: np.ndarray, labels: Sequence[Hashable]) -> np.ndarray:
    """(groups, m) sums of the items' columns over each group."""
    _, group = np.unique(np.array([str(label) for label in labels]), return_inverse=True)
    sums = np.zeros((int(group.max()) + 1, columns.shape[1]))
    np.add.at(sums, group, columns)
    return sums


def half_widths(value: float, drawn: np.ndarray, groups: int) -> np.ndarray:
    """How far the percentiles of resampled values reach below and above the value, stretched by sqrt(n / (n - 1)) t(n - 1) / z:
    resampling n groups understates their variance by (n - 1) / n, and knows it only as well as Student's t does."""
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return np.full(2, np.nan)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    stretch = np.sqrt(groups / (groups - 1)) * student(groups - 1) / NORMAL
    return stretch * np.maximum([value - low, high - value], 0)


def joined(each: Sequence[np.ndarray], crossed: np.ndarray | None) -> np.ndarray:
    """Half-widths over two groupings at once: their variances add, less that of the crossing, which both contain (Cameron, Gelbach
    and Miller 2011); never narrower than the wider of the two."""
    widest = np.max(each, axis=0)
    if crossed is None:
        return widest
    return np.maximum(widest, np.sqrt(np.maximum(sum(np.square(one) for one in each) - np.square(crossed), 0)))


def crossing(clusters: Clusters) -> list[str]:
    """The label of each item in both groupings together."""
    return [repr(labels) for labels in zip(*clusters, strict=True)]


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, by its expansion around the normal one (Abramowitz and Stegun 26.7.5); within 0.002 from
    five degrees of freedom on."""
    z, v = NORMAL, freedom
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / v**power for power, term in enumerate(terms, 1))


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
    after - before, or after / before - 1 where `relative`. A `share` is a mean of values from 0 to 1 (see `unanimous`).
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
            found[side]["interval"] = of_share(found[side]["interval"], columns[:, column], clusters)
    return found


def of_share(interval: list[float] | None, values: np.ndarray, clusters: Clusters) -> list[float] | None:
    """The interval of a mean of values from 0 to 1, which no end may leave."""
    exact = unanimous(values, clusters)
    if exact or interval is None:
        return exact
    return [max(0.0, interval[0]), min(1.0, interval[1])]


def single(
    values: Sequence[float],
    clusters: Clusters,
    draws: int,
    seed: int,
    *,
    weights: Sequence[float] | None = None,
    share: bool = False,
) -> dict[str, Any]:
    """A mean, weighted where weights are given, and its interval: {"value", "interval"}. A `share` averages values from 0 to 1."""
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    given = np.asarray(values, dtype=np.float64)
    columns = np.stack([given * weight, weight], axis=1)
    interval = bootstrap(columns, clusters, lambda sums: sums[..., 0] / sums[..., 1], draws, seed)
    return {
        "value": float(columns[:, 0].sum() / weight.sum()) if len(values) else None,
        "interval": of_share(interval, given, clusters) if share else interval,
    }


def enough(clusters: Clusters) -> str | None:
    """None, or one sentence that says why no interval can be given."""
    fewest = min((len(set(labels)) for labels in clusters), default=0)
    if fewest >= FEWEST:
        return None
    return f"too few held-out groups for an interval: {fewest} independent ones, at least {FEWEST} needed"


def figure(value: float, form: str = ".2f") -> str:
    """A number as text; what rounds to zero has no minus."""
    text = format(value, form)
    return text if any(digit in text for digit in "123456789") else text.replace("-", "", 1)


def show(estimate: dict[str, Any], form: str = ".2f") -> str:
    """'0.81 [0.74, 0.87]', or the value alone where there is no interval."""
    if estimate["value"] is None:
        return "n/a"
    text = figure(estimate["value"], form)
    if estimate["interval"] is None:
        return text
    low, high = (figure(v, form) for v in estimate["interval"])
    return f"{text} [{low}, {high}]"


FORMAT = 3  # of eval.json and of the samples behind it: what another version left is computed anew
# What turns sum of values / sum of weights into the measure, by name, so that eval.json says how to compute it again.
TRANSFORMS = {"mean": lambda x: x, "exp": np.exp}


def case(*parts: Any) -> str:
    """The name of a case in every run that has it: a short hash of its texts and token ids, since ids count within one run."""
    return hashlib.sha256(dump(parts).encode()).hexdigest()[:16]


class Measures:
    """Measures of the same items under two models; items are grouped by `clusters`, and `keys` names them across runs."""

    def __init__(self, keys: Sequence[str], clusters: Clusters, draws: int, seed: int) -> None:
        self.keys, self.clusters, self.draws, self.seed = list(keys), clusters, draws, seed
        self.metrics: dict[str, dict[str, Any]] = {}
        self.values: dict[str, dict[str, Any]] = {}

    def add(
        self,
        name: str,
        before: Sequence[float],
        after: Sequence[float],
        *,
        weights: tuple[Sequence[float], Sequence[float]] | None = None,
        transform: str = "mean",
        relative: bool = False,
        share: bool = False,
    ) -> None:
        """One value an item and model; see intervals.paired."""
        self.metrics[name] = paired(
            before, after, self.clusters, self.draws, self.seed,
            weights=weights, transform=TRANSFORMS[transform], relative=relative, share=share,
        )  # fmt: skip
        kept = {"after": after, **({"weight": weights[1]} if weights else {})}
        self.values[name] = {
            "transform": transform,
            "relative": relative,
            **{key: [round(float(v), 6) for v in values] for key, values in kept.items()},
        }

    def items(self) -> dict[str, Any]:
        """The tuned model's values for `compare`: keys, groups, and for each measure its values and weights."""
        clusters = [[str(label) for label in labels] for labels in self.clusters]
        return {"keys": self.keys, "clusters": clusters, "values": self.values}


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
