"""Run a prompt once and all its answers against it, differentiably, on stock mlx-lm models.

mlx-lm's attention layers take any object with `offset`, `update_and_fetch` and `make_mask` as their KV cache. The prompt pass
hands them `Recorder`s, which keep each layer's keys and values as ordinary differentiable arrays; the answer pass hands them
`Prefix`es, which put those before each answer's own.

~~~ Gradient checkpointing of a model's layers that is exact together with prefix sharing.

A checkpointed function is run a second time in the backward pass, so it must not change anything outside. Here a layer gets
its prompt's keys and values as inputs and returns the ones it records as outputs; the caches it sees are made afresh inside.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

from ..errors import UserError
from .cpu import swapped


def windows(model: nn.Module) -> list[int | None] | None:
    """Each layer's attention window (None: sees everything), or None where the prompt cannot be shared.

    Shareable: one cache of plain keys and values a layer, whole (`KVCache`) or the last w positions (`RotatingKVCache`).
    Recurrent and chunked caches, and caches nested in lists, are not.
    """
    found: list[int | None] = []
    for cache in make_prompt_cache(model):
        if type(cache) is KVCache:
            found.append(None)
        elif type(cache) is RotatingKVCache and cache.keep == 0:
            found.append(cache.max_size)
        else:
            return None
    return found if len(found) == len(text_model(model).layers) else None


def text_model(model: nn.Module) -> nn.Module:
    """The language model inside a wrapper of several modalities, else the model itself."""
    return getattr(model, "language_model", model)


def body_name(text: nn.Module) -> str:
    """The attribute of a language model that holds its body, all that comes before the output head."""
    for name in ("model", "backbone", "transformer"):
        if isinstance(text.get(name), nn.Module) and hasattr(text[name], "layers"):
            return name
    raise UserError(
        f"{type(text).__module__}: no model, backbone or transformer part with layers was found, so its hidden states cannot be "
        "read; choose another base model"
    )


def body_of(model: nn.Module) -> nn.Module:
    text = text_model(model)
    return text[body_name(text)]


def grouped_scores(model: nn.Module) -> bool:
    """Gemma 2 computes its soft-capped attention itself, with scores of (rows, key heads, query groups, queries, keys)."""
    return text_model(model).model_type == "gemma2" and text_model(model).layers[0].self_attn.repeats > 1


def causal(queries: mx.array, keys: mx.array, window: int | None) -> mx.array:
    """Which key positions a query position sees: bool, broadcast of queries[..., :, None] against keys[..., None, :]."""
    distance = queries[..., :, None] - keys[..., None, :]
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


class Recorder:
    """Cache of one layer in the prompt pass: keeps its keys and values, (prompts, heads, length, head_dim)."""

    offset = 0

    def __init__(self, window: int | None):
        self.window = window

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.keys, self.values = keys, values
        return keys, values

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> Any:
        window = self.window or window_size
        if not return_array and (window is None or n <= window):
            return "causal"
        return causal(mx.arange(n), mx.arange(n), window)


@dataclass
class Layout:
    """Where everything lies in the answer pass: rows = prompts x answers, each row's queries at positions start + 0, 1, ..."""

    start: mx.array  # (prompts,) int32: position of the last prompt token, which is each row's first query
    width: int  # recorded prompt tokens, padding included
    answers: int  # rows per prompt
    grouped: bool = False  # whether attention scores have an axis of query groups of their own

    def offset(self) -> mx.array:
        return mx.repeat(self.start, self.answers)

    def mask(self, n: int, window: int | None) -> mx.array:
        """(rows, 1, n, width + n) bool; (rows, 1, 1, n, width + n) where attention scores are grouped."""
        own = mx.arange(n)
        recorded = mx.arange(self.width)
        before = mx.broadcast_to(
            (recorded < self.start[:, None])[:, None], (self.start.size, n, self.width)
        )  # padding of shorter prompts is hidden
        if window is not None:
            before = before & causal(self.start[:, None] + own, recorded[None], window)
        among = mx.broadcast_to(causal(own, own, window), (self.start.size, n, n))
        mask = mx.repeat(mx.concatenate([before, among], axis=-1)[:, None], self.answers, axis=0)
        return mask[:, None] if self.grouped else mask


class Prefix:
    """Cache of one layer in the answer pass: puts the recorded prompt before each answer's own keys and values."""

    def __init__(self, keys: mx.array | None, values: mx.array | None, layout: Layout, window: int | None):
        self.keys, self.values, self.layout, self.window = keys, values, layout, window
        self.offset = layout.offset()

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        if self.keys is None:
            return keys, values
        n = self.layout.answers
        return (
            mx.concatenate([mx.repeat(self.keys, n, axis=0), keys], axis=2),
            mx.concatenate([mx.repeat(self.values, n, axis=0), values], axis=2),
        )

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        return self.layout.mask(n, self.window or window_size)


class _Checkpointed:
    """A layer that keeps only its inputs for the backward pass; everything but the call is the layer's own."""

    def __init__(self, layer: nn.Module):
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def __call__(self, h: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        layer = self._layer
        cache = next((x for x in (*args, *kwargs.values()) if isinstance(x, (Recorder, Prefix))), None)
        prefix = (cache.keys, cache.values) if isinstance(cache, Prefix) and cache.keys is not None else ()

        high, low = mx.random.state[0].tolist()  # dropout must draw the same numbers when the layer runs again, and without us

        def run(parameters: dict, h: mx.array, *prefix: mx.array) -> tuple[mx.array, ...]:
            fresh = None
            if isinstance(cache, Recorder):
                fresh = Recorder(cache.window)
            elif isinstance(cache, Prefix):
                fresh = Prefix(*(prefix or (None, None)), cache.layout, cache.window)
            kept = layer.trainable_parameters()
            layer.update(parameters)
            mx.random.seed(high << 32 | low)
            try:
                swap = {id(cache): fresh}
                with swapped(layer):  # the second run comes when the tracing of the whole is long over
                    out = layer(h, *(swap.get(id(x), x) for x in args), **{k: swap.get(id(x), x) for k, x in kwargs.items()})
            finally:
                layer.update(kept)
            return (out, fresh.keys, fresh.values) if isinstance(fresh, Recorder) else (out,)

        out = mx.checkpoint(run)(layer.trainable_parameters(), h, *prefix)
        if isinstance(cache, Recorder):
            cache.update_and_fetch(*out[1:])
        return out[0]


@contextmanager
def checkpointed(body: nn.Module, on: bool) -> Iterator[None]:
    """Within this, `body`'s layers are checkpointed one by one (if `on`)."""
    layers = body.layers
    if on:
        dict.__setitem__(body, "layers", [_Checkpointed(layer) for layer in layers])
    try:
        yield
    finally:
        dict.__setitem__(body, "layers", layers)
