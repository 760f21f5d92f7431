"""Exponentials and attention for MLX's Linux CPU build, which `swapped` puts in place of MLX's own.

On a GPU, `swapped` changes the attention of training alone (`wide_attention`).

That build computes exponentials one by one through the C library: 10 to 20 ns each, more than the matrix products around them.
Here an exponential is a few multiplications and additions, which vectorise: 1.5 ns each once fused. Results differ from MLX's
by float32 rounding, about 1e-6.

Attention works in blocks of queries. Its backward pass computes the scores again, so none of them is kept. It does not repeat
key heads for their query heads, and causal blocks skip the keys that they cannot see. The equations are FlashAttention's
(Dao et al. 2022).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import activations

from .. import backend


@contextmanager
def swapped(model: nn.Module, gradient: bool = False) -> Iterator[None]:
    """Within this, `model` is traced with the functions of this module, if it runs on the CPU.

    gradient: gradients are traced. A GPU then gets `wide_attention`, and keeps MLX's own functions otherwise.
    """
    if not backend.on_cpu():
        with _set(mx.fast, "scaled_dot_product_attention", wide_attention) if gradient else nullcontext():
            yield
        return
    with ExitStack() as stack:
        stack.enter_context(_set(mx.fast, "scaled_dot_product_attention", attention))
        stack.enter_context(_set(nn, "silu", silu))
        stack.enter_context(_set(nn, "gelu_approx", gelu_approx))
        # Models take parts from one another (SmolLM3 is made of Llama's): swiglu is swapped in the module of each part.
        names = {kind.__module__ for part in model.modules() for kind in type(part).__mro__}
        official = activations.swiglu
        for code in (sys.modules[name] for name in sorted(names)):
            if getattr(code, "swiglu", None) is official:
                stack.enter_context(_set(code, "swiglu", swiglu))
        yield


@contextmanager
def _set(module: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Within this, `module.name` is `function`. mlx-lm looks its functions up by name in modules and takes no others."""
    kept = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, kept)


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
    """`function` as one loop over its elements where MLX can compile one, else as it is.

    A new shape is only traced again: the C++ compiler sees each function once a machine.
    """
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


