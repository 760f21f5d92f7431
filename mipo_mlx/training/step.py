"""One optimizer step's gradient: the pairs fall into micro-batches by a token budget, and their gradients add up in flat memory.

`gradient_step` is the entry. A micro-batch that does not fit into memory, or that the system's watchdog ends, is split and run
again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from .. import backend
from ..engine.logprobs import Padded, batch_logprobs
from ..errors import Failure, is_too_large, is_watchdog, one_line
from ..recipe import CONTRASTS_CONTEXTS, Training
from ..records import Pair
from . import contrasting, distilling, objectives
from .contrasting import Group

ALONE = 3  # times that the watchdog may end a single pair in one step; the display may go to sleep meanwhile
# Widths are multiples of this, on the CPU and on a GPU. Fewer shapes are fewer buffers of odd sizes and fewer recompilations.
# Neither costs a CPU much, and it computes the padding.
ROUND = {True: 8, False: 16}


@dataclass
class Batch(Padded):
    """Right-padded token ids of pairs; `reference` and `mask` are those of `objectives.losses`."""

    reference: mx.array  # (pairs, candidates) float32, nats
    mask: mx.array  # (pairs, candidates) bool: there is such a candidate

    @property
    def tokens(self) -> int:
        """What the batch costs: prompt tokens once, answer tokens, padding included."""
        return int(self.prompts.size + self.answers.size)


@dataclass
class Step:
    loss: float  # mean over all pairs, nats
    gradients: Any  # tree like model.trainable_parameters()
    metrics: dict[str, float]  # means over all pairs of objectives.metrics
    token_budget: int  # what fitted: smaller than the one given after an out-of-memory error
    checkpointed: bool  # gradient checkpointing was on at the end: by the recipe, or because a single pair did not fit without
    watchdog: bool  # the system ended a micro-batch that took too long, and it ran again


def gradient_step(
    model: nn.Module, pairs: list[Pair], settings: Training, *, token_budget: int, pad_id: int, share: tuple[int, int] = (0, 1)
) -> Step:
    """Loss and gradient of the mean loss over `pairs`, which are all pairs of one or more grids.

    Where they are `Distilled`, the loss is the divergence from their goals, whatever the objective.
    share: (i, n), the i-th of n shares of that mean, which add up to it. Pairs are dealt, or grids where a loss needs a whole one.

    The split into micro-batches changes the result by rounding alone. Raises Failure where a single pair does not fit into
    memory even with gradient checkpointing, or where the system's watchdog ends it again and again.
    """
    total = _Sum(model, settings, token_budget, pad_id, len(pairs))
    before, mode = model.trainable_parameters(), model.training
    model.train()
    is_distilled = isinstance(pairs[0], distilling.Distilled)
    by_grid = settings.objective in CONTRASTS_CONTEXTS and not is_distilled
    groups = contrasting.groups(pairs) if by_grid else [Group([pair], [[i]]) for i, pair in enumerate(pairs)]
    own = groups[share[0] :: share[1]]
    mine = own or groups[:1]  # where there is nothing to do, the first one is computed and counts nothing: shapes and names
    try:
        if not by_grid:
            group = Group([w.pairs[0] for w in mine], [w.positions[0] for w in mine])
            (total.add_distilled if is_distilled else total.add)(group)
        elif settings.objective == "tilt":
            total.add_distilled(total.tilted(mine))
        else:
            for group in mine:
                total.add_contrasting(group)
    finally:
        model.update(before)  # tracing leaves its own copies in the model
        model.train(mode)
    rows = [row for row in total.rows if row]
    means = {key: float(np.sum([row[key] for row in rows])) / len(pairs) for key in rows[0]}
    if not own:
        means, total.gradients = dict.fromkeys(means, 0.0), tree_map(mx.zeros_like, total.gradients)
    return Step(means.pop("loss"), total.gradients, means, total.budget, total.checkpoint, total.watchdog)


class _Sum:
    """The gradient and the figures of one step, as its micro-batches add up."""

    def __init__(self, model: nn.Module, settings: Training, budget: int, pad_id: int, pairs: int):
        self.model, self.settings, self.budget, self.pad_id = model, settings, budget, pad_id
        self.checkpoint = settings.checkpoint_gradients
        self.seed = mx.random.randint(0, 1 << 30).item()
        self.watchdog, self.ended_alone = False, 0
        self.gradients: Any = None
        self.rows: list[dict[str, float]] = [{}] * pairs

    def add(self, group: Group) -> None:
        """Add the gradient of pairs whose losses are independent, a micro-batch at a time."""
        self._in_parts(group, self._backward)

    def add_contrasting(self, group: Group) -> None:
        """Add the gradient of pairs whose losses need the log-probabilities of all of them.

        First come the values of all micro-batches, then the loss's derivative by them, then each micro-batch again with that
        derivative.
        """
        everything = list(range(len(group.pairs)))
        whole = batch_of(group.pairs, self.pad_id)
        values = np.zeros(whole.mask.shape, np.float32)
        self._in_parts(group, partial(self._forward, values))
        logps = mx.array(values)
        weights = mx.grad(lambda logps: self._weighted(logps, whole, group, everything).sum())(logps)
        self._record(logps, whole, group, everything)
        mx.eval(weights)
        self._in_parts(group, partial(self._add_weighted, weights))

    def tilted(self, groups: Sequence[Group]) -> Group:
        """All pairs of the step with their chosen answers alone, and the goals of these, which the base gives.

        The hidden states of a grid are held at once: K x K answers, a vector each token.
        """
        taught: list[Pair] = []
        with distilling.as_base(self.model):
            for group in groups:
                rows: distilling.Rows = [[]] * len(group.pairs)
                grid = Group(contrasting.contrast(group.pairs), group.positions)
                self._in_parts(grid, partial(self._hidden, rows))
                taught += distilling.tilted(self.model, group.pairs, rows, self.settings.tilt_strength)
        return Group(taught, [positions for group in groups for positions in group.positions])

    def add_distilled(self, group: Group) -> None:
        """Add the gradient of pairs of one answer that are trained towards distributions."""
        self._in_parts(group, self._distil)

    def _in_parts(self, group: Group, work: Callable[[Group, Batch, list[int]], None], indices: list[int] | None = None) -> None:
        """`work` on micro-batches of the pairs `indices` (all of the group); one that does not fit is split and done again."""
        pairs = group.pairs
        # With dropout, each pair runs alone under its own seed, so any split gives the same mask, and so does a second run.
        budget = 1 if self.settings.lora.dropout else self.budget
        for part in split(range(len(pairs)) if indices is None else indices, pairs, budget):
            mx.random.seed((self.seed + group.positions[part[0]][0]) % (1 << 31))
            try:
                work(group, batch_of([pairs[i] for i in part], self.pad_id), part)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_too_large(error):
                    raise
                tokens, by_watchdog = padded_tokens([pairs[i] for i in part]), is_watchdog(error)
                self.watchdog |= by_watchdog
                if len(part) == 1 and by_watchdog:
                    self.ended_alone += 1
                    if self.ended_alone > ALONE:
                        raise Failure(one_line(error)[0]) from error
                elif len(part) == 1 and self.checkpoint:
                    raise Failure(
                        f"out of memory at a single pair of {tokens} tokens; shorten pairs.max_tokens or "
                        "sources.context_tokens, lower pairs.candidates, or choose a smaller or quantised model"
                    ) from error
            mx.clear_cache()
            if len(part) == 1 and not by_watchdog:
                self.checkpoint = True  # the last thing that saves memory; changes no result
            self.budget = max(1, min(self.budget, tokens) // 2)
            self._in_parts(group, work, part)

    def _backward(self, group: Group, batch: Batch, indices: list[int]) -> None:
        def loss(parameters: dict[str, Any]) -> tuple[mx.array, mx.array]:
            logps = self._logps(parameters, batch)
            return self._weighted(logps, batch, group, indices).sum(), logps

        (_, logps), gradients = mx.value_and_grad(loss)(self.model.trainable_parameters())
        self._accumulate(gradients, logps)
        self._record(logps, batch, group, indices)

    def _forward(self, values: np.ndarray, group: Group, batch: Batch, indices: list[int]) -> None:
        """Write the log-probabilities of the pairs `indices` into `values`, (pairs, candidates)."""
        logps = np.array(batch_logprobs(self.model, batch, gradient=False).sum(axis=-1))
        values[indices, : logps.shape[1]] = logps

    def _add_weighted(self, weights: mx.array, group: Group, batch: Batch, indices: list[int]) -> None:
        """Add the gradient of sum(weights * log-probabilities) of the pairs `indices`."""

        def loss(parameters: dict[str, Any]) -> mx.array:
            logps = self._logps(parameters, batch)
            return (weights[mx.array(indices)][:, : logps.shape[1]] * logps).sum()

        self._accumulate(mx.grad(loss)(self.model.trainable_parameters()))

    def _hidden(self, rows: distilling.Rows, group: Group, batch: Batch, indices: list[int]) -> None:
        """Put the hidden states of the pairs `indices` into `rows`."""
        for i, row in zip(indices, distilling.hidden_rows(self.model, batch), strict=True):
            rows[i] = row

    def _distil(self, group: Group, batch: Batch, indices: list[int]) -> None:
        """Add the gradient of the mean divergence of the pairs `indices` from their goals."""

        def loss(parameters: dict[str, Any]) -> tuple[mx.array, mx.array, mx.array]:
            self.model.update(parameters)
            nats, logps = distilling.losses(self.model, batch, [group.pairs[i] for i in indices], self.checkpoint)
            return self._shares(nats, group, indices).sum(), nats, logps

        (_, nats, logps), gradients = mx.value_and_grad(loss)(self.model.trainable_parameters())
        self._accumulate(gradients, nats, logps)
        lengths, reference = batch.answer_lengths[:, 0], batch.reference[:, 0]
        self._enter(distilling.figures(nats, logps, reference, lengths, self.settings.beta), group, indices)

    def _logps(self, parameters: dict[str, Any], batch: Batch) -> mx.array:
        """(pairs, candidates) summed log-probabilities in nats, differentiable in `parameters`."""
        self.model.update(parameters)
        return batch_logprobs(self.model, batch, checkpoint=self.checkpoint).sum(axis=-1)

    def _accumulate(self, gradients: Any, *others: mx.array) -> None:
        total = gradients if self.gradients is None else tree_map(mx.add, self.gradients, gradients)
        mx.eval(total, *others)  # each micro-batch is computed before the next is begun, so memory stays flat
        self.gradients = total

    def _losses(self, logps: mx.array, batch: Batch) -> mx.array:
        return objectives.losses(logps, batch.reference, batch.answer_lengths, batch.mask, self.settings)

    def _weighted(self, logps: mx.array, batch: Batch, group: Group, indices: list[int]) -> mx.array:
        return self._shares(self._losses(logps, batch), group, indices)

    def _shares(self, losses: mx.array, group: Group, indices: list[int]) -> mx.array:
        """Each pair's share of the mean loss over the step; a pair that stands for several counts as often."""
        stands_for = [len(group.positions[i]) for i in indices]
        return losses * mx.array(stands_for, dtype=mx.float32) / len(self.rows)

    def _record(self, logps: mx.array, batch: Batch, group: Group, indices: list[int]) -> None:
        figures = {
            "loss": self._losses(logps, batch),
            **objectives.metrics(logps, batch.reference, batch.answer_lengths, batch.mask, self.settings),
        }
        self._enter(figures, group, indices)

    def _enter(self, figures: dict[str, mx.array], group: Group, indices: list[int]) -> None:
        columns = {key: np.array(value).tolist() for key, value in figures.items()}
        for row, i in enumerate(indices):
            for position in group.positions[i]:
                self.rows[position] = {key: column[row] for key, column in columns.items()}


