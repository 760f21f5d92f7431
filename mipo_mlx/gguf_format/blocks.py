"""ggml's blocks as MLX's affine triples (packed weight, scales, biases), and as plain arrays where MLX has no such packing.

A value of an affine group is `scale * q + bias`. ggml keeps a block's quants as two halves, one in the low nibbles and one in
the high ones. MLX packs them in order, the first in the lowest bits. Formats: ggml's ggml-common.h.
"""

import math

import numpy as np

from .file import GGUFFile, Tensor

# ggml type id: bits of the MLX triple that holds it exactly
PACKED_BITS = {2: 4, 3: 4, 6: 5, 7: 5, 8: 8, 12: 4, 13: 5}


def triple(file: GGUFFile, tensor: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Packed weight (rows..., columns * bits / 32) uint32, scales and biases (rows..., columns / 32) float32."""
    rows, columns = tensor.shape[:-1], tensor.shape[-1]
    raw = file.bytes(tensor)
    codes, scales, biases = _READERS[tensor.type_name](raw)
    packed = np.ascontiguousarray(codes).view(np.uint32)
    return packed.reshape(*rows, -1), scales.reshape(*rows, columns // 32), biases.reshape(*rows, columns // 32)


def dequantise(file: GGUFFile, tensor: Tensor) -> np.ndarray:
    """The tensor's values in its shape: float16 or float32 as stored, else float32. Raises UserError for an unreadable type."""
    raw = file.bytes(tensor)
    if tensor.type_name in ("F32", "F16"):
        return raw.view(np.float32 if tensor.type_name == "F32" else np.float16).reshape(tensor.shape)
    if tensor.type_name == "BF16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(tensor.shape)
    import gguf

    kind = gguf.GGMLQuantizationType(tensor.type)
    try:
        values = gguf.quants.dequantize(wide(raw, gguf.GGML_QUANT_SIZES[kind][1]), kind)
    except (NotImplementedError, KeyError):
        raise file.refuse(f"tensor {tensor.name} is of the type {tensor.type_name}, which cannot be read") from None
    return values.reshape(tensor.shape)


def wide(flat: np.ndarray, block: int) -> np.ndarray:
    """Whole blocks as few long rows: the gguf package takes its rows in Python, sixteen at a time."""
    return flat.reshape(-1, block * math.gcd(flat.size // block, 1 << 12))


def _half(blocks: np.ndarray, column: int) -> np.ndarray:
    """The float16 at byte `column` of every block, as float32."""
    return np.ascontiguousarray(blocks[:, column : column + 2]).view(np.float16).astype(np.float32)


def _nibbles(qs: np.ndarray) -> np.ndarray:
    """(..., 2h) bytes, values i and i + 2h in the low and high nibble of byte i -> as many bytes with the values in order.

    It works on 16-bit words: each holds two neighbours of the low half and two of the high half.
    """
    words = np.ascontiguousarray(qs).view("<u2")
    out = np.empty((*words.shape[:-1], 2 * words.shape[-1]), np.uint8)
    out[..., : words.shape[-1]] = (words & 0x0F) | ((words >> 4) & 0xF0)
    out[..., words.shape[-1] :] = ((words >> 4) & 0x0F) | ((words >> 8) & 0xF0)
    return out


def _pack5(codes: np.ndarray) -> np.ndarray:
    """(..., 32) values below 32 -> (..., 20) bytes: eight values in each five bytes, the first in the lowest bits."""
    eight = codes.reshape(*codes.shape[:-1], -1, 8).astype(np.uint64)
    words = np.zeros(eight.shape[:-1], np.uint64)
    for index in range(8):
        words |= eight[..., index] << np.uint64(5 * index)
    return words[..., None].view(np.uint8)[..., :5].reshape(*codes.shape[:-1], -1)


def _q4_0(raw: np.ndarray) -> tuple[np.ndarray, ...]:
    blocks = raw.reshape(-1, 18)
    scale = _half(blocks, 0)
    return _nibbles(blocks[:, 2:]), scale, -8 * scale


def _q4_1(raw: np.ndarray) -> tuple[np.ndarray, ...]:
    blocks = raw.reshape(-1, 20)
    return _nibbles(blocks[:, 4:]), _half(blocks, 0), _half(blocks, 2)


def _five(high: np.ndarray, qs: np.ndarray) -> np.ndarray:
    """Codes 0..31: four low bits from the nibbles, the fifth from a little-endian bit field."""
    low = np.concatenate([qs & 0x0F, qs >> 4], axis=-1)
    return low | (np.unpackbits(np.ascontiguousarray(high), axis=-1, bitorder="little") << 4)


def _q5_0(raw: np.ndarray) -> tuple[np.ndarray, ...]:
    blocks = raw.reshape(-1, 22)
    scale = _half(blocks, 0)
    return _pack5(_five(blocks[:, 2:6], blocks[:, 6:])), scale, -16 * scale


def _q5_1(raw: np.ndarray) -> tuple[np.ndarray, ...]:
    blocks = raw.reshape(-1, 24)
    return _pack5(_five(blocks[:, 4:8], blocks[:, 8:])), _half(blocks, 0), _half(blocks, 2)


def _q8_0(raw: np.ndarray) -> tuple[np.ndarray, ...]:
    blocks = raw.reshape(-1, 34)
    scale = _half(blocks, 0)
    return blocks[:, 2:] ^ 0x80, scale, -128 * scale  # int8 + 128 flips the sign bit


def _k_scales(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and biases (blocks, 8) of Q4_K and Q5_K: eight six-bit scales and minima in twelve bytes at offset 4."""
    s = blocks[:, 4:16]
    scale = np.concatenate([s[:, :4] & 63, (s[:, 8:] & 15) | ((s[:, :4] >> 6) << 4)], axis=1)
    minimum = np.concatenate([s[:, 4:8] & 63, (s[:, 8:] >> 4) | ((s[:, 4:8] >> 6) << 4)], axis=1)
    return _half(blocks, 0) * scale, -_half(blocks, 2) * minimum


def _q4_k(raw: np.ndarray) -> tuple[np.ndarray, ...]:
    blocks = raw.reshape(-1, 144)
    return _nibbles(blocks[:, 16:].reshape(-1, 4, 32)), *_k_scales(blocks)


def _q5_k(raw: np.ndarray) -> tuple[np.ndarray, ...]:
    blocks = raw.reshape(-1, 176)
    qs, high = blocks[:, 48:].reshape(-1, 4, 32), blocks[:, 16:48]
    low = np.stack([qs & 0x0F, qs >> 4], axis=2).reshape(-1, 8, 32)
    fifth = np.unpackbits(high[:, :, None], axis=2, bitorder="little").swapaxes(1, 2)  # bit j of byte i: group j, value i
    return _pack5(low | (fifth << 4)), *_k_scales(blocks)


_READERS = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0, "Q4_K": _q4_k, "Q5_K": _q5_k}
