"""Draw the study's trade: the gain against each cost, over learning rates and epochs, for docs/results.md.

    PYTHONPATH=. python benchmarks/trade.py benchmarks/trade.svg       # from the cells of benchmarks/study.py

Each cost has a panel. Upwards is better. A cross is a 95 % interval on both axes. A dashed line is the largest accepted cost.
"""

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from mipo_mlx.evaluation import verdict  # noqa: E402

GAIN = "identified_by_embedding_4"
COSTS = (  # measure, its name, factor of the drawing, the largest accepted growth
    ("perplexity", "perplexity, %", 100, 100 * verdict.PERPLEXITY),
    ("tokens", "answer length, %", 100, 100 * verdict.LENGTH),
    ("self_bleu", "self-BLEU", 1, verdict.SELF_BLEU),
    ("parroting", "parroting, points", 100, 100 * verdict.PARROTING),
)
POINTS = (  # choice of the study, label, CSS class
    ("lr_1e-05_x1", "1e-5", "rate"),
    ("lr_2e-05_x1", "2e-5", "rate"),
    ("random_context", "4e-5, default", "chosen"),
    ("lr_8e-05_x1", "8e-5", "rate"),
    ("lr_4e-05_x2", "4e-5, 2 epochs", "rate"),
    ("candidates_4", "N = 4", "other"),
    ("sft", "SFT", "other"),
    ("cad_0.5", "CAD 0.5", "other"),
    ("cad_1.5", "CAD 1.5", "other"),
)
STYLE = """
text{font:11px system-ui,sans-serif;fill:#555}.unit{fill:#333}.grid{stroke:#8883;stroke-width:1}
.dash{stroke:#c2410c;stroke-dasharray:4 3}.cross{stroke-width:1;opacity:.45}
.rate{stroke:#2563eb;fill:#2563eb}.chosen{stroke:#15803d;fill:#15803d}.other{stroke:#888;fill:#888}
text.rate,text.chosen,text.other{stroke:none}text.chosen{font-weight:600}
@media(prefers-color-scheme:dark){text{fill:#aaa}.unit{fill:#ccc}.rate{stroke:#7aa2ff;fill:#7aa2ff}
.chosen{stroke:#4ade80;fill:#4ade80}.other{stroke:#999;fill:#999}.dash{stroke:#fb923c}}
"""


def draw(found: list[tuple[str, str, dict[str, Any]]]) -> str:
    """An SVG of (label, class, measures of compare()) points. A measure without an interval gets no cross."""
    from mipo_mlx.report.charts import HEIGHT, WIDTH

    panels = []
    for i, cost in enumerate(COSTS):
        x, y = i % 2 * WIDTH, i // 2 * (HEIGHT + 10)
        panels.append(f'<g transform="translate({x},{y})">{panel(cost, found)}</g>')
    width, height = 2 * WIDTH, (len(COSTS) + 1) // 2 * (HEIGHT + 10)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<style>{STYLE}</style>{''.join(panels)}</svg>\n"
    )


def panel(cost: tuple[str, str, int, float], found: list[tuple[str, str, dict[str, Any]]]) -> str:
    """Gain (upwards) against one cost."""
    from mipo_mlx.report.charts import BOTTOM, HEIGHT, TOP, Axes

    key, name, factor, limit = cost
    points = [
        (label, style, [(m["change"], *(m["interval"] or (m["change"], m["change"]))) for m in (measures[key], measures[GAIN])])
        for label, style, measures in found
        if key in measures and GAIN in measures
    ]
    across = [value * factor for _, _, (x, _) in points for value in x] + [0, limit]
    upright = [value * 100 for _, _, (_, y) in points for value in y] + [0]
    margin = (max(across) - min(across)) * 0.04
    axes = Axes((min(across) - margin, max(across) + margin), (min(upright), max(upright)), (name, "right context of 4, points"))
    edge = axes.px(limit)
    body = [axes.frame(), f'<line class="dash" x1="{edge:.1f}" x2="{edge:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>']
    marks = [(axes.px(x[0] * factor), axes.py(y[0] * 100)) for _, _, (x, y) in points]
    taken = [(px - 5, 10.0, py + 5) for px, py in marks]  # (left, width, base line) of marks and labels so far
    for (label, style, (x, y)), (px, py) in sorted(
        zip(points, marks, strict=True), key=lambda point: ("chosen", "rate", "other").index(point[0][1])
    ):
        left, right = (axes.px(value * factor) for value in x[1:])
        low, high = (axes.py(value * 100) for value in y[1:])
        body.append(f'<line class="cross {style}" x1="{left:.1f}" x2="{right:.1f}" y1="{py:.1f}" y2="{py:.1f}"/>')
        body.append(f'<line class="cross {style}" x1="{px:.1f}" x2="{px:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        body.append(f'<circle class="{style}" cx="{px:.1f}" cy="{py:.1f}" r="4"/>')
        wide = 6.4 * len(label)
        places = [(px + side, py + down) for down in (-5, 4, 14, -18, 27, -31, 40) for side in (7, -7 - wide)]
        at, base = next((place for place in places if free(taken, *place, wide)), places[0])
        taken.append((at, wide, base))
        body.append(f'<text class="{style}" x="{at:.1f}" y="{base:.1f}">{label}</text>')
    return "".join(body)


def free(taken: list[tuple[float, float, float]], left: float, base: float, wide: float) -> bool:
    """Whether a label fits there: inside the panel, and not over another label or mark."""
    from mipo_mlx.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

    within = left >= LEFT and left + wide <= WIDTH - RIGHT and TOP < base < HEIGHT - BOTTOM
    return within and all(abs(base - b) >= 11 or left >= x + w or x >= left + wide for x, w, b in taken)


def main() -> None:
    import study

    found = [(label, style, measures) for name, label, style in POINTS if (measures := study.changes(name, 3))]
    if not found:
        sys.exit(f"no finished cells under {study.STUDY}; run benchmarks/study.py first")
    Path(sys.argv[1]).write_text(draw(found), encoding="utf-8")


if __name__ == "__main__":
    main()
