"""Exponentials and attention for MLX's Linux CPU build, which `swapped` puts in place of MLX's own.

On a GPU, `swapped` changes the attention of training (`wide_attention`), and of prompts with odd head sizes.

That build computes exponentials one by one through the C library: 10 to 30 ns each, more than the matrix products around them.
Here an exponential is a few multiplications and additions, which vectorise: 2 to 4 ns each once fused. Results differ from MLX's
by float32 rounding, about 1e-6.

Attention works in blocks of queries. Its backward pass computes the scores again, so none of them is kept. It does not repeat
key heads for their query heads, and causal blocks skip the keys that they cannot see. The equations are FlashAttention's
(Dao et al. 2022).
"""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import activations

from .. import backend


@contextmanager
def swapped(model: nn.Module, gradient: bool = False) -> Iterator[None]:
    """Within this, `model` is traced with the functions of this module, if it runs on the CPU.

    gradient: gradients are traced. A GPU then gets `wide_attention`, and `wide_where_unfused` otherwise.
    """
    if not backend.on_cpu():
        own = wide_attention if gradient else partial(wide_where_unfused, mx.fast.scaled_dot_product_attention)
        with _patched(mx.fast, "scaled_dot_product_attention", own):
            yield
        return
    with ExitStack() as stack:
        stack.enter_context(_patched(sys.modules[__name__], "_tracing", gradient))
        stack.enter_context(_patched(mx.fast, "scaled_dot_product_attention", attention))
        stack.enter_context(_patched(nn, "silu", silu))
        stack.enter_context(_patched(nn, "gelu_approx", gelu_approx))
        # Models take parts from one another (SmolLM3 is made of Llama's): swiglu is swapped in the module of each part.
        names = {kind.__module__ for part in model.modules() for kind in type(part).__mro__}
        for name, ours in (("swiglu", swiglu), ("precise_swiglu", precise_swiglu)):
            official = getattr(activations, name)
            for code in (sys.modules[module] for module in sorted(names)):
                if getattr(code, name, None) is official:
                    stack.enter_context(_patched(code, name, ours))
        yield


@contextmanager
def decoding() -> Iterator[None]:
    """Within this, mlx-lm normalises logits by `logsumexp`, if the model runs on the CPU. Nothing in here has a gradient."""
    with _patched(mx, "logsumexp", logsumexp) if backend.on_cpu() else nullcontext():
        yield


@contextmanager
def _patched(module: Any, name: str, value: Any) -> Iterator[None]:
    """Within this, `module.name` is `value`. mlx-lm looks its functions up by name in modules and takes no others."""
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


LOG2_E = 1.4426950408889634
# 2^f for f in [-1/2, 1/2], a minimax polynomial, the constant first: relative error below 1e-7.
POWER_OF_TWO = (1.0, 6.9314718056e-1, 2.4022650696e-1, 5.5504108665e-2, 9.6181291076e-3, 1.3333558146e-3, 1.5403530393e-4)
INTEGER = 12582912.0  # 1.5 x 2^23: adding it and taking it away again rounds to a whole number
_tracing = False  # gradients are traced now


@cache
def _compiles() -> bool:
    """Whether MLX can fuse on the CPU: it calls the machine's C++ compiler for that."""
    try:
        mx.eval(mx.compile(lambda x: x * 2.0 + 1.0)(mx.ones((2,))))
    except RuntimeError:
        return False
    return True


class _UntracedThread:
    """A thread that traces no gradients. It never ends: MLX aborts where a thread that has built arrays ends with the process."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        Thread(target=self._work, daemon=True).start()

    def run(self, call: Callable[[], Any]) -> Any:
        future: Future[Any] = Future()
        self.calls.put((future, call))
        return future.result()

    def _work(self) -> None:
        while True:
            future, call = self.calls.get()
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            del future, call  # or the last arrays would stay in memory until the next call


_untraced_thread = cache(_UntracedThread)


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as one loop over its elements where MLX can compile one, else as it is.

    A new shape is only traced again: the C++ compiler sees each function once a machine. Where gradients are traced, MLX leaves
    compiled functions unfused. A thread that traces nothing has them fused, and `with_exp` gives their gradients itself.
    """
    compiled = mx.compile(function)

    def on(stream: mx.Stream, *args: mx.array) -> Any:  # each thread has a default stream of its own
        with mx.stream(stream):
            return compiled(*args)

    def call(*args: mx.array) -> Any:
        if not _compiles():
            return function(*args)
        if not _tracing:
            return compiled(*args)
        return _untraced_thread().run(partial(on, mx.default_stream(mx.default_device()), *args))

    return call


