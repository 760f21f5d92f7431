"""Which wrong answers stand against each right one.

A grid's answers are deranged: none is its own rejected answer, and each is rejected as often as it is chosen. So in one optimizer
step the push on an answer's overall likelihood cancels.
"""

import random

import numpy as np


def derangements(size: int, count: int, rng: random.Random) -> list[list[int]]:
    """`count` derangements of range(size) that nowhere agree: [r][i] is the r-th wrong partner of i.

    They are rotations of one random order, by different steps. Needs count < size.
    """
    order = rng.sample(range(size), size)
    partners = []
    for step in sorted(rng.sample(range(1, size), count)):
        partner = [0] * size
        for position, item in enumerate(order):
            partner[item] = order[(position + step) % size]
        partners.append(partner)
    return partners


def hard_derangements(cost: np.ndarray, count: int, taken: list[list[int]]) -> list[list[int]]:
    """`count` derangements that agree nowhere, with one another or with those `taken`, each the cheapest that is left.

    cost: (size, size) float, of partner j for i; its diagonal is ignored. What is left after any number of such
    derangements is a regular bipartite graph. So there always is another one while their number is below `size`.
    """
    cost = np.array(cost, dtype=np.float64)
    size = len(cost)
    forbidden = (np.abs(cost).max() + 1.0) * 2 * size  # above the price of any permitted assignment
    np.fill_diagonal(cost, forbidden)
    partners: list[list[int]] = []
    for partner in taken:
        cost[range(size), partner] = forbidden
    for _ in range(count):
        partners.append(cheapest(cost))
        cost[range(size), partners[-1]] = forbidden
    return partners


def cheapest(cost: np.ndarray) -> list[int]:
    """The assignment of rows to columns with the lowest total cost (shortest augmenting paths, Jonker and Volgenant 1987).

    cost: (size, size) float. Returns the column of each row.
    """
    size = len(cost)
    rows, columns = np.zeros(size + 1), np.zeros(size + 1)  # dual prices; the last column is the path's beginning
    owner = np.full(size + 1, -1)  # the row that holds each column
    for row in range(size):
        owner[size], column = row, size
        distance, before, done = np.full(size, np.inf), np.full(size, size), np.zeros(size + 1, dtype=bool)
        while owner[column] != -1:
            done[column] = True
            reduced = cost[owner[column]] - rows[owner[column]] - columns[:size]
            closer = ~done[:size] & (reduced < distance)
            distance[closer], before[closer] = reduced[closer], column
            step = np.where(done[:size], np.inf, distance)
            column = int(step.argmin())
            delta = step[column]
            rows[owner[done]] += delta
            columns[done] -= delta
            distance[~done[:size]] -= delta
        while column != size:
            owner[column], column = owner[before[column]], before[column]
    return [int(column) for column in np.argsort(owner[:size])]


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
