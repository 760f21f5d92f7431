"""Names and hyperparameters of each architecture in both formats: MLX / Hugging Face and GGUF."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import UserError

# module inside a layer: tensor inside a block
LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
QK_NORM = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
OLMO2 = {
    **{k: v for k, v in LAYER.items() if not k.endswith("layernorm")},
    **QK_NORM,
    "post_attention_layernorm": "post_attention_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GEMMA2 = {
    **{k: v for k, v in LAYER.items() if k != "post_attention_layernorm"},
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
PHI3 = {
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
EXPERTS = {
    **{k: v for k, v in LAYER.items() if not k.startswith("mlp.")},
    **QK_NORM,
    "mlp.gate": "ffn_gate_inp",
    "mlp.switch_mlp.gate_proj": "ffn_gate_exps",
    "mlp.switch_mlp.up_proj": "ffn_up_exps",
    "mlp.switch_mlp.down_proj": "ffn_down_exps",
}
QWEN35 = {
    **{k: v for k, v in LAYER.items() if k != "post_attention_layernorm"},
    **QK_NORM,
    "post_attention_layernorm": "post_attention_norm",
    "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.in_proj_b": "ssm_beta",
    "linear_attn.conv1d": "ssm_conv1d",
    "linear_attn.norm": "ssm_norm",
    "linear_attn.out_proj": "ssm_out",
}
LFM2 = {
    **{k: v for k, v in LAYER.items() if k.startswith("self_attn.") and not k.endswith("o_proj")},
    "self_attn.out_proj": "attn_output",
    "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm",
    "conv.in_proj": "shortconv.in_proj",
    "conv.conv": "shortconv.conv",
    "conv.out_proj": "shortconv.out_proj",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w3": "ffn_up",
    "feed_forward.w2": "ffn_down",
    "operator_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
}
CONVOLUTIONS = ("ssm_conv1d.weight", "shortconv.conv.weight")  # (channels, width) and float32 in GGUF, (channels, width, 1) in MLX
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
INNER = "language_model."  # before the names of a language model that stands in a model of several modalities

# GGUF key after the architecture's name: Hugging Face key, type
HYPERPARAMETERS = {
    "block_count": ("num_hidden_layers", int),
    "context_length": ("max_position_embeddings", int),
    "embedding_length": ("hidden_size", int),
    "feed_forward_length": ("intermediate_size", int),
    "attention.head_count": ("num_attention_heads", int),
    "attention.head_count_kv": ("num_key_value_heads", int),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", float),
    "rope.freq_base": ("rope_theta", float),
}


@dataclass(frozen=True)
class Architecture:
    """One family. `permuted`: GGUF stores the rows of q and k in llama.cpp's rotary order (Llama and Granite)."""

    gguf: str
    model_types: tuple[str, ...]  # mlx-lm's names; the first is what an imported file becomes
    hf_class: str
    permuted: bool = False
    layer: dict[str, str] = field(default_factory=lambda: LAYER)
    extra: dict[str, tuple[str, type]] = field(default_factory=dict)  # further hyperparameters, as HYPERPARAMETERS
    fixed: dict[str, Any] = field(default_factory=dict)  # what the family always is, in config.json's words
    defaults: dict[str, Any] = field(default_factory=dict)  # values of keys that are missing
    aliases: dict[str, str] = field(default_factory=dict)  # further names of GGUF keys, which Ollama's converter writes
    top: dict[str, str] = field(default_factory=lambda: TOP)
    norm_shift: float = 0.0  # GGUF stores w + shift: Gemma multiplies with 1 + w, llama.cpp with the file's number
    gelu: bool = False
    wide_layers: int = 0  # see attention_scalar
    lists: str = ""  # the key that has one number a layer
    bare: dict[str, str] = field(default_factory=dict)  # parameters of a layer that are no module's weight or bias
    prefix: str = ""  # INNER where mlx-lm has this model in such a place also when it stands alone
    in_rope: tuple[str, ...] = ()  # what mlx-lm reads in `rope_parameters` alone, beside rope_theta

    def to_gguf(self, parameter: str) -> str | None:
        """'model.layers.3.mlp.up_proj.weight' -> 'blk.3.ffn_up.weight'; None for a name that the family does not have."""
        module, _, kind = parameter.removeprefix(INNER).rpartition(".")
        if module in self.top:
            return f"{self.top[module]}.{kind}"
        parts = f"{module}.{kind}".split(".", 3)
        if len(parts) < 4 or parts[:2] != ["model", "layers"]:
            return None
        inside = self.layer.get(parts[3].rpartition(".")[0])
        place = f"{inside}.{kind}" if inside else self.bare.get(parts[3])
        return place and f"blk.{parts[2]}.{place}"

    def shift(self, tensor: str) -> float:
        """The number that GGUF adds to this tensor's values."""
        return self.norm_shift if tensor.endswith("_norm.weight") else 0.0

    def attention_scalar(self, config: dict[str, Any]) -> float:
        """llama.cpp's query_pre_attn_scalar: the head size, but a head's share of the width in Gemma 27B (known by its layers)."""
        if config["num_hidden_layers"] == self.wide_layers:
            return config["hidden_size"] // config["num_attention_heads"]
        return config["head_dim"]

    def always(self, config: dict[str, Any]) -> dict[str, Any]:
        """What llama.cpp computes whatever the file says, in config.json's words."""
        return {**self.fixed, **self.derived(config), "query_pre_attn_scalar": self.attention_scalar(config)}

    def derived(self, config: dict[str, Any]) -> dict[str, Any]:
        """What follows from other keys. SmolLM3's list of layers: 1 where queries and keys are rotated, 0 in each fourth one."""
        if self.gguf == "lfm2":
            size = config["hidden_size"] // config["num_attention_heads"]
            return {"block_dim": config["hidden_size"], "norm_eps": config["rms_norm_eps"], "head_dim": size}
        if "linear_key_head_dim" in config:
            return {"linear_value_head_dim": config["linear_key_head_dim"]}
        interval = self.fixed.get("no_rope_layer_interval")
        layers = range(1, config["num_hidden_layers"] + 1)
        return {"no_rope_layers": [int(layer % interval > 0) for layer in layers]} if interval else {}

    def to_mlx(self, tensor: str) -> str | None:
        """'blk.3.ffn_up.weight' -> 'model.layers.3.mlp.up_proj.weight'; None for a name that the family does not have."""
        name, _, kind = tensor.rpartition(".")
        for module, short in self.top.items():
            if short == name:
                return f"{self.prefix}{module}.{kind}"
        parts = tensor.split(".", 2)
        if len(parts) == 3 and parts[0] == "blk" and parts[1].isdecimal():
            places = {f"{short}.{kind}": f"{module}.{kind}" for module, short in self.layer.items()}
            inside = {**places, **{short: module for module, short in self.bare.items()}}.get(parts[2])
            return inside and f"{self.prefix}model.layers.{int(parts[1])}.{inside}"
        return None


