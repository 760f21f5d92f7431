"""Pairs for other trainers: mlx-lm-lora reads the exported strings, TRL reads pairs.jsonl, and both see the same tokens."""

import json

import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.files import read_records
from mipo_mlx.pairs import make
from mipo_mlx.pairs.exchange import write_strings
from mipo_mlx.records import HELDOUT, TRAIN, VALIDATION, Pair

from .helpers import QUIET, fill, make_recipe


@pytest.fixture(scope="module")
def folder(tiny_folder, tmp_path_factory):
    folder = fill(tmp_path_factory.mktemp("run"))
    make.run(folder, make_recipe(tiny_folder, candidates=3), QUIET)
    return folder


def as_mlx_lm_lora(row, tokenizer):
    """What its DPO data set documents and does: strings under these names, the chat template over them."""
    messages = [{"role": "system", "content": row["system"]}] if "system" in row else []
    messages.append({"role": "user", "content": row["prompt"]})
    whole = [tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": row[k]}]) for k in ("chosen", "rejected")]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True), *whole


def as_trl(row, tokenizer):
    """What its conversational preference format documents: three lists of messages, other columns left alone."""
    prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)
    return prompt, *(tokenizer.apply_chat_template(row["prompt"] + row[k]) for k in ("chosen", "rejected"))


def test_both_readers_see_what_we_train_on(folder, tiny_tokenizer, tmp_path):
    message = write_strings(folder, tmp_path / "strings")
    pairs = read_records(folder / "pairs.jsonl", Pair)
    stored = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    for split, name in ((TRAIN, "train.jsonl"), (VALIDATION, "valid.jsonl"), (HELDOUT, "test.jsonl")):
        rows = [json.loads(line) for line in (tmp_path / "strings" / name).read_text().splitlines()]
        own = [(pair, row) for pair, row in zip(pairs, stored, strict=True) if pair.split == split]
        assert rows and len(rows) == 2 * len(own) and f"{name} ({len(rows)} lines)" in message
        for (pair, row), strings in zip(own, rows[::2], strict=True):
            assert all(isinstance(value, str) for value in strings.values())
            prompt, chosen, rejected = as_mlx_lm_lora(strings, tiny_tokenizer)
            assert (prompt, chosen, rejected) == as_trl(row, tiny_tokenizer)
            assert prompt == pair.prompt_tokens and chosen[: len(prompt)] == prompt
            assert tiny_tokenizer.decode(chosen[len(prompt) :]).startswith(pair.chosen[0]["content"])
        for (pair, _), strings in zip(own, rows[1::2], strict=True):
            assert strings["rejected"] == pair.negatives[1]


def test_turns_that_strings_cannot_hold(folder, tmp_path):
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    row = json.loads((folder / "pairs.jsonl").read_text().splitlines()[0])
    (tmp_path / "pairs.jsonl").write_text(json.dumps({**row, "prompt": turns}) + "\n")
    with pytest.raises(UserError, match=r"pairs\.jsonl:1: the prompt's turns are user, assistant, user"):
        write_strings(tmp_path, tmp_path / "strings")
    assert not (tmp_path / "strings").exists()


def test_a_file_is_no_folder(folder, tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(UserError, match="--export .*x: this is a file"):
        write_strings(folder, tmp_path / "x")
    assert (tmp_path / "x").read_text() == "mine"
