"""The fused MLX folder: base + adapters as one model that `mlx_lm.generate` loads, written tensor by tensor.

Fusing happens in float32. A quantised base is quantised again only on request: the noise of 4-bit rounding is larger than what
LoRA learned and can wash it out.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import numpy as np

from ..errors import UserError
from ..files import disk_errors, read_json, sync, write_json
from ..gguf_format import rope
from ..gguf_format.tokenizer import inner
from .weights import Piece, Weights

DTYPES = {"float32": ("F32", mx.float32), "float16": ("F16", mx.float16), "bfloat16": ("BF16", mx.bfloat16)}
OF_THIS_MACHINE = ("_name_or_path", "is_local", "local_files_only")  # what configurations may say about where the base lay
TOWERS = ("vision_config", "audio_config")  # as mlx-lm does: by these LM Studio and mlx-vlm look for tensors that are left out
CHANGED = ("quantization", "quantization_config", "torch_dtype", "dtype")
Part = tuple[str, str, tuple[int, ...], int]  # array name, safetensors dtype, shape, bytes


@dataclass(frozen=True)
class Form:
    dtype: str = "bfloat16"  # of the weights; of scales and biases where `bits` is given
    bits: int | None = None  # 4 or 8 quantises the weights
    shard: int = 5 << 30  # bytes of the largest file, as the Hub advises


@dataclass(frozen=True)
class Beside:
    """What the folder holds beside the weights."""

    tokenizer: Any
    template: str | None = None  # the chat template
    generation: dict[str, Any] = field(default_factory=dict)  # generation_config.json
    tokenizer_class: str | None = None  # the base's own, in tokenizer_config.json


def fuse(
    folder: Path, weights: Weights, beside: Beside, form: Form, advance: Callable[[int], None] = lambda count: None
) -> list[Path]:
    """Write the model folder and return its files. A complete new folder replaces an existing one.

    `advance(parameters)` follows each tensor. Raises UserError for an unknown dtype, Failure when the disk is full.
    """
    if form.dtype not in DTYPES:
        raise UserError(f"export.fuse.dtype: there is no {form.dtype!r}; expected one of {', '.join(DTYPES)}")
    fresh = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        with disk_errors(folder):
            config = _write_weights(fresh, weights, form, advance)
            (fresh / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True), encoding="utf-8")
            if beside.generation:
                (fresh / "generation_config.json").write_text(json.dumps(beside.generation, indent=2), encoding="utf-8")
            save_tokenizer(fresh, beside)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return sorted(folder.iterdir())


def save_tokenizer(folder: Path, beside: Beside) -> None:
    """Write the tokenizer's files with the chat template of `beside`. The tokenizer itself stays unchanged.

    transformers 5 names a class that transformers 4 does not know. So the base's own class stands there, which both know.
    """
    fast = inner(beside.tokenizer)
    before = fast.chat_template
    try:
        fast.chat_template = beside.template
        fast.save_pretrained(str(folder))
    finally:
        fast.chat_template = before
    path = folder / "tokenizer_config.json"
    config = {key: value for key, value in read_json(path).items() if key not in OF_THIS_MACHINE}
    known = beside.tokenizer_class not in (None, "TokenizersBackend")
    write_json(path, {**config, "tokenizer_class": beside.tokenizer_class if known else "PreTrainedTokenizerFast"})


def _write_weights(folder: Path, weights: Weights, form: Form, advance: Callable[[int], None]) -> dict[str, Any]:
    """Write model*.safetensors and their index; return the config that describes them."""
    groups = {name: _group(name, shape) if form.bits else 0 for name, (shape, _) in weights.stored.items()}
    layout = {name: _layout(name, shape, groups[name], form) for name, (shape, _) in weights.stored.items()}
    shards = _shards(layout, form.shard)
    files = [f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors" for index in range(len(shards))]
    files = files if len(shards) > 1 else ["model.safetensors"]
    place = {name: index for index, names in enumerate(shards) for name in names}
    handle, current = _open(folder / files[0], shards[0], layout), 0
    try:
        for piece in weights.base:
            if place[piece.name] != current:
                _finish(handle)
                current = place[piece.name]
                handle = _open(folder / files[current], shards[current], layout)
            for array in _arrays(weights, piece, groups[piece.name], form):
                handle.write(array.data)
            advance(int(np.prod(piece.shape)))
        _finish(handle)
    finally:
        handle.close()
    index = {part: files[place[name]] for name, parts in layout.items() for part, *_ in parts}
    total = sum(size for parts in layout.values() for *_, size in parts)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}, indent=2), encoding="utf-8"
    )
    return describe(weights.config, form, groups)


def describe(config: dict[str, Any], form: Form, groups: dict[str, int]) -> dict[str, Any]:
    """config.json of the fused model: the new quantisation, and rotary settings where both mlx-lm and transformers read them."""
    config = {k: v for k, v in config.items() if k not in (*CHANGED, *OF_THIS_MACHINE)}
    inner = config.get("text_config")
    if not any("vision" in name or "audio" in name for name in groups):
        config = {k: v for k, v in config.items() if k not in TOWERS}
    config = {**config, "text_config": _with_rope(inner)} if isinstance(inner, dict) else _with_rope(config)
    config["torch_dtype"] = form.dtype
    if form.bits:
        common = max(sorted({g for g in groups.values() if g}), key=list(groups.values()).count)
        quantization: dict[str, Any] = {"group_size": common, "bits": form.bits, "mode": "affine"}
        for name, group in groups.items():
            if group and group != common:
                quantization[name.removesuffix(".weight")] = {"group_size": group, "bits": form.bits, "mode": "affine"}
        config["quantization"] = config["quantization_config"] = quantization
    return config


def _with_rope(config: dict[str, Any]) -> dict[str, Any]:
    theta, scaling = rope.settings(config)
    own = config.get("rope_parameters")
    if isinstance(own, dict) and "full_attention" not in own:
        config = {**config, "rope_parameters": {**own, **(scaling or {"rope_type": "default"}), "rope_theta": theta}}
    return {**config, "rope_theta": theta, "rope_scaling": scaling}


def _group(name: str, shape: tuple[int, ...]) -> int:
    """The group size that a parameter is quantised with; 0: it stays a plain array."""
    if len(shape) < 2 or not name.endswith(".weight") or "norm" in name or name.endswith("mlp.gate.weight"):
        return 0
    return next((group for group in (64, 32) if shape[-1] % group == 0), 0)


def _layout(name: str, shape: tuple[int, ...], group: int, form: Form) -> list[Part]:
    """The arrays that one parameter becomes."""
    code, kind = _dtype(name, form)
    if not group or not form.bits:
        return [(name, code, shape, int(np.prod(shape)) * kind.size)]
    module = name.removesuffix(".weight")
    packed, few = (*shape[:-1], shape[-1] * form.bits // 32), (*shape[:-1], shape[-1] // group)
    size = int(np.prod(few)) * kind.size
    return [
        (f"{module}.weight", "U32", packed, int(np.prod(packed)) * 4),
        (f"{module}.scales", code, few, size),
        (f"{module}.biases", code, few, size),
    ]


def _dtype(name: str, form: Form) -> tuple[str, mx.Dtype]:
    """Linear attention's decay is an exponential of its A_log, which 16 bits would move by half a percent: mlx-lm keeps it, too."""
    return DTYPES["float32" if name.endswith(".A_log") else form.dtype]


