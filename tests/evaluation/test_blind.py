"""What blind votes come to: the share, its interval, and which votes count."""

from dataclasses import replace

import pytest

from mipo_mlx.evaluation import blind_votes
from mipo_mlx.records import BASE, NEITHER, TUNED, Ballot
from mipo_mlx.report import page
from mipo_mlx.serving.blind_test import keep
from tests.report.helpers import make_finished

from . import helpers

VOTE = Ballot("What now?", True, [], [], "Bake rye.", "Take a walk.", TUNED, TUNED, "abc")


def votes(*choices: str) -> list[Ballot]:
    return [replace(VOTE, request=f"What now, {place}?", choice=choice) for place, choice in enumerate(choices)]


def test_neither_counts_half_and_requests_are_resampled():
    settings = helpers.recipe("m")
    result = blind_votes.count(votes(*[TUNED] * 12, *[BASE] * 4, *[NEITHER] * 4), settings)
    assert (result.votes, result.tuned, result.base, result.neither) == (20, 12, 4, 4) and result.enough
    assert result.preferred.value == pytest.approx(14 / 20)
    low, high = result.preferred.interval
    assert 0.4 < low < 0.6 and 0.8 < high < 1
    assert "0.70 [0." in blind_votes.sentence(result) and "12 trained, 4 base, 4 neither" in blind_votes.sentence(result)
    again = [replace(vote, request="the same") for vote in votes(*[TUNED] * 20)]
    assert blind_votes.count(again, settings).preferred.interval is None  # one request is no sample
    unanimous = blind_votes.count(votes(*[TUNED] * 20), settings).preferred
    assert unanimous.value == 1 and unanimous.interval[1] == 1 and 0.8 < unanimous.interval[0] < 0.9


def test_nothing_is_shown_before_the_twentieth_vote():
    result = blind_votes.count(votes(*[TUNED] * 19), helpers.recipe("m"))
    assert not result.enough and "19 of 20" in blind_votes.sentence(result) and "trained" not in blind_votes.sentence(result)
    assert blind_votes.sentence(blind_votes.count([], helpers.recipe("m"))) == ""


def test_only_votes_on_the_runs_own_adapters_count(tiny_folder, tmp_path):
    settings = helpers.recipe(tiny_folder)
    folder = helpers.make_run(tmp_path / "run", settings, spread=0.5)
    assert blind_votes.tally(folder, settings).votes == 0
    for vote in votes(TUNED, BASE):
        keep(folder, replace(vote, adapters=blind_votes.adapters_of(folder)))
        keep(folder, vote)
    assert blind_votes.tally(folder, settings).votes == 2
    helpers.write_adapters(folder, settings, 0.6)
    assert blind_votes.tally(folder, settings).votes == 0
    (folder / blind_votes.ADAPTERS).unlink()
    assert blind_votes.tally(folder, settings).votes == 0


def test_the_report_has_the_result(tmp_path):
    folder, settings = make_finished(tmp_path / "run"), helpers.recipe("m")
    assert "Your blind test" not in page.render(folder, settings)
    (folder / blind_votes.ADAPTERS).parent.mkdir(exist_ok=True)
    (folder / blind_votes.ADAPTERS).write_bytes(b"adapters")
    for vote in votes(*[TUNED] * 15, *[BASE] * 5):
        keep(folder, replace(vote, adapters=blind_votes.adapters_of(folder)))
    text = page.render(folder, settings)
    assert "<b>Your blind test</b>: In 20 blind votes" in text and "0.75 [0." in text
