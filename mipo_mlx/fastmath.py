"""Exponentials for MLX's Linux CPU build, which computes them one by one through the C library: 10 to 20 ns each, more than
the matrix products around them. Here they are a few multiplications and additions, which vectorise: 1.5 ns each once fused.

`swapped()` puts these functions in place of mlx's and mlx-lm's own while a model is traced on the CPU; on a GPU it does nothing.
Their results differ from MLX's by float32 rounding, about 1e-6.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import activations

LOG2_E = 1.4426950408889634
# 2^f for f in [-1/2, 1/2], a minimax polynomial: relative error below 1e-7.
POWER_OF_TWO = (1.5403530393e-4, 1.3333558146e-3, 9.6181291076e-3, 5.5504108665e-2, 2.4022650696e-1, 6.9314718056e-1, 1.0)


def exp(x: mx.array) -> mx.array:
    """e^x for float32 x; below -87 it is about 1e-38, above 88 it is wrong. Not differentiable."""
    y = mx.maximum(x * LOG2_E, -126.0)
    rounded = y + 12582912.0  # 1.5 x 2^23: the integer part ends up in the lowest bits
    f = y - (rounded - 12582912.0)
    power = POWER_OF_TWO[0]
    for coefficient in POWER_OF_TWO[1:]:
        power = power * f + coefficient
    return power * ((rounded.view(mx.int32) << 23) + 0x3F800000).view(mx.float32)


def sigmoid(x: mx.array) -> mx.array:
    return 1 / (1 + exp(mx.minimum(-x, 87.0)))


@cache
def _compiles() -> bool:
    """Whether MLX can fuse on the CPU: it calls the machine's C++ compiler for that."""
    try:
        mx.eval(mx.compile(lambda x: x * 2.0 + 1.0)(mx.ones((2,))))
    except RuntimeError:
        return False
    return True


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as one loop over its elements where MLX can compile one, else as it is. New shapes are only traced anew: the
    C++ compiler sees each function once a machine."""
    compiled = mx.compile(function)

    def call(*args: mx.array) -> Any:
        return (compiled if _compiles() else function)(*args)

    return call


exp_minus = fused(lambda x, shift: exp(x - shift))
_silu = fused(lambda x: x * sigmoid(x))
_swiglu = fused(lambda gate, x: gate * sigmoid(gate) * x)


@fused
def _silu_vjp(x: mx.array, by: mx.array) -> mx.array:
    s = sigmoid(x)
    return by * (s + x * s * (1 - s))


@fused
def _swiglu_vjp(gate: mx.array, x: mx.array, by: mx.array) -> tuple[mx.array, mx.array]:
    s = sigmoid(gate)
    return by * x * (s + gate * s * (1 - s)), by * gate * s


def _gelu_sigmoid(x: mx.array) -> tuple[mx.array, mx.array]:
    """sigmoid(2u) = (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3), and d(2u)/dx."""
    return sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x)), 1.5957691216057308 * (1 + 0.134145 * x * x)


_gelu = fused(lambda x: x * _gelu_sigmoid(x)[0])


@fused
def _gelu_vjp(x: mx.array, by: mx.array) -> mx.array:
    s, slope = _gelu_sigmoid(x)
    return by * (s + x * s * (1 - s) * slope)


def _replacement(original: Callable, forward: Callable, backward: Callable) -> Callable:
    """`forward` with the gradient `backward`, for float32; `original` for everything else."""
    function = mx.custom_function(forward)
    function.vjp(lambda primals, by, _: backward(*(primals if isinstance(primals, tuple | list) else (primals,)), by))

    def call(*args: mx.array) -> mx.array:
        return function(*args) if all(x.dtype == mx.float32 for x in args) else original(*args)

    return call


silu = _replacement(nn.silu, _silu, _silu_vjp)
gelu_approx = _replacement(nn.gelu_approx, _gelu, _gelu_vjp)
swiglu = _replacement(activations.swiglu, _swiglu, _swiglu_vjp)


def on_cpu() -> bool:
    return mx.default_device().type == mx.cpu


@contextmanager
def swapped(model: nn.Module) -> Iterator[None]:
    """Within this, `model` is traced with the functions of this module and of attention.py, if it runs on the CPU."""
    from .attention import attention

    if not on_cpu():
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(patch.object(mx.fast, "scaled_dot_product_attention", attention))
        stack.enter_context(patch.object(nn, "silu", silu))
        stack.enter_context(patch.object(nn, "gelu_approx", gelu_approx))
        # Models take parts from one another (SmolLM3 is made of Llama's): swiglu is swapped where the code of each part stands.
        names = {kind.__module__ for part in model.modules() for kind in type(part).__mro__}
        theirs = activations.swiglu
        for code in (sys.modules[name] for name in sorted(names)):
            if getattr(code, "swiglu", None) is theirs:
                stack.enter_context(patch.object(code, "swiglu", swiglu))
        yield
