"""Which wrong answers stand against each right one. A grid's answers are deranged: none is its own rejected answer, and each
is rejected as often as it is chosen, so that in one optimizer step the push on its overall likelihood cancels."""

import random


def derangements(size: int, count: int, rng: random.Random) -> list[list[int]]:
    """`count` derangements of range(size) that nowhere agree: [r][i] is the r-th wrong partner of i.

    They are rotations of one random order, by different steps. Needs count < size.
    """
    order = rng.sample(range(size), size)
    found = []
    for step in sorted(rng.sample(range(1, size), count)):
        partner = [0] * size
        for position, item in enumerate(order):
            partner[item] = order[(position + step) % size]
        found.append(partner)
    return found


def draw_kinds(weights: dict[str, float], slots: int, others: int, plain: bool, rng: random.Random) -> list[str] | None:
    """The kind of each of `slots` negatives, drawn by weight; None where the grid has too few answers for that many.

    others: how many other answers of the grid there are, each usable once; plain: whether there is an answer without a context.
    """
    kinds: list[str] = []
    for _ in range(slots):
        taken = len(kinds) - kinds.count("no_context")
        usable = {
            kind: weight
            for kind, weight in sorted(weights.items())
            if (plain and "no_context" not in kinds if kind == "no_context" else taken < others)
        }
        if not usable:
            return None
        kinds += rng.choices(list(usable), list(usable.values()))
    return kinds
