"""Pairs made elsewhere: strings, messages, implicit prompts, several negatives; errors name file and line."""

import json

import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.models import chat
from mipo_mlx.pairs.import_pairs import import_pairs, written_end
from mipo_mlx.records import HELDOUT, TRAIN, Pair, write_records

USER = [{"role": "user", "content": "What should I cook tonight?"}]
GOOD = {"prompt": "What should I cook tonight?", "chosen": "Bake bread.", "rejected": "Play waltzes."}


def said(text):
    return [{"role": "assistant", "content": text}]


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        {"prompt": USER, "chosen": said("Bake bread."), "rejected": said("Play waltzes.")},
        {"chosen": USER + said("Bake bread."), "rejected": USER + said("Play waltzes.")},
    ],
    ids=["strings", "messages", "implicit prompt"],
)
def test_all_shapes_mean_the_same(row, tiny_model, tiny_tokenizer, tmp_path):
    (pair,) = import_pairs(write(tmp_path / "p.jsonl", row), tiny_tokenizer, tiny_model)
    assert (pair.prompt, pair.chosen, pair.rejected) == (USER, said("Bake bread."), said("Play waltzes."))
    assert pair.negatives == ["Play waltzes."]
    assert pair.prompt_tokens == chat.encode(tiny_tokenizer, USER)
    assert [tiny_tokenizer.decode(tokens) for tokens in pair.tokens] == ["Bake bread.<|im_end|>", "Play waltzes.<|im_end|>"]
    assert (pair.split, pair.grid, pair.source.endswith("p.jsonl"), pair.line) == (TRAIN, 0, True, 1)


def test_reference_is_the_models_own(tiny_model, tiny_tokenizer, tmp_path):
    (pair,) = import_pairs(write(tmp_path / "p.jsonl", GOOD), tiny_tokenizer, tiny_model)
    for tokens, reference in zip(pair.tokens, pair.reference, strict=True):
        row = pair.prompt_tokens + tokens
        logits = np.array(tiny_model(mx.array([row[:-1]]))[0], dtype=np.float64)[len(pair.prompt_tokens) - 1 :]
        logps = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        assert reference == pytest.approx(sum(logps[i, token] for i, token in enumerate(tokens)), abs=1e-3)


def test_several_negatives_grids_and_splits(tiny_model, tiny_tokenizer, tmp_path):
    rows = [{**GOOD, "rejected": ["Play waltzes.", "Run."], "grid": 7}, {**GOOD, "grid": 7, "split": "heldout"}, GOOD]
    pairs = import_pairs(write(tmp_path / "p.jsonl", *rows), tiny_tokenizer, tiny_model)
    assert [len(pair.tokens) for pair in pairs] == [3, 2, 2]
    assert [pair.grid for pair in pairs] == [7, 7, 2]
    assert [pair.split for pair in pairs] == [TRAIN, HELDOUT, TRAIN]


def test_own_pairs_come_back(tiny_model, tiny_tokenizer, tmp_path):
    pairs = import_pairs(write(tmp_path / "p.jsonl", GOOD, {**GOOD, "chosen": "Soup."}), tiny_tokenizer, tiny_model)
    write_records(tmp_path / "again.jsonl", pairs)
    again = import_pairs(tmp_path / "again.jsonl", tiny_tokenizer, tiny_model)
    assert [(p.prompt, p.chosen, p.rejected, p.tokens, p.reference) for p in again] == [
        (p.prompt, p.chosen, p.rejected, p.tokens, p.reference) for p in pairs
    ]


def test_the_end_is_the_templates_own(tiny_tokenizer):
    assert written_end(tiny_tokenizer) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{broken", "not JSON"),
        ("[1]", "expected an object with prompt, chosen and rejected"),
        ({"prompt": "a", "chosen": "b"}, "expected an object with prompt, chosen and rejected"),
        ({**GOOD, "prompt": 3}, "prompt: expected a string or a list of chat messages"),
        ({**GOOD, "rejected": [{"role": "assistant"}]}, "rejected: expected a string or a list of chat messages"),
        ({**GOOD, "rejected": []}, "rejected: expected a string or a list of chat messages"),
        ({**GOOD, "chosen": " "}, "chosen: expected one assistant message with text"),
        ({**GOOD, "chosen": USER}, "chosen: expected one assistant message with text"),
        ({**GOOD, "rejected": GOOD["chosen"]}, "chosen and rejected are the same text"),
        ({"chosen": said("a"), "rejected": said("b")}, "no prompt, and chosen and rejected do not begin with the same"),
        ({**GOOD, "split": "test"}, "split: expected train, validation or heldout"),
        ({**GOOD, "grid": "a"}, "grid: expected a whole number"),
    ],
)
def test_errors_name_file_and_line(row, message, tiny_model, tiny_tokenizer, tmp_path):
    path = write(tmp_path / "p.jsonl", GOOD, "", row)
    with pytest.raises(UserError, match=rf"p\.jsonl:3: .*{message}"):
        import_pairs(path, tiny_tokenizer, tiny_model)


def test_missing_and_empty_files(tiny_model, tiny_tokenizer, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        import_pairs(tmp_path / "none.jsonl", tiny_tokenizer, tiny_model)
    with pytest.raises(UserError, match="no pairs in this file"):
        import_pairs(write(tmp_path / "p.jsonl", ""), tiny_tokenizer, tiny_model)


def test_ids_are_kept(tiny_model, tiny_tokenizer, tmp_path):
    pairs = import_pairs(write(tmp_path / "p.jsonl", {**GOOD, "id": "x-1"}), tiny_tokenizer, tiny_model)
    assert isinstance(pairs[0], Pair) and pairs[0].id == "x-1"
