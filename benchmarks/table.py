"""From measurements to the table: medians, shares, ratios, and whether all sides have the same loss and gradients at the start."""

from pathlib import Path
from statistics import median

import numpy as np
from shapes import Row, Shape, step_flops

LOSS_TOLERANCE = 1e-3  # relative
GRADIENT_TOLERANCE = 1e-3  # relative norm of the difference


def summarize(measurements: list[dict]) -> dict:
    """The measurements of one side in one row: seconds a step, peaks. Empty without measurements.

    A cold first step counts only where it is the only one.
    """
    steps = [m for m in measurements if m["event"] == "step"]
    checks = [m for m in measurements if m["event"] == "checked"]
    timed = [m["seconds"] for m in steps] or [m["seconds"] for m in checks]
    if not timed:
        return {}
    mlx = [m["mlx"] for m in steps if m.get("mlx")]
    return {
        "seconds": median(timed),
        "steps": len(timed),
        "resident": max((m["resident"] for m in steps), default=None),
        "mlx": max(mlx, default=None),
        "start": steps[0]["loss"] if steps else None,
        "check": checks[-1] if checks else None,
    }


def compare(mine: Path, theirs: Path) -> tuple[float, float]:
    """Cosine of two sides' gradients over all adapter matrices, and the norm of their difference relative to ours."""
    a, b = np.load(mine), np.load(theirs)
    if set(a.files) != set(b.files):
        return float("nan"), float("nan")
    x, y = (np.concatenate([g[k].ravel().astype(np.float64) for k in sorted(a.files)]) for g in (a, b))
    norms = np.linalg.norm(x), np.linalg.norm(y)
    return float(x @ y / (norms[0] * norms[1])), float(np.linalg.norm(x - y) / norms[0])


def pairs_per_second(row: Row, seconds: float, pairs_per_step: int) -> float:
    """A step of ours is the whole row. A step of a peer is as many of the row's pairs as it takes at once."""
    return pairs_per_step / seconds


def planned(summary: dict) -> str | None:
    """The peak that the memory planner predicted, and its distance from MLX's measured peak."""
    bytes_ = (summary["check"] or {}).get("planned")
    if not bytes_ or not summary["mlx"]:
        return None
    return f"{bytes_ / 1e9:.2f} ({bytes_ / summary['mlx'] - 1:+.0%})"


def lines(row: Row, found: dict[str, dict], shape: Shape, rate: float, gradients: dict[str, tuple[float, float]]) -> list[dict]:
    """The table lines of a row. found: side -> summary with `way` and `pairs`; gradients: side -> (cosine, difference)."""
    ours = found.get("ours") or {}
    out = []
    for side, s in found.items():
        if not s:
            continue
        speed = pairs_per_second(row, s["seconds"], s["pairs"])
        part = s["pairs"] / row.pairs  # of the row's work that one of its steps does
        flops = step_flops(shape, row, s["way"]) * part
        line = {
            "row": str(row),
            "side": side,
            "seconds": s["seconds"] / part,
            "steps": s["steps"],
            "pairs/s": speed,
            "resident": s["resident"],
            "mlx": s["mlx"],
            "share": flops / s["seconds"] / rate if rate else None,
            "start": s["start"],
            "planned": planned(s),
        }
        if ours and side != "ours":
            line["faster"] = pairs_per_second(row, ours["seconds"], ours["pairs"]) / speed
            line["smaller"] = ours["resident"] / s["resident"] if ours["resident"] and s["resident"] else None
            line["smaller (mlx)"] = ours["mlx"] / s["mlx"] if ours["mlx"] and s["mlx"] else None
        if side in gradients:
            line["cosine"], line["difference"] = gradients[side]
            line["loss difference"] = abs(s["check"]["loss"] - s["ours_loss"]) / abs(s["ours_loss"])
            line["same"] = line["difference"] < GRADIENT_TOLERANCE and line["loss difference"] < LOSS_TOLERANCE
        out.append(line)
    return out


COLUMNS = [
    ("row", "prompt x answer x negatives", str),
    ("side", "side", str),
    ("seconds", "s a row", "{:.2f}".format),
    ("steps", "n", str),
    ("pairs/s", "pairs/s", "{:.3f}".format),
    ("faster", "ours is faster", "{:.2f}x".format),
    ("resident", "peak GB (process)", lambda v: f"{v / 1e9:.2f}"),
    ("smaller", "ours / theirs", "{:.2f}".format),
    ("mlx", "peak GB (MLX)", lambda v: f"{v / 1e9:.2f}"),
    ("smaller (mlx)", "ours / theirs", "{:.2f}".format),
    ("planned", "planned GB", str),
    ("share", "of sgemm", "{:.0%}".format),
    ("start", "loss at B = 0", "{:.5f}".format),
    ("same", "same start", lambda v: "yes" if v else "NO"),
    ("difference", "gradient difference", "{:.0e}".format),
]


def markdown(all_lines: list[dict]) -> str:
    """A Markdown table with aligned columns, which also reads well in a terminal."""
    titles = [title for _, title, _ in COLUMNS]
    cells = [[form(line[key]) if line.get(key) is not None else "" for key, _, form in COLUMNS] for line in all_lines]
    widths = [max(len(row[i]) for row in [titles, *cells]) for i in range(len(COLUMNS))]
    text = [[c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in [titles, ["-" * w for w in widths], *cells]]
    return "\n".join("| " + " | ".join(row) + " |" for row in text)
