"""Pre-tokenizers known by their token ids, and what happens where the ids are unknown."""

import json

import pytest

from mipo_mlx.gguf_format import pretokenizers, tokenizer
from tests.export.helpers import Tiny


def test_ids_come_before_structure(tiny_llama: Tiny, monkeypatch):
    """Two names can have one structure (qwen2, deepseek-r1-qwen): the ids tell them apart."""
    tokens = tiny_llama.tokenizer
    fast = tokenizer.inner(tokens)
    assert tokenizer.from_transformers(tokens, 700)["tokenizer.ggml.pre"] == "smollm"
    monkeypatch.setitem(pretokenizers.NAMES, pretokenizers.fingerprint(fast), "tekken")
    assert tokenizer.from_transformers(tokens, 700)["tokenizer.ggml.pre"] == "tekken"
    assert tokenizer.from_transformers(tokens, 700, "refact")["tokenizer.ggml.pre"] == "refact"  # the user's word


def test_another_vocabulary_has_another_fingerprint(tiny_llama: Tiny):
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    fast = tokenizer.inner(tiny_llama.tokenizer)
    content = json.loads(fast.backend_tokenizer.to_str())
    del content["model"]["merges"][:50]
    fewer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)))
    assert pretokenizers.fingerprint(fewer) != pretokenizers.fingerprint(fast)
    assert pretokenizers.name(fewer) is None


@pytest.mark.real
def test_the_embedded_model_is_known(smollm2):
    """Also proves that the text is the converter's own, to the letter."""
    assert pretokenizers.name(tokenizer.inner(smollm2.tokenizer)) == "smollm"
