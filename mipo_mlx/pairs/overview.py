"""What a round of sampling came to (pairs.json): counts by reason, PMI by kind of negative, lengths, and a PMI histogram.

Means are rounded to four digits, and None where there is nothing to average.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..records import Grid, Pair
from .build import SAID_BACK, SPLITS, Built

BINS = (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)  # nats: widths of a bar in the PMI histogram
MOST_BARS = 30


@dataclass(frozen=True)
class Answers:
    """The answers of one split as sampled, before any filter; means over answers."""

    grids: int
    answers: int
    tokens: int
    truncated: float | None  # share
    information: float | None  # nats: log p(y|x,c) - log mean_i p(y|x,c_i) over the grid's rows, at most log K
    recognised: float | None  # share of answers that are likeliest under their own context
    pmi: float | None  # nats
    behind: list[int]  # how many grids have 0, 1 and 2 distractors


@dataclass(frozen=True)
class KindPmi:
    """One kind of negative of the kept pairs."""

    negatives: int
    mean: float | None  # nats
    mean_per_token: float | None  # nats a token of the chosen answer


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of the kept pairs' answers."""

    chosen: float | None
    rejected: float | None


@dataclass(frozen=True)
class Overview:
    """pairs.json; most fields are by split."""

    pairs: dict[str, int]
    said_back: int  # pairs with their own passage as a rejected answer
    dropped: dict[str, dict[str, int]]
    grids: dict[str, Answers]
    pmi: dict[str, dict[str, KindPmi]]
    lengths: dict[str, Lengths]
    histogram: dict[str, list[float]]  # PMI before the PMI filter: `edges` in nats, and a count between neighbours by split
    contexts_cut: int  # contexts that were shortened to fit the model's window
    profile: str | None  # digest of the profile that the pairs were sampled with


def summarize(built: Built, grids: list[Grid], cut: int, profile: str | None = None) -> Overview:
    """The overview of built pairs and of the grids that they come from."""
    of_split = {split: [pair for pair in built.pairs if pair.split == split] for split in SPLITS}
    return Overview(
        pairs={split: len(pairs) for split, pairs in of_split.items()},
        said_back=sum(SAID_BACK in pair.kinds for pair in built.pairs),
        dropped={split: dict(sorted(built.dropped[split].items())) for split in SPLITS},
        grids={split: describe_answers([grid for grid in grids if grid.split == split]) for split in SPLITS},
        pmi={split: describe_pmi(pairs) for split, pairs in of_split.items()},
        lengths={split: describe_lengths(pairs) for split, pairs in of_split.items()},
        histogram=histogram(built.measured),
        contexts_cut=cut,
        profile=profile,
    )


def describe_answers(grids: list[Grid]) -> Answers:
    answers = [answer for grid in grids for answer in grid.answers]
    information, recognised, pmi = [], [], []
    for grid in grids:
        scores = np.array(grid.scores, dtype=np.float64)
        for j, name in enumerate(grid.contexts):
            column = scores[:, j]
            if name is not None or grid.prompts:
                information.append(column[j] - np.logaddexp.reduce(column) + math.log(len(column)))
                recognised.append(bool(column.argmax() == j))
                pmi += [column[j] - column[i] for i in range(len(column)) if i != j]
    return Answers(
        grids=len(grids),
        answers=len(answers),
        tokens=sum(len(answer.tokens) for answer in answers),
        truncated=_mean([answer.finish == "length" for answer in answers]),
        information=_mean(information),
        recognised=_mean(recognised),
        pmi=_mean(pmi),
        behind=[sum(len(grid.distractors) == count for grid in grids) for count in range(3)],
    )


def pmi_of(pair: Pair) -> list[tuple[int, float]]:
    """(place among the rejected answers, PMI in nats) of those that have one.

    In pairs made elsewhere none has. A passage said back stands in the place of another answer, whose PMI it is.
    """
    if not pair.pmi:
        return []
    return [(place, pmi) for place, (kind, pmi) in enumerate(zip(pair.kinds, pair.pmi, strict=True)) if kind != SAID_BACK]


def describe_pmi(pairs: list[Pair]) -> dict[str, KindPmi]:
    by_kind: dict[str, list[tuple[float, int]]] = {}
    for pair in pairs:
        for place, pmi in pmi_of(pair):
            by_kind.setdefault(pair.kinds[place], []).append((pmi, len(pair.tokens[0])))
    return {
        kind: KindPmi(len(values), _mean([pmi for pmi, _ in values]), _mean([pmi / length for pmi, length in values]))
        for kind, values in sorted(by_kind.items())
    }


def describe_lengths(pairs: list[Pair]) -> Lengths:
    rejected = [len(tokens) for pair in pairs for tokens in pair.tokens[1:]]
    return Lengths(_mean([len(pair.tokens[0]) for pair in pairs]), _mean(rejected))


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


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
