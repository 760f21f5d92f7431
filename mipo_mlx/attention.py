"""Attention in blocks of queries, with a backward pass that recomputes the scores: none of them is kept.

Against `mx.fast.scaled_dot_product_attention` on the CPU: key heads are not repeated for their query heads, causal blocks skip
the keys that they cannot see, and exponentials come from fastmath.py. The equations are FlashAttention's (Dao et al. 2022).
"""

from typing import Any

import mlx.core as mx

from .fastmath import exp, exp_minus, fused

BLOCK = 128  # queries at a time
HIDDEN = -1e30  # score of a key that a query does not see
_official = mx.fast.scaled_dot_product_attention


def attention(q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: Any = None, **kwargs: Any) -> mx.array:
    """As `mx.fast.scaled_dot_product_attention`: q (B, heads, L, D), k, v (B, key heads, S, D) -> (B, heads, L, D).

    mask: None, "causal", or bool (true: seen) or additive, broadcast to (B, heads, L, S). What this is not made for (attention
    sinks, 16 bits) goes to the official function.
    """
    if any(x is not None for x in kwargs.values()) or q.dtype != mx.float32 or k.dtype != mx.float32:
        return _official(q, k, v, scale=scale, mask=mask, **kwargs)
    heads, key_heads = q.shape[1], k.shape[1]
    if isinstance(mask, mx.array):  # (B or 1, key heads or 1, groups or 1, L or 1, S or 1)
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        mask = mask.reshape(mask.shape[0], *((1, 1) if mask.shape[1] == 1 else (key_heads, heads // key_heads)), *mask.shape[2:])

    function = mx.custom_function(lambda q, k, v: _forward(q, k, v, scale, mask))
    function.vjp(lambda primals, by, outputs: _backward(*primals, *outputs, by[0], scale, mask))
    return function(q, k, v)[0]


def _blocks(length: int, seen: int, causal: bool) -> list[tuple[slice, int]]:
    """Blocks of queries, and how many keys each may see; the last query sees the last key."""
    starts = range(0, length, BLOCK)
    return [(slice(i, min(i + BLOCK, length)), seen - length + min(i + BLOCK, length) if causal else seen) for i in starts]


def _rows(x: mx.array, block: slice, key_heads: int) -> mx.array:
    """(B, heads, L, D) -> (B, key heads, groups x block, D): the queries that share a key head, as rows of one matrix."""
    x = x[:, :, block]
    return x.reshape(x.shape[0], key_heads, -1, x.shape[-1])


def _scores(q: mx.array, k: mx.array, block: slice, end: int, mask: Any) -> mx.array:
    """Masked scores of one block, (B, key heads, groups x block, end); q: its rows, scaled."""
    scores = q @ k[:, :, :end].swapaxes(-1, -2)
    if mask is None:
        return scores
    n = block.stop - block.start
    grid = scores.reshape(*scores.shape[:2], -1, n, end)
    if isinstance(mask, str):
        seen = mx.arange(end) <= (mx.arange(n) + (end - n))[:, None]
    else:
        seen = mask[..., block if mask.shape[-2] > 1 else slice(None), :]
        if seen.dtype != mx.bool_:
            return (grid + seen).reshape(scores.shape)
    return mx.where(seen, grid, HIDDEN).reshape(scores.shape)


def _forward(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: Any) -> tuple[mx.array, mx.array]:
    """Output (B, heads, L, D), and the log-sum-exp of each query's scores (B, heads, L, 1)."""
    length, key_heads = q.shape[2], k.shape[1]
    outs, sums = [], []
    for block, end in _blocks(length, k.shape[2], isinstance(mask, str)):
        scores = _scores(_rows(q, block, key_heads) * scale, k, block, end, mask)
        top = scores.max(axis=-1, keepdims=True)
        weights = exp_minus(scores, top)
        total = weights.sum(axis=-1, keepdims=True)
        n = block.stop - block.start
        outs.append(((weights @ v[:, :, :end]) / total).reshape(q.shape[0], q.shape[1], n, -1))
        sums.append((top + mx.log(total)).reshape(q.shape[0], q.shape[1], n, 1))
    return mx.concatenate(outs, axis=2), mx.concatenate(sums, axis=2)


@fused
def _backward_block(scores: mx.array, lse: mx.array, by_p: mx.array, delta: mx.array) -> tuple[mx.array, mx.array]:
    """Probabilities, and the loss's derivative by the scores."""
    p = exp(scores - lse)
    return p, p * (by_p - delta)


def _backward(
    q: mx.array, k: mx.array, v: mx.array, out: mx.array, lse: mx.array, by: mx.array, scale: float, mask: Any
) -> tuple[mx.array, mx.array, mx.array]:
    key_heads = k.shape[1]
    delta = (by * out).sum(axis=-1, keepdims=True)
    by_q, by_k, by_v = [], None, None
    # Last block first: it sees the most keys, so the sums over blocks begin at full size.
    for block, end in reversed(_blocks(q.shape[2], k.shape[2], isinstance(mask, str))):
        rows, by_rows = _rows(q, block, key_heads) * scale, _rows(by, block, key_heads)
        scores = _scores(rows, k, block, end, mask)
        by_p = by_rows @ v[:, :, :end].swapaxes(-1, -2)
        p, by_scores = _backward_block(scores, _rows(lse, block, key_heads), by_p, _rows(delta, block, key_heads))
        by_q.append((scale * (by_scores @ k[:, :, :end])).reshape(*q.shape[:2], block.stop - block.start, -1))
        more_k, more_v = by_scores.swapaxes(-1, -2) @ rows, p.swapaxes(-1, -2) @ by_rows
        by_k = more_k if by_k is None else by_k.at[:, :, :end].add(more_k)
        by_v = more_v if by_v is None else by_v.at[:, :, :end].add(more_v)
    return mx.concatenate(by_q[::-1], axis=2), by_k, by_v
