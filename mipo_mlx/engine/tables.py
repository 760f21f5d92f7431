"""On the CPU, the embedding and the output layer in the precision of the model's file: 16 bits a weight, or quantised.

The base computes in float32 there (`backend.prepare`), but of these two layers few rows are at hand at a time: those of the
tokens that are read, and a block of the vocabulary (`head.py`). Only such rows are expanded, to the very values that a float32
table would have. Decoding reads the whole table at every token; within `expanded` it is float32 for as long as that lasts.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

OUTPUT = ("lm_head", "output")  # what models call their output layer,
EMBEDDINGS = ("embed_tokens", "embeddings", "wte", "tok_embeddings")  # and the embedding that may serve as one
PARTS = ("stored", "scales", "biases")


class StoredEmbedding(nn.Embedding):
    """An embedding whose `weight` (vocabulary, width) is float32 only while it is used."""

    def __init__(self, layer: nn.Embedding | nn.QuantizedEmbedding):
        _take(self, layer)

    @property
    def weight(self) -> mx.array:
        return _expand(self)

    def __call__(self, tokens: mx.array) -> mx.array:
        return _expand(self, tokens)

    def _extra_repr(self) -> str:
        return str(self.stored.dtype)


class StoredLinear(nn.Linear):
    """A linear layer whose `weight` (outputs, inputs) is float32 only while it is used."""

    def __init__(self, layer: nn.Linear | nn.QuantizedLinear):
        _take(self, layer)

    @property
    def weight(self) -> mx.array:
        return _expand(self)

    def __call__(self, x: mx.array) -> mx.array:
        return mx.addmm(self.bias, x, self.weight.T) if "bias" in self else x @ self.weight.T

    def _extra_repr(self) -> str:
        return str(self.stored.dtype)


STORED = (StoredEmbedding, StoredLinear)


def _take(new: nn.Module, layer: nn.Module) -> None:
    """Make `new` hold the arrays of `layer`, frozen."""
    nn.Module.__init__(new)
    new.stored = layer.weight
    if "scales" in layer:
        new.scales, new.group_size, new.bits, new.mode = layer.scales, layer.group_size, layer.bits, layer.mode
        if layer.get("biases") is not None:
            new.biases = layer.biases
    if "bias" in layer:
        new.bias = layer.bias.astype(mx.float32)
    new.freeze()


def _expand(layer: nn.Module, rows: Any = slice(None), after: mx.array | None = None) -> mx.array:
    """float32 rows of a stored layer's weight; after: what has to be computed before."""
    parts = {name: layer[name][rows] for name in PARTS if name in layer}
    if after is not None:
        parts = dict(zip(parts, mx.depends(list(parts.values()), [after]), strict=True))
    weight = parts.pop("stored")
    if parts:
        weight = mx.dequantize(weight, **parts, group_size=layer.group_size, bits=layer.bits, mode=layer.mode)
    return weight.astype(mx.float32)


def expanded_rows(layer: nn.Module, rows: Any = slice(None), after: mx.array | None = None) -> nn.Module:
    """A stored layer with some of its rows only, in float32.

    after: an array that is computed first. Rows hang on nothing else, and MLX might expand all blocks before it needs the first.
    """
    new = copy.copy(layer)
    for name in PARTS:
        new.pop(name, None)
    dict.update(new, {"stored": _expand(layer, rows, after)}, **({"bias": layer.bias[rows]} if "bias" in layer else {}))
    return new


def _places(model: nn.Module, names: tuple[str, ...], kinds: tuple[type, ...]) -> list[tuple[nn.Module, str]]:
    owners = [owner for _, owner in model.named_modules()]
    return [(owner, name) for owner in owners for name in names if isinstance(owner.get(name), kinds)]


def tables(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """(owner, attribute, stored layer) for each embedding and output layer that is not float32; `model` stays as it is."""
    places = _places(model, EMBEDDINGS, (nn.Embedding, nn.QuantizedEmbedding))
    found = [(owner, name, StoredEmbedding(owner[name])) for owner, name in places]
    places = _places(model, OUTPUT, (nn.Linear, nn.QuantizedLinear))
    found += [(owner, name, StoredLinear(owner[name])) for owner, name in places]
    return [(owner, name, layer) for owner, name, layer in found if layer.stored.dtype != mx.float32]


@contextmanager
def expanded(model: nn.Module) -> Iterator[None]:
    """Within this, stored layers are float32 as a whole: for decoding, which would expand all rows anew at every token."""
    kept = [(owner, name, owner[name]) for owner, name in _places(model, EMBEDDINGS + OUTPUT, STORED)]
    for owner, name, layer in kept:
        dict.update(owner, {name: expanded_rows(layer)})
    mx.eval([owner[name].stored for owner, name, _ in kept])
    try:
        yield
    finally:
        for owner, name, layer in kept:
            dict.update(owner, {name: layer})
        if kept:
            mx.clear_cache()  # or the allocator keeps buffers of that size, which little else can use
