"""Llama 3's rotary scaling, which GGUF stores as one factor a frequency (`rope_freqs.weight`) and Hugging Face as numbers."""

import math
from typing import Any

import numpy as np

from ..errors import UserError
from .gguf_file import GGUFFile

CONTEXT = 8192  # low / high factors have meaning only against an original context; Llama 3's own is taken


def llama3_factors(head_dim: int, theta: float, scaling: dict[str, Any]) -> np.ndarray:
    """(head_dim / 2,) float32: what each rotary frequency is divided by (Llama 3.1's reference code)."""
    factor, context = scaling["factor"], scaling.get("original_max_position_embeddings", CONTEXT)
    low, high = scaling.get("low_freq_factor", 1.0), scaling.get("high_freq_factor", 4.0)
    turns = context / (2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim))  # full turns within the context
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def rope_scaling(file: GGUFFile, prefix: str, config: dict[str, Any]) -> dict[str, Any] | None:
    """config.json's rope_scaling. Raises UserError for a scaling that mlx-lm cannot compute."""
    tensor = file.tensors.get("rope_freqs.weight")
    if tensor is not None:
        if tensor.type_name != "F32" or tensor.shape != (config["head_dim"] // 2,):
            raise file.refuse(f"rope_freqs.weight is {tensor.type_name} {list(tensor.shape)}, which fits no head of this model")
        return _recover(file, file.bytes(tensor).view(np.float32), config)
    kind = file.get(f"{prefix}.rope.scaling.type", str, "none")
    if kind == "none":
        return None
    factor = file.get(f"{prefix}.rope.scaling.factor", (int, float), 1.0)
    if kind == "linear" and factor > 0:
        return {"rope_type": "linear", "type": "linear", "factor": float(factor)}
    raise UserError(f"{file.path}: rotary scaling {kind[:20]!r} is not supported; expected none, linear or Llama 3's")


def _recover(file: GGUFFile, factors: np.ndarray, config: dict[str, Any]) -> dict[str, Any] | None:
    """The four numbers that give these factors. 1 / factor is linear in a frequency's turns between the two ends."""
    if not np.isfinite(factors).all() or (factors < 1).any():
        raise file.refuse("rope_freqs.weight holds numbers that are no rotary factors")
    if (factors == 1).all():
        return None
    head_dim, theta = config["head_dim"], config["rope_theta"]
    factor = float(factors.max())
    turns = CONTEXT / (2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim))
    between = (factors > 1) & (factors < factor)
    smooth = (1 / factors[between] - 1 / factor) / (1 - 1 / factor)
    candidates = [(1.0, 4.0)]
    if between.any():  # one frequency between the ends is enough where the ends stand 1 to 4, as they always have
        low = float(turns[between][0] / (3 * smooth[0] + 1))
        candidates.append((low, 4 * low))
    if between.sum() >= 2:
        slope, offset = np.polyfit(turns[between], smooth, 1)
        candidates.append((float(-offset / slope), float((1 - offset) / slope)))
    for low, high in candidates:
        scaling = {
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": CONTEXT,
        }  # fmt: skip
        if high > low and np.allclose(llama3_factors(head_dim, theta, scaling), factors, rtol=1e-4):
            return scaling
    raise UserError(f"{file.path}: its rope_freqs.weight is not Llama 3's rotary scaling, the only kind that is supported")
