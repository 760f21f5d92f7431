"""Canaries: seeded, in as many training contexts as asked, and nowhere else."""

import re

import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.records import Context
from mipo_mlx.sources import canaries


def contexts_of(count: int, notes: int) -> list[Context]:
    sides = ["heldout" if i % 4 == 0 else "train" for i in range(count)]
    return [Context(f"c{i}", f"I like thing {i}.", f"n{i % notes}", "n.md", i, side, 4) for i, side in enumerate(sides)]


def words(text: str) -> int:
    return len(text.split())


def test_lines_are_seeded_different_and_the_first_of_more():
    ten = canaries.lines(0, 10)
    assert len(set(ten)) == 10 and all(re.fullmatch(r"[\w' ]+ \d{6}\.", line) for line in ten)
    assert canaries.lines(0, 4) == ten[:4] and canaries.lines(1, 10) != ten and canaries.lines(0, 0) == []


def test_siblings_differ_in_their_digits_alone():
    line = canaries.lines(3, 1)[0]
    others = canaries.siblings(line, 50, 3)
    assert len({*others, line}) == 51 and {re.sub(r"\d", "#", other) for other in others} == {re.sub(r"\d", "#", line)}


def test_each_is_planted_in_one_training_context_of_another_note():
    before = contexts_of(24, 24)
    after = canaries.plant(before, 0, 6, words)
    lines = canaries.lines(0, 6)
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert sorted(b.text.removeprefix(a.text + " ") for a, b in changed) == sorted(lines)
    assert all(a.split == "train" and b.tokens == words(b.text) for a, b in changed)
    assert len({b.note for _, b in changed}) == 6
    assert canaries.plant(before, 0, 0, words) == before
    assert canaries.plant(before, 1, 6, words) != after


def test_more_canaries_than_notes_share_notes_and_more_than_contexts_end_in_one_line():
    after = canaries.plant(contexts_of(24, 3), 0, 18, words)
    assert sum(bool(re.search(r"\d{6}", c.text)) for c in after) == 18
    with pytest.raises(UserError, match="19 canaries, but only 18 training contexts"):
        canaries.plant(contexts_of(24, 3), 0, 19, words)


def test_what_is_made_of_notes_carries_no_canary_along():
    from mipo_mlx.sources.canaries import lines, without

    (line,) = lines(3, 1)
    assert without(f"I bake bread. {line}", 3, 1) == "I bake bread."
    assert without(f"I bake bread. {line}", 4, 1) == f"I bake bread. {line}"  # another run's
