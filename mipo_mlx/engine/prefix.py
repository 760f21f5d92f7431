"""Run a prompt once and all its answers against it, differentiably, on stock mlx-lm models.

mlx-lm's attention layers take any object with `offset`, `update_and_fetch` and `make_mask` as their KV cache. The prompt pass
gives them `Recorder`s, which keep each layer's keys and values as ordinary differentiable arrays. The answer pass gives them
`Prefix`es, which put those before each answer's own. What all prompts of a batch begin with (the system message up to the context,
the passages of other notes before it) runs once for all of them.

`checkpointed` adds gradient checkpointing of the layers. A checkpointed function runs a second time in the backward pass, so it
must change nothing outside. A layer gets its prompt's keys and values as inputs and returns those that it records as outputs.
The caches that it sees are new ones, made inside.
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
from .tables import replaced


def sliding_windows(model: nn.Module) -> list[int | None] | None:
    """Each layer's sliding window (None: it sees everything), or None where the prompt cannot be shared.

    Shareable: one cache of plain keys and values a layer, whole (`KVCache`) or the last w positions (`RotatingKVCache`).
    Recurrent and chunked caches, and caches nested in lists, are not.
    """
    layers: list[int | None] = []
    for cache in make_prompt_cache(model):
        if type(cache) is KVCache:
            layers.append(None)
        elif type(cache) is RotatingKVCache and cache.keep == 0:
            layers.append(cache.max_size)
        else:
            return None
    return layers if len(layers) == len(text_model(model).layers) else None


class Recorder:
    """Cache of one layer in the prompt pass: keeps its keys and values, (prompts, heads, length, head_dim).

    opening: keys and values, (1, heads, length, head_dim), of what all prompts begin with, where that ran before.
    """

    def __init__(self, sliding: int | None, opening: tuple[mx.array, ...] = ()):
        self.sliding, self.opening = sliding, opening
        self.offset = opening[0].shape[2] if opening else 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        if self.opening:
            before = [mx.broadcast_to(x, (keys.shape[0], *x.shape[1:])) for x in self.opening]
            keys, values = mx.concatenate([before[0], keys], axis=2), mx.concatenate([before[1], values], axis=2)
        self.keys, self.values = keys, values
        return keys, values

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> Any:
        sliding, seen = self.sliding or window_size, self.offset + n
        if not return_array and (sliding is None or seen <= sliding):
            return "causal"
        return causal(mx.arange(self.offset, seen), mx.arange(seen), sliding)


@dataclass
class Layout:
    """The positions of the answer pass: rows = prompts x answers, each row's queries at positions start + 0, 1, ..."""

    start: mx.array  # (prompts,) int32: position of the last prompt token, which is each row's first query
    width: int  # recorded prompt tokens, padding included
    answers: int  # rows per prompt
    grouped: bool = False  # whether attention scores have an axis of query groups of their own

    def offset(self) -> mx.array:
        return mx.repeat(self.start, self.answers)

    def mask(self, n: int, sliding: int | None) -> mx.array:
        """(rows, 1, n, width + n) bool; (rows, 1, 1, n, width + n) where attention scores are grouped."""
        own, recorded = mx.arange(n), mx.arange(self.width)
        real = recorded < self.start[:, None]  # padding of shorter prompts is hidden
        before = mx.broadcast_to(real[:, None], (self.start.size, n, self.width))
        if sliding is not None:
            before = before & causal(self.start[:, None] + own, recorded[None], sliding)
        among = mx.broadcast_to(causal(own, own, sliding), (self.start.size, n, n))
        mask = mx.repeat(mx.concatenate([before, among], axis=-1)[:, None], self.answers, axis=0)
        return mask[:, None] if self.grouped else mask


class Prefix:
    """Cache of one layer in the answer pass: puts the recorded prompt before each answer's own keys and values."""

    def __init__(self, keys: mx.array | None, values: mx.array | None, layout: Layout, sliding: int | None):
        self.keys, self.values, self.layout, self.sliding = keys, values, layout, sliding
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
        return self.layout.mask(n, self.sliding or window_size)


def causal(queries: mx.array, keys: mx.array, sliding: int | None) -> mx.array:
    """Which keys a query sees, by their positions (None: no sliding window): bool, queries[..., :, None] x keys[..., None, :]."""
    distance = queries[..., :, None] - keys[..., None, :]
    return distance >= 0 if sliding is None else (distance >= 0) & (distance < sliding)


def grouped_scores(model: nn.Module) -> bool:
    """Gemma 2 computes its soft-capped attention itself, with scores of (rows, key heads, query groups, queries, keys)."""
    return bool(text_model(model).model_type == "gemma2" and text_model(model).layers[0].self_attn.repeats > 1)


@contextmanager
def checkpointed(body: nn.Module, on: bool) -> Iterator[None]:
    """Within this, `body`'s layers are checkpointed one by one (if `on`)."""
    with replaced(body, {"layers": [_Checkpointed(layer) for layer in body.layers]} if on else {}):
        yield


class _Checkpointed:
    """A layer that keeps only its inputs for the backward pass. All but the call is the layer's own."""

    def __init__(self, layer: nn.Module):
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def __call__(self, h: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        layer = self._layer
        cache = next((x for x in (*args, *kwargs.values()) if isinstance(x, (Recorder, Prefix))), None)
        prefix: tuple[mx.array, ...] = ()
        if isinstance(cache, Recorder):
            prefix = cache.opening
        elif isinstance(cache, Prefix) and cache.keys is not None and cache.values is not None:
            prefix = (cache.keys, cache.values)
        # Dropout must draw the same numbers when the layer runs again, and the same as without checkpointing.
        high, low = mx.random.state[0].tolist()

        def run(parameters: dict[str, Any], h: mx.array, *prefix: mx.array) -> tuple[mx.array, ...]:
            fresh: Recorder | Prefix | None = None
            if isinstance(cache, Recorder):
                fresh = Recorder(cache.sliding, prefix)
            elif isinstance(cache, Prefix):
                keys, values = prefix or (None, None)
                fresh = Prefix(keys, values, cache.layout, cache.sliding)
            kept = layer.trainable_parameters()
            layer.update(parameters)
            mx.random.seed(high << 32 | low)
            try:
                swap = {id(cache): fresh}
                with swapped(layer, gradient=True):  # the second run comes after the tracing of the whole is over
                    out = layer(h, *(swap.get(id(x), x) for x in args), **{k: swap.get(id(x), x) for k, x in kwargs.items()})
            finally:
                layer.update(kept)
            return (out, fresh.keys, fresh.values) if isinstance(fresh, Recorder) else (out,)

        out = mx.checkpoint(run)(layer.trainable_parameters(), h, *prefix)
        if isinstance(cache, Recorder):
            cache.keys, cache.values = out[1:]
        return out[0]


def text_model(model: nn.Module) -> nn.Module:
    """The language model inside a wrapper of several modalities, else the model itself."""
    return getattr(model, "language_model", model)


def body_of(model: nn.Module) -> nn.Module:
    text = text_model(model)
    return text[body_name(text)]


def body_name(text: nn.Module) -> str:
    """The attribute of a language model that holds its body: all that comes before the output head."""
    for name in ("model", "backbone", "transformer"):
        if isinstance(text.get(name), nn.Module) and hasattr(text[name], "layers"):
            return name
    raise UserError(
        f"{type(text).__module__}: no model, backbone or transformer part with layers was found, so its hidden states cannot be "
        "read; choose another base model"
    )
