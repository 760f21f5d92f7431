"""Which type each tensor gets, the bytes it becomes, and `keep`: the base's own bytes where they are exact."""

import sys

import gguf
import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.export.weights import Adapters, Weights, blocks
from mipo_mlx.gguf_format import types
from mipo_mlx.gguf_format.types import Mix, choose, encode
from tests.export.helpers import MODELS, make_tiny

RANDOM = np.random.default_rng(0).normal(size=(8, 512)).astype(np.float32)


@pytest.mark.parametrize("name", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_bytes_stand_for_the_values(name):
    data = encode(RANDOM, name)
    kind = gguf.GGMLQuantizationType[name]
    back = data.astype(np.float32) if name == "F16" else gguf.quants.dequantize(data, kind)
    bound = {"F16": 2e-3, "BF16": 2e-2, "Q8_0": 2e-2, "Q4_0": 0.5, "Q4_1": 0.3, "Q5_0": 0.3, "Q5_1": 0.15}[name]
    assert back.shape == RANDOM.shape and 0 < np.abs(back - RANDOM).max() < bound


def test_wide_rows_give_the_bytes_of_single_rows():
    for name in ("Q8_0", "Q4_0", "Q5_1"):
        rows = np.stack([gguf.quants.quantize(row[None], gguf.GGMLQuantizationType[name])[0] for row in RANDOM])
        assert np.array_equal(encode(RANDOM, name), rows)


@pytest.mark.parametrize("name", ["Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"])
def test_k_types_through_libgguf(name):
    pytest.importorskip("libgguf", reason="the K types need the optional package libgguf")
    data = encode(RANDOM, name)
    back = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])
    bound = {"Q3_K": 1.2, "Q4_K": 0.5, "Q5_K": 0.3, "Q6_K": 0.15, "IQ4_NL": 0.5}[name]
    assert 0 < np.abs(back - RANDOM).max() < bound


def test_k_types_without_libgguf_name_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "libgguf", None)
    with pytest.raises(UserError, match="pip install libgguf"):
        types.check("q4_k_m")
    assert types.check(" Q8_0 ") == "q8_0"


def chosen(type_name: str, name: str, columns: int = 512, layers: int = 24, tied: bool = False) -> str:
    return choose(Mix(type_name, layers, tied, 4), name, (256, columns))


def test_norms_and_vectors_stay_float32():
    for kind in types.FILE_TYPES:
        assert choose(Mix(kind, 4, True, 1), "blk.0.attn_q.bias", (64,)) == "F32"
        assert choose(Mix(kind, 4, True, 1), "blk.0.attn_norm.weight", (64,)) == "F32"


def test_q4_k_m_gives_more_bits_where_llamacpp_does():
    # llama.cpp, 24 layers: the first and last eighth and every third between get Q6_K for attn_v and ffn_down
    more = {layer for layer in range(24) if chosen("q4_k_m", f"blk.{layer}.ffn_down.weight") == "Q6_K"}
    assert more == {0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23}
    assert more == {layer for layer in range(24) if chosen("q4_k_m", f"blk.{layer}.attn_v.weight") == "Q6_K"}
    assert {chosen("q4_k_m", f"blk.{n}.{t}.weight") for n in range(24) for t in ("attn_q", "ffn_up", "attn_output")} == {"Q4_K"}
    assert chosen("q4_k_m", "output.weight") == "Q6_K" and chosen("q4_k_m", "token_embd.weight") == "Q4_K"
    assert chosen("q4_k_m", "token_embd.weight", tied=True) == "Q6_K"


def test_other_mixes():
    # like everything here, what llama_model_quantize of llama.cpp 0.5.0 chose for files of these shapes
    assert [chosen("q4_k_m", f"blk.{n}.attn_qkv.weight", layers=16) for n in (0, 2, 4, 5)] == ["Q6_K", "Q4_K", "Q6_K", "Q4_K"]
    assert [chosen("q3_k_m", f"blk.{n}.attn_qkv.weight") for n in (1, 2)] == ["Q5_K", "Q4_K"]
    assert chosen("q4_k_s", "blk.0.attn_v.weight") == "Q5_K" and chosen("q4_k_s", "blk.4.attn_v.weight") == "Q4_K"
    assert chosen("q4_k_s", "blk.2.ffn_down.weight") == "Q5_K" and chosen("q4_k_s", "blk.3.ffn_down.weight") == "Q4_K"
    assert chosen("q5_k_m", "blk.0.ffn_down.weight") == "Q6_K" and chosen("q5_k_s", "blk.0.ffn_down.weight") == "Q5_K"
    assert chosen("q3_k_m", "blk.1.attn_v.weight") == "Q5_K" and chosen("q3_k_m", "blk.2.attn_v.weight") == "Q4_K"
    assert chosen("q3_k_m", "blk.5.attn_output.weight") == "Q4_K" and chosen("q3_k_l", "blk.5.attn_output.weight") == "Q5_K"
    assert chosen("q3_k_m", "blk.0.ffn_down.weight") == "Q5_K" and chosen("q3_k_m", "blk.9.ffn_down.weight") == "Q4_K"
    assert chosen("q6_k", "blk.0.attn_q.weight") == "Q6_K"


