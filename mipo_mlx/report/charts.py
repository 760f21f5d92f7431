"""Small charts as inline SVG: lines over steps, two histograms over one axis, estimates with intervals.

They need no script and no network. Colours are CSS classes, so one drawing serves light and dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from ..evaluation.statistics import Estimate

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 26, 38


@dataclass(frozen=True)
class Line:
    """One curve: (step, value) points; `style` is a CSS class: tuned, base, rejected or faint."""

    name: str
    style: str
    points: list[tuple[float, float]]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from at or below `low` to at or above `high`."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"an axis from {low} to {high}")
    if high - low < 1e-12 * max(1.0, abs(low), abs(high)):
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float) -> str:
    """The label of a tick: 0.002, 1.5, 20, 3e-05."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.6g}".replace("e+0", "e").replace("e+", "e")


class Axes:
    """Turns data into pixels, and draws the frame that every chart has."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], units: tuple[str, str], whole_steps: bool = False) -> None:
        self.y_ticks = ticks(*y)
        self.x_ticks = [t for t in ticks(*x) if x[0] - 1e-9 <= t <= x[1] + 1e-9 and (not whole_steps or t == int(t))]
        self.x, self.y, self.units = x, (self.y_ticks[0], self.y_ticks[-1]), units

    def px(self, value: float) -> float:
        low, high = self.x
        return LEFT + (value - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def py(self, value: float) -> float:
        low, high = self.y
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def frame(self) -> str:
        parts = []
        for tick in self.y_ticks:
            y = self.py(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
        for tick in self.x_ticks:
            x = self.px(tick)
            parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{number(tick)}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text class="unit" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(self.units[0])}</text>')
        parts.append(f'<text class="unit" x="4" y="12">{escape(self.units[1])}</text>')
        return "".join(parts)


def lines(
    label: str,
    curves: Sequence[Line],
    unit: str = "",
    *,
    reference: tuple[str, float] | None = None,
    mark: tuple[str, float] | None = None,
    zero: bool = False,
) -> Markup | None:
    """Curves over optimizer steps, broken where a value is not finite. None without a point.

    `unit` names the upright axis, `reference` is a named horizontal line, `mark` a named step, `zero` keeps 0 on the axis.
    """
    parts = [(c, part) for c in curves for part in _unbroken(c.points)]
    if not parts:
        return None
    values = [y for _, part in parts for _, y in part] + ([reference[1]] if reference else []) + ([0.0] if zero else [])
    steps = [x for _, part in parts for x, _ in part]
    axes = Axes((min(steps), max(max(steps), min(steps) + 1)), (min(values), max(values)), ("step", unit), whole_steps=True)
    body, names = [axes.frame()], []  # names are drawn over the curves
    low = False  # whether the reference's name stands in the lower half, so that the mark's has to stand in the upper
    if reference:
        y = axes.py(reference[1])
        low = y > (TOP + HEIGHT - BOTTOM) / 2
        body.append(f'<line class="reference" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        above = y - 4 if y > TOP + 14 else y + 12
        names.append(f'<text class="note" x="{WIDTH - RIGHT - 2}" y="{above:.1f}" text-anchor="end">{escape(reference[0])}</text>')
    if mark and axes.x[0] <= mark[1] <= axes.x[1]:
        x = axes.px(mark[1])
        body.append(f'<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        side = f'x="{x - 4:.1f}" text-anchor="end"' if x > WIDTH / 2 else f'x="{x + 4:.1f}"'
        names.append(f'<text class="note" {side} y="{TOP + 12 if low else HEIGHT - BOTTOM - 6}">{escape(mark[0])}</text>')
    for curve, points in parts:
        path = " ".join(f"{axes.px(x):.1f},{axes.py(y):.1f}" for x, y in points)
        if len(points) > 1:
            body.append(f'<polyline class="line {curve.style}" points="{path}"/>')
        if len(points) <= 40:
            for x, y in points:
                tip = f"{escape(curve.name)}, step {number(x)}: {y:.4g}"
                place = f'cx="{axes.px(x):.1f}" cy="{axes.py(y):.1f}" r="2.6"'
                body.append(f'<circle class="dot {curve.style}" {place}><title>{tip}</title></circle>')
    return _svg(label, WIDTH, HEIGHT, [*body, *names])


def _unbroken(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The points between those that are not finite."""
    parts: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if all(map(math.isfinite, point)):
            parts[-1].append(point)
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]


