"""`mipo-mlx chat`: which text `--context` names, what the model is told, both models side by side, and the commands of a talk."""

import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from unicodedata import normalize

import pytest
from click.testing import CliRunner

from mipo_mlx.cli import main
from mipo_mlx.commands import chat
from mipo_mlx.errors import UserError
from mipo_mlx.files import write_json, write_records
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Recipe
from mipo_mlx.recipe_loading import dump
from mipo_mlx.records import TRAIN, Context
from mipo_mlx.run import STAGES, existing_run
from mipo_mlx.serving.assistant import AnswerOptions, Assistant, Background, NamedContext
from tests.evaluation import helpers

PLAIN = Recipe(model="any")
NOTES = {
    "bees.md": "# Bees\n\nI keep two hives on the flat roof of the bakery and I harvest honey in August.\n",
    "soup.md": "# Soup\n\nEvery Thursday I cook one enormous pot of soup for whoever comes to the house.\n",
    "knee.md": "# Knee\n\nI tore the cartilage in my right knee and had an operation on it last spring.\n",
    "choir.md": "# Choir\n\nOn Wednesday nights I sing alto in a chorus of forty people near the harbour.\n",
}
SOUP = "Soup. Every Thursday I cook one enormous pot of soup for whoever comes to the house."
COOK = "Who comes when I cook soup on Thursday?"


def finish_training(folder: Path, recipe: Recipe) -> Path:
    """Adapters that change every answer, in a run whose training is done."""
    helpers.make_run(folder, recipe, spread=0.5)
    (folder / "recipe.yaml").write_text(dump(recipe))
    (folder / "metrics.jsonl").write_text("")
    write_json(folder / "manifest.json", {"stages": {"training": {"state": "done"}}})
    assert all((folder / name).exists() for name in STAGES["training"].writes)
    return folder


def run_with_notes(folder: Path, model: Path) -> Path:
    """A trained run beside its notes. Words alone find them: the tiny model's vectors and looks mean nothing."""
    for name, text in NOTES.items():
        (folder / "notes").mkdir(exist_ok=True)
        (folder / "notes" / name).write_text(text)
    recipe = helpers.recipe(model)
    values = {**recipe.model_dump(), "memory": {"embedder": "words", "second_look": False}}
    values["sources"] |= {"notes": str(folder / "notes"), "min_tokens": 4}
    return finish_training(folder / "runs" / "mine", Recipe.model_validate(values))


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory) -> Path:
    """A run without notes."""
    return finish_training(tmp_path_factory.mktemp("runs") / "one", helpers.recipe(tiny_folder))


@pytest.fixture
def with_notes(tiny_folder, tmp_path) -> Path:
    return run_with_notes(tmp_path, tiny_folder)


def talk(folder, *options: str, lines: str, expect: int = 0) -> str:
    result = CliRunner().invoke(main, ["chat", str(folder), "--temperature", "0", "--max-tokens", "6", *options], input=lines)
    assert result.exit_code == expect, result.output
    return result.stdout if expect == 0 else result.output


@pytest.fixture
def prompts(monkeypatch) -> list:
    """The talks and backgrounds that answers are asked with."""
    seen: list = []
    real = Assistant.prompt

    def spy(self, history, background):
        seen.append((list(history), background))
        return real(self, history, background)

    monkeypatch.setattr(Assistant, "prompt", spy)
    return seen


def test_the_trained_model_answers_and_the_base_beside_it(trained):
    both = talk(trained, "--base", lines="Who am I?\n")
    assert both.index("[trained]") < both.index("[base]")
    tuned, base = both.split("[trained] ")[1].split("[base] ")
    assert tuned.strip() != base.strip()
    alone = talk(trained, lines="Who am I?\n")
    assert alone.strip() == tuned.strip()


def test_without_a_context_the_model_gets_the_plain_system_message(trained, prompts):
    talk(trained, lines="Who am I?\n")
    assert prompts[0][1] == Background("Answer.")


def test_a_context_changes_the_answer_and_reaches_the_system_message(trained, prompts):
    answer = talk(trained, "--context", "n1.md", lines="Who am I?\nAnd now?\n")
    assert prompts[0][1].system == "About the user: I bake bread."
    assert [message["role"] for message in prompts[1][0]] == ["user", "assistant", "user"]
    assert answer != talk(trained, lines="Who am I?\nAnd now?\n")


def test_a_fitting_note_goes_with_the_question_and_is_named(with_notes, prompts):
    shown = talk(with_notes, lines=f"{COOK}\nExplain the Navier-Stokes equation.\n")
    assert prompts[0][1].system == f"About the user: {SOUP}"
    assert shown.count("[soup.md:3]") == 1 and prompts[1][1] == Background("Answer.")


def test_without_notes_and_with_a_profile(with_notes, prompts):
    (with_notes / "profile.md").write_text("- The user keeps bees.\n")
    assert "[" not in talk(with_notes, "--no-notes", lines=f"{COOK}\n")
    profile = "You are a helpful assistant. These are facts about the user:\nThe user keeps bees.\nMake each answer fit this user."
    assert prompts[0][1].system == profile
    talk(with_notes, lines=f"{COOK}\n")
    assert prompts[1][1].system == f"These are facts about the user:\nThe user keeps bees.\n\nAbout the user: {SOUP}"


