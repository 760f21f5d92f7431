"""The split: whole notes, no shared sentence, enough for a grid on both sides, the same for the same seed."""

import random

import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.records import HELDOUT, TRAIN
from mipo_mlx.sources.note import Passage, Tally
from mipo_mlx.sources.split import sentences, split


def made(notes: int, per_note: int = 1, shared: dict[int, str] | None = None) -> list[Passage]:
    return [
        Passage(f"This is text number {n} of {k}. {(shared or {}).get(n, '')}".strip(), f"note{n}", f"{n}.md", k + 1, 9)
        for n in range(notes)
        for k in range(per_note)
    ]


def sides(contexts) -> dict[str, set[str]]:
    return {side: {c.note for c in contexts if c.split == side} for side in (TRAIN, HELDOUT)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("notes", "per_note", "fraction", "limit"), [(40, 1, 0.25, 400), (9, 7, 0.5, 30), (100, 3, 0.1, 60)])
def test_notes_are_on_one_side(seed, notes, per_note, fraction, limit):
    passages = made(notes, per_note)
    tally = Tally()
    contexts = split(passages, seed, fraction, limit, 4, tally)
    found = sides(contexts)
    assert not found[TRAIN] & found[HELDOUT]
    assert min(map(len, found.values())) >= 4
    assert len(contexts) + sum(tally.dropped.values()) == len(passages)
    assert len(contexts) <= limit
    assert [c.source for c in contexts] == sorted((c.source for c in contexts), key=[p.source for p in passages].index)
    assert split(passages, seed, fraction, limit, 4, Tally()) == contexts


def test_seed_fraction_and_limit_matter():
    passages = made(60, 2)
    assert split(passages, 0, 0.25, 400, 4, Tally()) != split(passages, 1, 0.25, 400, 4, Tally())
    held = [sum(c.split == HELDOUT for c in split(passages, 0, f, 400, 4, Tally())) for f in (0.1, 0.25, 0.5)]
    assert held == [12, 30, 60]
    few = split(passages, 0, 0.25, 40, 4, Tally())
    assert len(few) == 40
    assert len({c.note for c in few}) == 40  # spread over notes before a second one of any


@pytest.mark.parametrize("seed", range(5))
def test_shared_sentences_do_not_straddle(seed):
    rng = random.Random(seed)
    passages = made(80, 1, {n: f"My favourite place is number {rng.randrange(40)}." for n in range(80)})
    contexts = split(passages, seed, 0.25, 400, 4, Tally())
    texts = {side: set().union(*(sentences(c.text) for c in contexts if c.split == side)) for side in (TRAIN, HELDOUT)}
    assert not texts[TRAIN] & texts[HELDOUT]


def test_sentences_without_spaces():
    assert sentences("好。我养蜜蜂，三箱。Hi! ハチを飼う？") == {"我 养 蜜 蜂 三 箱", "ハ チ を 飼 う"}


def test_where_sharing_connects_everything_training_gives_way():
    # A ring: each note shares one sentence with the next, so all are one family.
    passages = [
        Passage(f"I own the house number {n}. I own the house number {(n + 1) % 50}.", f"note{n}", "n.md", 1, 9) for n in range(50)
    ]
    tally = Tally()
    contexts = split(passages, 0, 0.2, 400, 4, tally)
    texts = {side: set().union(*(sentences(c.text) for c in contexts if c.split == side)) for side in (TRAIN, HELDOUT)}
    assert not texts[TRAIN] & texts[HELDOUT]
    assert tally.dropped["shares a sentence with the other side"] == 50 - len(contexts) > 0


def test_a_refrain_in_every_eighth_note_says_nothing():
    # "Just some things that I read this week": 12 of 96 weeks have it, and it does not make them one family.
    contexts = split(made(96, 1, {8 * n: "Just some things that I read." for n in range(12)}), 0, 0.25, 400, 4, Tally())
    assert len(contexts) == 96


def test_where_sharing_connects_everything_only_the_passages_that_share_give_way():
    # Each note shares one sentence with the next, and says something of its own beside it.
    ring = {n: f"I own the house number {n}. I own the house number {(n + 1) % 50}." for n in range(50)}
    passages = [
        Passage(text, f"note{n}", "n.md", k + 1, 9) for n in ring for k, text in enumerate((ring[n], f"My cat number {n} sleeps."))
    ]
    tally = Tally()
    contexts = split(passages, 0, 0.2, 400, 4, tally)
    texts = {side: set().union(*(sentences(c.text) for c in contexts if c.split == side)) for side in (TRAIN, HELDOUT)}
    assert not texts[TRAIN] & texts[HELDOUT]
    assert sum("cat" in context.text for context in contexts) == 50
    assert 0 < tally.dropped["shares a sentence with the other side"] == 100 - len(contexts) <= 20


def test_a_footer_in_every_note_says_nothing():
    contexts = split(made(40, 1, {n: "Written on the ferry." for n in range(40)}), 0, 0.25, 400, 4, Tally())
    assert len(contexts) == 40


@pytest.mark.parametrize(
    ("notes", "grid", "told"),
    [
        (1, 4, "1 from 1 note; a grid needs 4 of different notes (pairs.contexts_per_grid) for training and 4 held out, so"),
        (6, 4, "add notes, or lower pairs.contexts_per_grid to 3"),
    ],
)
def test_too_few_notes(notes, grid, told):
    with pytest.raises(UserError) as error:
        split(made(notes), 0, 0.25, 400, grid, Tally())
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_limit_below_two_grids():
    with pytest.raises(UserError, match="sources.max_contexts: 7"):
        split(made(40), 0, 0.25, 7, 4, Tally())


def test_just_enough():
    contexts = split(made(8), 0, 0.25, 400, 4, Tally())
    assert {side: len(notes) for side, notes in sides(contexts).items()} == {TRAIN: 4, HELDOUT: 4}


@pytest.mark.parametrize("limit, over", [(400, 0), (33, 0), (20, 13)])
def test_nothing_is_over_a_limit_that_was_not_reached(limit, over):
    """Five notes of six passages and one of three: held-out notes overshoot their share, and are kept whole."""
    passages = [passage for passage in made(6, 6) if passage.note != "note5" or passage.line <= 3]
    tally = Tally()
    contexts = split(passages, 0, 0.25, limit, 2, tally)
    assert len(contexts) == min(limit, 33) and tally.dropped["over max_contexts"] == over
