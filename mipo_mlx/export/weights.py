"""The weights of base + adapters, fused in float32, one tensor at a time.

Each tensor is read from the disk, dequantised, fused and passed on; nothing is kept. So an export needs the memory of the largest
tensor, not of the model. A base is an MLX or Hugging Face folder, or a GGUF file.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import UserError, first_line
from ..gguf_format.blocks import PACKED_BITS, dequantise, triple
from ..gguf_format.file import GGUFFile, Tensor
from ..gguf_format.names import Architecture, by_gguf, by_groups, mlx_order, mlx_shape, mlx_values, whole_groups
from ..gguf_format.rounding import Levels, of_affine, pack


@dataclass(frozen=True)
class Adapters:
    """LoRA or DoRA adapters as mlx-lm stores them: module name -> (lora_a, lora_b, magnitude of DoRA or None)."""

    scale: float
    modules: dict[str, tuple[mx.array, mx.array, mx.array | None]]

    def fuse(self, name: str, weight: mx.array) -> mx.array:
        """W + scale * (A B)^T, float32; DoRA then gives each row its learned length (Liu et al. 2024, eq. 5)."""
        module = name.removesuffix(".weight")
        if module not in self.modules or not name.endswith(".weight"):
            return weight
        weight, magnitude = weight + self.delta(module), self.modules[module][2]
        if magnitude is not None:
            weight = weight * (magnitude.astype(mx.float32) / mx.linalg.norm(weight, axis=1))[:, None]
        return weight

    def delta(self, module: str) -> mx.array:
        """scale * (A B)^T in the weight's own shape, float32."""
        a, b = (factor.astype(mx.float32) for factor in self.modules[module][:2])
        if b.ndim == 3:  # each expert has its own factors: a (experts, rank, in), b (experts, out, rank)
            return self.scale * (b @ a.reshape(b.shape[0], -1, a.shape[-1]))
        return self.scale * (b.T @ a.T)


