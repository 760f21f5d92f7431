"""Tiny random models of every architecture with random adapters on them, and the strings that tokenizers trip over."""

import json
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map_with_path

from mipo_mlx.export import gguf
from mipo_mlx.export.llamacpp import Llama
from mipo_mlx.export.weights import Weights, load_adapters
from mipo_mlx.files import write_records
from mipo_mlx.gguf_format import tokenizer
from mipo_mlx.gguf_format.pretokenizers import BY_NAME
from mipo_mlx.models import adapters
from mipo_mlx.recipe import Lora
from mipo_mlx.records import Pair
from tests.conftest import CHAT_TEMPLATE, CORPUS, build_model
from tests.conftest import tiny_config as smaller

VOCABULARY = 700


def tiny_config(model_type: str = "llama", **changes) -> dict:
    return smaller(model_type, **{"vocab_size": VOCABULARY, **changes})


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS = {  # name: (config, pre-tokenizer)
    "llama": (tiny_config(), "smollm"),
    "llama-biases": (tiny_config(attention_bias=True, mlp_bias=True), "gpt-2"),
    "llama3-untied": (tiny_config(rope_theta=500000.0, rope_scaling=LLAMA3, tie_word_embeddings=False), "llama-bpe"),
    "smollm3": (  # the fourth layer turns no queries and keys
        tiny_config("smollm3", num_hidden_layers=5, rope_theta=5e6, no_rope_layers=[1, 1, 1, 0, 1], no_rope_layer_interval=4),
        "llama-bpe",
    ),
    "qwen2-tied": (tiny_config("qwen2", rope_theta=1000000.0), "qwen2"),
    "qwen2-untied": (tiny_config("qwen2", tie_word_embeddings=False), "qwen2"),
    "qwen3-odd-heads": (tiny_config("qwen3", head_dim=20, rope_theta=1000000.0), "qwen2"),
    "olmo2": (tiny_config("olmo2", head_dim=12, tie_word_embeddings=False, rope_theta=500000.0), "dbrx"),
    "granite": (
        tiny_config(
            "granite", attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=0.4, logits_scaling=2.0,
            attention_bias=False, mlp_bias=False,
        ),
        "refact",
    ),
    "qwen3moe": (
        tiny_config(
            "qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, decoder_sparse_step=1, mlp_only_layers=[],
            norm_topk_prob=True, head_dim=12, tie_word_embeddings=False,
        ),
        "qwen2",
    ),
    "gemma2": (
        tiny_config(
            "gemma2", hidden_size=64, head_dim=12, query_pre_attn_scalar=12, sliding_window=512, rms_norm_eps=1e-6,
            attn_logit_softcapping=5.0, final_logit_softcapping=8.0,
        ),
        "spm-bare",
    ),
    "gemma3": (  # seven layers: the sixth sees everything, the others sixteen tokens
        tiny_config(
            "gemma3_text", hidden_size=64, head_dim=12, query_pre_attn_scalar=12, num_hidden_layers=7, sliding_window=16,
            rope_theta=1000000.0, rope_local_base_freq=5000.0, rms_norm_eps=1e-6,
        ),
        "spm-bare",
    ),
    "ministral3": (  # the scale of queries changes within the tests' prompt
        tiny_config(
            "ministral3", rope_theta=1000000.0, sliding_window=None,
            rope_parameters={
                "rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0, "original_max_position_embeddings": 8,
                "beta_fast": 4.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.5,
            },
        ),
        "tekken",
    ),
    "qwen3.5": (  # two value heads a key head, and linear attention in two layers of three
        tiny_config(
            "qwen3_5", head_dim=20, num_hidden_layers=4, full_attention_interval=3, linear_num_value_heads=4,
            linear_num_key_heads=2, linear_key_head_dim=32, linear_value_head_dim=32, linear_conv_kernel_dim=4,
            rope_theta=1000000.0, tie_word_embeddings=False,
            rope_parameters={
                "rope_type": "default", "rope_theta": 1000000.0, "partial_rotary_factor": 0.5, "mrope_section": [2, 2, 1],
            },
        ),
        "qwen35",
    ),
    "lfm2": (  # the second layer alone has keys
        tiny_config(
            "lfm2", num_hidden_layers=3, conv_L_cache=3, conv_bias=False, norm_eps=1e-5, full_attn_idxs=[1], block_dim=48,
            block_auto_adjust_ff_dim=False, block_multiple_of=1, block_ffn_dim_multiplier=1.0,
        ),
        "lfm2",
    ),
    "phi3": (tiny_config("phi3", tie_word_embeddings=False), "spm-strips"),
    "phi3-longrope": (
        tiny_config(
            "phi3", partial_rotary_factor=0.5, original_max_position_embeddings=128,
            rope_scaling={"type": "longrope", "long_factor": [1.1, 2.0, 7.5], "short_factor": [1.0, 1.2, 1.4]},
        ),
        "gpt-2",
    ),
}  # fmt: skip
AWKWARD = [
    "Hello, world!", " leading", "trailing ", "  two  spaces  ", "\ttab\tand\nnewline\n", "\n\n\n", " \n \n", "a\r\nb",
    "don't I'll we've", "DON'T I'LL", "12345678901", "3.14159 1,000,000", "x=1;y=2", "naïve café Ünïcödé", "Привет, мир",
    "こんにちは", "你好，世界", "한국어", "عربى", "🙂🙃👩‍👩‍👧", "a🙂b", "<|im_start|>user\nhi<|im_end|>\n", "<|im_end|>",
    "<|endoftext|>text", "<not a token>", "e\u200bx", "\u00a0nbsp\u00a0", "foo_bar-baz/qux", "((nested [brackets] {here}))",
    "!!!???...", "      indented code()", "ﬁ ligature ½ ²",
]  # fmt: skip


