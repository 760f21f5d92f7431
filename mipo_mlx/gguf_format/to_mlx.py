"""A GGUF file as an mlx-lm model: weights, tokenizer, chat template and a Hugging Face style config.

Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K and Q5_K blocks are affine with groups of 32, as MLX computes, so such tensors stay quantised.
All others are dequantised. NumPy repacks the bytes from the memory-mapped file.
"""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .. import backend
from ..errors import UserError
from .blocks import PACKED_BITS, dequantise, triple
from .file import GGUFFile
from .names import Architecture, by_gguf, by_groups, hyperparameters, mlx_order, mlx_shape, mlx_values, whole_groups
from .rope import rope_scaling
from .tokenizer import eos_ids, load_tokenizer

GROUP = 32
SIXTEEN_BITS = {1: mx.float16, 30: mx.bfloat16}  # ggml type ids
SIZES = ("hidden", "intermediate", "moe_", "num_", "max_", "linear_", "full_")  # how the names of a config's counts begin
TABLES = ("token_embd.weight", "output.weight")


def load_gguf(path: Path) -> tuple[nn.Module, Any, dict[str, Any]]:
    """(model, mlx_lm TokenizerWrapper, config). Quantised tensors become MLX quantised layers (affine, group 32).

    Norms, biases, scales and tensors that MLX cannot hold packed have config's torch_dtype: bfloat16 for a BF16 file, whose numbers
    may be too large for float16. On the CPU they are float32, but an embedding and an output layer in 16 bits keep these.
    Raises UserError for a damaged file, an unsupported architecture or tensor type.
    """
    file = GGUFFile(path)
    architecture = by_gguf(file.get("general.architecture", str, "?"), str(file.path))
    config = read_config(file, architecture)
    tokenizer = load_tokenizer(file)
    ids = eos_ids(file, file.metadata["tokenizer.ggml.tokens"])
    config["eos_token_id"] = ids if len(ids) > 1 else next(iter(ids), None)
    return build(file, architecture, config), tokenizer, config


def load_tokenizer_gguf(path: Path) -> Any:
    """The file's tokenizer alone (mlx_lm TokenizerWrapper), without its weights."""
    return load_tokenizer(GGUFFile(path))


def load_config_gguf(path: Path) -> dict[str, Any]:
    """The file's configuration alone, under Hugging Face's keys."""
    file = GGUFFile(path)
    return read_config(file, by_gguf(file.get("general.architecture", str, "?"), str(file.path)))


