"""`mipo-mlx chat`: which text `--context` finds, what the model is told, and both models side by side."""

import importlib
from unicodedata import normalize

import pytest
from click.testing import CliRunner

from mipo_mlx.cli import main
from mipo_mlx.commands import chat
from mipo_mlx.errors import UserError
from mipo_mlx.files import write_json, write_records
from mipo_mlx.models import load
from mipo_mlx.recipe import Recipe
from mipo_mlx.recipe_loading import dump
from mipo_mlx.records import TRAIN, Context
from mipo_mlx.run import STAGES
from tests.evaluation import helpers

PLAIN = Recipe(model="any")


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    """A run whose training is done, with adapters that change every answer."""
    recipe = helpers.recipe(tiny_folder)
    folder = helpers.make_run(tmp_path_factory.mktemp("runs") / "one", recipe, spread=0.5)
    (folder / "recipe.yaml").write_text(dump(recipe))
    (folder / "metrics.jsonl").write_text("")
    write_json(folder / "manifest.json", {"stages": {"training": {"state": "done"}}})
    assert all((folder / name).exists() for name in STAGES["training"].writes)
    return folder


def talk(folder, *options: str, lines: str, expect: int = 0) -> str:
    told = CliRunner().invoke(main, ["chat", str(folder), "--temperature", "0", "--max-tokens", "6", *options], input=lines)
    assert told.exit_code == expect, told.output
    return told.output


def test_the_tuned_model_answers_and_the_base_beside_it(trained):
    both = talk(trained, "--base", lines="Who am I?\n")
    assert both.index("[tuned]") < both.index("[base]")
    tuned, base = both.split("[tuned] ")[1].split("[base] ")
    assert tuned.strip() != base.strip()
    alone = talk(trained, lines="Who am I?\n")
    assert alone.strip() == tuned.strip()


def test_a_context_changes_the_answer_and_reaches_the_system_message(trained, monkeypatch):
    seen = []
    real = chat._fit

    def spy(tokenizer, history, *rest):
        seen.append(list(history))
        return real(tokenizer, history, *rest)

    monkeypatch.setattr(chat, "_fit", spy)
    told = talk(trained, "--context", "n1.md", lines="Who am I?\nAnd now?\n")
    assert seen[0][0] == {"role": "system", "content": "About the user: I bake bread."}
    assert [message["role"] for message in seen[1]] == ["system", "user", "assistant", "user"]
    assert told != talk(trained, lines="Who am I?\nAnd now?\n")


@pytest.mark.parametrize("name", ["c2", "n2", "n2.md", "N2.M"])
def test_a_context_is_found_by_its_id_its_note_or_a_part_of_its_file(trained, name):
    assert chat.find_context(trained, PLAIN, name) == "I learn Portuguese."


def test_a_name_is_found_whichever_way_its_letters_are_written(tmp_path):
    written = [Context("c0", "I get up early.", "n", normalize("NFD", "B\u00e4ckerei.md"), 1, TRAIN, 5)]
    write_records(tmp_path / "contexts.jsonl", written)
    for form in ("NFC", "NFD"):
        assert chat.find_context(tmp_path, PLAIN, normalize(form, "b\u00e4ckerei")) == "I get up early."


def test_a_context_that_is_not_there_ends_in_one_line(trained, tmp_path):
    with pytest.raises(UserError, match="no such file, and no note of this run has that name; there are n0.md, n1.md"):
        chat.find_context(trained, PLAIN, "nobody")
    with pytest.raises(UserError, match="more than one note has that in its name: n0.md, n1.md"):
        chat.find_context(trained, PLAIN, ".md")
    with pytest.raises(UserError, match="the run keeps no notes"):
        chat.find_context(tmp_path, PLAIN, "nobody")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\0\0")
    for name, told in (("empty.txt", "empty"), ("photo.jpg", "not text")):
        with pytest.raises(UserError, match=f"{told}; expected a text file"):
            chat.find_context(tmp_path, PLAIN, str(tmp_path / name))
    assert "no note of this run" in talk(trained, "--context", "nobody", lines="Hi\n", expect=2)


def test_a_talk_that_outgrows_the_window_loses_its_oldest_turns(tiny_folder):
    tokenizer = load.load_tokenizer(str(tiny_folder))
    told = {"role": "system", "content": "About the user: I keep bees."}
    turns = [{"role": role, "content": f"{role} {n} " * 5} for n in range(4) for role in ("user", "assistant")][:-1]
    history = [told, *turns]
    whole = len(chat._fit(tokenizer, list(history), 1, None))
    kept = chat._fit(tokenizer, history, 1, whole - 1)
    assert len(kept) < whole and history[0] == told and history[1:] == turns[2:]
    with pytest.raises(UserError, match="fit into the model's window beside the answer; shorten them"):
        chat._fit(tokenizer, history, 1, 5)


def test_an_interrupted_answer_is_cut_short_and_the_talk_goes_on(trained, monkeypatch):
    module = importlib.import_module("mlx_lm.generate")  # the package has a function of that name too
    real, calls = module.stream_generate, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        yield from real(*args, **kwargs)

    monkeypatch.setattr(module, "stream_generate", interrupted)
    told = talk(trained, lines="Who am I?\nAnd now?\n")
    assert len(calls) == 2 and told.startswith(" ...\n") and len(told.strip().splitlines()) == 2