def batch_of(pairs: Sequence[Pair], pad_id: int) -> Batch:
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


def split(indices: Sequence[int], pairs: Sequence[Pair], token_budget: int) -> list[list[int]]:
    """`indices` of `pairs` as micro-batches of up to `token_budget` tokens, padding included; one pair at least.

    The longest pairs come first. Sorting leaves little padding, and the largest micro-batch runs first.
    """
    order = sorted(indices, key=lambda i: (padded_tokens([pairs[i]]), len(pairs[i].prompt_tokens), -i), reverse=True)
    groups: list[list[int]] = []
    for i in order:
        if groups and padded_tokens([pairs[j] for j in (*groups[-1], i)]) <= token_budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def padded_tokens(pairs: Sequence[Pair]) -> int:
    """Tokens of one batch of `pairs`, padding included."""
    prompt, candidates, answer = _shape(pairs)
    return len(pairs) * (prompt + candidates * answer)


def padded_prompt(tokens: int) -> int:
    """The width of a prompt of so many tokens; its recorded part, one token shorter, is what is rounded up."""
    return padded_answer(tokens - 1) + 1


def padded_answer(tokens: int) -> int:
    """The width of an answer of so many tokens."""
    unit = ROUND[backend.on_cpu()]
    return -(-tokens // unit) * unit


def _shape(pairs: Sequence[Pair]) -> tuple[int, int, int]:
    """Padded length of prompts, number of candidates, padded length of answers."""
    prompt = max(len(pair.prompt_tokens) for pair in pairs)
    answer = max(len(tokens) for pair in pairs for tokens in pair.tokens)
    return padded_prompt(prompt), max(len(pair.tokens) for pair in pairs), padded_answer(answer)