def with_exp(rest: Callable[..., Any], exponent: Callable[[mx.array], mx.array] = lambda x: x) -> Callable[..., Any]:
    """rest(e^exponent(x), x, ...) as a function of float32 x, ... in two loops. It is not differentiable.

    An exponent below -88 gives 0, one above 88 about 1e38. The first loop makes the bits of 2^n, where n is a whole number. The
    second one multiplies by 2^f. MLX fuses chains of 11 operations, so the polynomial is summed in pairs.
    """

    def bits(x: mx.array) -> mx.array:
        n = mx.minimum(mx.maximum(exponent(x) * LOG2_E, -127.0), 127.0) + INTEGER - INTEGER
        return (n.astype(mx.int32) + 127) << 23

    def last(power: mx.array, x: mx.array, *others: mx.array) -> Any:
        y = exponent(x) * LOG2_E
        f = y - ((y + INTEGER) - INTEGER)
        c, square = POWER_OF_TWO, f * f
        high = (square * square) * ((c[4] + c[5] * f) + c[6] * square)
        return rest((((c[0] + c[1] * f) + square * (c[2] + c[3] * f)) + high) * power, x, *others)

    first, second = fused(bits), fused(last)
    return lambda x, *others: second(first(x).view(mx.float32), x, *others)


_exp = with_exp(lambda e, x: e, lambda x: mx.maximum(x, -1e4))  # -inf, too
_silu = with_exp(lambda e, x: x * (e / (1 + e)))
_swiglu = with_exp(lambda e, gate, x: gate * (e / (1 + e)) * x)


def exp_minus(x: mx.array, shift: mx.array) -> mx.array:
    """e^(x - shift) for float32, on a GPU by MLX's own function; `shift` is broadcast. Not differentiable."""
    return _exp(x - shift) if backend.on_cpu() else mx.exp(x - shift)


def row_sums(x: mx.array) -> mx.array:
    """Sums of the rows, (rows, 1), in two levels. MLX's CPU build adds one number after the other, which loses digits in long
    rows."""
    rows, length = x.shape
    rest = length % 64
    total = x[:, length - rest :].sum(axis=-1, keepdims=True)
    if length == rest:
        return total
    return x[:, : length - rest].reshape(rows, -1, 64).sum(axis=-1).sum(axis=-1, keepdims=True) + total


_logsumexp = mx.logsumexp


def logsumexp(x: mx.array, axis: Any = None, keepdims: bool = False, **kwargs: Any) -> mx.array:
    """As `mx.logsumexp`, whose exponentials take a third of a decoding step; not differentiable."""
    if axis != -1 or x.dtype != mx.float32 or kwargs:
        return _logsumexp(x, axis=axis, keepdims=keepdims, **kwargs)
    rows = x.reshape(-1, x.shape[-1])
    top = rows.max(axis=-1, keepdims=True)
    out = (top + mx.log(row_sums(exp_minus(rows, top)))).reshape(*x.shape[:-1], 1)
    return out if keepdims else out[..., 0]


@with_exp
def _silu_vjp(e: mx.array, x: mx.array, grad: mx.array) -> mx.array:
    s = e / (1 + e)
    return grad * (s + x * s * (1 - s))


@with_exp
def _swiglu_vjp(e: mx.array, gate: mx.array, x: mx.array, grad: mx.array) -> tuple[mx.array, mx.array]:
    s = e / (1 + e)
    return grad * x * (s + gate * s * (1 - s)), grad * gate * s


def _twice_u(x: mx.array) -> mx.array:
    """2u of the approximate GELU, x (1 + tanh u) / 2 = x sigmoid(2u), with u = sqrt(2/pi) (x + 0.044715 x^3)."""
    return 1.5957691216057308 * (x + 0.044715 * x * x * x)


def _gelu_derivative(e: mx.array, x: mx.array, grad: mx.array) -> mx.array:
    s = e / (1 + e)
    return grad * (s + x * s * (1 - s) * (1.5957691216057308 * (1 + 0.134145 * x * x)))


_gelu = with_exp(lambda e, x: x * (e / (1 + e)), _twice_u)
_gelu_vjp = with_exp(_gelu_derivative, _twice_u)


# erf(|z|) = 1 - t (a1 + t (a2 + ...)) e^(-z^2), t = 1 / (1 + 0.3275911 |z|): Abramowitz and Stegun 7.1.26, error below 1.5e-7.
ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


@partial(with_exp, exponent=lambda x: -0.5 * x * x)
def _exact_gelu(e: mx.array, x: mx.array) -> mx.array:
    a, size = ERF, mx.abs(x)
    t = 1 / (1 + 0.3275911 * 0.5**0.5 * size)
    tail = t * (a[0] + t * (a[1] + t * (a[2] + t * (a[3] + t * a[4])))) * e
    return 0.5 * (x + size * (1 - tail))


def gelu(x: mx.array) -> mx.array:
    """x (1 + erf(x / sqrt 2)) / 2 of float32, to 1e-7 of x. On a GPU MLX's own. Not differentiable on a CPU."""
    return _exact_gelu(x) if backend.on_cpu() else nn.gelu(x)


