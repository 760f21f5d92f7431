"""GGUF files in: what was written comes back as the same model, the same tokenizer and a config that can be saved."""

import json

import gguf
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mipo_mlx.errors import UserError
from mipo_mlx.gguf_format import blocks
from mipo_mlx.gguf_format.file import TYPES, GGUFFile
from mipo_mlx.gguf_format.names import by_gguf
from mipo_mlx.gguf_format.rope import flattened, llama3_factors, settings
from mipo_mlx.gguf_format.to_mlx import load_gguf, load_tokenizer_gguf, tidy
from tests.export.helpers import AWKWARD, LLAMA3, MODELS, make_tiny


@pytest.fixture(scope="module", params=list(MODELS))
def written(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    tiny = make_tiny(request.param, *MODELS[request.param], folder)
    return tiny, tiny.write(folder / "model.gguf")


def test_logits_survive_the_round_trip(written):
    tiny, path = written
    model, _, _ = load_gguf(path)
    tokens = tiny.tokenizer.encode("What should I cook tonight?")
    logits = np.array(model(mx.array([tokens]))[0])
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    assert np.abs(logits - tiny.logprobs(tokens)).max() < 1e-3


def test_tokenizer_and_template_survive_the_round_trip(written):
    tiny, path = written
    tokenizer = load_tokenizer_gguf(path)
    for text in AWKWARD:
        assert tokenizer.encode(text) == tiny.tokenizer.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == tiny.tokenizer.decode(tiny.tokenizer.encode(text))
    chat = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(chat, add_generation_prompt=True) == tiny.tokenizer.apply_chat_template(
        chat, add_generation_prompt=True
    )
    assert tokenizer.eos_token_ids == tiny.tokenizer.eos_token_ids


def test_config_is_the_original_one(written):
    tiny, path = written
    _, _, config = load_gguf(path)
    for key, value in tiny.config.items():
        if key not in ("bos_token_id", "rope_scaling", "architectures"):
            assert config[key] == value, key
    assert json.loads(json.dumps(config)) == config


def test_llama3_scaling_is_recovered(tmp_path):
    tiny = make_tiny("llama3", *MODELS["llama3-untied"], tmp_path)
    _, _, config = load_gguf(tiny.write(tmp_path / "model.gguf"))
    theirs = llama3_factors(config["head_dim"], config["rope_theta"], config["rope_scaling"])
    assert np.allclose(theirs, llama3_factors(12, 500000.0, LLAMA3), rtol=1e-4)


@pytest.mark.parametrize("head_dim, context", [(64, 8192), (128, 8192), (64, 4096), (128, 16384)])
def test_llama3_factors_match_mlx(head_dim, context):
    from mlx_lm.models.rope_utils import Llama3RoPE

    scaling = {**LLAMA3, "original_max_position_embeddings": context, "factor": 32.0}
    plain = 500000.0 ** (np.arange(0, head_dim, 2) / head_dim)
    theirs = np.array(Llama3RoPE(head_dim, base=500000.0, scaling_config=scaling)._freqs) / plain
    assert np.allclose(llama3_factors(head_dim, 500000.0, scaling), theirs, rtol=1e-3)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K"])
def test_packed_types_are_exact(name):
    kind = gguf.GGMLQuantizationType[name]
    block, width = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(0)
    raw = random.integers(0, 256, (64, width), dtype=np.uint8)
    raw[:, 0:2] = np.float16(random.uniform(0.001, 0.1, 64)).view(np.uint8).reshape(64, 2)
    if name not in ("Q4_0", "Q5_0", "Q8_0"):
        raw[:, 2:4] = np.float16(random.uniform(-0.1, 0.1, 64)).view(np.uint8).reshape(64, 2)

    class Stub:
        def bytes(self, _):
            return raw.reshape(-1)

    class Shape:
        shape, type_name = (4, 16 * block), name

    packed, scales, biases = blocks.triple(Stub(), Shape())
    bits = blocks.PACKED_BITS[int(kind)]
    ours = mx.dequantize(mx.array(packed), mx.array(scales), mx.array(biases), group_size=32, bits=bits)
    assert np.array_equal(np.array(ours).reshape(64, -1), gguf.quants.dequantize(raw, kind))


@pytest.mark.parametrize("name", ["f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"])
def test_every_written_type_loads_as_its_own_values(tmp_path, name):
    config, pre = MODELS["llama"]
    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    tiny = make_tiny("llama", {**config, **sizes}, pre, tmp_path)
    path = tiny.write(tmp_path / "model.gguf", name)
    model, _, config = load_gguf(path)
    assert ("quantization" in config) == name.startswith("q")
    reader = {t.name: t for t in gguf.GGUFReader(path).tensors}
    tensor = reader["blk.1.ffn_down.weight"]
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type) if name not in ("f16",) else tensor.data.astype(np.float32)
    module = model.model.layers[1].mlp.down_proj
    ours = module.weight
    if "scales" in module:
        ours = mx.dequantize(ours, module.scales, module.biases, group_size=module.group_size, bits=module.bits)
    assert np.array_equal(np.array(ours.astype(mx.float32)), values.reshape(64, 128))


