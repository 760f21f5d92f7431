"""Gradient checkpointing of a model's layers that is exact together with prefix sharing.

A checkpointed function is run a second time in the backward pass, so it must not change anything outside. Here a layer gets
its prompt's keys and values as inputs and returns the ones it records as outputs; the caches it sees are made afresh inside.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .prefix import Prefix, Recorder


class _Checkpointed:
    """A layer that keeps only its inputs for the backward pass; everything but the call is the layer's own."""

    def __init__(self, layer: nn.Module):
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def __call__(self, h: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        layer = self._layer

        def run(parameters: dict, h: mx.array, *prefix: mx.array) -> tuple[mx.array, ...]:
            kept = layer.trainable_parameters()
            layer.update(parameters)
            try:
                if isinstance(cache, Recorder):
                    fresh = Recorder(cache.window)
                    return layer(h, mask, fresh), fresh.keys, fresh.values
                if isinstance(cache, Prefix):
                    return (layer(h, mask, Prefix(*(prefix or (None, None)), cache.layout, cache.window)),)
                return (layer(h, mask, cache),)
            finally:
                layer.update(kept)

        recorded = isinstance(cache, Prefix) and cache.keys is not None
        out = mx.checkpoint(run)(layer.trainable_parameters(), h, *((cache.keys, cache.values) if recorded else ()))
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
