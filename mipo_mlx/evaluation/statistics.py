"""Measures with 95 % intervals, by a bootstrap over whole groups of items.

The pairs of one grid share answers, and one note or request stands in several items. So notes and requests are resampled, never
single items. Two models are always compared on the same resampled groups (paired).
"""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files import dump
from ..records import key_for

FEWEST = 6  # groups; below that a resampled interval means nothing, and none is printed
LEVEL = 0.95
NORMAL = 1.959964  # its quantile of the standard normal distribution
# What turns sum of values / sum of weights into the measure. The name stands in eval.json, which says how to compute it again.
TRANSFORMS: dict[str, Callable[[Any], Any]] = {"mean": lambda x: x, "exp": np.exp}

Clusters = Sequence[Sequence[Hashable]]  # one or two ways to group the items, each a label for every item
Statistic = Callable[[np.ndarray], np.ndarray]  # (draws, m) sums -> (draws,) values


@dataclass(frozen=True)
class Estimate:
    """A value and its interval; None where there is none."""

    value: float | None
    interval: list[float] | None


@dataclass(frozen=True)
class Measure:
    """One measure of two models on the same items. `change` is after / before - 1 where `relative`, else after - before."""

    before: Estimate
    after: Estimate
    change: Estimate
    relative: bool


@dataclass(frozen=True)
class Form:
    """How the values of the items become the measure: transform(sum of values / sum of weights)."""

    transform: str = "mean"  # a name in TRANSFORMS
    relative: bool = False
    share: bool = False  # the values lie from 0 to 1, and so does their mean


MEAN, SHARE, RELATIVE = Form(), Form(share=True), Form(relative=True)


@dataclass(frozen=True)
class ItemValues:
    """The trained model's values of one measure, an item each."""

    transform: str
    relative: bool
    after: list[float]
    weight: list[float] | None  # None: 1 for each item


@dataclass(frozen=True)
class Items:
    """What `compare` needs of the trained model: names of the items, their groups, and the values of each measure."""

    keys: list[str]
    clusters: list[list[str]]
    values: dict[str, ItemValues]


