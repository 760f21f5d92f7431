"""Writing Q4_1 and Q5_1 on the grid of a quantised base, so that what was trained is not rounded away.

A 4-bit base has sixteen levels a block. Fitted anew, a block's grid misses those levels, which is noise on every weight; kept and
rounded to the nearest level, a change smaller than half a step vanishes altogether. So the base's own grid is kept and each weight
goes to the nearest level or, by chance, to the one on its other side, so that each row moves as far along its trained change as
it should: right on average, and weights that were not trained stay exact. A 5-bit file has a level between each two. The chance
is seeded by the tensor's name: same input, same bytes.
"""

import zlib
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

LEVELS = {"Q4_1": 16, "Q5_1": 32}


@dataclass(frozen=True)
class Grid:
    """Values scale * code + bias, code < 2**bits; scale and bias (rows..., columns / 32), float32 that float16 holds exactly."""

    scale: np.ndarray
    bias: np.ndarray
    bits: int


def of_affine(scales: mx.array, biases: mx.array, bits: int, group: int) -> Grid | None:
    """The grid of an MLX affine weight; None where float16 cannot hold it or its groups are no multiple of 32."""
    if group % 32:
        return None
    wide = [np.repeat(np.array(x.astype(mx.float32)), group // 32, axis=-1) for x in (scales, biases)]
    halves = [x.astype(np.float16).astype(np.float32) for x in wide]
    return Grid(*wide, bits) if all(np.array_equal(h, x) for h, x in zip(halves, wide, strict=True)) else None


def encode_on(grid: Grid, values: np.ndarray, ggml_type: str, name: str) -> np.ndarray | None:
    """float32 values -> blocks of `ggml_type` (rows..., bytes a row) on the base's grid; None where the type cannot hold it."""
    if ggml_type not in LEVELS or 1 << grid.bits > LEVELS[ggml_type]:
        return None
    finer = LEVELS[ggml_type] >> grid.bits  # levels of the file a level of the base
    if not ((half := (grid.scale / finer).astype(np.float16)).astype(np.float32) * finer == grid.scale).all():
        return None
    step = half.astype(np.float32)[..., None]
    exact = (values.reshape(*grid.scale.shape, 32) - grid.bias[..., None]) / np.where(step == 0, 1, step)
    nearest = np.round(exact)
    left = exact - nearest
    left[np.abs(left) < 1e-3] = 0
    chance = np.random.default_rng(zlib.crc32(name.encode())).random(exact.shape, np.float32)
    codes = nearest + np.sign(left) * (chance < _likelihood(left))
    codes = np.clip(codes, 0, LEVELS[ggml_type] - 1).astype(np.uint8)
    return pack(codes, half, grid.bias.astype(np.float16), ggml_type)


def _likelihood(left: np.ndarray) -> np.ndarray:
    """How likely each weight moves one level further, given what rounding left of it (rows..., blocks, 32), in levels.

    A move of a whole level is noise, whatever was left of the weight; what it brings is as much as was left. So the weights with
    the largest rests move, likelihood c |left|^5, and c makes up a row's whole rest: sum p |left| = sum left^2. Against the plain
    p = |left| that halves the noise at the same expected change; for rests that are normally distributed, every direction that
    they are made of keeps its share (Bussgang 1952).
    """
    size = np.abs(left)
    wanted = np.square(left).sum((-2, -1), keepdims=True)
    likelihood = size**5
    for _ in range(3):  # none is likelier than 1, so what is cut off goes to the others
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
