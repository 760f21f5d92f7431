"""Writes Q4_1 and Q5_1 on the levels of a quantised base, so that rounding does not remove what was trained.

A 4-bit base has sixteen levels a block. New levels would miss the old ones, which is noise on every weight. On the old levels,
rounding to the nearest removes each change that is smaller than half a step. So the base's levels stay, and each weight goes to
the nearest level or, by chance, to the one on its other side. Each row then moves along its trained change as far as it should, on
average, and weights that were not trained stay exact. A 5-bit file has a level between each two. The tensor's name seeds the
chance: same input, same bytes.
"""

import zlib
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

COUNTS = {"Q4_1": 16, "Q5_1": 32}  # levels a block


@dataclass(frozen=True)
class Levels:
    """Values scale * code + bias, code < 2**bits; scale and bias (rows..., columns / 32), float32 that float16 holds exactly."""

    scale: np.ndarray
    bias: np.ndarray
    bits: int


def of_affine(scales: mx.array, biases: mx.array, bits: int, group: int) -> Levels | None:
    """The levels of an MLX affine weight; None where float16 cannot hold them or its groups are no multiple of 32."""
    if group % 32:
        return None
    scale, bias = (np.repeat(np.array(x.astype(mx.float32)), group // 32, axis=-1) for x in (scales, biases))
    exact = all(np.array_equal(x.astype(np.float16).astype(np.float32), x) for x in (scale, bias))
    return Levels(scale, bias, bits) if exact else None


def encode_on(base: Levels, values: np.ndarray, ggml_type: str, name: str) -> np.ndarray | None:
    """float32 values -> blocks of `ggml_type` (rows..., bytes a row) on the base's levels; None where the type cannot hold them."""
    if ggml_type not in COUNTS or 1 << base.bits > COUNTS[ggml_type]:
        return None
    finer = COUNTS[ggml_type] >> base.bits  # levels of the file a level of the base
    if not ((half := (base.scale / finer).astype(np.float16)).astype(np.float32) * finer == base.scale).all():
        return None
    step = half.astype(np.float32)[..., None]
    exact = (values.reshape(*base.scale.shape, 32) - base.bias[..., None]) / np.where(step == 0, 1, step)
    nearest = np.round(exact)
    left = exact - nearest
    left[np.abs(left) < 1e-3] = 0
    chance = np.random.default_rng(zlib.crc32(name.encode())).random(exact.shape, np.float32)
    codes = nearest + np.sign(left) * (chance < _likelihood(left))
    codes = np.clip(codes, 0, COUNTS[ggml_type] - 1).astype(np.uint8)
    return pack(codes, half, base.bias.astype(np.float16), ggml_type)


def _likelihood(left: np.ndarray) -> np.ndarray:
    """The likelihood that each weight moves one level further, given what rounding left of it (rows..., blocks, 32), in levels.

    Every move brings the same noise, a whole level, but only as much change as rounding left. So the weights with the largest
    rests move: likelihood c |left|^5, where c makes up a row's whole rest: sum p |left| = sum left^2. Against the plain p = |left|
    that halves the noise at the same expected change. Where rests are normally distributed, every direction in them keeps its
    share (Bussgang 1952).
    """
    size = np.abs(left)
    wanted = np.square(left).sum((-2, -1), keepdims=True)
    likelihood = size**5
    for _ in range(3):  # no likelihood is above 1, so the others take what is cut off
        brought = (likelihood * size).sum((-2, -1), keepdims=True)
        likelihood = np.minimum(1, likelihood * (wanted / np.where(brought == 0, 1, brought)))
    return likelihood


def pack(codes: np.ndarray, scale: np.ndarray, bias: np.ndarray, ggml_type: str) -> np.ndarray:
    """codes (rows..., blocks, 32) with float16 scale and bias (rows..., blocks) -> Q4_1 or Q5_1 bytes (rows..., bytes a row)."""
    heads = [x[..., None].view(np.uint8) for x in (scale, bias)]
    low = codes & 0x0F
    fifth = [np.packbits(codes >> 4, axis=-1, bitorder="little")] if ggml_type == "Q5_1" else []
    out = np.concatenate([*heads, *fifth, low[..., :16] | (low[..., 16:] << 4)], axis=-1)
    return out.reshape(*codes.shape[:-2], -1)