def _arrays(weights: Weights, piece: Piece, group: int, form: Form) -> list[np.ndarray]:
    """The bytes of the arrays that `_layout` announces."""
    value, kind = weights.fused(piece), _dtype(piece.name, form)[1]
    if not group:
        return [_raw(value.astype(kind))]
    packed, scales, biases = mx.quantize(value, group_size=group, bits=form.bits)
    return [_raw(packed), _raw(scales.astype(kind)), _raw(biases.astype(kind))]


def _raw(array: mx.array) -> np.ndarray:
    return np.ascontiguousarray(np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array))


def _shards(layout: dict[str, list[Part]], limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    used = 0
    for name, parts in layout.items():
        size = sum(part[-1] for part in parts)
        if shards[-1] and used + size > limit:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return shards


def _open(path: Path, names: list[str], layout: dict[str, list[Part]]) -> BinaryIO:
    """A new safetensors file with its header: eight bytes of length, then JSON, padded to eight bytes, with each array's dtype,
    shape and place."""
    at = 0
    entries: dict[str, dict[str, Any]] = {"__metadata__": {"format": "mlx"}}
    for name, code, shape, size in (part for parameter in names for part in layout[parameter]):
        entries[name] = {"dtype": code, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    handle = open(path, "wb")
    handle.write(len(text).to_bytes(8, "little") + text)
    return handle


def _finish(handle: BinaryIO) -> None:
    handle.flush()
    sync(handle.fileno())
    handle.close()
