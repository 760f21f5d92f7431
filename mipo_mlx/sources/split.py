"""Train and held-out: each note is on one side, and notes that share a sentence are on the same side."""

import math
import random
from collections import Counter, defaultdict

from ..errors import UserError
from ..records import HELDOUT, TRAIN, Context, seed_for
from ..text.words import connected, sentences, telling
from .note import Passage, Tally
from .rank import BETTER, ENOUGH, GOOD, LATER, SHARE, SOME, TOPIC, topic

LITTLE = "tells little of its author"
SHARED, TOO_MUCH, OVER = "shares a sentence with the other side", "more than one note's share", "over max_contexts"
COLLAPSED = 0.34  # a family of more than this share of the notes cannot be a unit of the split


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
    strict = _apart(train, heldout, notes, keys)
    if len(strict) < grid:
        raise UserError(
            f"contexts: of {len(notes)} notes all but {len(strict)} share sentences with the held-out ones, and training needs "
            f"{grid} (pairs.contexts_per_grid); add notes that differ, or lower pairs.contexts_per_grid"
        )
    drop([p for note in train for p in notes[note]], [p for mine in strict.values() for p in mine], SHARED, tally)
    sides = (_within_share(strict), _within_share({note: notes[note] for note in heldout}))
    within = [p for side in sides for mine in side.values() for p in mine]
    drop([*(p for mine in strict.values() for p in mine), *(p for note in heldout for p in notes[note])], within, TOO_MUCH, tally)
    left = len(within)
    if left <= limit:
        return _listed(passages, *([p for mine in side.values() for p in mine] for side in sides))
    held = best(sides[1], rng, min(max(grid, round(limit * fraction)), limit - grid))
    kept = best(sides[0], rng, limit - len(held))
    drop(within, [*kept, *held], OVER, tally)
    return _listed(passages, kept, held)


def telling_most(passages: list[Passage], least: int, tally: Tally) -> list[Passage]:
    """The passages that tell of their author, filled up to `least`; each further one of a note has to be better (`later`).

    Where half of `least` tell SOME, no other fills up. Where ENOUGH tell much, those that tell little do not stand beside them.
    """
    good = BETTER if sum(passage.rank >= BETTER for passage in passages) >= ENOUGH else GOOD
    places = Counter[str]()
    order = []
    for passage in sorted(passages, key=lambda p: -p.rank):
        order.append((passage.rank - later(places[passage.note]), passage))
        places[passage.note] += 1
    order.sort(key=lambda pair: -pair[0])
    lowest = SOME if 2 * sum(passage.rank >= SOME for passage in passages) >= least else -math.inf
    kept = {id(p) for number, (_, p) in enumerate(order) if p.rank >= good or number < least and p.rank >= lowest}
    after = [passage for passage in passages if id(passage) in kept]
    drop(passages, after, LITTLE, tally)
    return after


def later(place: int) -> float:
    """What a passage has to be better by that has `place` better ones of its note before it."""
    return LATER * math.log2(1 + place)


def drop(before: list[Passage], after: list[Passage], why: str, tally: Tally) -> None:
    stay = set(map(id, after))
    for passage in before:
        if id(passage) not in stay:
            tally.drop(passage, why)


def _listed(passages: list[Passage], kept: list[Passage], held: list[Passage]) -> list[Context]:
    """The passages of both sides as contexts, in the order of all."""
    side = {id(p): TRAIN for p in kept} | {id(p): HELDOUT for p in held}
    chosen = [p for p in passages if id(p) in side]
    return [passage.as_context(f"c{number:05}", side[id(passage)]) for number, passage in enumerate(chosen)]


def too_few(contexts: int, notes: int, grid: int, tally: Tally) -> UserError:
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(tally.dropped.items()) if count)
    lower = f", or lower pairs.contexts_per_grid to {notes // 2}" if notes >= 4 else ""
    return UserError(
        f"contexts: {contexts} from {notes} note{'s' * (notes != 1)}{f' (dropped: {dropped})' if dropped else ''}; a grid needs "
        f"{grid} of different notes (pairs.contexts_per_grid) for training and {grid} held out, so at least {2 * grid} "
        f"notes: add notes{lower}"
    )


def _deal(families: list[list[str]], notes: dict, rng: random.Random, fraction: float, grid: int) -> dict[str, None]:
    """The notes to hold out: shuffled families, until they are `fraction` of all notes and both sides can fill a grid."""
    order = list(families)
    rng.shuffle(order)
    target, most = max(grid, round(len(notes) * fraction)), len(notes) - grid
    held: dict[str, None] = {}
    # The families above half of the target come last.
    for family in [*(f for f in order if len(f) <= target / 2), *(f for f in order if len(f) > target / 2)]:
        if len(held) >= target:
            break
        if len(held) + len(family) <= most:
            held.update(dict.fromkeys(family))
    if len(held) < grid:  # families too large for so few notes: single notes instead
        for note in rng.sample(list(notes), len(notes)):
            if len(held) < grid:
                held.setdefault(note)
    return held


def _apart(
    train: list[str], heldout: dict[str, None], notes: dict[str, list[Passage]], keys: dict[str, set[str]]
) -> dict[str, list[Passage]]:
    """The passages of the training notes that share no sentence with a held-out note."""
    taken = set().union(*(keys[note] for note in heldout)) if heldout else set()
    apart = {}
    for note in train:
        shared = keys[note] & taken
        if mine := [passage for passage in notes[note] if not shared or not sentences(passage.text) & shared]:
            apart[note] = mine
    return apart


def _within_share(side: dict[str, list[Passage]]) -> dict[str, list[Passage]]:
    """The passages of a side's notes, of a note that is too big for its side the best ones: SHARE, or twice an equal part."""
    kept = dict(side)
    share = max(SHARE, 2 / max(1, len(kept)))
    every = sum(map(len, kept.values()))
    for note in sorted(kept, key=lambda note: -len(kept[note])):
        others = every - len(kept[note])
        most = max(1, math.floor(share / (1 - share) * others)) if share < 1 else len(kept[note])
        if len(kept[note]) > most:
            best = set(map(id, sorted(kept[note], key=lambda p: -p.rank)[:most]))
            kept[note] = [passage for passage in kept[note] if id(passage) in best]
            every = others + most
    return kept


def best(side: dict[str, list[Passage]], rng: random.Random, count: int) -> list[Passage]:
    """`count` passages that tell most of their author, from many notes, no folder above its share where others have enough.

    Each further passage of a note has to be better (`later`). Equal ones come in a seeded order.
    """
    order = list(side)
    rng.shuffle(order)
    ranked: list[tuple[float, Passage]] = []
    for note in order:
        mine = rng.sample(side[note], len(side[note]))
        ranked += [(p.rank - later(place), p) for place, p in enumerate(sorted(mine, key=lambda p: -p.rank))]
    ranked.sort(key=lambda pair: -pair[0])
    chosen: list[Passage] = []
    taken, share = Counter[str](), TOPIC
    while len(chosen) < count and ranked:  # where all folders have their share, each gets a little more
        left = []
        for value, passage in ranked:
            place = topic(passage.source) or passage.source
            if len(chosen) < count and taken[place] < max(1, round(share * count)):
                taken[place] += 1
                chosen.append(passage)
            else:
                left.append((value, passage))
        ranked, share = left, share * 1.1
    return chosen