def load_adapters(folder: Path | None) -> Adapters:
    """Read mlx-lm's adapter layout; None gives no adapters at all. Raises UserError for missing or unfit files."""
    if folder is None:
        return Adapters(1.0, {})
    folder = Path(folder)
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        arrays = mx.load(str(folder / "adapters.safetensors"))
        scale = float(config["lora_parameters"]["scale"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{folder}: adapters cannot be read ({first_line(error)}); run `mipo-mlx train` to the end first") from None
    names = {name.removesuffix(".lora_a") for name in arrays if name.endswith(".lora_a")}
    unknown = [n for n in arrays if n.rsplit(".", 1)[0] not in names]
    if config.get("fine_tune_type") not in ("lora", "dora") or unknown:
        raise UserError(f"{folder}: expected LoRA or DoRA adapters, not {config.get('fine_tune_type')!r} {unknown[:1]}")
    return Adapters(scale, {n: (arrays[f"{n}.lora_a"], arrays[f"{n}.lora_b"], arrays.get(f"{n}.m")) for n in sorted(names)})


@dataclass(frozen=True)
class Piece:
    """One parameter of the base. Nothing is read before one of the functions is called."""

    name: str
    shape: tuple[int, ...]
    stored: str  # the ggml type that matches how the base stores it: F32, F16, BF16, Q4_1, ...
    values: Callable[[], mx.array]  # float32, the parameter's shape
    exact: Callable[[], np.ndarray | None]  # its bytes in the type `stored`, (..., bytes a row); None where they are not exact
    levels: Callable[[], Levels | None] = lambda: None  # those of a four-bit or five-bit base
    filed: bool = False  # rows and columns of `exact` are in a GGUF file's order


class FolderBase:
    """An MLX or Hugging Face folder, quantised or not."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path, self.config = path, config
        self.stored = {piece.name: (piece.shape, piece.stored) for piece in self}

    def _arrays(self) -> dict[str, mx.array]:
        """Every array of the folder by mlx-lm's own names. MLX reads an array when it is used."""
        from mlx_lm.utils import _get_classes

        shards = sorted(self.path.glob("model*.safetensors"))
        if not shards:
            raise UserError(f"{self.path}: no model*.safetensors in this folder")
        arrays: dict[str, mx.array] = {}
        for shard in shards:
            arrays.update(mx.load(str(shard)))
        model_class, args_class = _get_classes(self.config)
        model = model_class(args_class.from_dict(self.config))
        return model.sanitize(arrays) if hasattr(model, "sanitize") else arrays

    def __iter__(self) -> Iterator[Piece]:
        # MLX keeps an array in memory as long as something refers to it, so each array leaves the dictionary with its piece.
        arrays = self._arrays()
        for name in sorted(arrays, key=_natural):
            if name in arrays and not name.endswith((".scales", ".biases")):
                yield self._piece(name, arrays)

    def _piece(self, name: str, arrays: dict[str, mx.array]) -> Piece:
        weight, module = arrays.pop(name), name.removesuffix(".weight")
        scales, biases = arrays.pop(f"{module}.scales", None), arrays.pop(f"{module}.biases", None)
        if scales is None:
            stored = {mx.float32: "F32", mx.float16: "F16", mx.bfloat16: "BF16"}.get(weight.dtype)
            if stored is None:
                raise UserError(f"{self.path}: {name} is of the type {weight.dtype}, which cannot be exported")
            return Piece(name, weight.shape, stored, lambda: weight.astype(mx.float32), lambda: None)
        mode, bits = packing(weight, scales, biases, self.config, module)
        shape = (*weight.shape[:-1], weight.shape[-1] * 32 // bits)
        group = shape[-1] // scales.shape[-1]

        def values() -> mx.array:
            wide = [x if x is None or mode != "affine" else x.astype(mx.float32) for x in (scales, biases)]
            return mx.dequantize(weight, *wide, group_size=group, bits=bits, mode=mode).astype(mx.float32)

        stored = {4: "Q4_1", 5: "Q5_1"}.get(bits, "Q8_0") if mode == "affine" else "Q8_0"
        if mode != "affine":
            return Piece(name, shape, stored, values, lambda: None)
        exact = partial(blocks, weight, scales, biases, bits, group)
        return Piece(name, shape, stored, values, exact, partial(of_affine, scales, biases, bits, group))


class GGUFBase:
    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path, self.config, self.file = path, config, GGUFFile(path)
        self.architecture: Architecture = by_gguf(self.file.get("general.architecture", str, "?"), str(path))
        named = {self.architecture.to_mlx(t.name): t for t in self.file.tensors.values()}
        self.tensors: dict[str, Tensor] = {name: named[name] for name in sorted(filter(None, named), key=_natural)}
        self.stored = {name: (mlx_shape(tensor.name, tensor.shape), tensor.type_name) for name, tensor in self.tensors.items()}

    def __iter__(self) -> Iterator[Piece]:
        return (self._piece(name, tensor) for name, tensor in self.tensors.items())

    def _piece(self, name: str, tensor: Tensor) -> Piece:
        rows, columns = mlx_order(self.architecture, tensor.name, self.config)
        groups = whole_groups(columns)

        def values() -> mx.array:
            if tensor.type in PACKED_BITS and len(tensor.shape) > 1:
                bits = PACKED_BITS[tensor.type]
                array = mx.dequantize(*map(mx.array, triple(self.file, tensor)), group_size=32, bits=bits)
            else:
                array = mx.array(mlx_values(self.architecture, tensor.name, dequantise(self.file, tensor))).astype(mx.float32)
            array = array if rows is None else array[mx.array(rows)]
            return array if columns is None else array[:, mx.array(columns)]

        def exact() -> np.ndarray:
            return self.file.bytes(tensor).reshape(*tensor.shape[:-1], -1)

        def levels() -> Levels | None:
            known = tensor.type_name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1") and len(tensor.shape) > 1
            if not known or (columns is not None and groups is None):
                return None
            _, scales, biases = triple(self.file, tensor)
            if rows is not None:
                scales, biases = scales[rows], biases[rows]
            if groups is not None:
                scales, biases = by_groups(scales, groups), by_groups(biases, groups)
            return Levels(scales, biases, PACKED_BITS[tensor.type])

        return Piece(name, mlx_shape(tensor.name, tensor.shape), tensor.type_name, values, exact, levels, filed=True)


class Weights:
    """Base + adapters; `path` is a model folder or a .gguf file. `stored`: parameter name -> (shape, ggml type of the base)."""

    def __init__(self, path: Path, config: dict[str, Any], adapters: Adapters) -> None:
        self.base: GGUFBase | FolderBase = GGUFBase(path, config) if path.suffix == ".gguf" else FolderBase(path, config)
        self.path, self.config, self.adapters = path, config, adapters
        self.stored = self.base.stored
        for module, (a, b, _) in adapters.modules.items():
            shape, _ = self.stored.get(f"{module}.weight", ((), ""))
            if (b.shape[-1] if b.ndim == 2 else b.shape[1], a.shape[0] if a.ndim == 2 else a.shape[-1]) != shape[-2:]:
                raise UserError(f"{path}: has no {module} of the size that the adapters change; they belong to another base")

    def changed(self, name: str) -> bool:
        """Whether the adapters touch this parameter."""
        return name.endswith(".weight") and name.removesuffix(".weight") in self.adapters.modules

    def fused(self, piece: Piece) -> mx.array:
        """The parameter as trained, float32, evaluated."""
        value = self.adapters.fuse(piece.name, piece.values())
        mx.eval(value)
        return value


def blocks(weight: mx.array, scales: mx.array, biases: mx.array, bits: int, group: int) -> np.ndarray | None:
    """An affine MLX triple as Q4_1, Q5_1 or Q8_0 bytes (rows..., bytes a row); None where no such type holds it exactly."""
    own = of_affine(scales, biases, bits, group)
    if own is None:
        return None
    packed = np.array(weight).view(np.uint8)
    if bits in (4, 5):
        every = np.unpackbits(packed, axis=-1, bitorder="little").reshape(*own.scale.shape, 32, bits)
        codes = np.packbits(every, axis=-1, bitorder="little")[..., 0]
        return pack(codes, own.scale.astype(np.float16), own.bias.astype(np.float16), {4: "Q4_1", 5: "Q5_1"}[bits])
    if bits != 8 or not np.array_equal(own.bias, -128 * own.scale):
        return None
    signed = packed.reshape(*own.scale.shape, 32) ^ 0x80  # unsigned around 128 -> int8
    out = np.concatenate([own.scale.astype(np.float16)[..., None].view(np.uint8), signed], axis=-1)
    return out.reshape(*own.scale.shape[:-1], -1)


def _natural(name: str) -> tuple[int, str]:
    """A key to sort by: embeddings first, then layers by number, then what follows the layers."""
    parts = name.split(".")
    number = next((int(part) for part in parts if part.isdecimal()), -1 if "embed" in name else 1 << 30)
    return number, name


def packing(weight: mx.array, scales: mx.array, biases: mx.array | None, config: dict[str, Any], module: str) -> tuple[str, int]:
    """(mode, bits) of a packed weight, from config.json; a layer may differ from the rest. Raises UserError where neither fits."""
    quantization = config.get("quantization") or config.get("quantization_config") or {}
    own = quantization.get(module)
    if isinstance(own, dict):
        return own.get("mode", "affine"), own["bits"]
    if biases is None:
        return quantization.get("mode", "mxfp4"), quantization.get("bits", 4)
    # A layer that config.json does not name may still have other bits. Only the right number gives the known group size.
    for bits in (quantization.get("bits"), 4, 8, 6, 5, 3, 2):
        if bits and (weight.shape[-1] * 32 // bits) % scales.shape[-1] == 0:
            if (weight.shape[-1] * 32 // bits) // scales.shape[-1] == quantization.get("group_size", 64):
                return "affine", bits
    raise UserError(f"{module}: cannot tell how this weight is quantised; config.json has no quantization for it")
