"""What we write, read by the real llama.cpp: logits, tokens, templates and greedy text as in MLX; controls that must fail."""

import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx.export import gguf, tokenizer
from mipo_mlx.export.llamacpp import Llama

from .helpers import AWKWARD, MODELS, Tiny, make_tiny

PROMPT = "The quick brown fox jumps over the lazy dog; what should I cook tonight?"
CHAT = [{"role": "system", "content": "I keep bees."}, {"role": "user", "content": "What's  up?\n"}]

pytestmark = pytest.mark.usefixtures("needs_llamacpp")


@pytest.fixture(scope="module")
def loaded(tiny: Tiny, tmp_path_factory):
    path = tiny.write(tmp_path_factory.mktemp(tiny.name) / "tiny.gguf")
    with Llama(path, context=256) as llama:
        yield tiny, llama


def difference(tiny: Tiny, llama: Llama) -> tuple[float, float]:
    """(largest difference of any log-probability, share of positions with the same likeliest token)."""
    tokens = tiny.tokenizer.encode(PROMPT)
    positions = list(range(0, len(tokens), 3))
    ours, theirs = tiny.logprobs(tokens)[positions], llama.logprobs(tokens, positions, tiny.config["vocab_size"])
    return float(np.abs(ours - theirs).max()), float((ours.argmax(-1) == theirs.argmax(-1)).mean())


def test_logits_are_equal(loaded):
    tiny, llama = loaded
    largest, same = difference(tiny, llama)
    assert largest < 1e-3 and same == 1.0


def test_greedy_text_is_equal(loaded):
    tiny, llama = loaded
    tokens = tiny.tokenizer.encode(PROMPT)
    ours = []
    stops = {*tiny.tokenizer.eos_token_ids, tiny.tokenizer.bos_token_id}  # llama.cpp stops at <|endoftext|> too
    for _ in range(20):
        ours.append(int(mx.argmax(tiny.model(mx.array([tokens + ours]))[0, -1])))
        if ours[-1] in stops:
            break
    theirs = llama.greedy(tokens, 20)
    assert theirs[: len(ours)] == ours or theirs == ours[:-1]


def test_awkward_strings_get_the_same_tokens(loaded):
    tiny, llama = loaded
    ours = [tiny.tokenizer.encode(text, add_special_tokens=False) for text in AWKWARD]
    assert [llama.tokenize(text) for text in AWKWARD] == ours


def test_chat_template_renders_the_same(loaded):
    tiny, llama = loaded
    assert llama.template(CHAT) == tiny.tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)


def test_control_unpermuted_rows_are_noticed(tiny_llama: Tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "gguf_rows", lambda *_: None)
    with Llama(tiny_llama.write(tmp_path / "wrong.gguf"), context=256) as llama:
        largest, _ = difference(tiny_llama, llama)
    assert largest > 0.1


def test_control_missing_rope_factors_are_noticed(tmp_path, monkeypatch):
    tiny = make_tiny("llama3", *MODELS["llama3-untied"], tmp_path)
    honest = gguf.rope
    monkeypatch.setattr(gguf, "rope", lambda config: (honest(config)[0], None))
    with Llama(tiny.write(tmp_path / "wrong.gguf"), context=256) as llama:
        largest, _ = difference(tiny, llama)
    assert largest > 0.1


def test_control_wrong_pretokenizer_is_noticed(tmp_path, monkeypatch):
    tiny = make_tiny("llama3", *MODELS["llama3-untied"], tmp_path)
    monkeypatch.setattr(tokenizer, "match", lambda content: "smollm")
    with Llama(tiny.write(tmp_path / "wrong.gguf"), context=256) as llama:
        theirs = [llama.tokenize(text) for text in AWKWARD]
    assert theirs != [tiny.tokenizer.encode(text, add_special_tokens=False) for text in AWKWARD]
