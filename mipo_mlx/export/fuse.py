"""The fused MLX folder: base + adapters as one model that `mlx_lm.generate` loads, written tensor by tensor.

Fusing happens in float32. A quantised base is quantised again only when asked: what LoRA learned is smaller than the noise of
4-bit rounding, so requantising can wash it out.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import UserError
from ..files import disk_errors
from ..gguf_format import rope
from ..gguf_format.tokenizer import inner
from .weights import Piece, Weights

DTYPES = {"float32": ("F32", mx.float32), "float16": ("F16", mx.float16), "bfloat16": ("BF16", mx.bfloat16)}
SHARD = 5 << 30  # bytes a file, as the Hub likes them
Part = tuple[str, str, tuple[int, ...], int]  # array name, safetensors dtype, shape, bytes


def fuse(folder: Path, weights: Weights, tokenizer: Any, template: str | None, *, dtype: str = "bfloat16",
         quantize: int | None = None, generation: dict[str, Any] | None = None, advance: Callable[[int], None] = lambda count: None,
         shard: int = SHARD) -> list[Path]:  # fmt: skip
    """Write the model folder; an existing one is replaced when the new one is whole. Returns its files.

    dtype: of the weights, or of scales and biases where `quantize` (bits, 4 or 8) is given. `template`: the chat template to write.
    """
    if dtype not in DTYPES:
        raise UserError(f"export.fuse.dtype: there is no {dtype!r}; expected one of {', '.join(DTYPES)}")
    fresh = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        with disk_errors(folder):
            config = _write_weights(fresh, weights, dtype, quantize, advance, shard)
            (fresh / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True), encoding="utf-8")
            if generation:
                (fresh / "generation_config.json").write_text(json.dumps(generation, indent=2), encoding="utf-8")
            save_tokenizer(fresh, tokenizer, template)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return sorted(folder.iterdir())


def save_tokenizer(folder: Path, tokenizer: Any, template: str | None) -> None:
    """The tokenizer's files with `template` as its chat template; the tokenizer itself stays as it was."""
    fast = inner(tokenizer)
    before = fast.chat_template
    try:
        fast.chat_template = template
        fast.save_pretrained(str(folder))
    finally:
        fast.chat_template = before


def _write_weights(folder: Path, weights: Weights, dtype: str, quantize: int | None, advance: Callable[[int], None],
                   shard: int) -> dict[str, Any]:  # fmt: skip
    """model*.safetensors and their index; returns the config that describes them."""
    groups = {name: _group(name, shape) if quantize else 0 for name, (shape, _) in weights.stored.items()}
    layout = {name: _layout(name, shape, groups[name], quantize, dtype) for name, (shape, _) in weights.stored.items()}
    shards = _shards(layout, shard)
    files = [f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors" for index in range(len(shards))]
    files = files if len(shards) > 1 else ["model.safetensors"]
    place = {name: index for index, names in enumerate(shards) for name in names}
    handle, current = None, -1
    try:
        for piece in weights.base:
            if place[piece.name] != current:
                current = place[piece.name]
                if handle:
                    _finish(handle)
                handle = open(folder / files[current], "wb")
                handle.write(_header({n: layout[n] for n in shards[current]}))
            for array in _arrays(weights, piece, groups[piece.name], quantize, dtype):
                handle.write(memoryview(array))
            advance(int(np.prod(piece.shape)))
        _finish(handle)
    finally:
        if handle:
            handle.close()
    index = {part: files[place[name]] for name, parts in layout.items() for part, *_ in parts}
    total = sum(size for parts in layout.values() for *_, size in parts)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}, indent=2), encoding="utf-8"
    )
    return describe(weights.config, dtype, quantize, groups)


def describe(config: dict[str, Any], dtype: str, quantize: int | None, groups: dict[str, int]) -> dict[str, Any]:
    """config.json of the fused model: rotary settings where both mlx-lm and transformers read them, quantisation as it is now."""
    theta, scaling = rope.settings(config)
    config = {k: v for k, v in config.items() if k not in ("quantization", "quantization_config", "torch_dtype", "dtype")}
    config.update(rope_theta=theta, rope_scaling=scaling, torch_dtype=dtype)
    if "rope_parameters" in config and "full_attention" not in config["rope_parameters"]:
        config["rope_parameters"] = {**(scaling or {"rope_type": "default"}), "rope_theta": theta}
    if quantize:
        common = max(sorted({g for g in groups.values() if g}), key=list(groups.values()).count)
        quantization: dict[str, Any] = {"group_size": common, "bits": quantize, "mode": "affine"}
        for name, group in groups.items():
            if group and group != common:
                quantization[name.removesuffix(".weight")] = {"group_size": group, "bits": quantize, "mode": "affine"}
        config["quantization"] = config["quantization_config"] = quantization
    return config


def _group(name: str, shape: tuple[int, ...]) -> int:
    """The group size that a parameter is quantised with; 0: it stays a plain array."""
    if len(shape) < 2 or not name.endswith(".weight") or "norm" in name or name.endswith("mlp.gate.weight"):
        return 0
    return next((group for group in (64, 32) if shape[-1] % group == 0), 0)


def _layout(name: str, shape: tuple[int, ...], group: int, bits: int | None, dtype: str) -> list[Part]:
    """What one parameter becomes."""
    code, kind = DTYPES[dtype]
    if not group:
        return [(name, code, shape, int(np.prod(shape)) * kind.size)]
    module = name.removesuffix(".weight")
    packed, few = (*shape[:-1], shape[-1] * bits // 32), (*shape[:-1], shape[-1] // group)
    size = int(np.prod(few)) * kind.size
    return [
        (f"{module}.weight", "U32", packed, int(np.prod(packed)) * 4),
        (f"{module}.scales", code, few, size),
        (f"{module}.biases", code, few, size),
    ]


def _arrays(weights: Weights, piece: Piece, group: int, bits: int | None, dtype: str) -> list[np.ndarray]:
    """The bytes of what `_layout` announced."""
    value, kind = weights.fused(piece), DTYPES[dtype][1]
    if not group:
        return [_raw(value.astype(kind))]
    packed, scales, biases = mx.quantize(value, group_size=group, bits=bits)
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


def _header(layout: dict[str, list[Part]]) -> bytes:
    """safetensors: eight bytes of length, then JSON with each array's dtype, shape and place (padded to eight bytes)."""
    at, entries = 0, {"__metadata__": {"format": "mlx"}}
    for parts in layout.values():
        for name, code, shape, size in parts:
            entries[name] = {"dtype": code, "shape": list(shape), "data_offsets": [at, at + size]}
            at += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _finish(handle: Any) -> None:
    handle.flush()
    os.fsync(handle.fileno())
    handle.close()
