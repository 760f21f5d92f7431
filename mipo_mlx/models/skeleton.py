"""A model's layers without its weights, from its configuration alone: enough to count and to plan."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from .. import backend
from ..errors import UserError
from ..stored import EMBEDDINGS, OUTPUT
from .gguf_file import GGUFFile
from .gguf_import import GROUP, SIXTEEN_BITS
from .gguf_unpack import PACKED_BITS
from .loading import model_config, resolve

PACKED = (4, 5, 6, 8)  # bits a weight in which a GGUF's tensors stay packed on a GPU


def skeleton(name: str) -> tuple[nn.Module, int]:
    """The model's modules as this device would keep them, with lazy, never computed arrays, and its number of parameters.

    Raises UserError for a model that mlx-lm does not know.
    """
    config, path = model_config(name), resolve(name, weights=False)
    is_gguf, on_cpu = path.suffix == ".gguf", backend.device().kind == "cpu"
    try:
        model, count = from_config({**config, "torch_dtype": "float32"} if is_gguf and on_cpu else config)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{name}: this model cannot be built from its configuration ({error})") from None
    if is_gguf and on_cpu:
        model = _store_tables(model, path)
    elif is_gguf:
        _pack(model, 8 * path.stat().st_size / count)
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
    return backend.lay_out(model), count


def _pack(model: nn.Module, bits: float) -> None:
    """Quantise as a file of so many bits a parameter is: groups of 32 with a scale and a bias take one bit more each."""
    if bits < 12:
        nn.quantize(model, group_size=32, bits=min(PACKED, key=lambda each: abs(bits - each - 1)))


def _store_tables(model: nn.Module, path: Path) -> nn.Module:
    """The embedding and the output layer as they are in the file, which is how the CPU keeps them."""
    tensors = GGUFFile(path).tensors
    tables = {name: tensors[f"{tensor}.weight"].type
              for tensor, names in (("token_embd", EMBEDDINGS), ("output", OUTPUT)) if f"{tensor}.weight" in tensors
              for name in names}  # fmt: skip

    def packing(path: str, _: nn.Module) -> dict[str, int] | bool:
        bits = PACKED_BITS.get(tables.get(path.rsplit(".", 1)[-1], -1))
        return {"group_size": GROUP, "bits": bits} if bits else False

    for name, module in model.named_modules():
        module_type = tables.get(name.rsplit(".", 1)[-1])
        if module_type in SIXTEEN_BITS:
            module.set_dtype(SIXTEEN_BITS[module_type])
    nn.quantize(model, class_predicate=packing)
    return backend.lay_out(model)
