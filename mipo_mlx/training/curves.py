"""Training as a few lines of text: for each figure its first value, a sparkline and its latest value."""

import math
from collections.abc import Sequence
from typing import Any

RAMPS = {True: "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588", False: "_.-~=+*#"}  # for terminals with and without Unicode
WIDEST = 48  # characters of a sparkline
ROWS = (  # key of metrics.jsonl, label, number format; losses in nats, drift in nats a token
    ("loss", "loss", ".3f"),
    ("heldout_loss", "held-out loss", ".3f"),
    ("heldout_accuracy", "held-out accuracy", ".2f"),
    ("heldout_margin", "held-out margin", ".3f"),
    ("heldout_kl", "held-out drift", ".4f"),
)


class Curves:
    """Gathers rows of metrics.jsonl, and draws them."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {key: [] for key, _, _ in ROWS}

    def watch(self, row: dict[str, Any]) -> None:
        """Add one row: a step's, or a look's at the validation pairs."""
        for key, values in self.values.items():
            if isinstance(row.get(key), int | float):
                values.append(row[key])

    def lines(self, width: int, unicode: bool = True) -> list[str]:
        """One line a figure that has values, none longer than `width`."""
        room = min(WIDEST, width - 40)
        drawn = []
        for key, label, form in ROWS:
            if values := self.values[key]:
                line = sparkline(values, room, unicode) if room >= 4 else ""
                drawn.append(f"  {label:17s} {format(values[0], form):>7s} {line:{max(room, 0)}s} {format(values[-1], form):>7s}")
        return [line[:width] for line in drawn]


def sparkline(values: Sequence[float], width: int, unicode: bool = True) -> str:
    """At most `width` characters from the lowest value to the highest; more values than that are averaged in equal parts."""
    ramp = RAMPS[unicode]
    if len(values) > width:
        edges = [math.floor(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:], strict=False)]
    low, high = min(values), max(values)
    if high == low:
        return ramp[len(ramp) // 2] * len(values)
    return "".join(ramp[min(len(ramp) - 1, int((v - low) / (high - low) * len(ramp)))] for v in values)


def told(row: dict[str, Any]) -> str:
    """A look at the validation pairs, for a log."""
    figures = [f"{label} {format(row[key], form)}" for key, label, form in ROWS if isinstance(row.get(key), int | float)]
    return f"  step {row['step']}: {', '.join(figures)}"
