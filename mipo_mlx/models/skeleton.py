"""A model's layers without its weights, from its configuration alone: enough to count and to plan."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from .. import backend
from ..errors import UserError
from .loading import model_config, resolve

PACKED = (4, 5, 6, 8)  # bits a weight in which a GGUF's tensors stay packed on a GPU


def skeleton(name: str) -> tuple[nn.Module, int]:
    """The model's modules as this device would keep them, with lazy, never computed arrays, and its number of parameters.

    Raises UserError for a model that mlx-lm does not know.
    """
    config = model_config(name)
    try:
        model, count = from_config(config)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{name}: this model cannot be built from its configuration ({error})") from None
    path = resolve(name, weights=False)
    if path.suffix == ".gguf" and backend.device().kind != "cpu":
        _pack(model, 8 * Path(path).stat().st_size / count)
    return model, count


def from_config(config: dict[str, Any]) -> tuple[nn.Module, int]:
    """As `skeleton`, from a configuration under Hugging Face's keys."""
    from mlx_lm.utils import _get_classes

    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    count = sum(array.size for _, array in tree_flatten(model.parameters()))
    if backend.device().kind != "cpu":  # see backend.prepare
        model.set_dtype(getattr(mx, str(config.get("torch_dtype") or config.get("dtype") or "bfloat16"), mx.bfloat16))
        quantization = config.get("quantization")
        if quantization:
            nn.quantize(model, group_size=quantization["group_size"], bits=quantization["bits"])
    return model, count


def _pack(model: nn.Module, bits: float) -> None:
    """Quantise as a file of so many bits a parameter is: groups of 32 with a scale and a bias take one bit more each."""
    if bits < 12:
        nn.quantize(model, group_size=32, bits=min(PACKED, key=lambda each: abs(bits - each - 1)))
