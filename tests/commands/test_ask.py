"""`mipo-mlx ask`: one answer, the passages that went with the question, and a memory that is made at first use."""

import shutil
from pathlib import Path

from click.testing import CliRunner

from mipo_mlx.cli import main
from mipo_mlx.memory import reranker
from mipo_mlx.memory.access import embedder_of, open_memory
from mipo_mlx.memory.contexts import INDEX
from mipo_mlx.memory.retrieve import Memory
from mipo_mlx.models import embedding
from mipo_mlx.models.load import LoadedModel, load
from mipo_mlx.models.word_vectors import WordVectors
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Recipe
from mipo_mlx.run import erase, existing_run
from mipo_mlx.serving.assistant import Assistant

from .test_chat import COOK, SOUP, prompts, trained, with_notes

__all__ = ["prompts", "trained", "with_notes"]


def ask(folder, question: str, *options: str, expect: int = 0) -> str:
    arguments = ["ask", str(folder), question, "--temperature", "0", "--max-tokens", "6", *options]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == expect, result.output
    return result.stdout if expect == 0 else result.output


def test_it_prints_the_answer_alone(with_notes, prompts):
    answer = ask(with_notes, COOK)
    assert answer.strip() and "soup.md" not in answer
    history, background = prompts[0]
    assert history == [{"role": "user", "content": COOK}] and background.system == f"About the user: {SOUP}"
    assert ask(with_notes, COOK, "--no-notes") != answer


def test_answers_are_sampled_as_in_evaluation(with_notes, monkeypatch):
    used = []
    monkeypatch.setattr(Assistant, "answer", lambda self, *_: used.append(self.temperature))
    for more in ((), ("--temperature", "0")):
        assert CliRunner().invoke(main, ["ask", str(with_notes), COOK, *more]).exit_code == 0
    assert used == [existing_run(with_notes, with_notes.parent).recipe.pairs.temperature, 0] and used[0] > 0


def test_the_recipe_says_how_many_passages_go_with_a_question(with_notes, monkeypatch):
    asked, search = [], Memory.search
    monkeypatch.setattr(Memory, "search", lambda self, question, most: asked.append(most) or search(self, question, most))
    recipe = (with_notes / "recipe.yaml").read_text()
    for shares in ("auto", "[1]", "[1, 1]"):
        (with_notes / "recipe.yaml").write_text(recipe.replace("distractors: auto", f"distractors: {shares}"))
        ask(with_notes, COOK)
    assert asked == [3, 1, 2]


def test_an_answer_steers_no_terminal(with_notes, monkeypatch):
    hostile = "\x1b]0;owned\x07A \x1b[31mred\x1b[0m day"
    monkeypatch.setattr(Assistant, "answer", lambda self, prompt, side, show: show(hostile))
    assert ask(with_notes, COOK) == "A red day\n"


def test_show_names_file_line_and_score(with_notes):
    shown = ask(with_notes, COOK, "--show").splitlines()
    score, place, text = shown[1].split("  ")
    assert shown[0] == "profile: none" and 0.1 < float(score) < 1 and place == "soup.md:3" and SOUP.startswith(text[:-4])
    assert "notes: none fits; the nearest is" in ask(
        with_notes, "Explain the knee of a curve in a plot of a turbulent flow.", "--show"
    )
    assert "no passage has a word" in ask(with_notes, "Navier-Stokes?", "--show")
    assert ask(with_notes, COOK, "--show", "--no-notes").splitlines()[1] == "notes: none"


def test_the_base_answers_beside_it(with_notes):
    tuned, base = ask(with_notes, COOK, "--base").split("[trained] ")[1].split("[base] ")
    assert tuned.strip() != base.strip()


def test_memory_is_made_at_first_use_follows_the_notes_and_goes_with_the_run(with_notes, tmp_path):
    assert not (with_notes / INDEX).exists()
    ask(with_notes, COOK)
    assert (with_notes / INDEX).exists()
    (tmp_path / "notes" / "soup.md").write_text("# Soup\n\nI gave up soup, and Thursday is for cooking rice now.\n")
    assert "rice now" in ask(with_notes, COOK, "--show")
    erase(with_notes)
    assert not (with_notes / INDEX).exists()


def test_a_run_whose_notes_are_gone_says_so_and_answers(with_notes, tmp_path):
    ask(with_notes, COOK)
    shutil.rmtree(tmp_path / "notes")
    shown = CliRunner().invoke(main, ["ask", str(with_notes), COOK, "--show", "--max-tokens", "2"])
    assert shown.exit_code == 0 and "remembered as they were" in shown.stderr and "soup.md:3" in shown.stdout


def test_a_run_without_notes_answers(trained):
    assert ask(trained, COOK, "--show").splitlines()[1] == "notes: none"


def test_a_run_that_is_not_there(tmp_path):
    assert "no such run" in ask(tmp_path / "none", COOK, expect=2)


def test_the_recipe_turns_the_second_look_off(with_notes):
    run = existing_run(with_notes, Path())
    loaded = load(run.recipe.model)
    assert open_memory(run.folder, run.recipe, loaded, Reporter(quiet=True)).reranker is None
    run.recipe = run.recipe.model_copy(
        update={"memory": Recipe(model="any").memory.model_copy(update={"embedder": "words", "second_look": True})}
    )
    assert open_memory(run.folder, run.recipe, loaded, Reporter(quiet=True)).reranker.most == reranker.MOST


def test_the_recipe_names_the_embedder(tiny_model, tiny_tokenizer, tmp_path):
    loaded = LoadedModel(tiny_model, tiny_tokenizer, {}, "tiny", tmp_path)

    def named(name: str):
        return embedder_of(Recipe(model="tiny", memory={"embedder": name}), loaded)

    assert named("words") is None and isinstance(named("base"), WordVectors)
    assert isinstance(named("auto"), WordVectors if embedding.installed() is None else embedding.MiniLM)
