"""Gradient checkpointing of a model's layers that is exact together with prefix sharing.

A checkpointed function is run a second time in the backward pass, so it must not change anything outside. Here a layer gets
its prompt's keys and values as inputs and returns the ones it records as outputs; the caches it sees are made afresh inside.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .fastmath import swapped
from .prefix import Prefix, Recorder


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
