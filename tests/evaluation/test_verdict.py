"""The verdict's sentence follows its interval, and warns of costs that are large and beyond chance."""

import pytest

from mipo_mlx.evaluation import verdict
from mipo_mlx.evaluation.outcome import Canaries, Fresh, Heldout, Leak
from mipo_mlx.evaluation.statistics import Estimate, Items, Measure

SAME = Estimate(0.5, None)
NO_ITEMS = Items([], [], {})


def heldout(value, interval, candidates=2, contexts=9):
    reason = None if interval else "too few held-out groups for an interval: 2 independent ones, at least 6 needed"
    metrics = {"accuracy": Measure(SAME, Estimate(value, interval), SAME, False)}
    return Heldout(9, 9, contexts, candidates, 0.1, reason, metrics, NO_ITEMS)


def fresh(**changes):
    rows = {name: (0.0, [-0.1, 0.1]) for name in ("perplexity", "tokens", "parroting")} | changes
    metrics = {name: Measure(SAME, SAME, Estimate(*change), False) for name, change in rows.items()}
    return Fresh(9, 9, 9, "context", [], [], None, metrics, NO_ITEMS, SAME, {})


def leak(*signs):
    return Leak({}, {}, None, None, False, 0, {}, None, Canaries(0, 0, 0, [], [], None), list(signs))


@pytest.mark.parametrize(
    "value, interval, opening",
    [
        (0.81, [0.74, 0.87], "It worked: on held-out contexts it picks the right answer in 81% of the pairs (95 % interval 74%"),
        (0.55, [0.48, 0.61], "No effect can be shown"),
        (0.30, [0.20, 0.41], "It went wrong"),
        (0.90, None, "Not shown"),
    ],
)
def test_the_sentence_follows_the_interval(value, interval, opening):
    said = verdict.sentence(heldout(value, interval), fresh())
    assert said.startswith(opening) and said.endswith(".") and "\n" not in said and "but its" not in said


def test_more_candidates_are_ranked_not_picked():
    """One of four picked by chance is right in 25 %; what is measured is the share of wrong answers beaten, 50 % by chance."""
    said = verdict.sentence(heldout(0.67, [0.6, 0.7], candidates=4), fresh())
    assert said.startswith("It worked: on held-out contexts it ranks the right answer above 67% of the wrong ones (95 % ")
    assert "on held-out prompts it picks" in verdict.sentence(heldout(0.67, [0.6, 0.7], contexts=0), fresh())


def test_an_end_of_the_interval_never_seems_to_lie_on_the_chance_line():
    assert "It worked: " in (said := verdict.sentence(heldout(0.56, [0.5004, 0.62]), None)) and "50.0% to 62.0%" in said
    assert "No effect" in (said := verdict.sentence(heldout(0.56, [0.4956, 0.62]), None)) and "49.6% to 62.0%" in said


def test_costs_are_told_where_they_are_large_and_beyond_chance():
    good = heldout(0.81, [0.74, 0.87])
    said = verdict.sentence(good, fresh(perplexity=(0.31, [0.1, 0.5]), tokens=(-0.25, [-0.4, -0.1]), parroting=(0.12, [0.02, 0.3])))
    assert "31% less naturally" in said and "25% shorter" in said and "12 points more" in said
    chance = fresh(perplexity=(0.31, [-0.1, 0.7]), tokens=(0.25, [-0.1, 0.6]), parroting=(0.12, [0.0, 0.3]))
    small = fresh(perplexity=(0.14, [0.1, 0.3]), tokens=(0.1, [0.05, 0.15]), parroting=(0.02, [0.01, 0.07]))
    assert verdict.sentence(good, chance) == verdict.sentence(good, small) == verdict.sentence(good, None)


def test_a_large_cost_without_an_interval_is_told_with_its_doubt():
    good = heldout(0.81, [0.74, 0.87])
    said = verdict.sentence(good, fresh(tokens=(0.4, None), perplexity=(0.31, [0.1, 0.5]), parroting=(0.01, None)))
    assert said.endswith("(perplexity) and its answers are 40% longer (too few to tell that from chance).") and "31% less" in said
    assert said.count("too few") == 1


@pytest.mark.parametrize(
    "interval, ending", [([0.74, 0.87], "before), but it shows"), ([0.4, 0.9], "before), but it shows"), (None, "needed; it shows")]
)
def test_signs_of_reciting_are_told_whatever_else_is_known(interval, ending):
    said = verdict.sentence(heldout(0.81, interval), None, leak("a canary"))
    assert said.endswith(f"{ending} signs of reciting the notes.")
    assert "reciting" not in verdict.sentence(heldout(0.81, interval), None, leak())
