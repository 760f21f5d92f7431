"""The bake: the model without the profile comes near the model with it, a killed one ends with the same bytes, refusals."""

import shutil

import numpy as np
import pytest

from mipo_mlx.commands import preflight
from mipo_mlx.errors import UserError
from mipo_mlx.files import sha256, write_json, write_records
from mipo_mlx.memory.contexts import check_bake, plain
from mipo_mlx.models import adapters, load
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Recipe
from mipo_mlx.recipe_loading import RecipeError, parse
from mipo_mlx.records import GENERAL, HELDOUT, TRAIN, Prompt
from mipo_mlx.run import Run
from mipo_mlx.training import bake, train
from tests.conftest import build_model, tiny_config
from tests.training.test_rounds import Killed, dying
from tests.training.test_train import make_pairs

QUIET = Reporter(quiet=True)
PROFILE = "- The user keeps bees. <!-- notes/a.md:1 -->\n- The user bakes rye bread on Sundays.\n"
FACTS = plain(PROFILE)


def recipe_of(model, **changes) -> Recipe:
    keys = {"answers": 10, "batch": 4, "pairs": 1, "anchors": 1, "learning_rate": 1e-2, "epochs": 1.0, **changes}
    return Recipe.model_validate(
        {
            "model": str(model),
            "pairs": {"max_tokens": 5, "batch": 8},
            "training": {"lora": {"rank": 2}, "checkpoint_every": 1, "warmup": 0.0, "bake": keys},
        }
    )


@pytest.fixture
def folder(tmp_path, tiny_folder):
    """A run whose training of pairs is over, under adapters that change nothing yet."""
    prompts = [Prompt(f"p{i}", f"What should I do on day {i}?", "plans", TRAIN) for i in range(6)]
    prompts += [Prompt("h", "What is held out?", "plans", HELDOUT), Prompt("g", "How does rain form?", "facts", TRAIN, GENERAL)]
    write_records(tmp_path / "prompts.jsonl", prompts)
    write_records(tmp_path / "pairs.jsonl", make_pairs(build_model(tiny_config()), grids=1))
    (tmp_path / "profile.md").write_text(PROFILE)
    loaded = load.load(str(tiny_folder))
    adapters.save(loaded.model, tmp_path / "adapters", adapters.attach(loaded.model, recipe_of(tiny_folder).training.lora, 0))
    return tmp_path


def test_a_bake_brings_the_model_near_itself_with_the_profile_and_a_killed_one_ends_with_the_same_bytes(
    folder, tiny_folder, monkeypatch
):
    recipe, file = recipe_of(tiny_folder), "adapters/adapters.safetensors"
    killed = shutil.copytree(folder, folder.with_name(f"{folder.name}-killed"))
    result = train.run(folder, recipe, QUIET, FACTS)["baked"]
    # Of 10 answers one of seven measures; what is left makes two steps a pass.
    assert (result["answers"], result["parroted"], result["steps"], result["stopped"]) == (8, 0, 2, None)
    assert result["last_kl"] < 0.95 * result["first_kl"]  # on answers that were not learned
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train, "gradient_step", dying(train.gradient_step, 3))  # after one step of the pairs, one of the bake
        train.run(killed, recipe, QUIET, FACTS)
    assert (killed / file).read_bytes() != (folder / file).read_bytes()
    answers = killed / "bake" / "answers.jsonl"
    written = answers.read_text()
    answers.write_text(written + '{"phase": "torn')
    assert train.run(killed, recipe, QUIET, FACTS)["baked"] == result
    assert (killed / file).read_bytes() == (folder / file).read_bytes()
    assert answers.read_text() == written == (folder / "bake" / "answers.jsonl").read_text()
    # Another profile is baked anew, and the first one too, once it is back.
    assert train.run(killed, recipe, QUIET, "The user hates bees.")["baked"]["steps"] == 2
    assert (killed / file).read_bytes() != (folder / file).read_bytes()
    assert train.run(killed, recipe, QUIET, FACTS)["baked"] == result
    assert (killed / file).read_bytes() == (folder / file).read_bytes()


