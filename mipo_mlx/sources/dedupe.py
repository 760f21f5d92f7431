"""Drop exact and near duplicates: passages that share most of their three-word runs.

The measure is the exact Jaccard similarity. Prefix filtering (Chaudhuri et al. 2006; Bayardo et al. 2007) makes it fast: two
sets that are similar enough share at least one of their few rarest members, so only these are indexed.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain

import numpy as np

from ..text.words import jaccard, parts
from .note import Passage, Tally

RUN = 3  # words in a shingle
COMPARED = 64  # earlier passages that one is compared with, those that share most: notes of a few words alone share with all


Shingles = frozenset[int]


def drop_duplicates(passages: list[Passage], threshold: float, tally: Tally) -> list[Passage]:
    """`passages` without those that repeat an earlier one or reach the `threshold` (Jaccard) with it."""
    seen: set[str] = set()
    distinct, texts = [], []
    for passage in passages:
        words = parts(passage.text)
        key = " ".join(words)
        if key in seen:
            tally.drop(passage, "duplicate")
        else:
            seen.add(key)
            distinct.append(passage)
            texts.append(words)
    kept = []
    for passage, twin in zip(distinct, near_duplicates(shingles(texts), threshold), strict=True):
        if twin is None:
            kept.append(passage)
        else:
            tally.drop(passage, "near-duplicate")
    return kept


def shingles(texts: list[list[str]]) -> list[Shingles]:
    """The three-word runs of each text's words; the words themselves for a shorter one. Runs are numbered in alphabetical order."""
    number = {word: place for place, word in enumerate(sorted(set(chain.from_iterable(texts))), 1)}
    lengths = np.array([len(words) for words in texts], np.int64)
    owner, alone = np.repeat(np.arange(len(texts)), lengths), np.repeat(lengths < RUN, lengths)
    first = np.fromiter(map(number.__getitem__, chain.from_iterable(texts)), np.int64)
    second, third = (np.where(alone, 0, np.append(first[ahead:], [0] * ahead)[: len(first)]) for ahead in (1, 2))
    own = alone | (np.append(owner[2:], [-1, -1])[: len(owner)] == owner)  # a run ends in the text in which it begins
    # Each number is below that of all runs, so that a product of two fits into 64 bits.
    pairs = np.unique(first * (len(number) + 1) + second, return_inverse=True)[1]
    runs = np.unique((pairs * (len(number) + 1) + third)[own], return_inverse=True)[1]
    return [frozenset(mine.tolist()) for mine in _by_owner(runs, owner[own], len(texts))]


def near_duplicates(sets: list[Shingles], threshold: float) -> list[int | None]:
    """For each set the index of the earlier set that it repeats (Jaccard >= threshold), or None.

    A set that repeats another one is not compared with later sets.
    """
    index: dict[int, list[int]] = defaultdict(list)
    twins: list[int | None] = []
    for number, (members, common) in enumerate(zip(sets, _common(sets), strict=True)):
        # Two sets that reach the threshold share at least ceil(threshold * size) members, so at least one of the rarest ones.
        prefix = common[: max(0, len(common) - math.ceil(threshold * len(members) - 1e-9) + 1)]
        shared = Counter(chain.from_iterable(index.get(member, ()) for member in prefix))
        candidates = sorted(shared if len(shared) <= COMPARED else [other for other, _ in shared.most_common(COMPARED)])
        # Sets of too different sizes cannot reach it, which needs no look at their members.
        least, most = threshold * len(members) - 1e-9, (len(members) + 1e-9) / max(threshold, 1e-9)
        likely = (other for other in candidates if least <= len(sets[other]) <= most)
        twin = next((other for other in likely if jaccard(members, sets[other]) >= threshold), None)
        twins.append(twin)
        if twin is None:
            for member in prefix:
                index[member].append(number)
    return twins


def _common(sets: list[Shingles]) -> Iterator[list[int]]:
    """For each set its members that other sets have too, the rare ones first; members that no other set has lead to none."""
    every = np.fromiter(chain.from_iterable(sets), np.int64)
    owner = np.repeat(np.arange(len(sets)), [len(members) for members in sets])
    frequency = np.bincount(every) if len(every) else every
    shared = frequency[every] > 1
    every, owner = every[shared], owner[shared]
    order = np.lexsort((every, frequency[every], owner))
    return (own.tolist() for own in _by_owner(every[order], owner, len(sets)))


def _by_owner(values: np.ndarray, owner: np.ndarray, count: int) -> list[np.ndarray]:
    """The values of each of `count` owners; `owner` is sorted."""
    return np.split(values, np.cumsum(np.bincount(owner, minlength=count))[:-1])[:count]
