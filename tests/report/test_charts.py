"""Drawings: round ticks, every mark inside its frame, nothing drawn from nothing."""

import math
import re
import xml.etree.ElementTree as xml

import pytest

from mipo_mlx.evaluation.statistics import Estimate
from mipo_mlx.report import charts


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0.52, 0.7, [0.5, 0.55, 0.6, 0.65, 0.7]),
        (0, 2e-5, [0, 5e-6, 1e-5, 1.5e-5, 2e-5]),
        (-3, 17, [-5, 0, 5, 10, 15, 20]),
        (2, 2, [1.8, 1.9, 2.0, 2.1, 2.2]),
    ],
)
def test_ticks_are_round_and_cover_the_data(low, high, expected):
    assert charts.ticks(low, high) == pytest.approx(expected)


def test_tick_labels_are_short():
    assert [charts.number(v) for v in (0, 0.25, 1.5e-5, 2e-05, 20.0, -0.002)] == ["0", "0.25", "1.5e-5", "2e-5", "20", "-0.002"]
    assert [charts.number(v) for v in (1.5e7, 2e12, 150000)] == ["1.5e7", "2e12", "150000"]  # longer ones would be cut off


def test_lines_are_inside_the_frame_and_named():
    curve = charts.Line("a < b", "tuned", [(step, math.sin(step)) for step in range(30)])
    drawing = charts.lines("two & three", [curve], reference=("chance", 0.5))
    root = xml.fromstring(str(drawing))  # well-formed: every text was escaped
    assert root.get("aria-label") == "two & three"
    points = [tuple(map(float, p.split(","))) for p in root.find("polyline").get("points").split()]
    assert len(points) == 30 == len(root.findall("circle"))
    assert all(charts.LEFT <= x <= charts.WIDTH - charts.RIGHT and charts.TOP <= y <= charts.HEIGHT for x, y in points)
    assert points[0][1] > points[1][1] > points[2][1]  # sin rises at first: up is smaller y
    assert "a &lt; b, step 0: 0" in str(drawing)


def test_holes_and_missing_values_are_left_out():
    drawing = charts.lines("x", [charts.Line("a", "tuned", [(1, 0.5), (2, 0.4), (2, math.nan), (3, 0.7), (4, 0.8)])])
    assert len(re.findall("<circle", str(drawing))) == 4
    assert [len(points.split()) for points in re.findall(r'points="([^"]*)"', str(drawing))] == [2, 2]  # no line over the hole
    assert charts.lines("x", [charts.Line("a", "tuned", []), charts.Line("b", "tuned", [(1, math.inf)])]) is None
    assert "<circle" in str(charts.lines("x", [charts.Line("a", "tuned", [(1, 0.5)])]))  # a single step is a plot too


def test_a_histogram_counts_every_value_once():
    values = [0.0, 0.0, 1.0, 2.0, 2.0, 2.0, 4.0, 4.0]
    drawing = charts.histogram("pmi", [("base", "base", values), ("tuned", "tuned", [3.0])], "nats", bins=5)
    root = xml.fromstring(str(drawing))
    tips = [rect.find("title").text for rect in root.findall("rect")]
    shares = [int(re.search(r"(\d+)%", tip).group(1)) for tip in tips if tip.startswith("base")]
    assert sum(shares) == pytest.approx(100, abs=2) and "tuned: 100% from 3 to 4" in tips
    heights = {tip: float(rect.get("height")) for tip, rect in zip(tips, root.findall("rect"), strict=True)}
    assert heights["base: 38% from 2 to 3"] == pytest.approx(1.5 * heights["base: 25% from 0 to 1"], abs=0.2)
    assert charts.histogram("pmi", [("base", "base", [])], "nats") is None


def test_an_estimate_shows_both_models_and_their_intervals():
    before, after = Estimate(0.5, None), Estimate(0.8, [0.7, 1.4])
    root = xml.fromstring(str(charts.estimate(before, after, (0.0, 1.0), "accuracy")))
    x = [float(c.get("cx")) for c in root.findall("circle")]
    assert x == pytest.approx([75, 117])
    (interval,) = [line for line in root.findall("line") if "interval" in line.get("class")]
    assert float(interval.get("x2")) == 145  # clipped to the axis
