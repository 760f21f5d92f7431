"""Rotary scaling. GGUF stores one factor a frequency. Hugging Face stores Llama 3's (`rope_freqs.weight`) as four numbers, and
Phi-3's longrope (`rope_factors_long.weight` and `_short`) as the factors themselves."""

import math
from typing import Any

import numpy as np

from ..errors import UserError
from .file import GGUFFile

LONGROPE = ("longrope", "su")  # two names of one thing
CONTEXT = 8192  # low and high factors have a meaning only beside an original context: this is Llama 3's own


def settings(config: dict[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """(theta, scaling) of a config, wherever it keeps them; scaling is None where it changes nothing."""
    config = flattened(config)
    theta = config.get("rope_theta") or (1e6 if config.get("model_type") in ("gemma3_text", "lfm2") else 1e4)
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    return float(theta), None if kind == "default" else {**scaling, "rope_type": "longrope" if kind in LONGROPE else kind}


def flattened(config: dict[str, Any]) -> dict[str, Any]:
    """The config with its rotary settings at the top level, where mlx-lm reads them. transformers 5 keeps them in
    `rope_parameters`, where mlx-lm misses them without a word. A model of several modalities has a config within its config."""
    if isinstance(config.get("text_config"), dict):
        config = {**config, "text_config": flattened(config["text_config"])}
    parameters = config.get("rope_parameters")
    if not isinstance(parameters, dict):
        return config
    main = parameters.get("full_attention", parameters)  # Gemma 3 has others for its sliding layers
    kind = main.get("rope_type", "default")
    names = ("rope_theta", "partial_rotary_factor", *(["original_max_position_embeddings"] if kind in LONGROPE else []))
    lifted = {name: main[name] for name in names if name in main}
    if kind != "default":
        lifted["rope_scaling"] = {"type": kind, **{name: value for name, value in main.items() if name != "rope_theta"}}
    if "sliding_attention" in parameters:
        lifted["rope_local_base_freq"] = parameters["sliding_attention"].get("rope_theta")
    return {**config, **{name: value for name, value in lifted.items() if config.get(name) is None}}


def tables(config: dict[str, Any], head_dim: int) -> dict[str, np.ndarray]:
    """The rotary tensors of a GGUF file, float32. Raises UserError for longrope factors of another number than the model's."""
    theta, scaling = settings(config)
    if scaling and scaling["rope_type"] == "llama3":
        return {"rope_freqs.weight": llama3_factors(head_dim, theta, scaling)}
    if not scaling or scaling["rope_type"] != "longrope":
        return {}
    factors = {f"rope_factors_{part}.weight": np.array(scaling[f"{part}_factor"], np.float32) for part in ("long", "short")}
    wanted = rotated(config, head_dim) // 2
    if any(table.shape != (wanted,) for table in factors.values()):
        raise UserError(f"export.gguf: the model's longrope factors are not the {wanted} numbers that its rotary size needs")
    return factors


def llama3_factors(head_dim: int, theta: float, scaling: dict[str, Any]) -> np.ndarray:
    """(head_dim / 2,) float32: what each rotary frequency is divided by (Llama 3.1's reference code)."""
    factor, context = scaling["factor"], scaling.get("original_max_position_embeddings", CONTEXT)
    low, high = scaling.get("low_freq_factor", 1.0), scaling.get("high_freq_factor", 4.0)
    turns = context / (2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim))  # full turns within the context
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def rotated(config: dict[str, Any], head_dim: int) -> int:
    """How many of a head's elements are rotated."""
    return int(head_dim * (flattened(config).get("partial_rotary_factor") or 1.0))


def longrope_factor(config: dict[str, Any]) -> float:
    """Longrope's factor of queries and keys (Ding et al. 2024, as in Phi-3's own code)."""
    original = config["original_max_position_embeddings"]
    scale = config["max_position_embeddings"] / original
    return math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0


def rope_scaling(file: GGUFFile, prefix: str, config: dict[str, Any]) -> dict[str, Any] | None:
    """A GGUF file's scaling as config.json's rope_scaling. Raises UserError for one that mlx-lm cannot compute."""
    tensor = file.tensors.get("rope_freqs.weight")
    if tensor is not None:
        if tensor.type_name != "F32" or tensor.shape != (config["head_dim"] // 2,):
            raise file.refuse(f"rope_freqs.weight is {tensor.type_name} {list(tensor.shape)}, which fits no head of this model")
        return _recover(file, file.bytes(tensor).view(np.float32), config)
    if "rope_factors_long.weight" in file.tensors:
        return _longrope(file, prefix, config)
    kind = file.get(f"{prefix}.rope.scaling.type", str, "none")
    if kind == "none" or kind == config.get("rope_type"):  # a family's own kind has keys of its own
        return None
    if kind != "linear":
        raise UserError(
            f"{file.path}: {prefix}.rope.scaling.type is {kind[:20]!r}, which cannot be read from a GGUF file here; expected none, "
            "linear, or the tensors of Llama 3's or Phi-3's scaling: take the model's Hub or MLX folder instead"
        )
    factor = file.get(f"{prefix}.rope.scaling.factor", (int, float), 1.0)
    if factor <= 0:
        raise file.refuse(f"its {prefix}.rope.scaling.factor is {factor}")
    return {"rope_type": "linear", "type": "linear", "factor": float(factor)}


def _longrope(file: GGUFFile, prefix: str, config: dict[str, Any]) -> dict[str, Any]:
    scaling: dict[str, Any] = {"rope_type": "longrope", "type": "longrope"}
    for part in ("long", "short"):
        tensor = file.tensors.get(f"rope_factors_{part}.weight")
        if tensor is None or tensor.type_name != "F32" or tensor.shape != (rotated(config, config["head_dim"]) // 2,):
            raise file.refuse(f"rope_factors_{part}.weight is missing, or fits no head of this model")
        factors = file.bytes(tensor).view(np.float32)
        if not (np.isfinite(factors) & (factors > 0)).all():
            raise file.refuse(f"rope_factors_{part}.weight holds numbers that are no rotary factors")
        scaling[f"{part}_factor"] = [float(str(factor)) for factor in factors]
    if prefix != "phi3":
        raise UserError(f"{file.path}: longrope in a {prefix} model is not supported; expected it in phi3 only")
    given = file.get(f"{prefix}.rope.scaling.attn_factor", (int, float), 1.0)
    if config["original_max_position_embeddings"] < 2 or not math.isclose(given, longrope_factor(config), rel_tol=1e-4):
        raise file.refuse(f"its {prefix}.rope.scaling.attn_factor is {given}, which its context lengths do not give")
    return scaling


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
    if between.any():  # one frequency between the ends is enough where the ends are 1 to 4, as in all known models
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
