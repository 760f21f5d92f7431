"""GGUF types by their usual names (q8_0, q4_k_m, ...), the type of each tensor, and its bytes.

The mixes of the K types follow llama.cpp's quantize tool. The first and last layers' values and down projections get more bits,
and the output gets Q6_K or Q8_0. A row that does not divide into blocks of 256 gets another type.
"""

import difflib
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from .blocks import wide
from .names import CONVOLUTIONS

FILE_TYPES = {  # general.file_type
    "f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2, "q4_1": 3, "q5_0": 8, "q5_1": 9,
    "q3_k_s": 11, "q3_k_m": 12, "q3_k_l": 13, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18,
}  # fmt: skip
PLAIN = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1")
NAMES = (*FILE_TYPES, "keep")
BLOCK = 256
FALLBACK = {"Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
BETTER = {  # the next type that keeps more
    "q3_k_s": "q4_k_m", "q3_k_m": "q4_k_m", "q3_k_l": "q4_k_m", "q4_0": "q5_k_m", "q4_1": "q5_1", "q4_k_s": "q5_k_m",
    "q4_k_m": "q5_k_m", "q5_0": "q8_0", "q5_1": "q8_0", "q5_k_s": "q8_0", "q5_k_m": "q8_0", "q6_k": "q8_0", "keep": "q8_0",
    "q8_0": "f16", "bf16": "f32", "f16": "f32",
}  # fmt: skip


def check(name: str) -> str:
    """The type's own spelling. Raises UserError for an unknown type, and for K types without the package libgguf."""
    wanted = name.lower().strip()
    if wanted not in NAMES:
        near = difflib.get_close_matches(wanted, NAMES, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"export.gguf: there is no GGUF type {name!r}{hint} (known: {', '.join(NAMES)})")
    if wanted in FILE_TYPES and wanted not in PLAIN and not _libgguf():
        raise UserError(f"export.gguf: {wanted} needs one more package: pip install libgguf (without it: {', '.join(PLAIN)}, keep)")
    return wanted


def _libgguf() -> Any:
    try:
        import libgguf
    except ImportError:
        return None
    return libgguf


@dataclass(frozen=True)
class Mix:
    """What decides a tensor's type, beside its own name."""

    type: str  # a user-facing name out of FILE_TYPES
    layers: int
    tied: bool  # embeddings serve as the output too
    groups: int  # attention heads a key-value head
    experts: int = 0


def choose(mix: Mix, name: str, shape: tuple[int, ...]) -> str:
    """The ggml type (F32, Q8_0, Q4_K, ...) of one tensor, as llama.cpp's converter and quantize tool choose it."""
    if len(shape) == 1 or name.endswith("_norm.weight") or name.endswith(("ffn_gate_inp.weight", *CONVOLUTIONS)):
        return "F32"
    if mix.type in ("f32", "f16", "bf16"):
        return mix.type.upper()
    output = name == "output.weight" or (mix.tied and name == "token_embd.weight")
    if mix.type in PLAIN:
        # llama.cpp gives the output Q6_K. Q8_0 is nearer to the original and needs no further package.
        wanted = "Q8_0" if output else mix.type.upper()
        return wanted if shape[-1] % 32 == 0 else "F16"
    wanted = ("Q6_K" if shape[-1] % BLOCK == 0 else "Q8_0") if output else _k_type(mix, name)
    if wanted.endswith("_K") and shape[-1] % BLOCK:
        wanted = FALLBACK[wanted]
    return wanted if shape[-1] % 32 == 0 else "F16"


def _k_type(mix: Mix, name: str) -> str:
    size = mix.type[-1] if mix.type != "q6_k" else ""
    base = mix.type.upper().removesuffix("_" + size.upper()) if size else "Q6_K"
    parts = name.split(".")
    layer, kind = (int(parts[1]), parts[2]) if parts[0] == "blk" else (0, parts[0])
    layers = mix.layers
    more = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    if kind in ("attn_v", "attn_qkv"):  # a fused weight counts as values
        if mix.experts == 8:
            return "Q8_0"
        if mix.layers == 80 and mix.groups > 1 and base in ("Q3_K", "Q4_K") and not (size == "m" and more and base == "Q4_K"):
            return "Q5_K"  # Llama 70B and Qwen 72B
        if base == "Q3_K" and size != "s":
            return ("Q5_K" if layer < 2 else "Q4_K") if size == "m" else "Q5_K"
        if size == "m" and more:
            return "Q6_K"
        if mix.type == "q4_k_s" and layer < 4:
            return "Q5_K"
    elif kind == "attn_k" and mix.experts == 8:
        return "Q8_0"
    elif kind in ("ffn_down", "ffn_down_exps"):
        if mix.type == "q3_k_m":
            return "Q5_K" if layer < layers // 16 else "Q4_K"
        if mix.type == "q3_k_l":
            return "Q5_K"
        if size == "m" and more:
            return "Q6_K"
        if mix.type == "q4_k_s" and layer < layers // 8:
            return "Q5_K"
    elif kind == "attn_output":
        if mix.experts == 8 and base in ("Q3_K", "Q4_K"):
            return "Q5_K"
        if base == "Q3_K" and size != "s":
            return "Q4_K" if size == "m" else "Q5_K"
    return base


def encode(values: np.ndarray, ggml_type: str) -> np.ndarray:
    """float32 (..., columns) -> the type's bytes: float arrays as they are, blocks as uint8 (..., bytes a row)."""
    import gguf

    if ggml_type == "F32":
        return np.ascontiguousarray(values, np.float32)
    if ggml_type == "F16":
        return values.astype(np.float16)
    kind = gguf.GGMLQuantizationType[ggml_type]
    block = gguf.GGML_QUANT_SIZES[kind][0]
    flat = wide(np.ascontiguousarray(values, np.float32).reshape(-1), block)
    if ggml_type.endswith("_K") or ggml_type == "IQ4_NL":
        library = _libgguf()
        if library is None:
            raise UserError(f"export.gguf: {ggml_type} needs one more package; run: pip install libgguf")
        data = library.quantize_rows(flat, int(kind))
    else:
        data = gguf.quants.quantize(flat, kind)
    return data.reshape(*values.shape[:-1], -1)


def row_bytes(ggml_type: str, columns: int) -> int:
    """Bytes of one row."""
    import gguf

    block, width = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[ggml_type]]
    return columns // block * width
