"""The adapters alone as a GGUF file: llama.cpp lays it over the base with `--lora`, Ollama with ADAPTER.

It has a few megabytes, not those of a whole model. llama.cpp multiplies B A by alpha / rank, so alpha = scale * rank.
"""

import logging
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..files import replacing
from ..gguf_format.names import by_model_type, gguf_order, language
from .card import Card
from .gguf import head_size
from .weights import Weights

NO_DORA = "export.adapter: llama.cpp has no DoRA; export the fused model, or train with training.lora.dora: false"


def write_adapter(path: Path, weights: Weights, card: Card) -> list[Path]:
    """Write the LoRA factors in float32; returns [path]. Raises UserError for DoRA and for adapters on experts."""
    import gguf

    config = language(weights.config)
    architecture = by_model_type(config["model_type"], "export.adapter")
    modules = weights.adapters.modules
    if not modules:
        raise UserError("export.adapter: there are no adapters to export")
    if any(magnitude is not None for *_, magnitude in modules.values()):
        raise UserError(NO_DORA)
    config = {**config, "head_dim": head_size(config)}
    logging.getLogger("gguf").setLevel(logging.ERROR)
    ranks = {b.shape[0] for _, b, _ in modules.values()}
    if len(ranks) != 1 or any(b.ndim != 2 for _, b, _ in modules.values()):
        raise UserError("export.adapter: adapters on experts or of different ranks have no GGUF form; export the fused model")
    with replacing(path) as temporary:
        writer = gguf.GGUFWriter(temporary, architecture.gguf)
        writer.add_type("adapter")
        writer.add_name(card.name)
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, card.base)
        if card.recipe_sha256:
            writer.add_string("mipo.recipe.sha256", card.recipe_sha256)
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", weights.adapters.scale * ranks.pop())
        for module, (a, b, _) in modules.items():
            name = architecture.to_gguf(f"{module}.weight")
            if name is None:
                raise UserError(f"export.adapter: the adapters change {module}, for which GGUF has no place")
            down, up = np.array(a.T, np.float32), np.array(b.T, np.float32)
            rows, columns = gguf_order(architecture, name, config)
            writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(down if columns is None else down[:, columns]))
            writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(up if rows is None else up[rows]))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return [path]