def test_the_80_layer_models_give_values_more_bits():
    types_of = lambda name, layer, groups: choose(Mix(name, 80, False, groups), f"blk.{layer}.attn_v.weight", (1024, 8192))  # noqa: E731
    assert [types_of("q4_k_m", layer, 8) for layer in (0, 10, 11, 12)] == ["Q6_K", "Q5_K", "Q5_K", "Q6_K"]
    assert types_of("q4_k_m", 10, 1) == "Q4_K" and types_of("q3_k_s", 10, 8) == "Q5_K" and types_of("q5_k_s", 10, 8) == "Q5_K"


def test_rows_that_do_not_divide_fall_back():
    assert chosen("q4_k_m", "blk.5.attn_q.weight", 576) == "Q5_0" and chosen("q5_k_m", "blk.3.attn_q.weight", 576) == "Q5_1"
    assert chosen("q6_k", "blk.5.attn_q.weight", 576) == "Q8_0" and chosen("q3_k_m", "blk.5.attn_q.weight", 576) == "Q4_0"
    assert chosen("q4_0", "blk.5.attn_q.weight", 48) == "F16" and chosen("q4_k_m", "output.weight", 576) == "Q8_0"


def test_every_type_names_a_better_one():
    assert set(types.BETTER) == set(types.NAMES) - {"f32"} and set(types.BETTER.values()) <= set(types.NAMES)


@pytest.mark.parametrize("bits, name", [(4, "Q4_1"), (5, "Q5_1")])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_mlx_groups_are_exact_in_gguf(bits, name, group):
    weight, scales, biases = mx.quantize(mx.array(RANDOM), group_size=group, bits=bits)
    scales, biases = scales.astype(mx.float16), biases.astype(mx.float16)
    data = blocks(weight, scales, biases, bits, group)
    wide = [x.astype(mx.float32) for x in (scales, biases)]
    wanted = np.array(mx.dequantize(weight, *wide, group_size=group, bits=bits))
    assert np.array_equal(gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name]), wanted)


def test_eight_bits_are_exact_only_around_the_middle():
    weight, scales, biases = (x for x in mx.quantize(mx.array(RANDOM), group_size=32, bits=8))
    scales = scales.astype(mx.float16)
    assert blocks(weight, scales, biases.astype(mx.float16), 8, 32) is None
    data = blocks(weight, scales, -128 * scales, 8, 32)
    wide = scales.astype(mx.float32)
    wanted = np.array(mx.dequantize(weight, wide, -128 * wide, group_size=32, bits=8))
    assert np.array_equal(gguf.quants.dequantize(data, gguf.GGMLQuantizationType.Q8_0), wanted)


def test_scales_that_float16_cannot_hold_are_not_called_exact():
    weight, scales, biases = mx.quantize(mx.array(RANDOM), group_size=32, bits=4)  # float32 scales
    assert blocks(weight, scales, biases, 4, 32) is None


KEPT = [("llama", t) for t in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16", "bf16")] + [("gemma2", "f16"), ("phi3", "q8_0")]


@pytest.mark.parametrize("name, source", KEPT)
def test_keep_is_bit_equal_for_untouched_tensors(tmp_path, name, source):
    config, pre = MODELS[name]
    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "query_pre_attn_scalar": 16}
    tiny = make_tiny(name, {**config, **sizes}, pre, tmp_path)
    first = tiny.write(tmp_path / "first.gguf", source)
    from mipo_mlx.export import gguf as writing
    from mipo_mlx.gguf_format import tokenizer
    from mipo_mlx.gguf_format.file import GGUFFile
    from mipo_mlx.gguf_format.to_mlx import load_gguf

    _, _, config = load_gguf(first)
    weights = Weights(first, config, Adapters(1.0, {}))
    keys = tokenizer.from_gguf(GGUFFile(first))
    second = writing.write(tmp_path / "second.gguf", weights, "keep", writing.Content(keys, writing.Card("x", "y")))[0]
    one, two = GGUFFile(first), GGUFFile(second)
    assert {n: t.type for n, t in one.tensors.items()} == {n: t.type for n, t in two.tensors.items()}
    for name, tensor in one.tensors.items():
        assert np.array_equal(one.bytes(tensor), two.bytes(two.tensors[name])), name
    tokenizer_keys = {k: v for k, v in one.metadata.items() if k.startswith("tokenizer.ggml")}
    assert tokenizer_keys == {k: v for k, v in two.metadata.items() if k.startswith("tokenizer.ggml")}


def test_keep_of_a_quantised_mlx_base_is_exact_and_marks_what_changed(tmp_path):
    from mlx_lm.utils import load_model, quantize_model

    from mipo_mlx.gguf_format.to_mlx import load_gguf

    config, pre = MODELS["llama"]
    tiny = make_tiny("llama", {**config, "hidden_size": 64, "intermediate_size": 128, "head_dim": 16}, pre, tmp_path)
    from mlx.utils import tree_map
    from mlx_lm.utils import save_model

    model, config = load_model(tiny.folder / "base")
    model, config = quantize_model(model, config, 32, 4)
    model.update(tree_map(lambda p: p.astype(mx.float16) if p.dtype == mx.float32 else p, model.parameters()))
    save_model(tiny.folder / "base", model)
    tiny.config = config
    written, _, read = load_gguf(tiny.write(tmp_path / "keep.gguf", "keep"))
    untouched = model.model.embed_tokens
    for part in ("weight", "scales", "biases"):
        assert mx.array_equal(written.model.embed_tokens[part], untouched[part].astype(written.model.embed_tokens[part].dtype))
    assert read["quantization"]["bits"] == 4