def _while_tracing(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as it must run in a gradient, where its arguments are traced."""

    def call(*args: Any) -> Any:
        with _patched(sys.modules[__name__], "_tracing", True):
            return function(*args)

    return call


def _replacement(original: Callable[..., Any], forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` with the gradient `backward`, for float32; `original` for everything else."""
    function, back = mx.custom_function(forward), _while_tracing(backward)
    function.vjp(lambda primals, grad, _: back(*(primals if isinstance(primals, tuple | list) else (primals,)), grad))

    def call(*args: mx.array) -> mx.array:
        return function(*args) if all(x.dtype == mx.float32 for x in args) else original(*args)

    return call


silu = _replacement(nn.silu, _silu, _silu_vjp)
gelu_approx = _replacement(nn.gelu_approx, _gelu, _gelu_vjp)
swiglu = _replacement(activations.swiglu, _swiglu, _swiglu_vjp)


def precise_swiglu(h: mx.array, gate: mx.array, x: mx.array) -> mx.array:
    """`swiglu` in float32, in the dtype of h. MLX compiles its own for any shape, and `silu` within it cannot be."""
    return swiglu(gate.astype(mx.float32), x.astype(mx.float32)).astype(h.dtype)


BLOCK = 128  # queries at a time
HIDDEN = -1e30  # score of a key that a query does not see
_official = mx.fast.scaled_dot_product_attention


def wide_attention(q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: Any = None, **kwargs: Any) -> mx.array:
    """MLX's attention with scores in float32, in the dtype of q.

    MLX's own kernel keeps its scores in float32. Where gradients are traced it is not used, and scores have the inputs' dtype. In
    bfloat16 they are off by up to 0.4 %, which more than doubles the error of the gradient.
    """
    wide = (x.astype(mx.float32) for x in (q, k, v))
    return _official(*wide, scale=scale, mask=mask, **kwargs).astype(q.dtype)


def wide_where_unfused(own: Callable[..., Any], q: mx.array, k: mx.array, v: mx.array, **kwargs: Any) -> Any:
    """MLX's attention `own`; `wide_attention` where MLX has no fused kernel on a GPU, as for prompts of Gemma 3 (heads of 256).

    Else scoring would round attention scores to 16 bits and training would not, so the first loss would not be log 2.
    Single tokens, which are decoded, stay as they are.
    """
    length, size, shared = q.shape[2], q.shape[-1], q.shape[1] // k.shape[1]
    # As in MLX 0.32's scaled_dot_product_attention.cpp, which has one kernel for many queries and one for few.
    fused = size in (64, 72, 80, 96, 128) if length > 8 else size in (64, 96, 128, 256) and length * shared <= 32
    return own(q, k, v, **kwargs) if fused or length == 1 else wide_attention(q, k, v, **kwargs)


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
    function.vjp(_while_tracing(lambda primals, grad, outputs: _Attention(scale, mask, *primals).backward(grad[0], *outputs)))
    return function(q, k, v)[0]


# Probabilities and the loss's derivative by the scores, from their logarithms and from its derivative by p minus `delta`.
_backward_block = with_exp(lambda p, _, grad_p: (p, p * grad_p))


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

    def backward(self, grad: mx.array, out: mx.array, lse: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """The loss's derivatives by q, k and v. `grad` is the one by `out`; `forward` gave `out` and `lse`."""
        delta = (grad * out).sum(axis=-1, keepdims=True)
        grad_q, grad_k, grad_v = [], None, None
        # The last block comes first: it sees the most keys, so the sums over blocks begin at full size.
        for block, end in reversed(self._blocks()):
            rows, grad_rows = self._rows(self.q, block) * self.scale, self._rows(grad, block)
            scores = self._scores(rows, block, end)
            grad_p = grad_rows @ self.v[:, :, :end].swapaxes(-1, -2)
            p, grad_scores = _backward_block(scores - self._rows(lse, block), grad_p - self._rows(delta, block))
            shape = (*self.q.shape[:2], block.stop - block.start, -1)
            grad_q.append((self.scale * (grad_scores @ self.k[:, :, :end])).reshape(shape))
            more_k, more_v = grad_scores.swapaxes(-1, -2) @ rows, p.swapaxes(-1, -2) @ grad_rows
            grad_k = more_k if grad_k is None else grad_k.at[:, :, :end].add(more_k)
            grad_v = more_v if grad_v is None else grad_v.at[:, :, :end].add(more_v)
        return mx.concatenate(grad_q[::-1], axis=2), grad_k, grad_v

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
                return mx.maximum(grid + seen, HIDDEN).reshape(scores.shape)
        return mx.where(seen, grid, HIDDEN).reshape(scores.shape)
