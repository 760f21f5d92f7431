"""Log-probabilities from hidden states, in chunks: the (tokens x vocabulary) matrix never exists whole.

The gradient of a token's log-probability with respect to its hidden state needs nothing from outside but one scalar (the
loss's derivative by that log-probability). So the forward pass computes it at once, while a chunk's probabilities are there
anyway, and the backward pass only scales it: the logits are computed once, and two matrix products do instead of three.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from .fastmath import exp_minus, on_cpu
from .prefix import body_name, text_model

CHUNK_LOGITS = 1 << 23  # logits at a time: 32 MiB in float32
Head = Callable[[mx.array], mx.array]


class _Body:
    """Stands in for a model's body: returns the hidden states given, and is the body in everything else."""

    def __init__(self, body: nn.Module, hidden: mx.array):
        self._body, self._hidden = body, hidden

    def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
        return self._hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


def output_head(model: nn.Module) -> Head:
    """hidden (tokens, width) -> logits (tokens, vocabulary), float32: all that `model` does after its body.

    It runs the model's own `__call__` around hidden states that are already there, so tied and untied, plain and quantised
    output layers, soft-capping and logit scales are the model's own.
    """
    text = text_model(model)
    name = body_name(text)

    def head(hidden: mx.array) -> mx.array:
        body = text[name]
        dict.__setitem__(text, name, _Body(body, hidden[None]))  # an nn.Module is a dict of its parts
        try:
            return text(mx.zeros((1, hidden.shape[0]), mx.int32))[0].astype(mx.float32)
        finally:
            dict.__setitem__(text, name, body)

    return head


def head_is_frozen(model: nn.Module) -> bool:
    """Whether nothing trainable lies outside the layers and the final norm, so that only hidden states need gradients."""
    text = text_model(model)
    names = [name for name, _ in tree_flatten(text.trainable_parameters())]
    return all(name.startswith(body_name(text) + ".") and "embed" not in name for name in names)


def _logp(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """log p(target) and the log-sum-exp of all logits, (tokens,) each."""
    if on_cpu():
        top = logits.max(axis=-1, keepdims=True)
        total = (top + mx.log(exp_minus(logits, top).sum(axis=-1, keepdims=True)))[:, 0]
    else:
        total = mx.logsumexp(logits, axis=-1)
    return mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - total, total


def _direction(head: Head, hidden: mx.array, logits: mx.array, total: mx.array, targets: mx.array) -> mx.array:
    """d log p(target) / d hidden for each token: the head's pull-back of (one-hot target - probabilities)."""
    surplus = exp_minus(logits, total[:, None]) if on_cpu() else mx.exp(logits - total[:, None])
    surplus = surplus.at[mx.arange(targets.size), targets].add(-1)
    _, (back,) = mx.vjp(lambda h: head(h), [hidden], [surplus])
    return -back


def token_logprobs(head: Head, hidden: mx.array, targets: mx.array, frozen: bool) -> mx.array:
    """log p(target) of each token in nats: hidden (tokens, width), targets (tokens,) -> (tokens,) float32.

    `frozen`: the head has nothing to train (`head_is_frozen`); otherwise MLX differentiates through it, and keeps the logits.
    """
    if not frozen:
        logits = head(hidden)
        return mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - mx.logsumexp(logits, axis=-1)
    vocabulary = head(hidden[:1]).shape[-1]  # its shape only: nothing is computed
    step = max(1, CHUNK_LOGITS // vocabulary)

    def forward(hidden: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
        found, directions = [], []
        for begin in range(0, targets.size, step):
            part, wanted = hidden[begin : begin + step], targets[begin : begin + step]
            if directions:  # one chunk after another: MLX would otherwise be free to keep many alive
                part = mx.depends([part], [found[-1], directions[-1]])[0]
            logits = head(part)
            logp, total = _logp(logits, wanted)
            direction = _direction(head, part, logits, total, wanted).astype(hidden.dtype)
            found.append(mx.depends([logp], [direction])[0])
            directions.append(direction)
        return mx.concatenate(found), mx.concatenate(directions)

    function = mx.custom_function(forward)

    @function.vjp
    def backward(primals, cotangents, outputs):
        return (cotangents[0][:, None] * outputs[1]).astype(primals[0].dtype), mx.zeros_like(primals[1])

    return function(hidden, targets)[0]


def token_logprobs_without_gradient(head: Head, hidden: mx.array, targets: mx.array) -> mx.array:
    """As `token_logprobs`, for values only: chunks are computed one after the other, here and now."""
    step = max(1, CHUNK_LOGITS // head(hidden[:1]).shape[-1])
    found = []
    for begin in range(0, targets.size, step):
        found.append(_logp(head(hidden[begin : begin + step]), targets[begin : begin + step])[0])
        mx.eval(found[-1])
    return mx.concatenate(found)
