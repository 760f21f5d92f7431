"""Distributions over the vocabulary as their likeliest entries and the tail, and a loss towards such a distribution.

The support of a token is its own entry of the vocabulary and the likeliest others. All entries beyond it share one probability,
the tail. As in `head.py`, the logits of the whole vocabulary exist one block at a time, and the forward pass computes the gradient.
The model is p, the goal q, the support S, the tail T. The loss KL(q || p) of a token has the derivative p_v - q_v by a logit in S,
and p_v (1 - q_T / p_T) by any other. So it is (1 - q_T / p_T) x the derivative of the normaliser, and a sum over S.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .head import BLOCK, CHUNK_TOKENS, OutputHead, normalisers

FLOOR = 1e-6  # the least probability of a tail: float32 resolves no less in 1 - the sum of the others


@dataclass(frozen=True)
class Goal:
    """What the tokens of an answer are trained towards: each row of `kept` and its `tail` sum to 1."""

    ids: np.ndarray  # (tokens, kept) int32 entries of the vocabulary, distinct in a row
    kept: np.ndarray  # (tokens, kept) float32 probabilities
    tail: np.ndarray  # (tokens,) float32

    @staticmethod
    def joined(goals: "list[Goal]") -> "Goal":
        """The goals of several answers, one after the other."""
        columns = zip(*((goal.ids, goal.kept, goal.tail) for goal in goals), strict=True)
        return Goal(*(np.concatenate(column) for column in columns))


def likeliest(head: OutputHead, hidden: mx.array, targets: mx.array, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """The support of each token: ids (tokens, kept) int32, and their log-probabilities in nats, float32.

    hidden: (tokens, width); targets: (tokens,) the entries that are always in. `kept` is cut to the size of the vocabulary.
    """
    size = head.size(hidden)
    kept = min(kept, size)
    ids, logps = [], []
    for part in _slices(hidden.shape[0], CHUNK_TOKENS):
        own, wanted = hidden[part].astype(mx.float32), targets[part, None]
        entries, logits = mx.zeros((own.shape[0], 0), mx.int32), mx.zeros((own.shape[0], 0))
        for begin in range(0, size, BLOCK):
            more = head(own, head.cut(slice(begin, min(begin + BLOCK, size))))
            numbers = mx.broadcast_to(mx.arange(begin, begin + more.shape[1], dtype=mx.int32), more.shape)
            entries, logits = mx.concatenate([entries, numbers], axis=1), mx.concatenate([logits, more], axis=1)
            if entries.shape[1] > kept:
                rank = mx.where(entries == wanted, -mx.inf, -logits)
                best = mx.argpartition(rank, kth=kept - 1, axis=1)[:, :kept]
                entries, logits = mx.take_along_axis(entries, best, axis=1), mx.take_along_axis(logits, best, axis=1)
            mx.eval(entries, logits)
        normaliser, _ = normalisers(head, own, size, gradient=False)
        ids.append(np.array(entries))
        logps.append(np.array(logits - normaliser[:, None]))
    return np.concatenate(ids), np.concatenate(logps)


def logprobs_at(head: OutputHead, hidden: mx.array, ids: np.ndarray) -> np.ndarray:
    """Log-probabilities of the entries `ids` (tokens, kept) of each token, in nats, float32. hidden: (tokens, width)."""
    size, logps = head.size(hidden), []
    for part in _slices(hidden.shape[0], CHUNK_TOKENS):
        own = hidden[part].astype(mx.float32)
        normaliser, _ = normalisers(head, own, size, gradient=False)
        for few in _slices(own.shape[0], _tokens_at_once(ids)):
            logits = mx.take_along_axis(*_narrow(head, own[few], ids[part][few])[1:], axis=1)
            logps.append(np.array(logits - normaliser[few, None]))
    return np.concatenate(logps)


def divergence(head: OutputHead, hidden: mx.array, goal: Goal) -> tuple[mx.array, mx.array]:
    """KL(goal || model) of each token in nats, (tokens,) float32, differentiable in `hidden` (tokens, width).

    Also the model's log-probabilities of `goal.ids`, (tokens, kept), which are values alone. A head that is trained itself is
    differentiated as it stands, which keeps all logits.
    """
    if not head.frozen:
        logits = head(hidden.astype(mx.float32))
        logps = mx.take_along_axis(logits, mx.array(goal.ids), axis=1) - mx.logsumexp(logits, axis=-1, keepdims=True)
        return _divergence(logps, mx.array(goal.kept), mx.array(goal.tail)), mx.stop_gradient(logps)
    size = head.size(hidden)

    def forward(hidden: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        rows: list[tuple[mx.array, mx.array, mx.array]] = []
        for part in _slices(hidden.shape[0], CHUNK_TOKENS):
            own = hidden[part].astype(mx.float32)
            if rows:
                own = mx.depends([own], list(rows[-1]))[0]  # one chunk after another, or all would be alive at once
            normaliser, derivative = normalisers(head, own, size, gradient=True)
            for few in _slices(own.shape[0], _tokens_at_once(goal.ids)):
                ids, kept, tail = goal.ids[part][few], mx.array(goal.kept[part][few]), mx.array(goal.tail[part][few])
                rows.append(_losses(head, own[few], (normaliser[few], derivative[few]), ids, (kept, tail)))
        loss, logps, direction = (mx.concatenate(column) for column in zip(*rows, strict=True))
        return loss, logps, direction.astype(hidden.dtype)

    function = mx.custom_function(forward)
    function.vjp(lambda primal, grad, outputs: grad[0][:, None].astype(outputs[2].dtype) * outputs[2])
    loss, logps, _ = function(hidden)
    return loss, mx.stop_gradient(logps)


def _losses(
    head: OutputHead, hidden: mx.array, normaliser: tuple[mx.array, mx.array], ids: np.ndarray, goal: tuple[mx.array, mx.array]
) -> tuple[mx.array, mx.array, mx.array]:
    """The loss of a few tokens, their log-probabilities at `ids`, and the loss's derivative by `hidden`."""
    (kept, tail), (value, derivative) = goal, normaliser
    cut, logits, places = _narrow(head, hidden, ids)
    logps = mx.take_along_axis(logits, places, axis=1) - value[:, None]
    rest = 1 - mx.exp(logps).sum(axis=-1)
    ratio = mx.where(rest > FLOOR, tail / mx.maximum(rest, FLOOR), 0)  # a tail at its floor is a constant
    mass = kept.sum(axis=-1) + mx.where(rest > FLOOR, tail, 0)
    inside = mx.exp(logps) * ratio[:, None] - kept
    weights = mx.put_along_axis(mx.zeros(logits.shape), places, inside, axis=1)
    _, (direction,) = mx.vjp(lambda h: head(h, cut), [hidden], [weights])
    return _divergence(logps, kept, tail), logps, (mass - ratio)[:, None] * derivative + direction


