"""How figures are shown: an estimate with its interval, better or worse, counts, sizes, shaded words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation.statistics import Estimate, figure


@dataclass(frozen=True)
class Shown:
    value: str
    interval: str = ""


def show(estimate: Estimate, form: str) -> Shown:
    if estimate.value is None:
        return Shown("n/a")
    interval = estimate.interval
    # An interval of no width is a value by definition: the reference against itself.
    text = f"{figure(interval[0], form)} to {figure(interval[1], form)}" if interval and interval[0] < interval[1] else ""
    return Shown(figure(estimate.value, form), text)


def around(estimate: Estimate, form: str) -> str:
    """'0.74 (0.68 to 0.80)', or the value alone where it has no interval."""
    shown = show(estimate, form)
    return f"{shown.value} ({shown.interval})" if shown.interval else shown.value


def tone(change: Estimate, better: int) -> str:
    """'better' or 'worse' where the interval of the change leaves out 0, else "". better: 1 higher is, -1 lower is, 0 neither."""
    if not change.interval or not better or change.interval[0] <= 0 <= change.interval[1]:
        return ""
    return "better" if (change.interval[0] > 0) == (better > 0) else "worse"


def against_chance(share: Estimate) -> str:
    """'better' or 'worse' where the interval of a share of comparisons leaves out one half, else ""."""
    return tone(Estimate(None, [end - 0.5 for end in share.interval] if share.interval else None), 1)


def shade(pieces: Sequence[tuple[str, float]]) -> list[tuple[str, int, str]]:
    """(text, depth 0 to 5, tip) of an answer's pieces. Depth grows by one for each nat of PMI, from half a nat up. The space
    before a word stays unshaded."""
    shaded = []
    for text, pmi in pieces:
        word = text.lstrip()
        shaded.append((text[: len(text) - len(word)], 0, ""))
        shaded.append((word, max(0, min(5, math.floor(pmi + 0.5))), f"{figure(pmi, '+.2f')} nats"))
    return [piece for piece in shaded if piece[0]]


def counts(values: dict[str, Any] | None, prefix: str = "") -> list[tuple[str, int]]:
    """{'a': 2, 'b': {'c': 1}} -> [('a', 2), ('b, c', 1)], without zeros, the largest first."""
    rows: list[tuple[str, int]] = []
    for key, value in (values or {}).items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, dict):
            rows += counts(value, f"{name}, ")
        elif isinstance(value, int) and value:
            rows.append((name, value))
    return sorted(rows, key=lambda row: -row[1])


def in_words(octets: int) -> str:
    """1234567 -> '1.2 MB'."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if octets >= scale:
            return f"{octets / scale:.1f} {unit}"
    return f"{octets} bytes"
