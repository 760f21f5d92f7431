"""Tokens without a row of embeddings, as Gemma 3's <image_soft_token>: a GGUF file has as many tokens as the model has rows."""

import json

import pytest
from click.testing import CliRunner

from mipo_mlx.cli import main
from mipo_mlx.errors import UserError
from mipo_mlx.export import export
from mipo_mlx.gguf_format import tokenizer
from mipo_mlx.gguf_format.file import GGUFFile
from mipo_mlx.models.load import load_tokenizer
from mipo_mlx.models.weight_files import vocabulary_rows
from mipo_mlx.recipe import Recipe
from tests.conftest import SHORTER, make_case
from tests.export.helpers import MODELS, VOCABULARY, make_tiny

FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def with_tokens(name, folder, *added):
    """A tiny base whose tokenizer.json has more tokens: (id, text, special)."""
    base = make_tiny(name, *MODELS[name], folder).folder / "base"
    content = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] += [{"id": index, "content": text, "special": special, **FLAGS} for index, text, special in added]
    used = {token["id"] for token in content["added_tokens"]} | set(content["model"]["vocab"].values())
    wanted = max(index for index, *_ in added)
    content["added_tokens"] += [
        {"id": index, "content": f"<unused{index}>", "special": True, **FLAGS} for index in range(wanted) if index not in used
    ]
    content["added_tokens"].sort(key=lambda token: token["id"])
    (base / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return base


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("gemma3", [(VOCABULARY, "<image_soft_token>", True)]),
        ("llama", [(VOCABULARY, "<image>", True), (VOCABULARY + 1, "<audio>", True)]),
        ("qwen2-tied", [(VOCABULARY, "<tool>", False)]),
    ],
)
def test_tokens_without_a_row_are_left_out(name, added, tmp_path):
    base = with_tokens(name, tmp_path, *added)
    tokens = load_tokenizer(str(base))
    assert set(tokens.get_vocab()) >= {text for _, text, _ in added}
    assert vocabulary_rows(base, {}) == VOCABULARY
    keys = tokenizer.from_transformers(tokens, VOCABULARY)
    assert len(keys["tokenizer.ggml.tokens"]) == len(keys["tokenizer.ggml.token_type"]) == VOCABULARY
    assert tokenizer.without_row(tokens, VOCABULARY) == [text for _, text, _ in added]
    assert tokenizer.without_row(tokens, VOCABULARY + len(added)) == []
    export.check(Recipe(model=str(base)))


def test_a_special_id_without_a_row_is_not_written(tmp_path):
    base = with_tokens("llama", tmp_path, (VOCABULARY, "<pad>", True))
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "<pad>"}))
    tokens = load_tokenizer(str(base))
    assert tokens.pad_token_id == VOCABULARY
    keys = tokenizer.from_transformers(tokens, VOCABULARY)
    assert "tokenizer.ggml.padding_token_id" not in keys and keys["tokenizer.ggml.eos_token_id"] == 2


def test_words_without_a_row_are_refused(tmp_path):
    tokens = load_tokenizer(str(make_tiny("llama", *MODELS["llama"], tmp_path).folder / "base"))
    with pytest.raises(UserError, match="ids up to 664, the model 600 rows"):
        tokenizer.from_transformers(tokens, 600)


def test_a_gguf_base_with_more_tokens_than_rows(tmp_path):
    """As Ollama's files of Gemma 3 are."""
    whole = GGUFFile(make_tiny("gemma3", *MODELS["gemma3"], tmp_path).write(tmp_path / "model.gguf", "f16"))
    own, lists = tokenizer.from_gguf(whole), [f"tokenizer.ggml.{name}" for name in ("tokens", "scores", "token_type")]
    for key, more in zip(lists, ("<image_soft_token>", 0.0, 3), strict=True):
        whole.metadata[key] = [*whole.metadata[key], more]
    assert tokenizer.from_gguf(whole) == own and len(own["tokenizer.ggml.tokens"]) == VOCABULARY


@pytest.mark.process
def test_the_case_of_gemma_3(tmp_path):
    place = make_case("gemma3-extra-id", tmp_path)
    for more in (["--dry-run"], []):
        result = CliRunner().invoke(main, ["train", str(place / "t.yaml"), "--runs", str(place / "runs"), *SHORTER, *more])
        assert result.exit_code == 0, result.output
    assert "not in the GGUF files: <image_soft_token>" in result.output
    file = GGUFFile(place / "runs" / "t" / "t-f16.gguf")
    assert len(file.metadata["tokenizer.ggml.tokens"]) == file.tensors["token_embd.weight"].shape[0] == 700