def _divergence(logps: mx.array, kept: mx.array, tail: mx.array) -> mx.array:
    """KL of the goal from a model with these log-probabilities of the support, (tokens,) nats."""
    rest = mx.log(mx.maximum(1 - mx.exp(logps).sum(axis=-1), FLOOR))
    inside = mx.where(kept > 0, kept * (mx.log(mx.maximum(kept, 1e-30)) - logps), 0).sum(axis=-1)
    return inside + mx.where(tail > 0, tail * (mx.log(mx.maximum(tail, 1e-30)) - rest), 0)


def _narrow(head: OutputHead, hidden: mx.array, ids: np.ndarray) -> tuple[dict[str, nn.Module], mx.array, mx.array]:
    """The output layer of the entries that `ids` has, their logits (tokens, entries), and the place of each id among them."""
    entries = np.unique(ids)
    cut = head.cut(mx.array(entries))
    return cut, head(hidden, cut), mx.array(np.searchsorted(entries, ids))


def _tokens_at_once(ids: np.ndarray) -> int:
    """Tokens whose supports have, together, no more entries than a block of the vocabulary."""
    return max(1, BLOCK // int(ids.shape[1]))


def _slices(tokens: int, size: int) -> Iterator[slice]:
    return (slice(begin, min(begin + size, tokens)) for begin in range(0, tokens, size))
