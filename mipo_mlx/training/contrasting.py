"""The two baselines of the paper whose loss contrasts the contexts of a whole grid: `infonce_authors` and `sami`.

Their input is one grid of K pairs with K candidates each: candidate j of pair i is the chosen answer of pair (i + j) mod K. The
loss of a grid needs the log-probabilities of all its pairs at once, so `step.py` computes them in a first pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mlx.core as mx

from ..records import Pair


@dataclass
class Group:
    """Pairs whose losses can only be computed together; positions[i]: which of the step's pairs stand behind pairs[i]."""

    pairs: list[Pair]
    positions: list[list[int]]


def groups(pairs: Sequence[Pair]) -> list[Group]:
    """One group for each grid. Pairs under the same prompt are one context, and count as often as they are."""
    grids: dict[int, dict[tuple[int, ...], list[int]]] = {}
    for i, pair in enumerate(pairs):
        grids.setdefault(pair.grid, {}).setdefault(tuple(pair.prompt_tokens), []).append(i)
    return [Group(contrast([pairs[i[0]] for i in grid.values()]), list(grid.values())) for grid in grids.values()]


def contrast(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs of one grid, with the chosen answers of all of them as candidates.

    Their log-probabilities are those of every answer under every context. A reference value that a pair does not have is NaN;
    these objectives use none.
    """
    chosen = [pair.tokens[0] for pair in pairs]
    grid = []
    for i, pair in enumerate(pairs):
        known = {tuple(tokens): value for tokens, value in zip(pair.tokens, pair.reference, strict=True)}
        tokens = chosen[i:] + chosen[:i]
        grid.append(replace(pair, tokens=tokens, reference=[known.get(tuple(t), float("nan")) for t in tokens]))
    return grid


def scores(logps: mx.array, objective: str, beta: float) -> list[mx.array]:
    """The (K, K) scores whose softmax losses an objective averages, the right one in column 0; logps as `contrast` orders them.

    They come from the matrix s[i, j] = log p(answer j | context i).
    infonce_authors: for each answer, -log softmax over contexts of s / 100 (`InfoNCELoss` of the authors' code; its
    normalising constant cancels). Here the divisor is 10 / beta, which is theirs at the paper's beta of 0.1.
    sami: mean of that over answers and over contexts, undivided (Fraenken et al. 2024). The authors sum log-probabilities;
    SAMI's own code takes means over tokens, which `length_normalized` does. Scores are multiplied by beta / 0.1.
    """
    k = logps.shape[0]
    matrix = mx.take_along_axis(logps, (mx.arange(k)[None] - mx.arange(k)[:, None]) % k, axis=1)
    scale = beta / 10 if objective == "infonce_authors" else beta / 0.1
    of_answers = _own_first(scale * matrix.T)
    return [of_answers] if objective == "infonce_authors" else [of_answers, _own_first(scale * matrix)]


def _own_first(matrix: mx.array) -> mx.array:
    """Each row rolled so that its diagonal element comes first: label smoothing expects the label in column 0."""
    k = matrix.shape[0]
    return mx.take_along_axis(matrix, (mx.arange(k)[None] + mx.arange(k)[:, None]) % k, axis=1)