def histogram(label: str, groups: Sequence[tuple[str, str, Sequence[float]]], unit: str, bins: int = 14) -> Markup | None:
    """Shares of (name, style, values) over common bins, bars side by side, each group's mean marked. None without values."""
    groups = [(name, style, [v for v in values if math.isfinite(v)]) for name, style, values in groups]
    groups = [group for group in groups if group[2]]
    if not groups:
        return None
    everything = [v for _, _, values in groups for v in values]
    edges = ticks(min(everything), max(everything), bins)
    step = edges[1] - edges[0]
    shares = []
    for name, style, values in groups:
        counts = [0] * (len(edges) - 1)
        for value in values:
            counts[min(len(counts) - 1, max(0, int((value - edges[0]) / step)))] += 1
        shares.append((name, style, [count / len(values) for count in counts], sum(values) / len(values)))
    return _bars(label, edges, shares, (unit, "% of answers"))


@dataclass(frozen=True)
class Counted:
    """A histogram that was counted before: `counts` between neighbouring `edges`."""

    name: str
    style: str  # a CSS class
    edges: Sequence[float]
    counts: Sequence[int]


def counted(label: str, bars: Counted, units: tuple[str, str]) -> Markup | None:
    """A chart of counts; None where nothing was counted."""
    total = sum(bars.counts)
    shares = [count / total for count in bars.counts] if total else []
    return _bars(label, bars.edges, [(bars.name, bars.style, shares, None)], units) if total else None


def _bars(
    label: str, edges: Sequence[float], groups: Sequence[tuple[str, str, Sequence[float], float | None]], units: tuple[str, str]
) -> Markup:
    axes = Axes((edges[0], edges[-1]), (0, max(max(shares) for _, _, shares, _ in groups) * 100), units)
    body = [axes.frame()]
    slot = (axes.px(edges[1]) - axes.px(edges[0])) / len(groups)
    for g, (name, style, shares, mean) in enumerate(groups):
        for i, share in enumerate(shares):
            if share:
                x, y = axes.px(edges[i]) + slot * g, axes.py(share * 100)
                tip = f"{escape(name)}: {share:.0%} from {number(edges[i])} to {number(edges[i + 1])}"
                box = f'x="{x + 0.5:.1f}" y="{y:.1f}" width="{max(1.0, slot - 1):.1f}" height="{axes.py(0) - y:.1f}"'
                body.append(f'<rect class="bar {style}" {box}><title>{tip}</title></rect>')
        if mean is not None:
            x = axes.px(mean)
            body.append(f'<line class="mean {style}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    return _svg(label, WIDTH, HEIGHT, body)


def estimate(before: Estimate, after: Estimate, span: tuple[float, float], label: str) -> Markup:
    """One row: a grey mark before, a coloured one after, bars for the intervals, all on the axis `span`."""
    width, height, middle = 150, 18, 9
    low, high = span

    def px(value: float) -> float:
        return 5 + (min(high, max(low, value)) - low) / ((high - low) or 1) * (width - 10)

    body = [f'<line class="grid" x1="5" x2="{width - 5}" y1="{middle}" y2="{middle}"/>']
    for style, side, y in (("base", before, middle - 3), ("tuned", after, middle + 3)):
        if side.value is None:
            continue
        if side.interval is not None:
            a, b = map(px, side.interval)
            body.append(f'<line class="interval {style}" x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}"/>')
        body.append(f'<circle class="dot {style}" cx="{px(side.value):.1f}" cy="{y}" r="3.4"/>')
    return _svg(label, width, height, body)


def _svg(label: str, width: int, height: int, body: Sequence[str]) -> Markup:
    return Markup(  # every text in it was escaped above
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{"".join(body)}</svg>'
    )
