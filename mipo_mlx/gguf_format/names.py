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
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}

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

    def to_gguf(self, parameter: str) -> str | None:
        """'model.layers.3.mlp.up_proj.weight' -> 'blk.3.ffn_up.weight'; None for a name that the family does not have."""
        module, _, kind = parameter.rpartition(".")
        if module in self.top:
            return f"{self.top[module]}.{kind}"
        parts = module.split(".", 3)
        if len(parts) == 4 and parts[:2] == ["model", "layers"] and parts[3] in self.layer:
            return f"blk.{parts[2]}.{self.layer[parts[3]]}.{kind}"
        return None

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
        return {**self.fixed, **self.rotated_layers(config), "query_pre_attn_scalar": self.attention_scalar(config)}

    def rotated_layers(self, config: dict[str, Any]) -> dict[str, Any]:
        """SmolLM3's list of layers: 1 where queries and keys are rotated, 0 in each fourth layer. {} for other families."""
        interval = self.fixed.get("no_rope_layer_interval")
        layers = range(1, config["num_hidden_layers"] + 1)
        return {"no_rope_layers": [int(layer % interval > 0) for layer in layers]} if interval else {}

    def to_mlx(self, tensor: str) -> str | None:
        """'blk.3.ffn_up.weight' -> 'model.layers.3.mlp.up_proj.weight'; None for a name that the family does not have."""
        name, _, kind = tensor.rpartition(".")
        for module, short in self.top.items():
            if short == name:
                return f"{module}.{kind}"
        parts = name.split(".", 2)
        if len(parts) == 3 and parts[0] == "blk" and parts[1].isdecimal():
            for module, short in self.layer.items():
                if short == parts[2]:
                    return f"model.layers.{int(parts[1])}.{module}.{kind}"
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
)  # fmt: skip


def hyperparameters(architecture: Architecture) -> dict[str, tuple[str, type]]:
    """GGUF key after the architecture's name: (Hugging Face key, type)."""
    return {**HYPERPARAMETERS, **architecture.extra}


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


def mlx_rows(architecture: Architecture, tensor: str, config: dict[str, Any]) -> np.ndarray | None:
    """For each MLX row of a GGUF tensor, its row in the file; None where the order is the same.

    llama.cpp stores each head of Llama's q and k with the two halves of a rotary pair side by side.
    """
    heads = _permuted_heads(architecture, tensor, config)
    return None if heads is None else _rows(heads, config, (config["head_dim"] // 2, 2))


def gguf_rows(architecture: Architecture, tensor: str, config: dict[str, Any]) -> np.ndarray | None:
    """For each row of a GGUF tensor, its row in MLX: the inverse of `mlx_rows`."""
    heads = _permuted_heads(architecture, tensor, config)
    return None if heads is None else _rows(heads, config, (2, config["head_dim"] // 2))


def _rows(heads: int, config: dict[str, Any], split: tuple[int, int]) -> np.ndarray:
    return np.arange(heads * config["head_dim"]).reshape(heads, *split).swapaxes(1, 2).ravel()


def _permuted_heads(architecture: Architecture, tensor: str, config: dict[str, Any]) -> int | None:
    if not architecture.permuted:
        return None
    name = tensor.split(".")[-2]
    return {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}.get(name)