@pytest.mark.parametrize("name, dtype", [("bf16", mx.bfloat16), ("f16", mx.float16), ("q8_0", mx.float16)])
def test_a_gpu_computes_in_the_16_bits_of_the_file(name, dtype, tmp_path, monkeypatch):
    path = make_tiny("llama", *MODELS["llama"], tmp_path).write(tmp_path / "model.gguf", name)
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu, 0))
    model, _, config = load_gguf(path)
    result = {array.dtype for _, array in tree_flatten(model.parameters()) if array.dtype != mx.uint32}
    assert result == {dtype} == {getattr(mx, config["torch_dtype"])}


def test_block_sizes_are_those_of_the_gguf_package():
    for number, (name, block, width) in TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, *gguf.GGML_QUANT_SIZES[kind]) == (name, block, width)


def test_unknown_architecture_is_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "bert.gguf", "bert")
    writer.add_tensor("token_embd.weight", np.zeros((2, 4), np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with pytest.raises(UserError, match=r"architecture 'bert' is not supported; expected one of .*llama.*qwen2"):
        load_gguf(tmp_path / "bert.gguf")


def test_missing_tensor_is_named(tmp_path):
    tiny = make_tiny("llama", *MODELS["llama"], tmp_path)
    path = tiny.write(tmp_path / "model.gguf")
    raw = path.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.9.ffn_up.weight")
    path.write_bytes(raw)
    with pytest.raises(UserError, match="blk.9.ffn_up.weight"):
        load_gguf(path)


FAMILY = {
    "query_pre_attn_scalar": ("gemma2", 99, "query_pre_attn_scalar is 99 here, and 12"),
    "no_rope_layers": ("smollm3", [1, 1, 1, 1, 1], r"no_rope_layers is \[1, 1, 1, 1, 1\] here, and \[1, 1, 1, 0, 1\]"),
    "sliding_window_pattern": ("gemma3", 3, "sliding_window_pattern is 3 here, and 6"),
    "rope_scaling": ("gemma2", {"type": "yarn", "factor": 4.0}, "rotary scaling 'yarn' of a gemma2 is not supported"),
}


@pytest.mark.parametrize("key", FAMILY)
def test_what_llamacpp_would_compute_otherwise_is_refused(tmp_path, key):
    model, value, reply = FAMILY[key]
    tiny = make_tiny(model, *MODELS[model], tmp_path)
    tiny.config = {**tiny.config, key: value}
    with pytest.raises(UserError, match=reply):
        tiny.write(tmp_path / "model.gguf")


def test_the_27b_gemmas_scale_attention_by_their_width():
    config = {"num_hidden_layers": 46, "hidden_size": 4608, "num_attention_heads": 32, "head_dim": 128}
    assert by_gguf("gemma2", "").attention_scalar(config) == 144
    assert by_gguf("gemma2", "").attention_scalar({**config, "num_hidden_layers": 42}) == 128
    assert by_gguf("gemma3", "").attention_scalar({**config, "num_hidden_layers": 62, "hidden_size": 5376}) == 168


def test_longrope_of_another_length_is_refused(tmp_path):
    tiny = make_tiny("longrope", *MODELS["phi3-longrope"], tmp_path)
    path = tiny.write(tmp_path / "model.gguf")
    assert load_gguf(path)[2]["rope_scaling"]["long_factor"] == [1.1, 2.0, 7.5]
    raw = path.read_bytes()
    at = raw.index(b"rope.scaling.attn_factor") + len("rope.scaling.attn_factor") + 4
    path.write_bytes(raw[:at] + np.float32(1.5).tobytes() + raw[at + 4 :])
    with pytest.raises(UserError, match="attn_factor is 1.5, which its context lengths do not give"):
        load_gguf(path)


@pytest.mark.parametrize(
    "old, new, reply",
    [
        (b"linear", b"yarn42", "llama.rope.scaling.type is 'yarn42', .* expected none, linear, .* take the model's Hub"),
        (np.float32(4.0).tobytes(), np.float32(-4.0).tobytes(), "its llama.rope.scaling.factor is -4.0"),
    ],
)
def test_a_rotary_scaling_that_cannot_be_read_is_named(old, new, reply, tmp_path):
    config, pre = MODELS["llama"]
    scaled = {**config, "rope_scaling": {"type": "linear", "factor": 4.0}}
    path = make_tiny("linear", scaled, pre, tmp_path).write(tmp_path / "model.gguf")
    raw = path.read_bytes()
    at = raw.index(old, raw.index(b"rope.scaling"))
    path.write_bytes(raw[:at] + new + raw[at + len(old) :])
    with pytest.raises(UserError, match=reply):
        load_gguf(path)


def test_rotary_settings_of_transformers_5_reach_the_top_level():
    gemma = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    flat = flattened({"rope_parameters": gemma})
    assert flat["rope_theta"] == 1e6 and flat["rope_local_base_freq"] == 1e4
    assert flat["rope_scaling"] == {"type": "linear", "rope_type": "linear", "factor": 8.0}
    phi = {"rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 4096}
    flat = flattened({"rope_parameters": {**phi, "long_factor": [2.0], "short_factor": [1.0]}, "rope_theta": None})
    assert (flat["rope_theta"], flat["partial_rotary_factor"], flat["original_max_position_embeddings"]) == (1e4, 0.75, 4096)
    assert flat["rope_scaling"]["type"] == "longrope" and settings({"rope_parameters": phi})[1]["rope_type"] == "longrope"
    assert settings({"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}, "rope_theta": 7.0}) == (7.0, None)


def test_float32_hyperparameters_are_tidied():
    assert tidy(9.999999747378752e-06) == 1e-05 and tidy(500000.0) == 500000.0


@pytest.mark.real
def test_embedded_model_loads_exactly():
    from mipo_mlx.models.load import EMBEDDED, resolve

    path = resolve(EMBEDDED)
    model, tokenizer, config = load_gguf(path)
    arrays = mx.load(str(path))
    ours = dict(tree_flatten(model.parameters()))
    for name, tensor in (("model.layers.7.mlp.up_proj", "blk.7.ffn_up"), ("model.embed_tokens", "token_embd")):
        for part in ("weight", "scales", "biases"):
            theirs = arrays[f"{tensor}.{part}"]
            assert mx.array_equal(ours[f"{name}.{part}"].astype(theirs.dtype), theirs)
    assert config["rope_theta"] == 100000.0 and config["tie_word_embeddings"] and tokenizer.eos_token_ids == {2}
    assert GGUFFile(path).metadata["tokenizer.ggml.pre"] == "smollm"
