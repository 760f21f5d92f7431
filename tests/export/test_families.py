"""Newer families: a language model within a model of several modalities, and heads that GGUF stores in another order."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.utils import load_model, quantize_model, save_model

from mipo_mlx.errors import UserError
from mipo_mlx.export import export as stage
from mipo_mlx.export import fuse
from mipo_mlx.export import gguf as writing
from mipo_mlx.export.llamacpp import Llama
from mipo_mlx.export.weights import Adapters, Weights, load_adapters
from mipo_mlx.gguf_format import tokenizer
from mipo_mlx.gguf_format.file import GGUFFile
from mipo_mlx.gguf_format.to_mlx import load_gguf
from mipo_mlx.models.skeleton import skeleton
from mipo_mlx.recipe import Recipe
from tests.conftest import build_model

from .helpers import MODELS, VOCABULARY, Tiny, difference, make_tiny

TOKENS = [5, 300, 44, 7, 120, 9, 88, 431, 16, 250]
INNER = {"qwen3.5": ("qwen3_5", "qwen3_5_text"), "ministral3": ("mistral3", "ministral3"), "gemma3": ("gemma3", "gemma3_text")}


def several_modalities(name: str, folder: Path) -> Tiny:
    """The tiny model as it is shipped: a text_config, and tensors of a vision tower beside the language model's."""
    config, pre = MODELS[name]
    outer, inner = INNER[name]
    whole = {
        "model_type": outer,
        "vocab_size": VOCABULARY,
        "text_config": {**config, "model_type": inner},
        "vision_config": {"depth": 1},
    }
    tiny = make_tiny(name, whole, pre, folder)
    path = folder / "base" / "model.safetensors"
    arrays = {**mx.load(str(path)), "vision_tower.blocks.0.proj.weight": mx.ones((4, 4))}
    if name == "qwen3.5":  # as on the Hub, where norms lack the one that mlx-lm adds
        small = lambda k, v: v - 1 if v.ndim == 1 and "norm" in k and "linear_attn" not in k else v  # noqa: E731
        arrays = {k.replace("language_model.model", "model.language_model"): small(k, v) for k, v in arrays.items()}
        arrays = {k: v.moveaxis(2, 1) if "conv1d" in k else v for k, v in arrays.items()}
        arrays["model.visual.merger.weight"] = arrays["mtp.fc.weight"] = mx.ones((4, 4))
    mx.save_safetensors(str(path), arrays)
    return tiny


@pytest.mark.parametrize("name", list(INNER))
def test_the_language_model_alone_is_exported(name, tmp_path, needs_llamacpp, gelu_of_llamacpp):
    tiny = several_modalities(name, tmp_path)
    stage.check(Recipe(model=str(tmp_path / "base"), name="mine", export={"gguf": ["f32"], "adapter": True}))
    assert skeleton(str(tmp_path / "base"))[1] == sum(x.size for k, x in tree_flatten(tiny.model.parameters()) if "lora" not in k)
    path = tiny.write(tmp_path / "tiny.gguf")
    with Llama(path, context=64) as llama:
        largest, same = difference(tiny, llama, TOKENS, list(range(len(TOKENS))))
    assert largest < 1e-3 and same == 1.0
    fuse.fuse(tmp_path / "fused", tiny.weights(), fuse.Beside(tiny.tokenizer), fuse.Form("float32"))
    fused, config = load_model(tmp_path / "fused")
    assert np.abs(logits(fused) - logits(tiny.model)).max() < 1e-3
    assert not [name for name in mx.load(str(tmp_path / "fused" / "model.safetensors")) if "vis" in name or "mtp" in name]
    kept = json.loads((tmp_path / "fused" / "config.json").read_text())
    assert "vision_config" not in kept and kept["text_config"]["model_type"] == INNER[name][1]


def test_a_vision_tower_that_the_model_keeps_stays_described():
    config = {"model_type": "any", "vision_config": {"depth": 1}, "audio_config": {}}
    assert "vision_config" in fuse.describe(config, fuse.Form(), {"model.vision_tower.proj.weight": 0})
    assert {"vision_config", "audio_config"}.isdisjoint(fuse.describe(config, fuse.Form(), {"model.layers.0.proj.weight": 0}))


def test_a_language_model_of_another_kind_is_named(tmp_path):
    tiny = several_modalities("ministral3", tmp_path)
    path = tmp_path / "base" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["model_type"] = "mistral4"
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="architecture 'mistral4' is not supported; .*; with gguf: "):
        stage.check(Recipe(model=str(tiny.folder / "base"), name="mine"))


