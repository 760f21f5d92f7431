"""Pairs as padded arrays, and micro-batches of them by token budget.

~~~ One optimizer step's gradient: micro-batches by token budget, accumulated over the whole window, in flat memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from ..engine.logprobs import Padded, batch_logprobs
from ..errors import Failure, is_out_of_memory
from ..recipe import CONTRASTS_CONTEXTS, Training
from ..records import Pair
from . import objectives

ROUND = 16  # widths are multiples of this: fewer shapes, so fewer buffers of odd sizes and fewer recompilations


@dataclass
class Batch(Padded):
    """Right-padded token ids of pairs; `reference` and `mask` are those of `objectives.losses`."""

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


@dataclass
class Step:
    loss: float  # mean over all pairs, nats
    gradients: Any  # tree like model.trainable_parameters()
    metrics: dict[str, float]  # means over all pairs of objectives.metrics
    token_budget: int  # what fitted: smaller than asked for after an out-of-memory error
    checkpointed: bool  # whether gradient checkpointing was on at the end: asked for, or a single pair did not fit without


def step(model: nn.Module, pairs: list[Pair], settings: Training, *, token_budget: int, pad_id: int) -> Step:
    """Loss and gradient of the mean loss over `pairs`, which are all pairs of one or more grids.

    How the pairs fall into micro-batches does not matter beyond rounding. A micro-batch that does not fit into memory is
    split and run again; raises Failure where a single pair does not fit even with gradient checkpointing.
    """
    run = _Run(model, settings, token_budget, pad_id, len(pairs))
    before = model.trainable_parameters()
    mode = model.training
    model.train()
    try:
        for window in windows(pairs, settings.objective):
            run.accumulate(window)
    finally:
        model.update(before)  # tracing leaves its own copies in the model
        model.train(mode)
    rows = run.rows(len(pairs))
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    loss = means.pop("loss")
    return Step(loss, run.gradients, means, run.budget, run.checkpoint)


class _Run:
    """What micro-batches of one step add up to."""

    def __init__(self, model: nn.Module, settings: Training, budget: int, pad_id: int, total: int):
        self.model, self.settings, self.budget, self.pad_id, self.total = model, settings, budget, pad_id, total
        self.checkpoint = settings.checkpoint_gradients
        self.seed = mx.random.randint(0, 1 << 30).item()
        self.gradients: Any = None
        self._rows: dict[int, dict[str, float]] = {}

    def rows(self, count: int) -> list[dict[str, float]]:
        return [self._rows[i] for i in range(count)]

    def accumulate(self, window: Window) -> None:
        """Add the gradient of one window."""
        everything = list(range(len(window.pairs)))
        if self.settings.objective not in CONTRASTS_CONTEXTS:
            self._each(everything, window, lambda batch, some: self._backward(window, batch, some))
        else:
            # The loss needs the log-probabilities of all micro-batches: first their values, then the loss's derivative by
            # them, then each micro-batch again with that derivative.
            logps, whole = self._values(window)
            weights = mx.grad(lambda values: self._weighted(values, whole, window, everything).sum())(logps)
            self._record(window, everything, logps, whole)
            mx.eval(weights)
            self._each(everything, window, lambda batch, some: self._pull(batch, weights[mx.array(some)]))

    def _values(self, window: Window) -> tuple[mx.array, Batch]:
        whole = make(window.pairs, self.pad_id)
        logps = np.zeros(whole.mask.shape, np.float32)

        def forward(batch: Batch, some: list[int]) -> None:
            values = np.array(batch_logprobs(self.model, batch, gradient=False).sum(axis=-1))
            logps[some, : values.shape[1]] = values

        self._each(list(range(len(window.pairs))), window, forward)
        return mx.array(logps), whole

    def _each(self, indices: list[int], window: Window, work: Callable[[Batch, list[int]], None]) -> None:
        """`work` on micro-batches of `indices`; one that does not fit is split and done again."""
        pairs = window.pairs
        # Dropout hangs on a pair alone where each is run alone, under a seed of its own: in any split, and when it is run twice.
        for some in split(indices, pairs, 1 if self.settings.lora.dropout else self.budget):
            mx.random.seed((self.seed + window.positions[some[0]][0]) % (1 << 31))
            try:
                work(make([pairs[i] for i in some], self.pad_id), some)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                tokens = padded_tokens([pairs[i] for i in some])
                if len(some) == 1 and self.checkpoint:
                    raise Failure(
                        f"out of memory at a single pair of {tokens} tokens; shorten pairs.max_tokens or "
                        "sources.context_tokens, lower pairs.candidates, or choose a smaller or quantised model"
                    ) from error
            mx.clear_cache()
            if len(some) == 1:
                self.checkpoint = True  # the last thing that saves memory; changes no result
            self.budget = max(1, min(self.budget, tokens) // 2)
            self._each(some, window, work)

    def _backward(self, window: Window, batch: Batch, some: list[int]) -> None:
        def loss(parameters: dict) -> tuple[mx.array, mx.array]:
            self.model.update(parameters)
            logps = batch_logprobs(self.model, batch, checkpoint=self.checkpoint).sum(axis=-1)
            return self._weighted(logps, batch, window, some).sum(), logps

        (_, logps), gradients = mx.value_and_grad(loss)(self.model.trainable_parameters())
        self._add(gradients, logps)
        self._record(window, some, logps, batch)

    def _pull(self, batch: Batch, weights: mx.array) -> None:
        def loss(parameters: dict) -> mx.array:
            self.model.update(parameters)
            logps = batch_logprobs(self.model, batch, checkpoint=self.checkpoint).sum(axis=-1)
            return (weights[:, : logps.shape[1]] * logps).sum()

        self._add(mx.grad(loss)(self.model.trainable_parameters()))

    def _add(self, gradients: Any, *others: mx.array) -> None:
        total = gradients if self.gradients is None else tree_map(mx.add, self.gradients, gradients)
        mx.eval(total, *others)  # each micro-batch is computed before the next is begun, so memory stays flat
        self.gradients = total

    def _losses(self, logps: mx.array, batch: Batch) -> mx.array:
        return objectives.losses(logps, batch.reference, batch.answer_lengths, batch.mask, self.settings)

    def _weighted(self, logps: mx.array, batch: Batch, window: Window, some: list[int]) -> mx.array:
        """Each pair's share of the mean loss over the step; a pair that stands for several counts as often."""
        stands_for = [len(window.positions[i]) for i in some]
        return self._losses(logps, batch) * mx.array(stands_for, dtype=mx.float32) / self.total

    def _record(self, window: Window, some: list[int], logps: mx.array, batch: Batch) -> None:
        figures = {
            "loss": self._losses(logps, batch),
            **objectives.metrics(logps, batch.reference, batch.answer_lengths, batch.mask, self.settings),
        }
        columns = {key: np.array(value).tolist() for key, value in figures.items()}
        for row, i in enumerate(some):
            for position in window.positions[i]:
                self._rows[position] = {key: column[row] for key, column in columns.items()}