@dataclass(frozen=True)
class Resampler:
    """Draws whole groups of items, `draws` times."""

    clusters: Clusters
    draws: int
    seed: int

    def interval(self, columns: np.ndarray, statistic: Statistic) -> list[float] | None:
        """95 % interval of a statistic of column sums, groups drawn with replacement (Efron and Tibshirani 1993, chapter 13).

        columns: (items, m) values. The percentiles of each grouping are stretched for few groups (`half_widths`), and two groupings
        are combined (`combined`). None where a grouping has fewer than FEWEST groups.
        """
        columns = np.asarray(columns, dtype=np.float64)
        if too_few(self.clusters):
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(columns.sum(0, keepdims=True))[0])

        def over(labels: Sequence[Hashable]) -> np.ndarray:
            sums = group_sums(columns, labels)
            groups = len(sums)
            # Each grouping begins its own random numbers: two measures over the same groups see the same resamples.
            rng = np.random.default_rng(key_for(self.seed, f"resample {groups} groups"))
            counts = rng.multinomial(groups, np.full(groups, 1 / groups), size=self.draws)
            with np.errstate(divide="ignore", invalid="ignore"):
                return half_widths(value, statistic(counts @ sums), groups)

        crossed = over(crossing(self.clusters)) if len(self.clusters) > 1 else None
        down, up = combined([over(labels) for labels in self.clusters], crossed)
        return [float(value - down), float(value + up)] if np.isfinite(value + up + down) else None

    def mean(self, values: Sequence[float], weights: Sequence[float] | None = None, share: bool = False) -> Estimate:
        """A mean, weighted where weights are given. A `share` averages values from 0 to 1."""
        weight = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
        given = np.asarray(values, dtype=np.float64)
        columns = np.stack([given * weight, weight], axis=1)
        interval = self.interval(columns, lambda sums: sums[..., 0] / sums[..., 1])
        value = float(columns[:, 0].sum() / weight.sum()) if len(values) else None
        return Estimate(value, self._of_share(interval, given) if share else interval)

    def paired(
        self,
        before: Sequence[float],
        after: Sequence[float],
        form: Form = MEAN,
        weights: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> Measure:
        """One measure of two models; weights: those of before and of after, 1 where they are not given."""
        ones = np.ones(len(before))
        of_before, of_after = weights if weights is not None else (ones, ones)
        columns = np.stack([np.asarray(c, dtype=np.float64) for c in (before, of_before, after, of_after)], axis=1)
        transform = TRANSFORMS[form.transform]

        def first(sums: np.ndarray) -> np.ndarray:
            return transform(sums[..., 0] / sums[..., 1])

        def second(sums: np.ndarray) -> np.ndarray:
            return transform(sums[..., 2] / sums[..., 3])

        def change(sums: np.ndarray) -> np.ndarray:
            return second(sums) / first(sums) - 1 if form.relative else second(sums) - first(sums)

        def estimate(statistic: Statistic, share_of: int | None = None) -> Estimate:
            with np.errstate(divide="ignore", invalid="ignore"):
                value = float(statistic(columns.sum(0)))
            interval = self.interval(columns, statistic)
            if form.share and share_of is not None:
                interval = self._of_share(interval, columns[:, share_of])
            return Estimate(value if np.isfinite(value) else None, interval)

        return Measure(estimate(first, 0), estimate(second, 2), estimate(change), form.relative)

    def at_equal_length(self, outcomes: Sequence[float], lengths: Sequence[float]) -> Estimate | None:
        """The win rate that answers of equal length would have. Judges like long answers, so a model that writes longer ones wins.

        It is sigmoid(a) of the logistic regression outcome ~ a + b tanh(d / rms(d)) over the difference d in tokens. A light ridge
        is on b (after Dubois et al. 2024, length-controlled AlpacaEval). outcomes: 1 win, 0.5 tie, 0 loss.
        None where nearly all answers of one side are the longer ones: such answers say nothing about equal length.
        """
        low, high = np.quantile(lengths, [OVERLAP, 1 - OVERLAP]) if len(lengths) else (1, 0)
        if not low <= 0 <= high:
            return None
        # Resampled sums over the identity are how often each outcome was drawn.
        drawn = self.interval(np.eye(len(outcomes)), lambda weights: _win_rates(outcomes, lengths, weights))
        value = float(_win_rates(outcomes, lengths, np.ones((1, len(outcomes))))[0])
        return Estimate(value, self._of_share(drawn, np.asarray(outcomes, dtype=np.float64)))

    def _of_share(self, interval: list[float] | None, values: np.ndarray) -> list[float] | None:
        """The interval of a mean of values from 0 to 1, which no end may leave."""
        exact = unanimous(values, self.clusters)
        if exact or interval is None:
            return exact
        return [max(0.0, interval[0]), min(1.0, interval[1])]


class Measures:
    """Measures of the same items under two models. `keys` name the items across runs."""

    def __init__(self, keys: Sequence[str], resampler: Resampler) -> None:
        self.keys, self.resampler = list(keys), resampler
        self.metrics: dict[str, Measure] = {}
        self._values: dict[str, ItemValues] = {}

    def add(
        self,
        name: str,
        before: Sequence[float],
        after: Sequence[float],
        form: Form = MEAN,
        weights: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        """One value an item and model; see Resampler.paired."""
        self.metrics[name] = self.resampler.paired(before, after, form, weights)
        weight = None if weights is None else _rounded(weights[1])
        self._values[name] = ItemValues(form.transform, form.relative, _rounded(after), weight)

    def items(self) -> Items:
        """The trained model's values for `compare`."""
        return Items(self.keys, [[str(label) for label in labels] for labels in self.resampler.clusters], self._values)


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(v), 6) for v in values]