def read_config(file: GGUFFile, architecture: Architecture) -> dict[str, Any]:
    """The file's hyperparameters under their Hugging Face names, with top-level rope_theta and rope_scaling."""
    config: dict[str, Any] = {"model_type": architecture.model_types[0], "architectures": [architecture.hf_class]}
    config |= architecture.fixed
    prefix, wanted = architecture.gguf, hyperparameters(architecture)
    for key, (name, kind) in wanted.items():
        kinds = (int, float) if kind is float else (int, list) if key == architecture.lists else (int,)
        value = file.get(f"{prefix}.{key}", kinds, file.get(f"{prefix}.{architecture.aliases.get(key)}", kinds))
        if value is not None:
            config[name] = tidy(value) if kind is float else value
    config = {"rope_theta": 10000.0, **architecture.defaults, **config}
    config.setdefault("num_key_value_heads", config.get("num_attention_heads"))
    if architecture.gguf == "lfm2":
        config |= _attending(file, config)
    missing = [key for key, (name, _) in wanted.items() if name not in config]
    if missing:
        raise file.refuse(f"{prefix}.{missing[0]} is missing")
    default = config["hidden_size"] // config["num_attention_heads"] if config["num_attention_heads"] > 0 else 0
    config["head_dim"] = file.get(f"{prefix}.attention.key_length", int, default)
    _check_sizes(file, config, config["head_dim"])
    embedding = file.tensors["token_embd.weight"]
    config["vocab_size"] = embedding.shape[0]
    config["tie_word_embeddings"] = "output.weight" not in file.tensors
    config["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
    config["hidden_act"] = "gelu_pytorch_tanh" if architecture.gelu else "silu"
    rotated = file.get(f"{prefix}.rope.dimension_count", int, config["head_dim"])
    if not 2 <= rotated <= config["head_dim"]:
        raise file.refuse(f"{prefix}.rope.dimension_count is {rotated}, and a head has {config['head_dim']} elements")
    if rotated != config["head_dim"]:
        config["partial_rotary_factor"] = rotated / config["head_dim"]
    config |= architecture.derived(config)
    if architecture.gelu:
        config["query_pre_attn_scalar"] = architecture.attention_scalar(config)
    config["rope_scaling"] = rope_scaling(file, prefix, config)
    sections = file.get(f"{prefix}.rope.dimension_sections", list)
    if "mrope_section" in config and sections:
        config["mrope_section"] = sections[:3]
    if architecture.in_rope:
        inside = {name: config.pop(name) for name in architecture.in_rope if name in config}
        config["rope_parameters"] = {**inside, "rope_theta": config["rope_theta"]}
    if architecture.permuted:
        config["mlp_bias"] = "blk.0.ffn_up.bias" in file.tensors
    _check_family(file, architecture)
    bos = file.get("tokenizer.ggml.bos_token_id", int)
    if bos is not None:
        config["bos_token_id"] = bos
    config["torch_dtype"] = "bfloat16" if embedding.type_name == "BF16" else "float16"
    return config


def _attending(file: GGUFFile, config: dict[str, Any]) -> dict[str, Any]:
    """LFM2's layers with keys and values: the file has a list of their heads, with 0 for a convolution."""
    heads = config["num_key_value_heads"]
    layers = [i for i, count in enumerate(heads) if count] if isinstance(heads, list) else []
    counts = {str(heads[i]) for i in layers}
    if len(counts) != 1 or not counts.pop().isdecimal() or not 0 < len(layers) < len(heads) == config.get("num_hidden_layers"):
        raise file.refuse("its lfm2.attention.head_count_kv is no list of one number and 0 for its layers")
    return {"num_key_value_heads": heads[layers[0]], "full_attn_idxs": layers}


def _check_family(file: GGUFFile, architecture: Architecture) -> None:
    """Raise UserError for keys that would make the model another one than mlx-lm computes."""
    pattern = architecture.fixed.get("sliding_window_pattern")
    given = file.get(f"{architecture.gguf}.attention.sliding_window_pattern", int, pattern)
    if pattern and given != pattern:
        raise file.refuse(f"its attention.sliding_window_pattern is {given}, expected {pattern}")
    cap = f"{architecture.gguf}.final_logit_softcapping"
    if file.get(f"{architecture.gguf}.nextn_predict_layers", int, 0):
        raise UserError(f"{file.path}: it has a layer that predicts further tokens; take the model's Hub or MLX folder instead")
    if "final_logit_softcapping" in architecture.fixed and file.get(cap, (int, float), 0.0):
        raise file.refuse(f"{cap} is set, which mlx-lm does not compute in this architecture")


def tidy(value: float) -> float:
    """The shortest decimal of a float32 of the file: 9.999999747378752e-06 -> 1e-05."""
    return float(str(np.float32(value)))


def _check_sizes(file: GGUFFile, config: dict[str, Any], head_dim: int) -> None:
    """Raise UserError unless every layer and width has its tensors, before a model of that size is built."""
    heads, shared, hidden = config["num_attention_heads"], config["num_key_value_heads"], config["hidden_size"]
    for name, value in config.items():
        if type(value) is int and name.startswith(SIZES) and not 1 <= value <= 1 << 24:
            raise file.refuse(f"its {name} is {value}")
    layers = config["num_hidden_layers"]
    fused = "blk.0.attn_qkv.weight" in file.tensors
    first = "attn_qkv" if fused else "attn_q"
    kinds = ("attn_qkv", "attn_q") if "linear_num_key_heads" in config else (first, "shortconv.in_proj")
    at = config.get("full_attn_idxs", [0])[0]
    there = lambda i: any(f"blk.{i}.{kind}.weight" in file.tensors for kind in kinds)  # noqa: E731
    if not 1 <= layers <= len(file.tensors) or not all(map(there, range(layers))):
        raise file.refuse(f"it claims {layers} layers, and not all are there")
    if heads % shared or head_dim < 2 or head_dim % 2:
        raise file.refuse(f"{heads} attention heads, {shared} key-value heads and a head size of {head_dim} do not fit together")
    sides: dict[str, tuple[int | None, ...]] = {
        "token_embd.weight": (None, hidden),
        f"blk.{at}.{first}.weight": ((heads + 2 * shared if fused else heads) * head_dim, hidden),
    }
    if "linear_num_key_heads" in config:
        keys, values = config["linear_num_key_heads"], config["linear_num_value_heads"]
        if values % keys:
            raise file.refuse(f"{values} value heads and {keys} key heads do not fit together")
        sides["blk.0.attn_qkv.weight"] = ((2 * keys + values) * config["linear_key_head_dim"], hidden)
    if "num_experts" in config:
        sides["blk.0.ffn_down_exps.weight"] = (config["num_experts"], hidden, config["moe_intermediate_size"])
    else:
        sides["blk.0.ffn_down.weight"] = (hidden, config["intermediate_size"])
    for name, wanted in sides.items():
        shape = file.tensors[name].shape if name in file.tensors else ()
        if len(shape) != len(wanted) or any(want not in (None, side) for want, side in zip(wanted, shape, strict=True)):
            raise file.refuse(f"tensor {name} is missing or has the shape {list(shape)}, which its own sizes do not give")
    if not 0 < config["rms_norm_eps"] < 1 or config["rope_theta"] <= 1:
        raise file.refuse(f"its rms_norm_eps is {config['rms_norm_eps']} and its rope_theta {config['rope_theta']}")


def build(file: GGUFFile, architecture: Architecture, config: dict[str, Any]) -> nn.Module:
    """The mlx-lm model with the file's weights; adds `quantization` to `config` where tensors stay packed."""
    from mlx.utils import tree_flatten
    from mlx_lm.utils import _get_classes

    on_cpu = backend.on_cpu()
    kept = SIXTEEN_BITS if on_cpu else {}  # see engine/tables.py
    dtype = mx.float32 if on_cpu else getattr(mx, config["torch_dtype"])
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    if config["tie_word_embeddings"] and "lm_head" in model:
        model.sanitize({})  # Gemma 3 drops its output layer only when it sees weights without one
    expected = {name: value.shape for name, value in tree_flatten(model.parameters())}
    weights: dict[str, mx.array] = {}
    packed: dict[str, int] = {}
    for tensor in file.tensors.values():
        if "rope_f" in tensor.name:  # rope_freqs and rope_factors_*: the config has them already
            continue
        name = architecture.to_mlx(tensor.name)
        if name is None or name not in expected:
            raise file.refuse(f"tensor {tensor.name[:64]!r} has no place in a {config['model_type']} model of this size")
        if mlx_shape(tensor.name, tensor.shape) != tuple(expected[name]):
            raise file.refuse(f"tensor {tensor.name} has the shape {list(tensor.shape)}, expected {list(expected[name])}")
        rows, columns = mlx_order(architecture, tensor.name, config)
        groups = whole_groups(columns)
        if tensor.type in PACKED_BITS and len(tensor.shape) > 1 and (columns is None or groups is not None):
            module = name.removesuffix(".weight")
            packed[module] = PACKED_BITS[tensor.type]
            for part, array in zip(("weight", "scales", "biases"), triple(file, tensor), strict=True):
                array = array if groups is None else by_groups(array, groups)
                array = mx.array(array if rows is None else array[rows])
                weights[f"{module}.{part}"] = array if part == "weight" else array.astype(dtype)
        else:
            array = mlx_values(architecture, tensor.name, dequantise(file, tensor))
            array = array if columns is None else array[:, columns]
            kind = kept.get(tensor.type, dtype) if tensor.name in TABLES else dtype
            kind = mx.float32 if tensor.name.endswith(".ssm_a") else kind  # linear attention's decay is an exponential of it
            weights[name] = mx.array(array if rows is None else array[rows]).astype(kind)
    missing = [name for name in expected if name not in weights and name.removesuffix(".weight") not in packed]
    if missing:
        raise file.refuse(f"the tensor {architecture.to_gguf(missing[0])} is missing")
    if packed:
        config["quantization"] = _quantization(packed)
        nn.quantize(model, GROUP, 4, class_predicate=lambda path, _: _layer(packed[path]) if path in packed else False)
    model.load_weights(list(weights.items()), strict=True)
    model.eval()
    return model


def _layer(bits: int) -> dict[str, Any]:
    return {"group_size": GROUP, "bits": bits, "mode": "affine"}


def _quantization(packed: dict[str, int]) -> dict[str, Any]:
    """config.json's `quantization`: the most common kind, and each other layer by its name."""
    kinds = list(packed.values())
    common = max(sorted(set(kinds)), key=kinds.count)
    return {**_layer(common), **{name: _layer(bits) for name, bits in packed.items() if bits != common}}