ARCHITECTURES = (
    Architecture("llama", ("llama", "mistral"), "LlamaForCausalLM", permuted=True),
    Architecture("smollm3", ("smollm3",), "SmolLM3ForCausalLM", permuted=True, fixed={"no_rope_layer_interval": 4}),
    Architecture("qwen2", ("qwen2",), "Qwen2ForCausalLM"),
    Architecture("qwen3", ("qwen3",), "Qwen3ForCausalLM", layer={**LAYER, **QK_NORM}),
    Architecture("olmo2", ("olmo2",), "Olmo2ForCausalLM", layer=OLMO2),
    Architecture(
        "granite", ("granite",), "GraniteForCausalLM", permuted=True,
        extra={
            "attention.scale": ("attention_multiplier", float), "embedding_scale": ("embedding_multiplier", float),
            "residual_scale": ("residual_multiplier", float), "logit_scale": ("logits_scaling", float),
        },
    ),
    Architecture(
        "qwen3moe", ("qwen3_moe",), "Qwen3MoeForCausalLM", layer=EXPERTS,
        extra={
            "expert_count": ("num_experts", int), "expert_used_count": ("num_experts_per_tok", int),
            "expert_feed_forward_length": ("moe_intermediate_size", int),
        },
        fixed={"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True},
    ),
    Architecture(
        "gemma2", ("gemma2",), "Gemma2ForCausalLM", layer=GEMMA2, norm_shift=1.0, gelu=True, wide_layers=46,
        extra={
            "attn_logit_softcapping": ("attn_logit_softcapping", float),
            "final_logit_softcapping": ("final_logit_softcapping", float),
            "attention.sliding_window": ("sliding_window", int),
        },
        defaults={
            "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 4096, "rms_norm_eps": 1e-6,
        },
    ),
    Architecture(
        "gemma3", ("gemma3_text",), "Gemma3ForCausalLM", layer={**GEMMA2, **QK_NORM}, norm_shift=1.0, gelu=True, wide_layers=62,
        extra={"attention.sliding_window": ("sliding_window", int), "rope.freq_base_swa": ("rope_local_base_freq", float)},
        fixed={"sliding_window_pattern": 6, "final_logit_softcapping": None, "attn_logit_softcapping": None},
        # Ollama's converter leaves the epsilon out; these are the values of Gemma's own configuration and of Ollama's reader.
        defaults={"sliding_window": 512, "rope_local_base_freq": 10000.0, "rope_theta": 1e6, "rms_norm_eps": 1e-6},
        aliases={"rope.freq_base": "rope.global.freq_base", "rope.freq_base_swa": "rope.local.freq_base"},
    ),
    Architecture(
        "phi3", ("phi3",), "Phi3ForCausalLM", layer=PHI3,
        extra={"rope.scaling.original_context_length": ("original_max_position_embeddings", int)},
        defaults={"original_max_position_embeddings": 4096},
    ),
    Architecture(
        "mistral3", ("ministral3",), "Ministral3ForCausalLM", permuted=True,
        extra={
            "rope.scaling.factor": ("factor", float), "rope.scaling.yarn_log_multiplier": ("mscale_all_dim", float),
            "rope.scaling.original_context_length": ("original_max_position_embeddings", int),
            "rope.scaling.yarn_beta_fast": ("beta_fast", float), "rope.scaling.yarn_beta_slow": ("beta_slow", float),
            "attention.temperature_scale": ("llama_4_scaling_beta", float),  # queries grow with the position
        },
        fixed={"rope_type": "yarn", "mscale": 1.0, "sliding_window": None},
        defaults={"beta_fast": 32.0, "beta_slow": 1.0, "mscale_all_dim": 1.0},
        in_rope=(
            "rope_type", "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
            "llama_4_scaling_beta",
        ),
    ),
    Architecture(
        "qwen35", ("qwen3_5", "qwen3_5_text"), "Qwen3_5ForCausalLM", layer=QWEN35, prefix=INNER,
        bare={"linear_attn.A_log": "ssm_a", "linear_attn.dt_bias": "ssm_dt.bias"},
        extra={
            "ssm.conv_kernel": ("linear_conv_kernel_dim", int), "ssm.state_size": ("linear_key_head_dim", int),
            "ssm.group_count": ("linear_num_key_heads", int), "ssm.time_step_rank": ("linear_num_value_heads", int),
            "full_attention_interval": ("full_attention_interval", int),
        },
        fixed={"rope_type": "default"},
        defaults={"full_attention_interval": 4, "partial_rotary_factor": 0.25, "mrope_section": [11, 11, 10]},
        in_rope=("rope_type", "partial_rotary_factor", "mrope_section"),
    ),
    Architecture(
        "lfm2", ("lfm2",), "Lfm2ForCausalLM", layer=LFM2,
        top={"model.embed_tokens": "token_embd", "model.embedding_norm": "token_embd_norm"},
        extra={"shortconv.l_cache": ("conv_L_cache", int)}, lists="attention.head_count_kv",
        fixed={
            "conv_bias": False, "block_auto_adjust_ff_dim": False, "block_multiple_of": 1, "block_ffn_dim_multiplier": 1.0,
        },
        defaults={"rope_theta": 1e6},
    ),
)  # fmt: skip


def hyperparameters(architecture: Architecture) -> dict[str, tuple[str, type]]:
    """GGUF key after the architecture's name: (Hugging Face key, type)."""
    return {**HYPERPARAMETERS, **architecture.extra}


def language(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the language model alone: a model of several modalities keeps it within its own."""
    inner = config.get("text_config")
    return {"model_type": config["model_type"], **inner} if isinstance(inner, dict) else config


def settled(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration in other families' words: LFM2 says by rules how wide its layers are and which of them have keys."""
    if "conv_L_cache" not in config:
        return config
    width = config.get("block_ff_dim") or config.get("intermediate_size")
    if config.get("block_auto_adjust_ff_dim") and width:
        each, factor = config["block_multiple_of"], config.get("block_ffn_dim_multiplier")
        width = int(2 * width / 3)
        width = width if factor is None else int(factor * width)
        width = -(-width // each) * each
    layers, kinds = range(config["num_hidden_layers"]), config.get("layer_types") or []
    attending = config.get("full_attn_idxs") or [layer for layer, kind in enumerate(kinds) if kind == "full_attention"]
    counts = [config["num_key_value_heads"] if layer in attending else 0 for layer in layers]
    own = {"num_key_value_heads": counts, "intermediate_size": width, "rms_norm_eps": config.get("norm_eps")}
    return {**{name: value for name, value in config.items() if name == "block_dim" or not name.startswith("block_")}, **own}


def by_gguf(name: str, where: str) -> Architecture:
    """The architecture of a GGUF file. Raises UserError for an unknown one; it lists the others."""
    return _find(name, where, {a.gguf: a for a in ARCHITECTURES})


def by_model_type(name: str, where: str) -> Architecture:
    """The architecture of an MLX or Hugging Face model. Raises UserError for an unknown one; it lists the others."""
    return _find(name, where, {t: a for a in ARCHITECTURES for t in a.model_types})


def _find(name: str, where: str, table: dict[str, Architecture]) -> Architecture:
    if name not in table:
        known = ", ".join(sorted(table))
        raise UserError(f"{where}: GGUF of the architecture {name[:40]!r} is not supported; expected one of {known}")
    return table[name]


Order = np.ndarray | None  # for each row or column of the result its place before; None: all stay


def mlx_order(architecture: Architecture, tensor: str, config: dict[str, Any]) -> tuple[Order, Order]:
    """The rows and the columns of a GGUF tensor in MLX's order.

    llama.cpp stores each head of Llama's q and k with the two halves of a rotary pair side by side. Of Qwen3.5's value heads it
    stores the first of each key head, then the second ones; the output of its linear attention has them as columns.
    """
    return _placed(tensor, _order(architecture, tensor, config, back=True))


def gguf_order(architecture: Architecture, tensor: str, config: dict[str, Any]) -> tuple[Order, Order]:
    """The rows and the columns of an MLX tensor in the file's order: the inverse of `mlx_order`."""
    return _placed(tensor, _order(architecture, tensor, config))


def _placed(tensor: str, order: Order) -> tuple[Order, Order]:
    return (None, order) if _of_columns(tensor) else (order, None)


def whole_groups(columns: np.ndarray | None) -> np.ndarray | None:
    """The order of groups of 32 columns, where only whole groups move; else None."""
    if columns is None or len(columns) % 32 or (np.diff(columns.reshape(-1, 32)) != 1).any() or (columns[::32] % 32).any():
        return None
    return columns[::32] // 32


def by_groups(array: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """A (rows, ...) array with its groups of 32 columns in that order, also where these are packed or have one scale."""
    return array.reshape(len(array), len(groups), -1)[:, groups].reshape(len(array), -1)


def gguf_values(architecture: Architecture, tensor: str, values: np.ndarray) -> np.ndarray:
    """MLX's values as the file holds them: Gemma's norms, the decay of linear attention, and convolutions differ."""
    if tensor.endswith(".ssm_a"):
        return -np.exp(values)
    return values[..., 0] if tensor.endswith(CONVOLUTIONS) else values + np.float32(architecture.shift(tensor))


def mlx_values(architecture: Architecture, tensor: str, values: np.ndarray) -> np.ndarray:
    """The inverse of `gguf_values`; of the values' own dtype where nothing is to be changed."""
    if tensor.endswith(".ssm_a"):
        return np.log(-values.astype(np.float32))
    shift = architecture.shift(tensor)
    values = values.astype(np.float32) - np.float32(shift) if shift else values
    return values.reshape(mlx_shape(tensor, values.shape))


def mlx_shape(tensor: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a GGUF tensor has in MLX."""
    return (*shape, 1) if tensor.endswith(CONVOLUTIONS) else shape


def _of_columns(tensor: str) -> bool:
    return tensor.endswith(".ssm_out.weight")


def _order(architecture: Architecture, tensor: str, config: dict[str, Any], back: bool = False) -> np.ndarray | None:
    """GGUF's order of rows or columns by MLX's numbers; `back`: MLX's by GGUF's. None where both are the same."""
    moved = _moved(architecture, tensor, config)
    if moved is None:
        return None
    first, (many, a, b, size) = moved
    shape = (many, b, a, size) if back else (many, a, b, size)
    return np.concatenate([np.arange(first), first + np.arange(many * a * b * size).reshape(shape).swapaxes(1, 2).ravel()])


def _moved(architecture: Architecture, tensor: str, config: dict[str, Any]) -> tuple[int, tuple[int, int, int, int]] | None:
    """(how many rows stay, the others' axes in MLX): GGUF swaps the two axes in the middle."""
    name = (*tensor.split("."), "", "")[2]
    if architecture.permuted and name in ("attn_q", "attn_k"):
        heads = config["num_attention_heads" if name == "attn_q" else "num_key_value_heads"]
        return 0, (heads, 2, config["head_dim"] // 2, 1)
    keys, values = config.get("linear_num_key_heads", 0), config.get("linear_num_value_heads", 0)
    if keys == values or name not in ("attn_qkv", "attn_gate", "ssm_conv1d", "ssm_out", "ssm_alpha", "ssm_beta", "ssm_a", "ssm_dt"):
        return None
    size = config["linear_key_head_dim"]
    before = 2 * keys * size if name in ("attn_qkv", "ssm_conv1d") else 0
    return before, (1, keys, values // keys, 1 if name in ("ssm_alpha", "ssm_beta", "ssm_a", "ssm_dt") else size)
