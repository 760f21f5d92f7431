"""Log-probabilities from hidden states: the (tokens x vocabulary) matrix never exists whole.

The output layer is computed one block of the vocabulary at a time, with the running maximum and sum of FlashAttention. The
gradient of a token's log-probability by its hidden state needs one scalar from outside: the loss's derivative by that
log-probability. So the forward pass accumulates the gradient beside the sum, and the backward pass only scales it. The logits
are computed once, in two matrix products instead of three.
"""

import copy
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..errors import UserError
from .cpu import exp_minus, row_sums
from .prefix import body_name, text_model
from .tables import EMBEDDINGS, OUTPUT, STORED, expanded_rows, replaced

BLOCK = 2048  # vocabulary entries at a time, whatever the batch, so that a token's result does not depend on its company
CHUNK_TOKENS = 512  # tokens at a time


class OutputHead:
    """All that a model does after its body: hidden (tokens, width) -> float32 logits of all or some vocabulary entries.

    It runs the model's own `__call__` around hidden states that are already there. `cut` gives the output layer with the wanted
    rows only. So tied and untied, plain and quantised layers, soft-capping and logit scales are the model's own.

    frozen: nothing in it is trained, so only hidden states need gradients.
    """

    def __init__(self, model: nn.Module):
        self.text = text_model(model)
        self.name = body_name(self.text)
        trained = [name for name, _ in tree_flatten(self.text.trainable_parameters())]
        self.frozen = all(name.startswith(self.name + ".") and "embed" not in name for name in trained)
        body = self.text[self.name]
        self.layers = {name: (self.text, name) for name in OUTPUT if isinstance(self.text.get(name), nn.Module)}
        self.layers = self.layers or {name: (body, name) for name in EMBEDDINGS if isinstance(body.get(name), nn.Module)}

    def cut(self, rows: Any, after: mx.array | None = None) -> dict[str, nn.Module]:
        """The output layer of some vocabulary entries, in float32 where it is stored otherwise; `after`: see `expanded_rows`."""
        return {name: _rows(owner[name], rows, after) for name, (owner, _) in self.layers.items()}

    def __call__(self, hidden: mx.array, cut: dict[str, nn.Module] | None = None) -> mx.array:
        cut = cut or {name: owner[name] for name, (owner, _) in self.layers.items()}
        with replaced(self.text, {self.name: _BodyStandIn(self.text[self.name], hidden[None], cut)}):
            with replaced(self.text, {name: layer for name, layer in cut.items() if name in self.text}):
                return self.text(mx.zeros((1, hidden.shape[0]), mx.int32))[0].astype(mx.float32)

    def size(self, hidden: mx.array) -> int:
        """The number of vocabulary entries; only shapes are computed. Raises UserError where the output layer is not known."""
        if self(hidden[:1], self.cut(slice(0, 1))).shape[-1] != 1:
            raise UserError(
                f"{type(self.text).__module__}: its output layer is not found (expected {' or '.join(OUTPUT)}, or the embedding), "
                "so answers cannot be scored; choose another base model"
            )
        return int(self(hidden[:1]).shape[-1])