def test_the_commands_of_a_talk(with_notes, tmp_path):
    (with_notes / "profile.md").write_text("- The user keeps bees.\n")
    saved = tmp_path / "talk.md"
    lines = [
        "/why",
        "/notes",
        COOK,
        "/why",
        "/notes",
        "/profile",
        f"/save {saved}",
        "/save /dev/null/x.md",
        "/help",
        "/nothing",
        "/quit",
        COOK,
    ]
    shown = talk(with_notes, lines="\n".join(lines) + "\n")
    assert shown.count("nothing was asked yet") == 2
    assert f"The user keeps bees.\n\nAbout the user: {SOUP}" in shown  # /why
    assert f"\n{SOUP}\n" in shown  # /notes
    assert shown.count("[soup.md:3]") == 2  # once behind the answer, once by /notes: nothing is asked after /quit
    assert "/dev/null/x.md: " in shown and "no such command" in shown and "ends the talk" in shown
    text = saved.read_text()
    assert COOK in text and "[soup.md:3]" in text and oct(os.stat(saved).st_mode & 0o777) == "0o600"


def test_questions_of_several_lines(trained, prompts):
    talk(trained, lines='Who am\\\nI?\n"""\nFirst\n\nsecond\n"""\n"""one"""\n')
    assert [history[-1]["content"] for history, _ in prompts] == ["Who am\nI?", "First\n\nsecond", "one"]


def test_an_empty_line_ends_the_talk(trained, prompts):
    talk(trained, lines="Who am I?\n\nAnd now?\n")
    assert len(prompts) == 1


def test_lines_are_kept_privately(tmp_path, monkeypatch):
    """A stand-in for readline, whose import stops a process in the background of a terminal."""
    kept: list[str] = []
    stand_in = SimpleNamespace(
        read_history_file=lambda path: kept.append(path.read_text()),
        write_history_file=lambda path: path.write_text("What could I cook?\n"),
        set_history_length=lambda length: kept.append(str(length)),
    )
    monkeypatch.setitem(sys.modules, "readline", stand_in)
    path = tmp_path / chat.HISTORY
    chat._remember_lines(path)
    chat._keep_lines(path)
    assert oct(os.stat(path).st_mode & 0o777) == "0o600"
    chat._remember_lines(path)
    assert kept == ["1000", "What could I cook?\n", "1000"]


@pytest.mark.parametrize("name", ["c2", "n2", "n2.md", "N2.M"])
def test_a_context_is_found_by_its_id_its_note_or_a_part_of_its_file(trained, name):
    assert chat.find_context(trained, PLAIN, name) == NamedContext(("I learn Portuguese.",))


def test_a_name_is_found_whatever_the_form_of_its_letters(tmp_path):
    names = [normalize(form, "Bücher/Zoé.md") for form in ("NFD", "NFC")]
    for place, source in enumerate(names):
        context = Context(f"c{place}", f"I am {place}.", source, source, 1, TRAIN, 4)
        write_records(tmp_path / "contexts.jsonl", [context])
        for name in (*names, "zoé", normalize("NFD", "ZOÉ")):
            assert chat.find_context(tmp_path, PLAIN, name) == NamedContext((f"I am {place}.",)), (source, name)


def test_a_context_that_is_not_there_ends_in_one_line(trained, tmp_path):
    with pytest.raises(UserError, match="no such file, and no note of this run has that name; there are n0.md, n1.md"):
        chat.find_context(trained, PLAIN, "nobody")
    with pytest.raises(UserError, match="more than one note has that in its name: n0.md, n1.md"):
        chat.find_context(trained, PLAIN, ".md")
    with pytest.raises(UserError, match="the run keeps no notes"):
        chat.find_context(tmp_path, PLAIN, "nobody")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\0\0")
    for name, why in (("empty.txt", "empty"), ("photo.jpg", "not text")):
        with pytest.raises(UserError, match=f"{why}; expected a text file"):
            chat.find_context(tmp_path, PLAIN, str(tmp_path / name))
    assert "no note of this run" in talk(trained, "--context", "nobody", lines="Hi\n", expect=2)


def test_a_talk_that_outgrows_the_window_loses_its_oldest_turns_then_passages(with_notes):
    assistant = Assistant(with_notes, existing_run(with_notes, Path()).recipe, AnswerOptions(), Reporter(quiet=True))
    matches = tuple(assistant.memory.ranked("soup, honey, knee", 2))
    background = assistant._framed(matches)
    turns = [{"role": role, "content": f"{role} {n} " * 5} for n in range(4) for role in ("user", "assistant")][:-1]
    assistant.window = None
    whole = len(assistant.prompt(turns, background)[0])
    assistant.window = whole - 1
    tokens, kept = assistant.prompt(turns, background)
    assert len(tokens) < whole and kept == background
    assert tokens == assistant.prompt(turns[2:], background)[0]
    one = turns[-1:]
    assistant.window = len(assistant.prompt(one, background)[0]) - 1
    _, kept = assistant.prompt(turns, background)
    assert kept.matches == matches[:1] and matches[0].entry.text in kept.system and matches[1].entry.text not in kept.system
    assistant.window = 5
    with pytest.raises(UserError, match="fit into the model's window beside the answer; shorten them"):
        assistant.prompt(turns, background)


def test_an_interrupted_answer_is_cut_short_and_the_talk_goes_on(trained, monkeypatch):
    module = importlib.import_module("mipo_mlx.serving.assistant")
    real, calls = module.stream_generate, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        yield from real(*args, **kwargs)

    monkeypatch.setattr(module, "stream_generate", interrupted)
    shown = talk(trained, lines="Who am I?\nAnd now?\n")
    assert len(calls) == 2 and shown.startswith(" ...\n") and len(shown.strip().splitlines()) == 2
