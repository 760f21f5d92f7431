"""Drop exact and near duplicates: passages that share most of their three-word runs.

The measure is the exact Jaccard similarity. Prefix filtering (Chaudhuri et al. 2006; Bayardo et al. 2007) makes it fast: two
sets that are similar enough share at least one of their few rarest members, so only these are indexed.
"""

import math
from collections import Counter, defaultdict

from ..text.words import PART, jaccard
from .note import Passage, Tally

RUN = 3  # words in a shingle
COMPARED = 64  # earlier passages that one is compared with, those that share most: notes of a few words alone share with all


def shingles(text: str) -> frozenset[str]:
    """The three-word runs of a text, lower case, without punctuation; the words themselves for a shorter one."""
    return _runs(PART.findall(text.lower()))


def _runs(words: list[str]) -> frozenset[str]:
    if len(words) < RUN:
        return frozenset(words)
    return frozenset(" ".join(words[at : at + RUN]) for at in range(len(words) - RUN + 1))


def drop_duplicates(passages: list[Passage], threshold: float, tally: Tally) -> list[Passage]:
    """`passages` without those that repeat an earlier one or reach the `threshold` (Jaccard) with it."""
    seen: set[str] = set()
    distinct, sets = [], []
    for passage in passages:
        words = PART.findall(passage.text.lower())
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


def near_duplicates(sets: list[frozenset[str]], threshold: float) -> list[int | None]:
    """For each set the index of the earlier set that it repeats (Jaccard >= threshold), or None.

    A set that repeats another one is not compared with later sets.
    """
    frequency = Counter(member for members in sets for member in members)
    index: dict[str, list[int]] = defaultdict(list)
    twins: list[int | None] = []
    for number, members in enumerate(sets):
        rarest = sorted(members, key=lambda member: (frequency[member], member))
        # Two sets that reach the threshold share at least ceil(threshold * size) members, so at least one of the prefix.
        prefix = rarest[: len(rarest) - math.ceil(threshold * len(rarest) - 1e-9) + 1]
        shared = Counter(other for member in prefix for other in index[member])
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
