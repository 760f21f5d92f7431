"""Train and held-out: each note is on one side, and notes that share a sentence are on the same side."""

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import UserError
from ..records import HELDOUT, TRAIN, Context, seed_for
from ..text.words import connected, sentences, telling
from .note import Passage, Tally

COLLAPSED = 0.34  # a family of more than this share of the notes cannot be a unit of the split


@dataclass(frozen=True)
class Unit:
    """Notes that stay together on one side."""

    notes: list[str]
    size: int  # passages


def split(passages: list[Passage], seed: int, fraction: float, limit: int, grid: int, tally: Tally) -> list[Context]:
    """At most `limit` contexts in the order of `passages`: about `fraction` of them held out, at least `grid` notes on each side.

    Raises UserError where there are too few notes.
    """
    notes = defaultdict(list)
    for passage in passages:
        notes[passage.note].append(passage)
    if len(notes) < 2 * grid:
        raise too_few(len(passages), len(notes), grid, tally)
    if limit < 2 * grid:
        raise UserError(
            f"sources.max_contexts: {limit}, and a grid needs {grid} contexts (pairs.contexts_per_grid) for training and {grid} "
            f"held out; raise it to {2 * grid} or more"
        )
    rng = random.Random(seed_for(seed, "split"))
    keys = telling({note: set().union(*(sentences(p.text) for p in held)) for note, held in notes.items()})
    families = connected(keys)
    if max(map(len, families)) > COLLAPSED * len(notes):
        families = [[note] for note in notes]
    heldout = _deal(families, notes, rng, fraction, grid)
    train = [note for note in notes if note not in heldout]
    strict = _apart(train, heldout, keys)
    if len(strict) < grid:
        raise UserError(
            f"contexts: of {len(notes)} notes all but {len(strict)} share sentences with the held-out ones, and training needs "
            f"{grid} (pairs.contexts_per_grid); add notes that differ, or lower pairs.contexts_per_grid"
        )
    tally.dropped["shares a sentence with the other side"] += sum(len(notes[n]) for n in train) - sum(len(notes[n]) for n in strict)
    left = sum(len(notes[n]) for n in (*strict, *heldout))
    if left <= limit:
        return _listed(passages, [p for n in strict for p in notes[n]], [p for n in heldout for p in notes[n]])
    wanted = min(limit, len(passages))
    held = _spread(heldout, notes, rng, min(max(grid, round(wanted * fraction)), wanted - grid))
    kept = _spread(strict, notes, rng, wanted - len(held))
    tally.dropped["over max_contexts"] += left - len(held) - len(kept)
    return _listed(passages, kept, held)


def _listed(passages: list[Passage], kept: list[Passage], held: list[Passage]) -> list[Context]:
    """The passages of both sides as contexts, in the order of all."""
    side = {id(p): TRAIN for p in kept} | {id(p): HELDOUT for p in held}
    chosen = [p for p in passages if id(p) in side]
    return [Context(f"c{number:05}", p.text, p.note, p.source, p.line, side[id(p)], p.tokens) for number, p in enumerate(chosen)]


def too_few(contexts: int, notes: int, grid: int, tally: Tally) -> UserError:
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(tally.dropped.items()) if count)
    lower = f", or lower pairs.contexts_per_grid to {notes // 2}" if notes >= 4 else ""
    return UserError(
        f"contexts: {contexts} from {notes} note{'s' * (notes != 1)}{f' (dropped: {dropped})' if dropped else ''}; a grid needs "
        f"{grid} of different notes (pairs.contexts_per_grid) for training and {grid} held out, so at least {2 * grid} "
        f"notes: add notes{lower}"
    )


def _deal(families: list[list[str]], notes: dict, rng: random.Random, fraction: float, grid: int) -> dict[str, None]:
    """The notes to hold out: shuffled families, until their passages are `fraction` of all and both sides can fill a grid."""
    units = [Unit(family, sum(len(notes[note]) for note in family)) for family in families]
    rng.shuffle(units)
    total = sum(unit.size for unit in units)
    target, most = max(grid, round(total * fraction)), len(notes) - grid
    held: dict[str, None] = {}
    size = 0
    # The families above half of the target come last.
    for unit in [*(u for u in units if u.size <= target / 2), *(u for u in units if u.size > target / 2)]:
        if size >= target and len(held) >= grid:
            break
        if len(held) + len(unit.notes) <= most:
            held.update(dict.fromkeys(unit.notes))
            size += unit.size
    if len(held) < grid:  # families too large for so few notes: single notes instead
        for note in rng.sample(list(notes), len(notes)):
            if len(held) < grid:
                held.setdefault(note)
    return held


def _apart(train: list[str], heldout: dict[str, None], keys: dict[str, set[str]]) -> list[str]:
    """The training notes that share no sentence with a held-out one."""
    taken = set().union(*(keys[note] for note in heldout)) if heldout else set()
    return [note for note in train if not keys[note] & taken]


def _spread(chosen: Iterable[str], notes: dict[str, list[Passage]], rng: random.Random, count: int) -> list[Passage]:
    """`count` passages of as many notes as possible: one of each note in turn, in a seeded order."""
    order = list(chosen)
    rng.shuffle(order)
    hands = [rng.sample(notes[note], len(notes[note])) for note in order]
    dealt = [hand[turn] for turn in range(max(map(len, hands), default=0)) for hand in hands if turn < len(hand)]
    return dealt[:count]
