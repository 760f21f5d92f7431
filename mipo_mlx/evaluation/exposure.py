"""The statistics of the leak test: how exposed canaries are, and whether trained notes gained more than held-out ones."""

import math
from collections.abc import Sequence

import numpy as np

SHUFFLES = 4000


def rank(canary: float, siblings: Sequence[float]) -> int:
    """1 where the canary's score is above all its siblings'; a tie counts against the leak."""
    return 1 + sum(score >= canary for score in siblings)


def exposure(rank: int, among: int) -> float:
    """log2(all) - log2(rank), bits (Carlini et al. 2019): at most log2(among); 1.44 is the mean of what was never seen."""
    return math.log2(among) - math.log2(rank)


def canaries_p(ranks: Sequence[int], among: int) -> float:
    """The probability that unseen canaries get such ranks, each uniform among `among`: the smaller of Fisher's combination (many
    a little exposed) and Bonferroni's minimum (one of them recited), doubled for the choice. 1 for no canary."""
    if not ranks:
        return 1.0
    single = [r / among for r in ranks]
    half = -sum(math.log(p) for p in single)  # of a chi-squared variable with 2 n degrees of freedom, whose tail is a finite sum
    fisher = math.exp(-half) * sum(half**k / math.factorial(k) for k in range(len(single)))
    return min(1.0, 2 * min(fisher, len(single) * min(single)))


def smallest_p(trained: Sequence[bool], units: Sequence[str]) -> float:
    """The smallest p that `permutation_p` can be expected to give: one of all ways to deal the units to the sides."""
    side = dict(zip(units, trained, strict=True))
    return max(1 / math.comb(len(side), sum(side.values())), 1 / (1 + SHUFFLES))


def permutation_p(values: Sequence[float], trained: Sequence[bool], units: Sequence[str], seed: int) -> float:
    """One-sided p of mean(trained) - mean(others), shuffling whole units between the sides (Good 2005); (1 + hits) / (1 + n)."""
    names, group = np.unique(np.array(units), return_inverse=True)
    sums, counts = np.bincount(group, np.asarray(values, dtype=np.float64)), np.bincount(group).astype(np.float64)
    side = np.zeros(len(names), bool)
    side[group[np.asarray(trained, dtype=bool)]] = True

    def difference(chosen: np.ndarray) -> np.ndarray:
        inside, size = chosen @ sums, chosen @ counts
        return inside / size - (sums.sum() - inside) / (counts.sum() - size)

    rng = np.random.default_rng([seed, 0x9E2])
    shuffled = rng.permuted(np.tile(side, (SHUFFLES, 1)), axis=1).astype(np.float64)
    hits = int((difference(shuffled) >= difference(side.astype(np.float64)) - 1e-12).sum())
    return (1 + hits) / (1 + SHUFFLES)
