"""Figures as text: intervals, tones, shades, and no minus before zero."""

from mipo_mlx.evaluation.statistics import Estimate
from mipo_mlx.report import figures


def test_words_are_shaded_by_their_pmi():
    assert figures.shade([["a", -3.0], ["b", 0.4], [" c", 0.5], ["d", 2.4], ["e", 99.0]]) == [
        ("a", 0, "-3.00 nats"), ("b", 0, "+0.40 nats"), (" ", 0, ""), ("c", 1, "+0.50 nats"), ("d", 2, "+2.40 nats"),
        ("e", 5, "+99.00 nats"),
    ]  # fmt: skip


def test_better_and_worse_only_where_the_interval_leaves_out_zero():
    def tone(low, high, better):
        return figures.tone(Estimate(0.0, [low, high]), better)

    tones = [tone(0.1, 0.2, 1), tone(0.1, 0.2, -1), tone(-0.1, 0.2, 1), tone(-2, -1, -1), tone(1, 2, 0)]
    assert tones == ["better", "worse", "", "better", ""]
    assert figures.tone(Estimate(1.0, None), 1) == ""


def test_zero_has_no_minus():
    shown = figures.show(Estimate(-0.001, [-0.002, 0.3]), ".2f")
    assert shown == figures.Shown("0.00", "0.00 to 0.30")
    assert figures.show(Estimate(-0.0001, None), "+.1%").value == "0.0%"
    assert figures.shade([["a", -0.001]])[0][2] == "0.00 nats"
