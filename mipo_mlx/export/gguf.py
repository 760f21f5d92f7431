"""Writing a GGUF file: hyperparameters, tokenizer, then the fused tensors one after another, each quantised on its way out.

~~~ The adapters alone as a GGUF file: llama.cpp lays it over the base with `--lora` and Ollama with ADAPTER.

A few megabytes instead of a whole model. llama.cpp multiplies B A with alpha / rank, so alpha = scale * rank.
"""

import hashlib
import logging
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import disk_errors, replacing
from ..gguf_format import rope
from ..gguf_format.names import Architecture, by_model_type, gguf_rows
from ..gguf_format.names import hyperparameters as named
from ..gguf_format.rounding import LEVELS, encode_on
from ..gguf_format.tokenizer import KEEP_SPACE, PREFIX, strips_after_special
from ..gguf_format.types import FILE_TYPES, PLAIN, Mix, choose, encode, row_bytes
from .weights import Piece, Weights

WRITABLE = {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"}


@dataclass(frozen=True)
class Card:
    """What the file says about itself."""

    name: str
    base: str  # the base model as the recipe names it
    license: str | None = None
    recipe_sha256: str | None = None
    sampling: dict[str, float] = field(default_factory=dict)  # temp, top_p, top_k, ... as llama.cpp names them


@dataclass(frozen=True)
class Planned:
    """One tensor of the file."""

    name: str
    shape: tuple[int, ...]
    type: str
    exact: bool = False  # take over the base's bytes where they are exact


def hyperparameters(config: dict[str, Any], architecture: Architecture) -> dict[str, Any]:
    """The architecture's keys. A missing one loads as a silent default in llama.cpp, so all are written."""
    theta, scaling = rope.settings(config)
    heads, head_dim, prefix = config["num_attention_heads"], head_size(config), architecture.gguf
    given = {name: value for name, value in rope.flattened(config).items() if value is not None}
    values = {"num_key_value_heads": heads, **architecture.defaults, **given, "rope_theta": theta, "head_dim": head_dim}
    keys: dict[str, Any] = {}
    for key, (name, kind) in named(architecture).items():
        if values.get(name) is None:
            raise UserError(f"export.gguf: the model's config.json has no {name}, which a GGUF file must state")
        keys[f"{prefix}.{key}"] = kind(values[name])
    always = {**architecture.fixed, "query_pre_attn_scalar": architecture.attention_scalar(values)}
    for name, value in always.items():
        if name in config and config[name] != value:
            raise UserError(f"export.gguf: {name} is {config[name]!r} here, and {value!r} in llama.cpp's {prefix}")
    keys[f"{prefix}.rope.dimension_count"] = rope.rotated(config, head_dim)
    keys[f"{prefix}.vocab_size"] = int(config["vocab_size"])
    if head_dim * heads != config["hidden_size"]:
        keys[f"{prefix}.attention.key_length"] = keys[f"{prefix}.attention.value_length"] = head_dim
    kind = scaling["rope_type"] if scaling else None
    if kind == "linear":
        keys[f"{prefix}.rope.scaling.type"] = "linear"
        keys[f"{prefix}.rope.scaling.factor"] = float(scaling["factor"])
    elif kind == "longrope" and prefix == "phi3":
        keys[f"{prefix}.rope.scaling.type"] = "longrope"
        keys[f"{prefix}.rope.scaling.attn_factor"] = rope.longrope_factor(values)
    elif kind not in (None, "llama3"):
        raise UserError(f"export.gguf: rotary scaling {kind!r} of a {prefix} is not supported; expected none, linear or llama3")
    return keys


def head_size(config: dict[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def plan(weights: Weights, architecture: Architecture, type_name: str) -> dict[str, Planned]:
    """Parameter name -> the tensor that it becomes. Raises UserError for a parameter that GGUF has no place for."""
    config = weights.config
    heads = config["num_attention_heads"]
    tied = "lm_head.weight" not in weights.stored
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
                # llama.cpp's fallback for such rows is Q5_0, which misses the base's own levels; Q5_1 holds them exactly.
                # SmolLM2 as q4_k_m: 0.015 nats a token from the adapter model, 0.069 as llama.cpp's own quantize makes it.
                kind = "Q5_1"
        elif len(shape) == 1:
            kind = "F32"
        elif weights.changed(parameter):
            kind = stored if stored in WRITABLE or _writable(stored) else "Q8_0"
        else:
            kind = stored
        exact = type_name == "keep" and (len(shape) > 1 or name.endswith("_norm.weight"))
        planned[parameter] = Planned(name, shape, kind, exact)
    return planned


def _writable(stored: str) -> bool:
    from ..gguf_format.types import _libgguf

    return stored in ("Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL") and _libgguf() is not None


def write(path: Path, weights: Weights, type_name: str, tokenizer: dict[str, Any], card: Card, template: str | None, *,
          split: int = 0, advance=lambda count: None) -> list[Path]:  # fmt: skip
    """Write base + adapters to `path` (or to shards of at most `split` bytes beside it); returns the files written.

    Files appear whole or not at all: everything goes to a temporary folder first. `advance(parameters)` follows each tensor.
    Raises UserError for what GGUF cannot hold, Failure when the disk is full.
    """
    import gguf

    config = weights.config
    architecture = by_model_type(config["model_type"], "export.gguf")
    planned = plan(weights, architecture, type_name)
    logging.getLogger("gguf").setLevel(logging.ERROR)
    writer = gguf.GGUFWriter(None, architecture.gguf, split_max_size=split)
    card = replace(card, name=fitting_name(card.name, architecture, tokenizer))
    _describe(writer, card, type_name, planned)
    for key, value in {**hyperparameters(config, architecture), **tokenizer}.items():
        add(writer, key, value)
    if template:
        writer.add_chat_template(template)
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


def fitting_name(name: str, architecture: Architecture, tokenizer: dict[str, Any]) -> str:
    """llama.cpp goes by a model's name: one that says Phi-3 drops the spaces after special tokens, as Phi-3 has to, and does not
    load where the vocabulary lacks Phi-3's tokens. So the first kind gets that name, and every other model loses it."""
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
    if card.base.count("/") == 1 and not card.base.startswith((".", "/", "~")):
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
    """The file type that `keep` amounts to: that of most tensors with more than one dimension."""
    kinds = [tensor.type.lower() for tensor in planned.values() if len(tensor.shape) > 1]
    most = max(sorted(set(kinds)), key=kinds.count)
    return {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}.get(most, most if most in (*PLAIN, "q6_k") else "q4_0")


def add(writer: Any, key: str, value: Any) -> None:
    """One metadata key, typed as llama.cpp expects it: counts and ids uint32, lists by their first element."""
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
    data = piece.exact() if tensor.exact and tensor.type == piece.stored and not weights.changed(piece.name) else None
    if data is None:
        values = np.asarray(weights.fused(piece)) + np.float32(architecture.shift(tensor.name))
        grid = piece.grid() if tensor.type in LEVELS else None
        data = encode_on(grid, values, tensor.type, tensor.name) if grid else None
        data = encode(values, tensor.type) if data is None else data
    rows = gguf_rows(architecture, tensor.name, {**weights.config, "head_dim": head_size(weights.config)})
    return np.ascontiguousarray(data if rows is None else data[rows])


def _publish(writer: Any, folder: Path, path: Path) -> list[Path]:
    """Flush the finished files and move them to where they belong; older shards of the same name go."""
    import os

    for handle in writer.fout:
        handle.flush()
        os.fsync(handle.fileno())
        handle.close()
    made = sorted(folder.iterdir())
    keep = {file.name for file in made}
    for file in made:
        os.replace(file, path.parent / file.name)
    for old in [path, *path.parent.glob(f"{path.stem}-?????-of-?????.gguf")]:
        if old.name not in keep:
            old.unlink(missing_ok=True)
    return [path.parent / file.name for file in made]


def fingerprint(*parts: Any) -> str:
    """A short hash of what a file was made from, to see whether it has to be made again."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


NO_DORA = "export.adapter: llama.cpp has no DoRA; export the fused model, or train with training.lora.dora: false"


def write_adapter(path: Path, weights: Weights, card: Card) -> list[Path]:
    """Write the LoRA factors in float32; returns [path]. Raises UserError for DoRA and for adapters on experts."""
    import gguf

    architecture = by_model_type(weights.config["model_type"], "export.adapter")
    modules = weights.adapters.modules
    if not modules:
        raise UserError("export.adapter: there are no adapters to export")
    if any(magnitude is not None for *_, magnitude in modules.values()):
        raise UserError(NO_DORA)
    config = {**weights.config, "head_dim": head_size(weights.config)}
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
            rows = gguf_rows(architecture, name, config)
            writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(down))
            writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(up if rows is None else up[rows]))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return [path]
