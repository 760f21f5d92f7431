"""Pairs as padded arrays, and micro-batches of them by token budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np

from ..recipe import CONTRASTS_CONTEXTS
from ..records import Pair

ROUND = 16  # widths are multiples of this: fewer shapes, so fewer buffers of odd sizes and fewer recompilations


@dataclass
class Batch:
    """Right-padded token ids of pairs; `reference` and `mask` are those of `objectives.losses`."""

    prompts: mx.array  # (pairs, prompt length) int32
    prompt_lengths: mx.array  # (pairs,) int32
    answers: mx.array  # (pairs, candidates, answer length) int32
    answer_lengths: mx.array  # (pairs, candidates) int32
    reference: mx.array  # (pairs, candidates) float32, nats
    mask: mx.array  # (pairs, candidates) bool: there is such a candidate

    @property
    def tokens(self) -> int:
        """What the batch costs: prompt tokens once, answer tokens, padding included."""
        return self.prompts.size + self.answers.size


def make(pairs: Sequence[Pair], pad_id: int) -> Batch:
    """One batch of all `pairs`, padded to the longest of them."""
    prompt, candidates, answer = _shape(pairs)
    prompts = np.full((len(pairs), prompt), pad_id, np.int32)
    answers = np.full((len(pairs), candidates, answer), pad_id, np.int32)
    lengths = np.zeros((len(pairs), candidates), np.int32)
    reference = np.zeros((len(pairs), candidates), np.float32)
    for i, pair in enumerate(pairs):
        prompts[i, : len(pair.prompt_tokens)] = pair.prompt_tokens
        for j, tokens in enumerate(pair.tokens):
            answers[i, j, : len(tokens)], lengths[i, j] = tokens, len(tokens)
        reference[i, : len(pair.tokens)] = pair.reference
    return Batch(
        mx.array(prompts),
        mx.array([len(pair.prompt_tokens) for pair in pairs], dtype=mx.int32),
        mx.array(answers),
        mx.array(lengths),
        mx.array(reference),
        mx.array(lengths > 0),
    )


def _shape(pairs: Sequence[Pair]) -> tuple[int, int, int]:
    """Widths of prompts, candidates and answers, rounded up (a prompt's recorded part is one token shorter)."""
    prompt = max(len(pair.prompt_tokens) for pair in pairs)
    answer = max(len(tokens) for pair in pairs for tokens in pair.tokens)
    return -(-(prompt - 1) // ROUND) * ROUND + 1, max(len(pair.tokens) for pair in pairs), -(-answer // ROUND) * ROUND


def padded_tokens(pairs: Sequence[Pair]) -> int:
    prompt, candidates, answer = _shape(pairs)
    return len(pairs) * (prompt + candidates * answer)


def split(indices: Sequence[int], pairs: Sequence[Pair], token_budget: int) -> list[list[int]]:
    """`indices` of `pairs` as micro-batches of up to `token_budget` tokens, padding included; one pair at least.

    Sorted by length, longest first, so that little is padding and the largest comes first.
    """
    order = sorted(indices, key=lambda i: (padded_tokens([pairs[i]]), len(pairs[i].prompt_tokens), -i), reverse=True)
    groups: list[list[int]] = []
    for i in order:
        if groups and padded_tokens([pairs[j] for j in (*groups[-1], i)]) <= token_budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


@dataclass
class Window:
    """Pairs whose losses can only be computed together; positions[i]: which of the step's pairs stand behind pairs[i]."""

    pairs: list[Pair]
    positions: list[list[int]]


def windows(pairs: Sequence[Pair], objective: str) -> list[Window]:
    """One window a grid where the objective contrasts contexts, else a single one."""
    if objective not in CONTRASTS_CONTEXTS:
        return [Window(list(pairs), [[i] for i in range(len(pairs))])]
    grids: dict[int, dict[tuple, list[int]]] = {}
    for i, pair in enumerate(pairs):
        grids.setdefault(pair.grid, {}).setdefault(tuple(pair.prompt_tokens), []).append(i)
    return [Window(contrast_contexts([pairs[i[0]] for i in grid.values()]), list(grid.values())) for grid in grids.values()]


def contrast_contexts(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs of one grid, with the chosen answers of all of them as candidates: candidate j of pair i is pair (i + j)'s.

    So the log-probabilities are those of every answer under every context. Reference values that a pair does not have are
    NaN: the objectives that contrast contexts use none.
    """
    chosen = [pair.tokens[0] for pair in pairs]
    grid = []
    for i, pair in enumerate(pairs):
        known = {tuple(tokens): value for tokens, value in zip(pair.tokens, pair.reference, strict=True)}
        tokens = chosen[i:] + chosen[:i]
        grid.append(replace(pair, tokens=tokens, reference=[known.get(tuple(t), float("nan")) for t in tokens]))
    return grid