def token_logprobs(head: OutputHead, hidden: mx.array, targets: mx.array) -> mx.array:
    """log p(target) of each token in nats: hidden (tokens, width), targets (tokens,) -> (tokens,) float32; differentiable.

    A head that is trained itself is differentiated as it stands, which keeps all logits.
    """
    if not head.frozen:
        logits = head(hidden.astype(mx.float32))
        return mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - mx.logsumexp(logits, axis=-1)
    size = head.size(hidden)

    def forward(hidden: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
        logps: list[mx.array] = []
        directions: list[mx.array] = []
        for begin in range(0, targets.size, CHUNK_TOKENS):
            part, wanted = _part(hidden, targets, begin)
            if logps:
                part = mx.depends([part], [logps[-1], directions[-1]])[0]
            logp, direction = _chunk(head, part, wanted, size, gradient=True)
            logps.append(logp)
            directions.append(direction.astype(hidden.dtype))
        return mx.concatenate(logps), mx.concatenate(directions)

    function = mx.custom_function(forward)
    function.vjp(lambda primals, grad, outputs: (grad[0][:, None].astype(outputs[1].dtype) * outputs[1], mx.zeros_like(primals[1])))
    return function(hidden, targets)[0]


def token_logprobs_without_gradient(head: OutputHead, hidden: mx.array, targets: mx.array) -> mx.array:
    """As `token_logprobs`, for values only."""
    size = head.size(hidden)
    logps = []
    for begin in range(0, targets.size, CHUNK_TOKENS):
        part, wanted = _part(hidden, targets, begin)
        logps.append(_chunk(head, part, wanted, size, gradient=False)[0])
        mx.eval(logps[-1])
    return mx.concatenate(logps)


def _part(hidden: mx.array, targets: mx.array, begin: int) -> tuple[mx.array, mx.array]:
    """One chunk of tokens, in float32: logits in bf16 would be off by about 0.03 nat a token."""
    chunk = slice(begin, begin + CHUNK_TOKENS)
    return hidden[chunk].astype(mx.float32), targets[chunk]


def _chunk(head: OutputHead, hidden: mx.array, targets: mx.array, size: int, gradient: bool) -> tuple[mx.array, mx.array]:
    """log p(target) (tokens,) and, if `gradient`, its derivative by `hidden` (tokens, width)."""
    logit, direction = _targets(head, hidden, targets, gradient)
    normaliser, derivative = normalisers(head, hidden, size, gradient)
    return logit - normaliser, direction - derivative


def normalisers(head: OutputHead, hidden: mx.array, size: int, gradient: bool) -> tuple[mx.array, mx.array]:
    """The logarithm of the sum of all exp(logit), (tokens,) float32.

    Also, if `gradient`, its derivative by `hidden` (tokens, width).
    """
    tokens = hidden.shape[0]
    top, total, derivative = mx.full((tokens, 1), -mx.inf), mx.zeros((tokens, 1)), mx.zeros(hidden.shape)
    ready = hidden
    for begin in range(0, size, BLOCK):
        block = head.cut(slice(begin, min(begin + BLOCK, size)), after=ready)
        logits = head(hidden, block)
        higher = mx.maximum(top, logits.max(axis=-1, keepdims=True))
        weights = exp_minus(logits, higher)
        shrink = mx.exp(top - higher)
        total = total * shrink + row_sums(weights)
        top = higher
        if gradient:
            _, (more,) = mx.vjp(lambda h, block=block: head(h, block), [hidden], [weights])
            derivative = derivative * shrink + more
            total, top = mx.depends([total, top], [derivative])  # one block after another, or all would be alive at once
        ready = total
    return (top + mx.log(total))[:, 0], derivative / total


def _targets(head: OutputHead, hidden: mx.array, targets: mx.array, gradient: bool) -> tuple[mx.array, mx.array]:
    """Logit of each token's own target (tokens,), and its derivative by the token's hidden state (tokens, width)."""
    own, cut = mx.eye(targets.size), head.cut(targets, after=hidden)
    if not gradient:
        return (head(hidden, cut) * own).sum(axis=-1), hidden
    (logits,), (direction,) = mx.vjp(lambda h: head(h, cut), [hidden], [own])
    return (logits * own).sum(axis=-1), direction


class _BodyStandIn:
    """Stands in for a model's body: it returns hidden states that are already there, and some of its parts are others."""

    def __init__(self, body: nn.Module, hidden: mx.array, parts: dict[str, nn.Module]):
        self._body, self._hidden, self._parts = body, hidden, parts

    def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
        return self._hidden

    def __getattr__(self, name: str) -> Any:
        return self._parts.get(name) or getattr(self._body, name)


def _rows(layer: nn.Module, rows: Any, after: mx.array | None) -> nn.Module:
    """A linear or embedding layer, plain, quantised or stored, with some of its outputs only."""
    if isinstance(layer, STORED):
        return expanded_rows(layer, rows, after)
    cut = copy.copy(layer)
    dict.update(cut, {name: x[rows] for name, x in layer.items() if isinstance(x, mx.array)})
    return cut