@dataclass
class Tiny:
    """A random base folder, adapters on it, and both as one MLX model in memory."""

    name: str
    folder: Path
    config: dict
    model: object  # base + adapters, float32
    tokenizer: object
    pre: str

    def weights(self) -> Weights:
        return Weights(self.folder / "base", self.config, load_adapters(self.folder / "adapters"))

    def write(self, path: Path, type_name: str = "f32", template: str | None = CHAT_TEMPLATE, **options) -> Path:
        keys = tokenizer.from_transformers(self.tokenizer, self.config["vocab_size"])
        content = gguf.Content(keys, gguf.Card(self.name, "tiny/base", hub=True), template)
        return gguf.write(path, self.weights(), type_name, content, **options)[0]

    def logprobs(self, tokens: list[int]) -> np.ndarray:
        logits = self.model(mx.array([tokens]))[0]
        return np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True)).astype(np.float64)


def train_bpe(folder: Path, pre: str, vocabulary: int = VOCABULARY - 4) -> None:
    """A byte-level BPE tokenizer that cuts as llama.cpp's `pre` does, with four ids fewer than the model has rows."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    known = BY_NAME[pre]
    raw = Tokenizer(models.BPE(ignore_merges=known.whole))
    content = json.loads(raw.to_str())
    content["pre_tokenizer"] = known.layout
    raw = Tokenizer.from_str(json.dumps(content))
    raw.normalizer = normalizers.NFC() if known.nfc else None
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator([*CORPUS, *AWKWARD, *(text + text for text in AWKWARD)], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", bos_token="<|endoftext|>", clean_up_tokenization_spaces=False
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def train_spm(folder: Path, kind: str, vocabulary: int = VOCABULARY - 10) -> None:
    """A SentencePiece tokenizer. `spm`: Llama 2's, with a space put before a text; `spm-bare`: Gemma's, without, and with an added
    token made of spaces; `spm-strips`: Phi-3's, whose special tokens swallow the spaces after them."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    prefix = kind != "spm-bare"
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    names = ["<unk>", "<s>", "</s>"] if kind == "spm" else ["<unk>", "<s>", "<|im_end|>", "</s>", "<|endoftext|>", "<|im_start|>"]
    special = [AddedToken(text, special=True, normalized=False) for text in names]
    raw = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix else replace
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[*special, *byte_tokens], show_progress=False)
    raw.train_from_iterator([*(f"{word} " for text in CORPUS for word in text.split()), *["  "] * 9], trainer)
    content = json.loads(raw.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].startswith("<0x")]
    for token in content["added_tokens"]:
        token["rstrip"] = kind == "spm-strips" and token["content"] not in ("<unk>", "<s>", "<|endoftext|>")
    if kind == "spm-bare":
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
        content["added_tokens"].append({"id": content["model"]["vocab"]["▁▁"], "content": "▁▁", **plain})
    raw = Tokenizer.from_str(json.dumps(content))
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token=names[2], unk_token="<unk>", clean_up_tokenization_spaces=False
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def make_tiny(name: str, config: dict, pre: str, folder: Path, seed: int = 1, delta: float = 0.05) -> Tiny:
    from mlx_lm.utils import load_tokenizer, save_model

    base = folder / "base"
    model = build_model(config, seed=seed)
    apart = lambda k, v: v + mx.random.normal(v.shape) * 0.1 if k.endswith(("bias", "norm.weight")) else v  # noqa: E731
    model.update(tree_map_with_path(apart, model.parameters()))
    if config["model_type"].startswith("gemma"):  # a small part for the MLP, which llama.cpp computes in half precision
        small = lambda k, v: v * 0.1 - 1.05 if k.endswith("post_feedforward_layernorm.weight") else v  # noqa: E731
        model.update(tree_map_with_path(small, model.parameters()))
    save_model(base, model)
    (base / "config.json").write_text(json.dumps(config))
    (train_spm if pre.startswith("spm") else train_bpe)(base, pre)
    layout = adapters.attach(model, Lora(rank=4, scale=2.0), seed)
    noise = lambda path, value: mx.random.normal(value.shape) * delta if path.endswith("lora_b") else value  # noqa: E731
    model.update(tree_map_with_path(noise, model.trainable_parameters()))
    mx.eval(model.parameters())
    adapters.save(model, folder / "adapters", layout)
    return Tiny(name, folder, config, model, load_tokenizer(base, eos_token_ids=2), pre)


