"""SentencePiece tokenizers (Llama 2, TinyLlama, Mistral) in and out: transformers, llama.cpp and our import cut alike."""

import pytest

from mipo_mlx.export.llamacpp import Llama
from mipo_mlx.gguf_format import tokenizer
from mipo_mlx.gguf_format.to_mlx import load_tokenizer_gguf
from tests.export.helpers import AWKWARD, MODELS, VOCABULARY, Tiny, make_tiny

STRINGS = [text.replace("<|im_start|>", "<s>").replace("<|im_end|>", "</s>") for text in AWKWARD]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Tiny:
    return make_tiny("llama", MODELS["llama"][0], "spm", tmp_path_factory.mktemp("spm"))


def test_keys(tiny: Tiny):
    keys = tokenizer.from_transformers(tiny.tokenizer, VOCABULARY)
    assert keys["tokenizer.ggml.model"] == "llama" and keys["tokenizer.ggml.add_space_prefix"] is True
    assert keys["tokenizer.ggml.add_bos_token"] is True and len(keys["tokenizer.ggml.scores"]) == VOCABULARY
    assert keys["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]


@pytest.mark.parametrize("scheme, adds", [("first", True), ("always", True), ("never", False)])
def test_newer_files_say_the_leading_space_otherwise(scheme, adds):
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    assert tokenizer._adds_space({"normalizer": None, "pre_tokenizer": metaspace}) is adds


@pytest.fixture(scope="module")
def path(tiny: Tiny, tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("spm-file") / "model.gguf", template=None)


def test_llamacpp_cuts_alike(tiny: Tiny, path, needs_llamacpp):
    with Llama(path, context=64) as llama:
        for text in STRINGS:
            assert llama.tokenize(text, special=True) == tiny.tokenizer.encode(text), text


def test_import_cuts_alike(tiny: Tiny, path):
    back = load_tokenizer_gguf(path)
    for text in STRINGS:
        ids = tiny.tokenizer.encode(text)
        assert back.encode(text) == ids and back.decode(ids) == tiny.tokenizer.decode(ids)


def test_writing_what_was_imported_changes_nothing(tiny: Tiny, path):
    from mipo_mlx.gguf_format.file import GGUFFile

    again = tokenizer.from_gguf(GGUFFile(path))
    assert again == {k: v for k, v in GGUFFile(path).metadata.items() if k.startswith("tokenizer.ggml")}
