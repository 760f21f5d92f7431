"""Prompts from the notes: which questions are kept, on which side, and that a killed run writes the same ones."""

from dataclasses import replace

import numpy as np
import pytest

from mipo_mlx.files import read_records, write_records
from mipo_mlx.models.load import LoadedModel
from mipo_mlx.pairs import make, own_prompts
from mipo_mlx.pairs.own_prompts import add_questions, pmi_with_note, tidy, unfit
from mipo_mlx.records import HELDOUT, TRAIN, Answer, Prompt

from .helpers import QUIET, fill, make_recipe

NOTE = "I keep bees in Lisbon and my knees hurt since 1999."
GOOD = "How can I make my mornings less of a rush?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('1. "How do I sleep better?"\nBecause ...', "How do I sleep better?"),
        ("**Question: What is for lunch?**", "Question: What is for lunch?"),
        ("Question: What is for lunch?", "What is for lunch?"),
        ("\n\n- What now, really?", "What now, really?"),
        ("", ""),
    ],
)
def test_tidy(text, expected):
    assert tidy(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, None),
        ("Make my mornings less of a rush.", "no_question"),
        ("Why? And how do I sleep?", "no_question"),
        ("Why so?", "no_question"),
        ("How long is " + "very " * 30 + "long?", "no_question"),
        ("What does the author of this text like?", "speaks_of_note"),
        ("What should I see in Lisbon?", "gives_note_away"),
        ("What happened in the year 1999?", "gives_note_away"),
        ("How do bees live in a city?", None),
        ("Since I keep bees in winter, what now?", "gives_note_away"),
        ("How do I plan my week?", "duplicate"),
    ],
)
def test_unfit(text, reason):
    assert unfit(text, NOTE, ["How do I plan my week?"]) == reason


def test_pmi_with_note():
    scores = np.log([[0.4, 0.1], [0.1, 0.1], [0.1, 0.1]])
    assert pmi_with_note(scores, 0) == pytest.approx(np.log(4)) and pmi_with_note(scores[:, [1, 1]], 1) == pytest.approx(0)


@pytest.fixture
def written(monkeypatch):
    """The model writes numbered questions; every fifth is no question, and those of the first note of a group are given away."""
    texts = [f"What is number {word} of {word} all about?" for word in ("one two three four five six seven eight nine ten".split())]
    texts += [f"How would {word} {word} help me on Sunday?" for word in ("tea rain maps chess soup fog dust salt glue wax".split())]

    def write(model, tokenizer, rows, settings, key):
        rng = np.random.default_rng(key % 2**32)
        picked = rng.permutation(len(texts))[: len(rows)]
        return [Answer("Nothing." if i % 5 == 4 else texts[p], [1, 2], "stop") for i, p in enumerate(picked)]

    def score(model, grids):
        return [[[-9.0 if i == j == 0 else -20.0 for j in range(len(rows))] for i in range(len(rows))] for rows, _ in grids]

    monkeypatch.setattr(own_prompts, "sample", write)
    monkeypatch.setattr(own_prompts, "score_grids", score)


def test_questions_join_the_bank_on_the_side_of_their_note(written, tiny_tokenizer, tmp_path):
    recipe = make_recipe(own_prompts=4)
    folder = fill(tmp_path)
    bank = read_records(folder / "prompts.jsonl", Prompt)
    assert add_questions(folder, recipe, LoadedModel(None, tiny_tokenizer, {}, "tiny", tmp_path), QUIET)
    prompts = read_records(folder / "prompts.jsonl", Prompt)
    own = prompts[len(bank) :]
    assert prompts[: len(bank)] == bank and {prompt.topic for prompt in own} == {"notes"}
    assert sum(prompt.split == TRAIN for prompt in own) == 3 and sum(prompt.split == HELDOUT for prompt in own) == 1
    assert all(prompt.text.endswith("?") for prompt in own) and len({prompt.text for prompt in own}) == 4
    before = (folder / "prompts.jsonl").read_bytes()
    assert not add_questions(folder, recipe, LoadedModel(None, tiny_tokenizer, {}, "tiny", tmp_path), QUIET)  # once
    assert (folder / "prompts.jsonl").read_bytes() == before


def test_a_topic_of_the_users_own_called_notes_keeps_none_from_being_written(written, tiny_tokenizer, tmp_path):
    folder = fill(tmp_path)
    bank = [replace(prompt, topic="notes") for prompt in read_records(folder / "prompts.jsonl", Prompt)]
    write_records(folder / "prompts.jsonl", bank)
    assert add_questions(folder, make_recipe(own_prompts=4), LoadedModel(None, tiny_tokenizer, {}, "tiny", tmp_path), QUIET)
    assert len(read_records(folder / "prompts.jsonl", Prompt)) == len(bank) + 4


def test_the_stage_asks_them(tiny_folder, tmp_path, monkeypatch):
    """Questions of the tiny model are noise: all are taken here, and the run is the same when killed right after them."""
    monkeypatch.setattr(own_prompts, "unfit", lambda text, note, others: None if text.strip() else "no_question")
    monkeypatch.setattr(own_prompts, "MOST_NATS", 1e6)
    recipe = make_recipe(tiny_folder, own_prompts=4)
    make.run(fill(tmp_path / "whole"), recipe, QUIET)
    own = [p.id for p in read_records(tmp_path / "whole" / "prompts.jsonl", Prompt) if p.topic == "notes"]
    assert own
    samples = (tmp_path / "whole" / "samples.jsonl").read_text()
    assert any(f'"prompt": "{name}"' in samples for name in own)
    folder = fill(tmp_path / "killed")
    with monkeypatch.context() as patch:
        patch.setattr(make, "sample_grids", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make.run(folder, recipe, QUIET)
    make.run(folder, recipe, QUIET)
    for name in ("prompts.jsonl", "samples.jsonl", "pairs.jsonl"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
