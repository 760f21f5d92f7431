"""Writing a GGUF file: hyperparameters, tokenizer, then the fused tensors one after another, each quantised when it is written."""

import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import disk_errors, sync
from ..gguf_format import rope
from ..gguf_format.names import (
    CONVOLUTIONS,
    INNER,
    Architecture,
    by_groups,
    by_model_type,
    gguf_order,
    gguf_values,
    language,
    settled,
    whole_groups,
)
from ..gguf_format.names import hyperparameters as named
from ..gguf_format.rounding import COUNTS, encode_on
from ..gguf_format.tokenizer import KEEP_SPACE, PREFIX, strips_after_special
from ..gguf_format.types import FILE_TYPES, PLAIN, Mix, choose, encode, row_bytes
from .card import Card
from .weights import Piece, Weights

WRITABLE = {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"}


@dataclass(frozen=True)
class Content:
    """What the file holds beside the tensors."""

    tokenizer: dict[str, Any]  # the tokenizer as GGUF metadata
    card: Card
    template: str | None = None  # the chat template


@dataclass(frozen=True)
class Planned:
    """One tensor of the file."""

    name: str
    shape: tuple[int, ...]
    type: str
    exact: bool = False  # copy the base's bytes where they are exact


def write(
    path: Path,
    weights: Weights,
    type_name: str,
    content: Content,
    split: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Path]:
    """Write base + adapters to `path`, or to shards of at most `split` bytes beside it. Returns the written files.

    Everything goes to a temporary folder first, so a file appears complete or not at all. `advance(parameters)` follows each
    tensor. Raises UserError for what GGUF cannot hold, Failure when the disk is full.
    """
    import gguf

    config = language(weights.config)
    architecture = by_model_type(config["model_type"], "export.gguf")
    planned = plan(weights, architecture, type_name)
    logging.getLogger("gguf").setLevel(logging.ERROR)
    writer = gguf.GGUFWriter(None, architecture.gguf, split_max_size=split)
    card = replace(content.card, name=fitting_name(content.card.name, architecture, content.tokenizer))
    _describe(writer, card, type_name, planned)
    for key, value in {**hyperparameters(config, architecture), **content.tokenizer}.items():
        add(writer, key, value)
    if content.template:
        writer.add_chat_template(content.template)
    factors = rope.tables(config, head_size(config))
    for name, table in factors.items():
        writer.add_tensor_info(name, table.shape, table.dtype, table.nbytes)
    for tensor in planned.values():
        _announce(writer, tensor)
    folder = path.parent / f".{path.name}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with disk_errors(path):
            writer.write_header_to_file(folder / path.name)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for table in factors.values():
                writer.write_tensor_data(table)
            for piece in weights.base:
                writer.write_tensor_data(_bytes(weights, piece, planned[piece.name], architecture))
                advance(int(np.prod(piece.shape)))
            return _publish(writer, folder, path)
    finally:
        for handle in writer.fout or []:
            handle.close()
        shutil.rmtree(folder, ignore_errors=True)


def hyperparameters(config: dict[str, Any], architecture: Architecture) -> dict[str, Any]:
    """The architecture's keys. llama.cpp replaces a missing key silently by a default, so all keys are written.

    Raises UserError for a configuration that llama.cpp cannot express.
    """
    if architecture.in_rope and not config.get("rope_parameters"):
        raise UserError("export.gguf: the model's config.json has no rope_parameters, which this family needs")
    config = settled(config)
    theta, scaling = rope.settings(config)
    heads, head_dim, prefix = config["num_attention_heads"], head_size(config), architecture.gguf
    inside = {name: value for name, value in (config.get("rope_parameters") or {}).items() if name in architecture.in_rope}
    given = {name: value for name, value in {**rope.flattened(config), **inside}.items() if value is not None}
    values = {"num_key_value_heads": heads, **architecture.defaults, **given, "rope_theta": theta, "head_dim": head_dim}
    keys: dict[str, Any] = {}
    for key, (name, number) in named(architecture).items():
        if values.get(name) is None:
            raise UserError(f"export.gguf: the model's config.json has no {name}, which a GGUF file must state")
        value = values[name]
        keys[f"{prefix}.{key}"] = [*map(number, value)] if isinstance(value, list) else number(value)
    for name, value in architecture.always(values).items():
        if values.get(name, value) != value:
            raise UserError(f"export.gguf: {name} is {values[name]!r} here, and {value!r} in llama.cpp's {prefix}")
    keys[f"{prefix}.rope.dimension_count"] = rope.rotated(values, head_dim)
    if "mrope_section" in values:  # linear attention
        keys[f"{prefix}.rope.dimension_sections"] = [*values["mrope_section"], 0]
        keys[f"{prefix}.ssm.inner_size"] = int(values["linear_num_value_heads"] * values["linear_value_head_dim"])
    keys[f"{prefix}.vocab_size"] = int(config["vocab_size"])
    if head_dim * heads != config["hidden_size"]:
        keys[f"{prefix}.attention.key_length"] = keys[f"{prefix}.attention.value_length"] = head_dim
    kind = scaling["rope_type"] if scaling else None
    if scaling and kind == "linear":
        keys[f"{prefix}.rope.scaling.type"] = "linear"
        keys[f"{prefix}.rope.scaling.factor"] = float(scaling["factor"])
    elif kind == "longrope" and prefix == "phi3":
        keys[f"{prefix}.rope.scaling.type"] = "longrope"
        keys[f"{prefix}.rope.scaling.attn_factor"] = rope.longrope_factor(values)
    elif kind and kind == architecture.fixed.get("rope_type"):
        keys[f"{prefix}.rope.scaling.type"] = kind
    elif kind not in (None, "llama3"):
        raise UserError(f"export.gguf: rotary scaling {kind!r} of a {prefix} is not supported; expected none, linear or llama3")
    return keys


def head_size(config: dict[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def plan(weights: Weights, architecture: Architecture, type_name: str) -> dict[str, Planned]:
    """Parameter name -> the tensor that it becomes. Raises UserError for a parameter that GGUF has no place for."""
    config = language(weights.config)
    heads = config["num_attention_heads"]
    tied = not {"lm_head.weight", f"{INNER}lm_head.weight"} & set(weights.stored)
    mix = Mix(
        type_name, config["num_hidden_layers"], tied, heads // (config.get("num_key_value_heads") or heads),
        config.get("num_experts") or 0,
    )  # fmt: skip
    planned = {}
    for parameter, (shape, stored) in weights.stored.items():
        name = architecture.to_gguf(parameter)
        if name is None:
            raise UserError(f"export.gguf: the model has a tensor {parameter}, for which GGUF's {architecture.gguf} has no place")
        if type_name != "keep":
            kind = choose(mix, name, shape)
            if kind == "Q5_0" and type_name not in PLAIN and stored in ("Q4_0", "Q4_1"):
                # llama.cpp's fallback for such rows is Q5_0, which misses the base's own levels. Q5_1 holds them exactly.
                # SmolLM2 as q4_k_m: 0.015 nats a token from the adapter model; 0.069 with llama.cpp's own quantize.
                kind = "Q5_1"
        elif len(shape) == 1 or name.endswith(CONVOLUTIONS):
            kind = "F32"
        elif weights.changed(parameter):
            kind = stored if stored in WRITABLE or _writable(stored) else "Q8_0"
        else:
            kind = stored
        exact = type_name == "keep" and (len(shape) > 1 or name.endswith(("_norm.weight", ".ssm_a")))
        planned[parameter] = Planned(name, shape[:2] if name.endswith(CONVOLUTIONS) else shape, kind, exact)
    return planned


def _writable(stored: str) -> bool:
    """Whether the package libgguf, which writes these types, is installed."""
    return stored in ("Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL") and find_spec("libgguf") is not None


def fitting_name(name: str, architecture: Architecture, tokenizer: dict[str, Any]) -> str:
    """The name under which llama.cpp treats the model rightly.

    llama.cpp drops the spaces after special tokens in a model whose name says Phi-3, and does not load such a model without
    Phi-3's tokens. So a model that needs the dropping gets Phi-3 into its name, and every other model loses it.
    """
    strips = architecture.gguf == "phi3" and {*KEEP_SPACE, "</s>"} <= {*tokenizer[PREFIX + "tokens"]}
    if strips and tokenizer[PREFIX + "model"] == "llama":
        return name if strips_after_special(name) else f"{name} (Phi-3)"
    return re.sub("phi-?3", "Phi 3", name, flags=re.IGNORECASE)


def _describe(writer: Any, card: Card, type_name: str, planned: dict[str, Planned]) -> None:
    writer.add_type("model")
    writer.add_name(card.name)
    writer.add_finetune("mipo")
    writer.add_description(f"{card.base}, fine-tuned with MIPO to use what it is told about its user")
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, card.base)
    if card.hub:
        writer.add_base_model_organization(0, card.base.split("/")[0])
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{card.base}")
    if card.license:
        writer.add_license(card.license)
    if card.recipe_sha256:
        writer.add_string("mipo.recipe.sha256", card.recipe_sha256)
    writer.add_tags(["mipo", "personalization", "text-generation"])
    for name, value in card.sampling.items():
        add(writer, f"general.sampling.{name}", value)
    writer.add_file_type(FILE_TYPES[type_name if type_name in FILE_TYPES else common_type(planned)])
    writer.add_quantization_version(2)


def common_type(planned: dict[str, Planned]) -> str:
    """The file type of a `keep` export: that of most tensors with more than one dimension."""
    kinds = [tensor.type.lower() for tensor in planned.values() if len(tensor.shape) > 1]
    most = max(sorted(set(kinds)), key=kinds.count)
    return {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}.get(most, most if most in (*PLAIN, "q6_k") else "q4_0")


def add(writer: Any, key: str, value: Any) -> None:
    """Add one metadata key with the type that llama.cpp expects: uint32 for counts and ids; a list takes its first element's."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _announce(writer: Any, tensor: Planned) -> None:
    import gguf

    kind = gguf.GGMLQuantizationType[tensor.type]
    if tensor.type in ("F32", "F16"):
        dtype = np.dtype(np.float32 if tensor.type == "F32" else np.float16)
        writer.add_tensor_info(tensor.name, tensor.shape, dtype, int(np.prod(tensor.shape)) * dtype.itemsize)
    else:
        width = row_bytes(tensor.type, tensor.shape[-1])
        shape = (*tensor.shape[:-1], width)
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), int(np.prod(shape)), raw_dtype=kind)


def _bytes(weights: Weights, piece: Piece, tensor: Planned, architecture: Architecture) -> np.ndarray:
    config = language(weights.config)
    config = {**config, "head_dim": head_size(config)}
    rows, columns = gguf_order(architecture, tensor.name, config)
    groups = whole_groups(columns)
    packed = columns is None or groups is not None  # what is packed keeps its bytes or levels
    same = tensor.exact and tensor.type == piece.stored and not weights.changed(piece.name)
    data = piece.exact() if same and (packed or piece.filed) else None
    if data is not None and piece.filed:
        return np.ascontiguousarray(data)
    if data is None:
        values = gguf_values(architecture, tensor.name, np.asarray(weights.fused(piece)))
        values = values if columns is None else values[:, columns]
        levels = piece.levels() if tensor.type in COUNTS and packed else None
        if levels and groups is not None:
            levels = replace(levels, scale=by_groups(levels.scale, groups), bias=by_groups(levels.bias, groups))
        data = encode_on(levels, values, tensor.type, tensor.name) if levels else None
        data = encode(values, tensor.type) if data is None else data
    elif groups is not None:
        data = by_groups(data, groups)
    return np.ascontiguousarray(data if rows is None else data[rows])


def _publish(writer: Any, folder: Path, path: Path) -> list[Path]:
    """Flush the finished files, move them beside `path` and remove older shards of the same name."""
    for handle in writer.fout:
        handle.flush()
        sync(handle.fileno())
        handle.close()
    files = sorted(folder.iterdir())
    keep = {file.name for file in files}
    for file in files:
        os.replace(file, path.parent / file.name)
    for old in [path, *path.parent.glob(f"{path.stem}-?????-of-?????.gguf")]:
        if old.name not in keep:
            old.unlink(missing_ok=True)
    return [path.parent / file.name for file in files]
