"""Drop exact and near duplicates: passages that share most of their three-word runs.

The measure is the exact Jaccard similarity. Prefix filtering (Chaudhuri et al. 2006; Bayardo et al. 2007) makes it fast: two
sets that are similar enough share at least one of their few rarest members, so only these are indexed.
"""

import math
from collections import Counter, defaultdict
from itertools import chain

from ..text.words import jaccard, parts
from .note import Passage, Tally

RUN = 3  # words in a shingle
COMPARED = 64  # earlier passages that one is compared with, those that share most: notes of a few words alone share with all


Shingles = frozenset[tuple[str, ...]]


def shingles(text: str) -> Shingles:
    """The three-word runs of a text, lower case, without punctuation; the words themselves for a shorter one."""
    return _runs(parts(text))


def _runs(words: list[str]) -> Shingles:
    return frozenset(zip(words, words[1:], words[2:], strict=False) if len(words) >= RUN else zip(words))


def drop_duplicates(passages: list[Passage], threshold: float, tally: Tally) -> list[Passage]:
    """`passages` without those that repeat an earlier one or reach the `threshold` (Jaccard) with it."""
    seen: set[str] = set()
    distinct, sets = [], []
    for passage in passages:
        words = parts(passage.text)
        key = " ".join(words)
        if key in seen:
            tally.drop(passage, "duplicate")
        else:
            seen.add(key)
            distinct.append(passage)
            sets.append(_runs(words))
    kept = []
    for passage, twin in zip(distinct, near_duplicates(sets, threshold), strict=True):
        if twin is None:
            kept.append(passage)
        else:
            tally.drop(passage, "near-duplicate")
    return kept


def near_duplicates(sets: list[Shingles], threshold: float) -> list[int | None]:
    """For each set the index of the earlier set that it repeats (Jaccard >= threshold), or None.

    A set that repeats another one is not compared with later sets.
    """
    frequency = Counter(chain.from_iterable(sets))
    index: dict[tuple[str, ...], list[int]] = defaultdict(list)
    twins: list[int | None] = []
    for number, members in enumerate(sets):
        # Two sets that reach the threshold share at least ceil(threshold * size) members, so at least one of the rarest ones.
        # Members that no other set has lead to none.
        common = [member for member in members if frequency[member] > 1]
        size = len(common) - math.ceil(threshold * len(members) - 1e-9) + 1
        prefix = sorted(sorted(common), key=frequency.__getitem__)[: max(0, size)]
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
