"""What we write, read by the real llama.cpp: logits, tokens, templates and greedy text as in MLX; controls that must fail."""

import subprocess
import sys

import mlx.core as mx
import pytest

from mipo_mlx.export import gguf
from mipo_mlx.export.llamacpp import Llama
from mipo_mlx.gguf_format import tokenizer
from mipo_mlx.gguf_format.names import Architecture

from .helpers import AWKWARD, MODELS, Tiny, difference, greedy, make_tiny

PROMPT = "The quick brown fox jumps over the lazy dog; what should I cook tonight?"
CHAT = [{"role": "system", "content": "I keep bees."}, {"role": "user", "content": "What's  up?\n"}]

pytestmark = pytest.mark.usefixtures("needs_llamacpp")


@pytest.fixture(scope="module")
def loaded(tiny: Tiny, tmp_path_factory):
    path = tiny.write(tmp_path_factory.mktemp(tiny.name) / "tiny.gguf")
    with Llama(path, context=256) as llama:
        yield tiny, llama


def over_the_prompt(tiny: Tiny, llama: Llama) -> tuple[float, float]:
    tokens = tiny.tokenizer.encode(PROMPT)
    return difference(tiny, llama, tokens, list(range(0, len(tokens), 3)))


def test_logits_are_equal(loaded, gelu_of_llamacpp):
    largest, same = over_the_prompt(*loaded)
    assert largest < 1e-3 and same == 1.0


def test_gemma_is_near_without_the_rounding_of_gelu(loaded):
    tiny, _ = loaded
    if tiny.name.startswith("gemma"):
        largest, same = over_the_prompt(*loaded)
        assert largest < 0.05 and same == 1.0


def test_greedy_text_is_equal(loaded):
    tiny, llama = loaded
    tokens = tiny.tokenizer.encode(PROMPT)
    ours, theirs = greedy(tiny, tokens, 20), llama.greedy(tokens, 20)
    assert theirs[: len(ours)] == ours and set(theirs[len(ours) :]) <= {*tiny.tokenizer.eos_token_ids, tiny.tokenizer.bos_token_id}


def test_awkward_strings_get_the_same_tokens(loaded):
    tiny, llama = loaded
    ours = [tiny.tokenizer.encode(text, add_special_tokens=False) for text in AWKWARD]
    assert [llama.tokenize(text) for text in AWKWARD] == ours


def test_chat_template_renders_the_same(loaded):
    tiny, llama = loaded
    assert llama.template(CHAT) == tiny.tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)


def test_control_unpermuted_rows_are_noticed(tiny_llama: Tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "gguf_order", lambda *_: (None, None))
    with Llama(tiny_llama.write(tmp_path / "wrong.gguf"), context=256) as llama:
        largest, _ = over_the_prompt(tiny_llama, llama)
    assert largest > 0.1


def test_control_missing_rope_factors_are_noticed(tmp_path, monkeypatch):
    tiny = make_tiny("llama3", *MODELS["llama3-untied"], tmp_path)
    honest = gguf.rope.settings
    monkeypatch.setattr(gguf.rope, "settings", lambda config: (honest(config)[0], None))
    with Llama(tiny.write(tmp_path / "wrong.gguf"), context=256) as llama:
        largest, _ = over_the_prompt(tiny, llama)
    assert largest > 0.1


def test_control_wrong_pretokenizer_is_noticed(tmp_path, monkeypatch):
    tiny = make_tiny("llama3", *MODELS["llama3-untied"], tmp_path)
    monkeypatch.setattr(tokenizer, "match", lambda *_: "smollm")
    with Llama(tiny.write(tmp_path / "wrong.gguf"), context=256) as llama:
        theirs = [llama.tokenize(text) for text in AWKWARD]
    assert theirs != [tiny.tokenizer.encode(text, add_special_tokens=False) for text in AWKWARD]


def test_short_texts_of_longrope_use_the_short_factors(tmp_path):
    """llama.cpp takes the short factors where its context is no longer than the original one; mlx-lm knows only the long ones."""
    config, pre = MODELS["phi3-longrope"]
    tiny = make_tiny("short", {**config, "original_max_position_embeddings": 300}, pre, tmp_path)
    long, short = (mx.array(config["rope_scaling"][f"{part}_factor"]) for part in ("long", "short"))
    with Llama(tiny.write(tmp_path / "tiny.gguf"), context=256) as llama:
        assert over_the_prompt(tiny, llama)[0] > 0.01
        for layer in tiny.model.layers:
            layer.self_attn.rope._freqs = layer.self_attn.rope._freqs / long * short
        largest, same = over_the_prompt(tiny, llama)
    assert largest < 1e-3 and same == 1.0


def test_control_norms_that_are_not_shifted_are_noticed(tmp_path, monkeypatch):
    tiny = make_tiny("gemma2", *MODELS["gemma2"], tmp_path)
    monkeypatch.setattr(Architecture, "shift", lambda *_: 0.0)
    with Llama(tiny.write(tmp_path / "wrong.gguf"), context=256) as llama:
        assert over_the_prompt(tiny, llama)[0] > 0.1


def test_control_phi3_needs_its_name(tmp_path, monkeypatch):
    """llama.cpp drops the spaces after Phi-3's special tokens by the model's name alone."""
    tiny = make_tiny("tiny", *MODELS["phi3"], tmp_path)
    ours = tiny.tokenizer.encode("<|im_start|>  hi", add_special_tokens=False)
    with Llama(tiny.write(tmp_path / "right.gguf"), context=64) as llama:
        assert llama.tokenize("<|im_start|>  hi") == ours
    monkeypatch.setattr(gguf, "fitting_name", lambda name, *_: name)
    with Llama(tiny.write(tmp_path / "wrong.gguf"), context=64) as llama:
        assert llama.tokenize("<|im_start|>  hi") != ours


def test_a_server_that_is_asked_nothing_ends(tiny_llama: Tiny, tmp_path):
    path = tiny_llama.write(tmp_path / "tiny.gguf")
    script = f"from mipo_mlx.export.llamacpp import Llama\nfor _ in range(3):\n    with Llama({str(path)!r}, context=64): pass"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, capture_output=True)


def test_shards_are_one_model(tiny_llama: Tiny, tmp_path):
    first = tiny_llama.write(tmp_path / "cut.gguf", split=100_000)
    assert len(list(tmp_path.glob("cut-*-of-*.gguf"))) > 2
    with Llama(first, context=256) as llama:
        largest, same = over_the_prompt(tiny_llama, llama)
    assert largest < 1e-3 and same == 1.0


def test_sampling_defaults_are_taken_from_the_file(tiny_llama: Tiny, tmp_path):
    keys = tokenizer.from_transformers(tiny_llama.tokenizer, tiny_llama.config["vocab_size"])
    card = gguf.Card("tiny", "tiny/base", sampling={"temp": 0.35, "top_p": 0.7, "top_k": 17})
    with Llama(gguf.write(tmp_path / "tiny.gguf", tiny_llama.weights(), "f16", gguf.Content(keys, card))[0], context=64) as llama:
        settings = llama.defaults()
    assert settings["top_k"] == 17 and settings["temperature"] == pytest.approx(0.35) and settings["top_p"] == pytest.approx(0.7)