def key_of(*parts: Any) -> str:
    """The name of an item in every run that has it: a short hash of its texts and token ids, since ids count within one run."""
    return hashlib.sha256(dump(parts).encode()).hexdigest()[:16]


def too_few(clusters: Clusters) -> str | None:
    """One sentence that says why no interval can be given; None where it can."""
    fewest = min((len(set(labels)) for labels in clusters), default=0)
    if fewest >= FEWEST:
        return None
    return f"too few held-out groups for an interval: {fewest} independent ones, at least {FEWEST} needed"


def group_sums(columns: np.ndarray, labels: Sequence[Hashable]) -> np.ndarray:
    """(groups, m) sums of the items' columns over each group."""
    _, group = np.unique(np.array([str(label) for label in labels]), return_inverse=True)
    sums = np.zeros((int(group.max()) + 1, columns.shape[1]))
    np.add.at(sums, group, columns)
    return sums


def half_widths(value: float, drawn: np.ndarray, groups: int) -> np.ndarray:
    """(2,) how far the percentiles of resampled values reach below and above the value, stretched for few groups.

    Resampling n groups understates their variance by (n - 1) / n, and knows it only as well as Student's t does. So the factor is
    sqrt(n / (n - 1)) t(n - 1) / z.
    """
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return np.full(2, np.nan)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    stretch = np.sqrt(groups / (groups - 1)) * student(groups - 1) / NORMAL
    return stretch * np.maximum([value - low, high - value], 0)


def combined(each: Sequence[np.ndarray], crossed: np.ndarray | None) -> np.ndarray:
    """(2,) half-widths over two groupings at once, never narrower than the wider of the two.

    The variances add, less that of the crossing, which both contain (Cameron, Gelbach and Miller 2011).
    """
    widest = np.max(each, axis=0)
    if crossed is None:
        return widest
    return np.maximum(widest, np.sqrt(np.maximum(sum(np.square(one) for one in each) - np.square(crossed), 0)))


def crossing(clusters: Clusters) -> list[str]:
    """The label of each item in both groupings together."""
    return [repr(labels) for labels in zip(*clusters, strict=True)]


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, by its expansion around the normal one (Abramowitz and Stegun 26.7.5).

    The error is below 0.002 from five degrees of freedom on.
    """
    z, v = NORMAL, freedom
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / v**power for power, term in enumerate(terms, 1))


def unanimous(values: np.ndarray, clusters: Clusters) -> list[float] | None:
    """The exact interval of a share where every item is 0, or every item 1; None for anything else.

    Resampling cannot tell such a share from certainty. Groups of the coarser grouping are the trials (Clopper and Pearson 1934).
    """
    if not len(values) or not (np.all(values == 0) or np.all(values == 1)):
        return None
    groups = min((len(set(labels)) for labels in clusters), default=0)
    if groups < FEWEST:
        return None
    edge = float(((1 - LEVEL) / 2) ** (1 / groups))
    return [edge, 1.0] if values[0] else [0.0, 1 - edge]


def figure(value: float | None, form: str = ".2f") -> str:
    """A number as text, n/a for None; what rounds to zero has no minus."""
    if value is None:
        return "n/a"
    text = format(value, form)
    return text if any(digit in text for digit in "123456789") else text.replace("-", "", 1)


def show(estimate: Estimate, form: str = ".2f") -> str:
    """'0.81 [0.74, 0.87]', or the value alone where there is no interval."""
    text = figure(estimate.value, form)
    if estimate.value is None or estimate.interval is None:
        return text
    low, high = (figure(v, form) for v in estimate.interval)
    return f"{text} [{low}, {high}]"


RIDGE = np.array([1e-3, 1e-1])  # on the intercept and on the length: finite also where one side always wins
STEPS = 50  # of Newton's method; it has converged after ten
OVERLAP = 0.05  # share of the requests in which either side must be the shorter one, else equal length is a guess


def _win_rates(outcomes: Sequence[float], lengths: Sequence[float], weights: np.ndarray) -> np.ndarray:
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
