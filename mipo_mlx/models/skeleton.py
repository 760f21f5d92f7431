"""A model's layers without its weights, from its configuration alone: enough to count and to plan."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from .. import backend
from ..engine.tables import EMBEDDINGS, OUTPUT, lay_out
from ..errors import UserError
from ..gguf_format.blocks import PACKED_BITS
from ..gguf_format.file import GGUFFile
from ..gguf_format.names import by_gguf
from ..gguf_format.to_mlx import GROUP, SIXTEEN_BITS
from .load import model_config, resolve


def skeleton(name: str) -> tuple[nn.Module, int]:
    """The model's modules as this device would keep them, and its number of parameters. Its arrays are never computed.

    Raises UserError for a model that mlx-lm does not know.
    """
    config, path = model_config(name), resolve(name, weights=False)
    is_gguf, on_cpu = path.suffix == ".gguf", backend.device().kind == "cpu"
    try:
        model, count = from_config({**config, "torch_dtype": "float32"} if is_gguf and on_cpu else config)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{name}: this model cannot be built from its configuration ({error}); choose another") from None
    if is_gguf and on_cpu:
        model = _store_tables(model, _types(path))
    elif is_gguf:
        _pack(model, _types(path))
    return model, count


def from_config(config: dict[str, Any]) -> tuple[nn.Module, int]:
    """As `skeleton`, from a configuration under Hugging Face's keys."""
    from mlx_lm.utils import _get_classes

    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    count = sum(array.size for _, array in tree_flatten(model.parameters()))
    model.set_dtype(getattr(mx, str(config.get("torch_dtype") or config.get("dtype") or "bfloat16"), mx.bfloat16))
    quantization = config.get("quantization")
    if quantization:
        nn.quantize(model, group_size=quantization["group_size"], bits=quantization["bits"])
    return lay_out(model), count


def _types(path: Path) -> dict[str, int]:
    """The ggml type of each weight of a GGUF file, by the name of the module that holds it."""
    file = GGUFFile(path)
    architecture = by_gguf(file.get("general.architecture", str, "?"), str(path))
    names = {architecture.to_mlx(tensor.name) or "": tensor.type for tensor in file.tensors.values()}
    return {name.removesuffix(".weight"): kind for name, kind in names.items() if name.endswith(".weight")}


def _pack(model: nn.Module, types: dict[str, int]) -> None:
    """Quantise the modules of `types` that MLX can hold packed. The others (Q6_K, say) are in 16 bits then."""

    def packing(name: str, _: nn.Module) -> dict[str, int] | bool:
        bits = PACKED_BITS.get(types.get(name, -1))
        return {"group_size": GROUP, "bits": bits} if bits else False

    nn.quantize(model, class_predicate=packing)


def _store_tables(model: nn.Module, types: dict[str, int]) -> nn.Module:
    """The embedding and the output layer as they are in the file: the CPU keeps them so."""
    tables = {name: kind for name, kind in types.items() if name.rsplit(".", 1)[-1] in EMBEDDINGS + OUTPUT}
    for name, module in model.named_modules():
        if tables.get(name) in SIXTEEN_BITS:
            module.set_dtype(SIXTEEN_BITS[tables[name]])
    _pack(model, tables)
    return lay_out(model)
