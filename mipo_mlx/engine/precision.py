"""Where 16 bits are too few on a GPU: float16 ends at 65,504, and two models are compared in float32.

The CPU computes in float32 (`tables.py`), so nothing here changes a model there. Attention scores in training are `cpu.py`'s.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from .. import backend
from .prefix import body_of
from .tables import cast, replaced

RANGE = 65504.0  # the largest float16
# Another text may have hidden values some times larger than the probe's. SmolLM2's reach 38 % of the range, Qwen2.5-0.5B's 3 %.
SHARE = 0.25


def within_range(model: Any, prompt: Callable[[], list[int]]) -> Any:
    """`model` in bfloat16 where it computes in float16 on a GPU and `prompt`'s hidden values come near float16's range.

    bfloat16 has float32's range and fewer digits. prompt: gives token ids, and is called only where they are needed.
    """
    if backend.on_cpu() or compute_dtype(model) != mx.float16 or largest(model, prompt()) < SHARE * RANGE:
        return model
    return _cast(model, mx.bfloat16)


def in_float32(model: Any) -> Any:
    """`model` with activations in float32, and the levels of its quantised weights as they are. The CPU has it so already."""
    return model if backend.on_cpu() else _cast(model, mx.float32)


def compute_dtype(model: nn.Module) -> mx.Dtype:
    """The dtype of activations: that of the norms' weights, which are never quantised."""
    for name, x in tree_flatten(body_of(model).layers[0].parameters()):
        if "norm" in name and mx.issubdtype(x.dtype, mx.floating):
            return x.dtype
    return mx.float32


def largest(model: nn.Module, tokens: list[int]) -> float:
    """The largest absolute hidden value behind any layer for one prompt; inf where a value is inf or nan."""
    body, tops = body_of(model), [mx.array(0.0)]
    with replaced(body, {"layers": [_Watched(layer, tops) for layer in body.layers]}):
        mx.eval(model(mx.array([tokens])))
    return float(mx.stack(tops).max().item())


class _Watched:
    """A layer that notes the largest absolute value of its output. All but the call is the layer's own."""

    def __init__(self, layer: nn.Module, tops: list[mx.array]):
        self._layer, self._tops = layer, tops

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = self._layer(*args, **kwargs)
        h = out[0] if isinstance(out, tuple) else out
        self._tops.append(mx.where(mx.isfinite(h), mx.abs(h), mx.inf).astype(mx.float32).max())
        return out


def _cast(model: Any, dtype: mx.Dtype) -> Any:
    model = cast(model, dtype)
    mx.eval(model.parameters())
    return model
