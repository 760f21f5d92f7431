"""On the CPU, the embedding and the output layer in the precision of the model's file: 16 bits a weight, or quantised.

The rest of the base computes in float32 there (`prepare`). Of these two layers few rows are needed at a time: those of
the tokens that are read, and a block of the vocabulary (`head.py`). Only such rows are expanded, to the very values that a
float32 table would have. Decoding reads the whole table at every token, so within `expanded` the table is float32.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map
from mlx_lm.utils import dequantize_model

from .. import backend

OUTPUT = ("lm_head", "output")  # names of the output layer in models
EMBEDDINGS = ("embed_tokens", "embeddings", "wte", "tok_embeddings")  # of the embedding, which may serve as output
PARTS = ("stored", "scales", "biases")


def prepare(model: Any) -> Any:
    """The base in the precisions of `lay_out`, computed and in memory."""
    model = lay_out(model)
    mx.eval(model.parameters())
    return model


def cast(model: Any, dtype: mx.Dtype) -> Any:
    """The model with its floating-point arrays in `dtype`; nothing is computed yet. Quantised weights keep their levels."""
    model.update(tree_map(lambda p: p.astype(dtype) if mx.issubdtype(p.dtype, mx.floating) else p, model.parameters()))
    return model


def lay_out(model: Any) -> Any:
    """The base in the precisions that suit this device; nothing is computed yet.

    CPU: float32, since quantised and 16-bit products run at 0.1 to 2 GFLOP/s there; the embedding and the output layer stay as
    stored. GPU: all stays as stored (quantised, bf16).
    """
    if backend.device().kind == "cpu":
        kept = tables(model)
        model = cast(dequantize_model(model), mx.float32)
        for owner, name, layer in kept:
            owner[name] = layer
    return model


def tables(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """(owner, attribute, stored layer) for each embedding and output layer that is not float32; `model` stays as it is."""
    embeddings = _places(model, EMBEDDINGS, (nn.Embedding, nn.QuantizedEmbedding))
    outputs = _places(model, OUTPUT, (nn.Linear, nn.QuantizedLinear))
    layers = [(owner, name, StoredEmbedding(owner[name])) for owner, name in embeddings]
    layers += [(owner, name, StoredLinear(owner[name])) for owner, name in outputs]
    return [(owner, name, layer) for owner, name, layer in layers if layer.stored.dtype != mx.float32]


def embedding_of(text: nn.Module) -> nn.Module:
    """The embedding layer of a language model: token ids in, rows out."""
    owner, name = _places(text, EMBEDDINGS, (nn.Embedding, nn.QuantizedEmbedding))[0]
    return owner[name]


@contextmanager
def expanded(model: nn.Module) -> Iterator[None]:
    """Within this, stored layers are float32 as a whole. Decoding would expand all rows again at every token."""
    places = _places(model, EMBEDDINGS + OUTPUT, STORED)
    with ExitStack() as stack:
        if places:
            stack.callback(mx.clear_cache)  # or the allocator keeps buffers of that size, which little else can use
        for owner, name in places:
            stack.enter_context(replaced(owner, {name: expanded_rows(owner[name])}))
        mx.eval([owner[name].stored for owner, name in places])
        yield


@contextmanager
def replaced(module: nn.Module, parts: dict[str, Any]) -> Iterator[None]:
    """Within this, `module` has other parts.

    This is how layers of a stock mlx-lm model are changed in place: its code reads them from its modules. A module is a dict of
    its parts. Setting an attribute would drop the part from it where the new one is no array, list or dict.
    """
    kept = {name: module[name] for name in parts}
    dict.update(module, parts)
    try:
        yield
    finally:
        dict.update(module, kept)


class _Stored(nn.Module):
    """Holds the arrays of a layer, frozen. Its `weight` (outputs, inputs) is float32 only while it is used."""

    def __init__(self, layer: nn.Module):
        nn.Module.__init__(self)
        self.stored = layer.weight
        if "scales" in layer:
            self.scales, self.group_size, self.bits, self.mode = layer.scales, layer.group_size, layer.bits, layer.mode
            if layer.get("biases") is not None:
                self.biases = layer.biases
        if "bias" in layer:
            self.bias = layer.bias.astype(mx.float32)
        self.freeze()

    @property
    def weight(self) -> mx.array:
        return _expand(self)


class StoredEmbedding(_Stored, nn.Embedding):
    def __call__(self, tokens: mx.array) -> mx.array:
        return _expand(self, tokens)


class StoredLinear(_Stored, nn.Linear):
    def __call__(self, x: mx.array) -> mx.array:
        return mx.addmm(self.bias, x, self.weight.T) if "bias" in self else x @ self.weight.T


STORED = (StoredEmbedding, StoredLinear)


def expanded_rows(layer: nn.Module, rows: Any = slice(None), after: mx.array | None = None) -> nn.Module:
    """A stored layer with some of its rows only, in float32.

    after: an array that is computed first. Rows depend on nothing else, so MLX might expand all blocks before the first is used.
    """
    new = copy.copy(layer)
    for name in PARTS:
        new.pop(name, None)
    dict.update(new, {"stored": _expand(layer, rows, after)}, **({"bias": layer.bias[rows]} if "bias" in layer else {}))
    return new


def _expand(layer: nn.Module, rows: Any = slice(None), after: mx.array | None = None) -> mx.array:
    """float32 rows of a stored layer's weight; after: an array that is computed first."""
    parts = {name: layer[name][rows] for name in PARTS if name in layer}
    if after is not None:
        parts = dict(zip(parts, mx.depends(list(parts.values()), [after]), strict=True))
    weight = parts.pop("stored")
    if parts:
        weight = mx.dequantize(weight, **parts, group_size=layer.group_size, bits=layer.bits, mode=layer.mode)
    return weight.astype(mx.float32)


def _places(model: nn.Module, names: tuple[str, ...], kinds: tuple[type, ...]) -> list[tuple[nn.Module, str]]:
    owners = [owner for _, owner in model.named_modules()]
    return [(owner, name) for owner in owners for name in names if isinstance(owner.get(name), kinds)]
