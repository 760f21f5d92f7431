"""Blind votes as preference pairs: which become pairs, which are left out, and that training reads them like any other."""

from dataclasses import replace

import pytest

from mipo_mlx.evaluation import blind_votes
from mipo_mlx.files import read_records
from mipo_mlx.models.load import load
from mipo_mlx.pairs import make
from mipo_mlx.pairs.ballots import VOTED, HeldOut
from mipo_mlx.recipe import Recipe
from mipo_mlx.records import BASE, HELDOUT, NEITHER, TRAIN, TUNED, VOTES, Ballot, Context, Pair, Prompt
from mipo_mlx.serving.blind_test import keep
from mipo_mlx.sources.note import Tally
from mipo_mlx.sources.sparing import read_votes
from tests.evaluation.helpers import plain_logprobs

from .helpers import QUIET, fill, make_recipe

PROMPT = [{"role": "system", "content": "About the user: I bake."}, {"role": "user", "content": "What now?"}]
VOTE = Ballot("What now?", True, PROMPT, ["I bake."], "Bake rye.", "Take a walk.", TUNED, TUNED, "abc")
AGAINST = HeldOut(frozenset({"held?"}), frozenset({"I keep bees."}))


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({}, None),
        ({"choice": BASE}, None),
        ({"choice": NEITHER}, "without a preference"),
        ({"base": " Bake rye."}, "without a preference"),
        ({"own": False}, "on held-out requests"),
        ({"request": " held? "}, "on held-out requests"),
        ({"passages": ["I bake.", "I keep bees.\n"]}, "with held-out passages"),
        ({"base": " "}, "with an empty answer"),
    ],
)
def test_what_judges_the_result_is_never_trained_on(changed, reason):
    assert AGAINST.why_not(replace(VOTE, **changed)) == reason


def test_the_file_is_private_and_a_torn_line_is_dropped(tmp_path):
    keep(tmp_path, VOTE)
    keep(tmp_path, replace(VOTE, choice=BASE))
    path = tmp_path / VOTES
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(path.read_bytes() + b'{"request": "ha')
    assert read_records(tmp_path / VOTES, Ballot) == [VOTE, replace(VOTE, choice=BASE)]


def test_a_broken_vote_costs_itself(tmp_path):
    """No command can make a vote again. A row that a kill left torn ends before the next one begins."""
    path, tally = tmp_path / VOTES, Tally()
    keep(tmp_path, VOTE)
    damaged = path.read_bytes().replace(b"Bake", b"Cook")
    path.write_bytes(path.read_bytes() + damaged + b'{"request": 3}\n[]\n{"request": "ha')
    keep(tmp_path, replace(VOTE, choice=BASE))
    assert read_votes(tmp_path, tally) == [(1, VOTE), (6, replace(VOTE, choice=BASE))]
    assert [(row["file"], row["why"]) for row in tally.skipped] == [
        ("votes.jsonl:2", "damaged"), ("votes.jsonl:3", "no vote"), ("votes.jsonl:4", "no vote"), ("votes.jsonl:5", "damaged"),
    ]  # fmt: skip
    assert len(blind_votes.votes_on(tmp_path, VOTE.adapters)) == 2


def test_votes_become_pairs_behind_those_of_the_grids(tiny_folder, tmp_path):
    plain, voted = fill(tmp_path / "plain"), fill(tmp_path / "voted")
    heldout = next(c.text for c in read_records(voted / "contexts.jsonl", Context) if c.split == HELDOUT)
    request = next(p.text for p in read_records(voted / "prompts.jsonl", Prompt) if p.split == HELDOUT)
    for vote in (VOTE, replace(VOTE, choice=BASE), replace(VOTE, passages=[heldout]), replace(VOTE, request=request)):
        keep(voted, vote)
    make.run(plain, make_recipe(tiny_folder), QUIET)
    make.run(voted, make_recipe(tiny_folder, votes=True), QUIET)
    before, after = (read_records(folder / "pairs.jsonl", Pair) for folder in (plain, voted))
    assert after[: len(before)] == before
    first, second = after[len(before) :]
    assert (first.chosen[0]["content"], first.negatives) == ("Bake rye.", ["Take a walk."])
    assert (second.chosen[0]["content"], second.negatives) == ("Take a walk.", ["Bake rye."])
    assert first.prompt == PROMPT and first.split == TRAIN and first.kinds == [VOTED]
    assert len({pair.grid for pair in after}) == len({pair.grid for pair in before}) + 2
    model = load(str(tiny_folder)).model
    exact = [plain_logprobs(model, first.prompt_tokens, tokens).sum() for tokens in first.tokens]
    assert first.reference == pytest.approx(exact, abs=1e-3)


def test_votes_need_an_objective_of_pairs_and_pairs_of_our_own():
    with pytest.raises(ValueError, match="sami contrasts"):
        Recipe.model_validate({"model": "m", "pairs": {"votes": True}, "training": {"objective": "sami"}})
    with pytest.raises(ValueError, match="brings its own pairs"):
        Recipe.model_validate({"model": "m", "pairs": {"votes": True, "file": "x.jsonl"}})
