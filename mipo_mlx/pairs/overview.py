"""What a round of sampling came to (pairs.json): counts by reason, PMI by kind of negative, and a PMI histogram."""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from ..records import Grid, Pair
from .build import SAID_BACK, SPLITS, Built

BINS = (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)  # nats: widths of a bar in the PMI histogram
MOST_BARS = 30


@dataclass(frozen=True)
class Grids:
    """The grids of one split as sampled, before any filter."""

    grids: int
    behind: list[int]  # how many grids have 0, 1 and 2 distractors


@dataclass(frozen=True)
class KindPmi:
    """One kind of negative of the kept pairs."""

    negatives: int
    mean: float  # nats
    mean_per_token: float  # nats a token of the chosen answer


@dataclass(frozen=True)
class Overview:
    """pairs.json; most fields are by split."""

    pairs: dict[str, int]
    said_back: int  # pairs with their own passage as a rejected answer
    dropped: dict[str, dict[str, int]]
    grids: dict[str, Grids]
    pmi: dict[str, dict[str, KindPmi]]
    histogram: dict[str, list[float]]  # PMI before the PMI filter: `edges` in nats, and a count between neighbours by split
    profile: str | None  # digest of the profile that the pairs were sampled with


def summarize(built: Built, grids: list[Grid], profile: str | None = None) -> Overview:
    """The overview of built pairs and of the grids that they come from."""
    of_split = {split: [pair for pair in built.pairs if pair.split == split] for split in SPLITS}
    return Overview(
        pairs={split: len(pairs) for split, pairs in of_split.items()},
        said_back=sum(SAID_BACK in pair.kinds for pair in built.pairs),
        dropped={split: dict(sorted(built.dropped[split].items())) for split in SPLITS},
        grids={split: _grids([grid for grid in grids if grid.split == split]) for split in SPLITS},
        pmi={split: describe_pmi(pairs) for split, pairs in of_split.items()},
        histogram=histogram(built.measured),
        profile=profile,
    )


def _grids(grids: list[Grid]) -> Grids:
    return Grids(len(grids), [sum(len(grid.distractors) == count for grid in grids) for count in range(3)])


def pmi_of(pair: Pair) -> list[tuple[int, float]]:
    """(place among the rejected answers, PMI in nats) of those that have one.

    In pairs made elsewhere none has. A passage said back stands in the place of another answer, whose PMI it is.
    """
    if not pair.pmi:
        return []
    return [(place, pmi) for place, (kind, pmi) in enumerate(zip(pair.kinds, pair.pmi, strict=True)) if kind != SAID_BACK]


def describe_pmi(pairs: list[Pair]) -> dict[str, KindPmi]:
    by_kind: dict[str, list[tuple[float, float]]] = {}
    for pair in pairs:
        for place, pmi in pmi_of(pair):
            by_kind.setdefault(pair.kinds[place], []).append((pmi, pmi / len(pair.tokens[0])))
    means = {kind: [round(float(mean), 4) for mean in np.mean(values, axis=0)] for kind, values in sorted(by_kind.items())}
    return {kind: KindPmi(len(by_kind[kind]), *of_kind) for kind, of_kind in means.items()}


def histogram(measured: dict[str, list[float]]) -> dict[str, list[float]]:
    """The edges of the bars in nats, and for each split the count between neighbouring edges."""
    values = [value for split in measured.values() for value in split]
    if not values:
        return {"edges": [], **{split: [] for split in measured}}
    width = next((width for width in BINS if (max(values) - min(values)) / width < MOST_BARS - 1), BINS[-1])
    low, high = math.floor(min(values) / width), math.floor(max(values) / width) + 1
    counted = {split: Counter(math.floor(value / width) for value in some) for split, some in measured.items()}
    counts: dict[str, list[float]] = {split: [count[i] for i in range(low, high)] for split, count in counted.items()}
    return {"edges": [width * i for i in range(low, high + 1)], **counts}
