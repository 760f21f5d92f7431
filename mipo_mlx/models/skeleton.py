"""A model's layers without its weights, from its configuration alone: enough to count and to plan."""

from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten

from .loading import model_config


def skeleton(name: str) -> tuple[nn.Module, int]:
    """The model's modules with lazy, never computed arrays, and its number of parameters."""
    from mlx_lm.utils import _get_classes

    from .. import backend

    config = model_config(name)
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    count = sum(array.size for _, array in tree_flatten(model.parameters()))
    quantization: dict[str, Any] | None = config.get("quantization")
    if quantization and backend.device().kind != "cpu":
        nn.quantize(model, group_size=quantization["group_size"], bits=quantization["bits"])
    return model, count