@pytest.mark.parametrize("kind", ["mlx", "q4_1", "q8_0"])
def test_packed_heads_change_places_without_a_change_of_their_values(kind, tmp_path):
    config, pre = MODELS["qwen3.5"]
    tiny = make_tiny("qwen3.5", {**config, "hidden_size": 64, "head_dim": 16}, pre, tmp_path)
    content = writing.Content(tokenizer.from_transformers(tiny.tokenizer, VOCABULARY), writing.Card("tiny", "tiny/base"))
    if kind == "mlx":  # scales that float16 holds, as those of a base in 16 bits
        model, config = quantize_model(*load_model(tmp_path / "base"), group_size=32, bits=4)
        scales = lambda k, v: v.astype(mx.float16).astype(mx.float32) if k.endswith(("scales", "biases")) else v  # noqa: E731
        model.update(tree_map_with_path(scales, model.parameters()))
        save_model(tmp_path / "packed", model)
        (tmp_path / "packed" / "config.json").write_text(json.dumps(config))
        base = tmp_path / "packed"
    else:
        base = tiny.write(tmp_path / "base.gguf", kind)
        model, _, config = load_gguf(base)
    kept = writing.write(tmp_path / "kept.gguf", Weights(base, config, Adapters(1.0, {})), "keep", content)[0]
    again, _, known = load_gguf(kept)
    layer = again.layers[0].linear_attn
    assert layer.out_proj.bits == layer.in_proj_qkv.bits == (8 if kind == "q8_0" else 4)
    assert np.abs(logits(again) - logits(model)).max() < 1e-4
    if kind != "mlx":
        own, copied = GGUFFile(base), GGUFFile(kept)
        assert all(np.array_equal(own.bytes(own.tensors[name]), copied.bytes(x)) for name, x in copied.tensors.items())
    adapted = Weights(kept, known, load_adapters(tmp_path / "adapters"))
    fuse.fuse(tmp_path / "fused", adapted, fuse.Beside(tiny.tokenizer), fuse.Form("float32"))
    fused = load_model(tmp_path / "fused")[0]
    whole = load_gguf(writing.write(tmp_path / "f32.gguf", adapted, "f32", content)[0])[0]
    assert np.abs(logits(whole) - logits(fused)).max() < 1e-4 and np.abs(logits(fused) - logits(model)).max() > 0.1
    rounded = load_gguf(writing.write(tmp_path / "adapted.gguf", adapted, "keep", content)[0])[0].layers[0].linear_attn
    errors = [
        mx.abs(part(mx.eye(part.weight.shape[1] * 32 // part.bits)).T - trained.weight).mean().item()
        for part, trained in ((rounded[k], fused.layers[0].linear_attn[k]) for k in ("out_proj", "in_proj_z"))
    ]
    assert 0 < errors[0] < 1.5 * errors[1]  # columns that move are rounded as well as rows


def logits(model) -> np.ndarray:
    return np.array(model(mx.array([TOKENS]))[0].astype(mx.float32))


def test_the_decay_of_linear_attention_stays_in_float32(tmp_path, monkeypatch):
    tiny = make_tiny("qwen3.5", *MODELS["qwen3.5"], tmp_path)
    fuse.fuse(tmp_path / "fused", tiny.weights(), fuse.Beside(tiny.tokenizer), fuse.Form("bfloat16"))
    fused = mx.load(str(tmp_path / "fused" / "model.safetensors"))
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu, 0))
    read = dict(tree_flatten(load_gguf(tiny.write(tmp_path / "model.gguf", "f16"))[0].parameters()))
    for arrays, kind in ((fused, mx.bfloat16), (read, mx.float16)):
        assert {x.dtype for name, x in arrays.items() if name.endswith("A_log")} == {mx.float32}
        assert {x.dtype for name, x in arrays.items() if name.endswith("dt_bias")} == {kind}


def test_a_file_that_predicts_further_tokens_is_refused(tmp_path, monkeypatch):
    tiny = make_tiny("qwen3.5", *MODELS["qwen3.5"], tmp_path)
    honest = writing.hyperparameters
    monkeypatch.setattr(writing, "hyperparameters", lambda *given: {**honest(*given), "qwen35.nextn_predict_layers": 1})
    with pytest.raises(UserError, match="a layer that predicts further tokens"):
        load_gguf(tiny.write(tmp_path / "model.gguf"))


CHANGED = {
    "rope_parameters": ("qwen3.5", None, "no rope_parameters"),
    "linear_value_head_dim": ("qwen3.5", 16, "linear_value_head_dim is 16 here, and 32"),
    "conv_bias": ("lfm2", True, "conv_bias is True here, and False"),
    "norm_eps": ("lfm2", None, "no rms_norm_eps"),
    "sliding_window": ("ministral3", 64, "sliding_window is 64 here, and None"),
}


@pytest.mark.parametrize("key", CHANGED)
def test_what_llamacpp_would_compute_otherwise_is_refused(key):
    name, value, reply = CHANGED[key]
    config = {**MODELS[name][0], key: value}
    with pytest.raises(UserError, match=reply):
        writing.hyperparameters(config, writing.by_model_type(config["model_type"], ""))


@pytest.mark.parametrize("factor, each", [(None, 8), (1.3, 8), (1.0, 256)])
def test_the_rules_of_lfm2_give_what_its_model_has(factor, each):
    rules = {
        "block_auto_adjust_ff_dim": True,
        "block_ffn_dim_multiplier": factor,
        "block_multiple_of": each,
        "full_attn_idxs": None,
    }
    config = {
        **MODELS["lfm2"][0],
        **rules,
        "block_ff_dim": 100,
        "layer_types": ["conv", "full_attention", "conv"],
        "rope_theta": None,
    }
    model = build_model({name: value for name, value in config.items() if value is not None or name != "rope_theta"})
    keys = writing.hyperparameters(config, writing.by_model_type("lfm2", ""))
    assert keys["lfm2.feed_forward_length"] == model.layers[0].feed_forward.w1.weight.shape[0]
    assert keys["lfm2.attention.head_count_kv"] == [0, 2, 0] and keys["lfm2.rope.freq_base"] == model.args.rope_theta == 1e6


@pytest.mark.parametrize("heads", [[0, 0, 0], [2, 2, 2], [0, 2], [0, 2, 1], 2])
def test_a_list_of_heads_that_fits_no_lfm2_is_refused(heads, tmp_path, monkeypatch):
    tiny = make_tiny("lfm2", *MODELS["lfm2"], tmp_path)
    honest = writing.hyperparameters
    monkeypatch.setattr(writing, "hyperparameters", lambda *given: {**honest(*given), "lfm2.attention.head_count_kv": heads})
    with pytest.raises(UserError, match="head_count_kv is no list of one number and 0"):
        load_gguf(tiny.write(tmp_path / "model.gguf"))


@pytest.mark.parametrize("key, value, reply", [("rope_type", "linear", "rope_type is 'linear'"), ("mscale", 0.7, "mscale is 0.7")])
def test_another_rotary_scaling_of_ministral_is_refused(key, value, reply):
    config = MODELS["ministral3"][0]
    config = {**config, "rope_parameters": {**config["rope_parameters"], key: value}}
    with pytest.raises(UserError, match=reply):
        writing.hyperparameters(config, writing.by_model_type("ministral3", ""))


@pytest.mark.parametrize("name, left", [("qwen3.5", 0), ("qwen3.5", 1), ("ministral3", 0)])
def test_control_heads_in_mlx_order_are_noticed(name, left, tmp_path, monkeypatch, needs_llamacpp):
    """left: 0 for the rows, 1 for the columns, which are left as they are."""
    tiny = make_tiny(name, *MODELS[name], tmp_path)
    honest = writing.gguf_order
    monkeypatch.setattr(writing, "gguf_order", lambda *given: [None if i == left else o for i, o in enumerate(honest(*given))])
    with Llama(tiny.write(tmp_path / "wrong.gguf"), context=64) as llama:
        assert difference(tiny, llama, TOKENS, list(range(len(TOKENS))))[0] > 0.1


def test_control_the_scale_of_queries_is_noticed(tmp_path, monkeypatch, needs_llamacpp):
    tiny = make_tiny("ministral3", *MODELS["ministral3"], tmp_path)
    honest = writing.hyperparameters
    monkeypatch.setattr(writing, "hyperparameters", lambda *given: {**honest(*given), "mistral3.attention.temperature_scale": 0.0})
    with Llama(tiny.write(tmp_path / "wrong.gguf"), context=64) as llama:
        assert difference(tiny, llama, TOKENS, [len(TOKENS) - 1])[0] > 0.01