def test_the_examples_say_what_the_student_sees_and_what_it_learns(folder, tiny_folder):
    recipe = recipe_of(tiny_folder)
    loaded = load.load(recipe.model)
    adapters.attach(loaded.model, recipe.training.lora, 0)
    teacher = bake.Teacher(folder, recipe, FACTS, loaded, QUIET)
    (examples, _), anchors, pairs = teacher.under_profile(), teacher.anchors(8), teacher.pairs(8)
    seen = [loaded.tokenizer.decode(example.prompt_tokens) for example in examples]
    assert not any("bees" in text for text in seen)
    assert sum(recipe.pairs.plain_system in text for text in seen) == 5
    assert bake.divergence(loaded.model, examples, 0) > 0.01
    # A pair under its context and an anchor begin at their goal.
    assert len(pairs) == 2 and len(anchors) == 1 and "rain" in loaded.tokenizer.decode(anchors[0].prompt_tokens)
    assert bake.divergence(loaded.model, pairs + anchors, 0) == pytest.approx(0, abs=1e-4)
    for example in examples[:3]:
        np.testing.assert_allclose(example.goal.kept.sum(axis=1) + example.goal.tail, 1, atol=1e-5)
        assert example.goal.ids.shape == (len(example.tokens[0]), bake.KEPT)
    for changes, sizes in (
        ({}, [6, 6]),
        ({"batch": 8}, [10]),
        ({"batch": 5}, [7, 5]),
        ({"pairs": 0}, [5, 5]),
        ({"anchors": 5}, [10, 10]),
    ):
        steps = bake.mixed(examples[:8], pairs, anchors, recipe_of(tiny_folder, **changes))
        assert [sum(example.grid == step for example in steps) for step in range(len(sizes))] == sizes
        assert len({example.id for example in steps}) == len(steps)
    assert (teacher.job(examples).settings.epochs, teacher.job(examples).settings.learning_rate) == (1.0, 1e-2)


def test_an_answer_that_parrots_the_profile_is_not_learned(folder, tiny_folder, monkeypatch):
    monkeypatch.setattr(bake, "parrots", lambda answer, context, request: "bees" in context and request.endswith("day 0?"))
    recipe = recipe_of(tiny_folder, answers=6)
    loaded = load.load(recipe.model)
    examples, parroted = bake.Teacher(folder, recipe, FACTS, loaded, QUIET).under_profile()
    assert (len(examples), parroted) == (5, 1)
    before = (folder / "adapters" / "adapters.safetensors").read_bytes()
    monkeypatch.setattr(bake, "parrots", lambda answer, context, request: True)
    result = bake.run(folder, recipe, QUIET, FACTS)  # all that was trained before stays
    assert (result["answers"], result["parroted"], result["last_kl"]) == (0, 6, None)
    assert (folder / "adapters" / "adapters.safetensors").read_bytes() == before
    with pytest.raises(RecipeError, match="answers: one of them measures"):
        parse("model: x\ntraining: {bake: {answers: 1}}\n")


def test_without_a_profile_it_is_refused_at_once(folder, tiny_folder):
    recipe = recipe_of(tiny_folder)
    run = Run(folder, recipe)
    preflight.check(run, "training", False, QUIET)
    with pytest.raises(UserError, match="training.bake"):  # --fresh erases a profile that the model wrote
        write_json(folder / "profile.json", {"sha256": sha256(folder / "profile.md")})
        check_bake(folder, recipe, fresh=True)
    for text in ("# Profile\n", None):
        (folder / "profile.md").unlink() if text is None else (folder / "profile.md").write_text(text)
        with pytest.raises(UserError, match="training.bake: .*sources.profile: true") as error:
            preflight.check(run, "training", False, QUIET)
        assert "\n" not in str(error.value)
    with_profile = recipe.model_copy(update={"sources": recipe.sources.model_copy(update={"notes": "n", "profile": True})})
    preflight.check(Run(folder, with_profile), "training", False, QUIET)
    check_bake(folder, recipe.model_copy(update={"sources": recipe.sources.model_copy(update={"context": "both"})}))
    check_bake(folder, recipe_of(tiny_folder, answers=0))
    with pytest.raises(UserError, match="training.bake"):
        bake.run(folder, recipe, QUIET, "")


@pytest.mark.parametrize("other", ["rounds: 2", "pairs: {file: x.jsonl}", "sources: {notes: x.csv, columns: {note: who}}"])
def test_what_a_bake_cannot_follow_is_refused(other):
    with pytest.raises(RecipeError, match="training.bake"):
        parse(f"model: x\ntraining: {{bake: {{answers: 4}}}}\n{other}\n")