def run_folder(tiny: Tiny, answers: int = 4) -> Path:
    """The tiny model's folder as a run: its adapters, and held-out pairs with answers of the adapter model's own vocabulary."""
    random = np.random.default_rng(0)
    pairs = [
        Pair(
            id=str(n), split="heldout", grid=n, prompt=[], chosen=[], rejected=[], negatives=[], reference=[0.0, 0.0], pmi=[0.0],
            kinds=["random_context"], prompt_tokens=tiny.tokenizer.encode(CORPUS[n % len(CORPUS)]),
            tokens=[random.integers(3, VOCABULARY - 10, 12).tolist(), [3]],
        )
        for n in range(answers)
    ]  # fmt: skip
    write_records(tiny.folder / "pairs.jsonl", pairs)
    return tiny.folder


def difference(model: Tiny, llama: Llama, tokens: list[int], positions: list[int]) -> tuple[float, float]:
    """(largest difference of any log-probability, share of positions with the same likeliest token)."""
    ours, theirs = model.logprobs(tokens)[positions], llama.logprobs(tokens, positions, model.config["vocab_size"])
    return float(np.abs(ours - theirs).max()), float((ours.argmax(-1) == theirs.argmax(-1)).mean())


def greedy(model: Tiny, tokens: list[int], count: int) -> list[int]:
    """The model's own likeliest continuation, up to where llama.cpp stops too."""
    from mlx_lm.generate import generate_step

    stops = {*model.tokenizer.eos_token_ids, model.tokenizer.bos_token_id}
    result: list[int] = []
    for (token, _), _ in zip(generate_step(mx.array(tokens), model.model), range(count), strict=False):
        if int(token) in stops:
            break
        result.append(int(token))
    return result


def kl(reference: np.ndarray, other: np.ndarray) -> float:
    """Mean over positions of KL(reference || other), nats, over the tokens that `other` reports."""
    seen = np.isfinite(other)
    return float((np.exp(reference) * np.where(seen, reference - np.where(seen, other, 0), 0)).sum(-1).mean())
