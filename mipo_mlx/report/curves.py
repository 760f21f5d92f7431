"""The charts of a run: the training over its steps, and how much answers depend on their context."""

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..evaluation.outcome import Fresh
from ..recipe import Training
from ..training.metrics import OF_VALIDATION
from . import charts

Rows = list[dict[str, Any]]  # of metrics.jsonl


@dataclass(frozen=True)
class Chart:
    title: str
    drawing: Markup
    legend: list[tuple[str, str]]  # (name, CSS class) of each curve


@dataclass(frozen=True)
class ChartPlan:
    """A chart of the training, if it has points."""

    title: str
    curves: list[charts.Line]
    unit: str
    level: tuple[str, float] | None = None  # a named horizontal line
    zero: bool = True  # whether the axis shows 0


@dataclass(frozen=True)
class Steps:
    """The rows of metrics.jsonl on one axis, the later rounds behind the earlier ones."""

    rows: Rows
    places: list[int]  # the step of each row on the axis
    begins: dict[int, int]  # round -> its first step on the axis

    def curve(self, name: str, style: str, key: str) -> charts.Line:
        """One column. The curve breaks where a round begins, since the round begins with the best weights of the one before."""
        points: list[tuple[float, float]] = []
        last = None
        for place, row in zip(self.places, self.rows, strict=True):
            if isinstance(row.get(key), int | float):
                if last not in (None, row.get("round", 1)):
                    points.append((place, math.nan))
                last = row.get("round", 1)
                points.append((place, row[key]))
        return charts.Line(name, style, points)

    def validation(self, key: str, name: str = "validation pairs", style: str = "tuned") -> charts.Line:
        return self.curve(name, style, OF_VALIDATION + key)

    def both(self, key: str) -> list[charts.Line]:
        return [self.curve("training", "faint", key), self.validation(key)]

    def sides(self, stem: str) -> list[charts.Line]:
        """Chosen against rejected: of the validation pairs, which are always the same, else of the step's own."""
        styles = {"chosen": "tuned", "rejected": "rejected"}
        measured = [self.validation(f"{side}_{stem}", side, style) for side, style in styles.items()]
        own = [self.curve(side, style, f"{side}_{stem}") for side, style in styles.items()]
        return measured if all(len(line.points) > 1 for line in measured) else own


def training_charts(rows: Rows, candidates: int, settings: Training, kept: tuple[int, int] | None = None) -> list[Chart]:
    """The charts that have points. kept: round and step of the weights that are kept."""
    steps = _steps(rows)
    mark = ("kept", steps.begins[kept[0]] + kept[1]) if kept and kept[0] in steps.begins else None
    loss = steps.both("loss")
    if not same_loss(settings):
        loss = [steps.curve(f"training ({settings.objective} loss)", "faint", "loss")]
        loss.append(steps.validation("loss", "validation pairs (DPO loss)"))
    unit = "nats a token" if settings.objective == "tilt" else "nats a pair"
    wanted = [
        ChartPlan("Loss", loss, unit, untrained(candidates, settings), zero=False),
        ChartPlan("Reward margin", steps.both("margin"), "beta \u00d7 nats"),
        ChartPlan("Reward accuracy", steps.both("accuracy"), "share of rejected answers", ("chance", 0.5), zero=False),
        ChartPlan("Rewards of chosen and rejected answers", steps.sides("reward"), "beta \u00d7 nats"),
        ChartPlan("Log-probabilities of chosen and rejected answers", steps.sides("logp"), "nats an answer", zero=False),
        # The training's own kl is a mean log-ratio to the reference: another measure.
        ChartPlan("Drift from the base, estimated", [steps.validation("kl")], "nats a token"),
        ChartPlan("Learning rate", [steps.curve("learning rate", "tuned", "learning_rate")], "per step"),
        ChartPlan("Gradient norm, before clipping", [steps.curve("gradient norm", "tuned", "grad_norm")], "L2 norm"),
    ]
    drawn = []
    for chart in wanted:
        marked = mark if chart.title == "Loss" else None
        drawing = charts.lines(chart.title, chart.curves, chart.unit, reference=chart.level, zero=chart.zero, mark=marked)
        if drawing:
            drawn.append(Chart(chart.title, drawing, [(line.name, line.style) for line in chart.curves if line.points]))
    return drawn


def _steps(rows: Rows) -> Steps:
    places: list[int] = []
    begin, begins = 0, {1: 0}
    for before, row in zip([None, *rows], rows, strict=False):
        if before and before.get("round", 1) != row.get("round", 1):
            begin += before["step"]
            begins[row["round"]] = begin
        places.append(begin + row["step"])
    return Steps(rows, places, begins)


def same_loss(settings: Training) -> bool:
    """Whether training's loss is the one of the validation pairs: DPO's (InfoNCE's) of whole answers, whatever is trained."""
    plain = not settings.nll_weight and not settings.length_normalized and not settings.label_smoothing
    return settings.objective in ("dpo", "infonce") and plain


def untrained(candidates: int, settings: Training) -> tuple[str, float] | None:
    """The level at which both curves of the loss begin, where there is one: the softmax of equal rewards.

    Other objectives begin elsewhere than the loss of the validation pairs, which is always DPO's.
    """
    softmax = settings.objective in ("dpo", "infonce", "dpop") and settings.reference == "base" and not settings.nll_weight
    return ("untrained", math.log(candidates)) if softmax else None


def pmi_charts(fresh: Fresh | None, rounds: list[dict[str, Any]]) -> list[Chart]:
    """PMI of fresh answers before and after, by the base; and of the sampled pairs. rounds: pairs.json of each round."""
    drawn: list[tuple[str, Markup | None, list[tuple[str, str]]]] = []
    if fresh:
        groups = [(name, side, fresh.pmi[side]) for name, side in (("base", "base"), ("trained", "tuned"))]
        drawing = charts.histogram("PMI of answers before and after", groups, "PMI, nats an answer")
        drawn.append(("Fresh answers, held out", drawing, [(name, style) for name, style, _ in groups]))
    for number, sampled in enumerate((pairs.get("histogram", {}) for pairs in rounds), 1):
        if not sampled.get("edges"):
            continue
        counted = charts.Counted("sampled", "faint", sampled["edges"], sampled["train"])
        of_round = f" of round {number}" if len(rounds) > 1 else ""
        drawing = charts.counted("PMI of the sampled pairs", counted, ("PMI, nats a pair", "% of pairs"))
        drawn.append((f"Pairs{of_round} to train on, before the filter", drawing, [("sampled", "faint")]))
    return [Chart(title, drawing, legend) for title, drawing, legend in drawn if drawing]
