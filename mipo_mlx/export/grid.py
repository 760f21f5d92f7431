"""Writing Q4_1 and Q5_1 on the grid of a quantised base, so that what was trained is not rounded away.

A 4-bit base has sixteen levels a block. Fitted anew, a block's grid misses those levels, which is noise on every weight; kept and
rounded to the nearest level, a change smaller than half a step vanishes altogether. So the base's own grid is kept and each weight
goes to one of its two neighbouring levels by chance, the nearer the likelier: right on average, and weights that were not
trained stay exact. A 5-bit file has a level between each two. The chance is seeded by the tensor's name: same input, same bytes.
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
    chance = np.random.default_rng(zlib.crc32(name.encode())).random(exact.shape, np.float32)
    codes = np.where(np.abs(exact - nearest) < 1e-3, nearest, np.floor(exact + chance))
    codes = np.clip(codes, 0, LEVELS[ggml_type] - 1).astype(np.uint8)
    return pack(codes, half, grid.bias.astype(np.float16), ggml_type)


def pack(codes: np.ndarray, scale: np.ndarray, bias: np.ndarray, ggml_type: str) -> np.ndarray:
    """codes (rows..., blocks, 32) with float16 scale and bias (rows..., blocks) -> Q4_1 or Q5_1 bytes (rows..., bytes a row)."""
    heads = [x[..., None].view(np.uint8) for x in (scale, bias)]
    low = codes & 0x0F
    fifth = [np.packbits(codes >> 4, axis=-1, bitorder="little")] if ggml_type == "Q5_1" else []
    out = np.concatenate([*heads, *fifth, low[..., :16] | (low[..., 16:] << 4)], axis=-1)
    return out.reshape(*codes.shape[:-2], -1)