def _replacement(original: Callable[..., Any], forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` with the gradient `backward`, for float32; `original` for everything else."""
    function = mx.custom_function(forward)
    function.vjp(lambda primals, by, _: backward(*(primals if isinstance(primals, tuple | list) else (primals,)), by))

    def call(*args: mx.array) -> mx.array:
        return function(*args) if all(x.dtype == mx.float32 for x in args) else original(*args)

    return call


silu = _replacement(nn.silu, _silu, _silu_vjp)
gelu_approx = _replacement(nn.gelu_approx, _gelu, _gelu_vjp)
swiglu = _replacement(activations.swiglu, _swiglu, _swiglu_vjp)

BLOCK = 128  # queries at a time
HIDDEN = -1e30  # score of a key that a query does not see
_official = mx.fast.scaled_dot_product_attention


def wide_attention(q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: Any = None, **kwargs: Any) -> mx.array:
    """MLX's attention with scores in float32, in the dtype of q.

    MLX's own kernel keeps its scores in float32. Where gradients are traced it is not used, and scores have the inputs' dtype: in
    bfloat16 they are off by up to 0.4 %, which more than doubles the error of the gradient.
    """
    wide = (x.astype(mx.float32) for x in (q, k, v))
    return _official(*wide, scale=scale, mask=mask, **kwargs).astype(q.dtype)


def attention(q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: Any = None, **kwargs: Any) -> mx.array:
    """As `mx.fast.scaled_dot_product_attention`: q (B, heads, L, D), k, v (B, key heads, S, D) -> (B, heads, L, D).

    mask: None, "causal", or bool (true: seen) or additive, broadcast to (B, heads, L, S). Attention sinks and 16 bits go to
    the official function.
    """
    if any(x is not None for x in kwargs.values()) or q.dtype != mx.float32 or k.dtype != mx.float32:
        return _official(q, k, v, scale=scale, mask=mask, **kwargs)
    heads, key_heads = q.shape[1], k.shape[1]
    if isinstance(mask, mx.array):  # (B or 1, key heads or 1, groups or 1, L or 1, S or 1)
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        mask = mask.reshape(mask.shape[0], *((1, 1) if mask.shape[1] == 1 else (key_heads, heads // key_heads)), *mask.shape[2:])

    function = mx.custom_function(lambda q, k, v: _Attention(scale, mask, q, k, v).forward())
    function.vjp(lambda primals, by, outputs: _Attention(scale, mask, *primals).backward(by[0], *outputs))
    return function(q, k, v)[0]


@fused
def _backward_block(scores: mx.array, lse: mx.array, by_p: mx.array, delta: mx.array) -> tuple[mx.array, mx.array]:
    """Probabilities, and the loss's derivative by the scores."""
    p = exp(scores - lse)
    return p, p * (by_p - delta)


@dataclass
class _Attention:
    """One call of `attention`; the mask has an axis for key heads and one for their groups of query heads."""

    scale: float
    mask: Any
    q: mx.array
    k: mx.array
    v: mx.array

    def forward(self) -> tuple[mx.array, mx.array]:
        """Output (B, heads, L, D), and the log-sum-exp of each query's scores (B, heads, L, 1)."""
        outs, sums = [], []
        for block, end in self._blocks():
            scores = self._scores(self._rows(self.q, block) * self.scale, block, end)
            top = scores.max(axis=-1, keepdims=True)
            weights = exp_minus(scores, top)
            total = weights.sum(axis=-1, keepdims=True)
            shape = (*self.q.shape[:2], block.stop - block.start, -1)
            outs.append(((weights @ self.v[:, :, :end]) / total).reshape(shape))
            sums.append((top + mx.log(total)).reshape(shape))
        return mx.concatenate(outs, axis=2), mx.concatenate(sums, axis=2)

    def backward(self, by: mx.array, out: mx.array, lse: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """The loss's derivatives by q, k and v. `by` is the one by `out`; `forward` gave `out` and `lse`."""
        delta = (by * out).sum(axis=-1, keepdims=True)
        by_q, by_k, by_v = [], None, None
        # The last block comes first: it sees the most keys, so the sums over blocks begin at full size.
        for block, end in reversed(self._blocks()):
            rows, by_rows = self._rows(self.q, block) * self.scale, self._rows(by, block)
            scores = self._scores(rows, block, end)
            by_p = by_rows @ self.v[:, :, :end].swapaxes(-1, -2)
            p, by_scores = _backward_block(scores, self._rows(lse, block), by_p, self._rows(delta, block))
            shape = (*self.q.shape[:2], block.stop - block.start, -1)
            by_q.append((self.scale * (by_scores @ self.k[:, :, :end])).reshape(shape))
            more_k, more_v = by_scores.swapaxes(-1, -2) @ rows, p.swapaxes(-1, -2) @ by_rows
            by_k = more_k if by_k is None else by_k.at[:, :, :end].add(more_k)
            by_v = more_v if by_v is None else by_v.at[:, :, :end].add(more_v)
        return mx.concatenate(by_q[::-1], axis=2), by_k, by_v

    def _blocks(self) -> list[tuple[slice, int]]:
        """Blocks of queries, and how many keys each may see; the last query sees the last key."""
        length, seen, causal = self.q.shape[2], self.k.shape[2], isinstance(self.mask, str)
        blocks = [slice(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]
        return [(block, seen - length + block.stop if causal else seen) for block in blocks]

    def _rows(self, x: mx.array, block: slice) -> mx.array:
        """(B, heads, L, D) -> (B, key heads, groups x block, D): the queries that share a key head are rows of one matrix."""
        x = x[:, :, block]
        return x.reshape(x.shape[0], self.k.shape[1], -1, x.shape[-1])

    def _scores(self, rows: mx.array, block: slice, end: int) -> mx.array:
        """Masked scores of one block, (B, key heads, groups x block, end); rows: its queries, scaled."""
        scores = rows @ self.k[:, :, :end].swapaxes(-1, -2)
        if self.mask is None:
            return scores
        n = block.stop - block.start
        grid = scores.reshape(*scores.shape[:2], -1, n, end)
        if isinstance(self.mask, str):
            seen = mx.arange(end) <= (mx.arange(n) + (end - n))[:, None]
        else:
            seen = self.mask[..., block if self.mask.shape[-2] > 1 else slice(None), :]
            if seen.dtype != mx.bool_:
                return (grid + seen).reshape(scores.shape)
        return mx.where(seen, grid, HIDDEN).reshape(scores.shape)
