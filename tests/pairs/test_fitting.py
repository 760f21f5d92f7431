"""Prompts are dealt to passages that memory finds for them."""

import pytest
from pydantic import ValidationError

from mipo_mlx.models.load import load
from mipo_mlx.pairs.fitting import fit_of
from mipo_mlx.recipe import Memory
from mipo_mlx.records import Context, Prompt

from .helpers import make_recipe

TEXTS = {
    "bees": "The hive swarmed twice, and the honey is thick this summer.",
    "violin": "My violin lesson moved to Thursday; the bow needs new hair.",
    "garden": "Tomatoes and beans grow along the south wall of the garden.",
    "train": "The night train to Lisbon leaves at nine from platform four.",
}
QUESTIONS = {
    "p0": ("When should I take the honey from the hive?", "bees"),
    "p1": ("How do I prepare for a violin lesson?", "violin"),
    "p2": ("What else could grow beside my tomatoes?", "garden"),
}
CONTEXTS = [Context(f"c-{name}", text, name, "all.md", line, "train", 12) for line, (name, text) in enumerate(TEXTS.items())]
PROMPTS = [Prompt(name, text, "any", "train") for name, (text, _) in QUESTIONS.items()]


@pytest.mark.parametrize("embedder", ["words", "base"])
def test_the_right_passage_fits_best(tiny_folder, embedder):
    recipe = make_recipe(tiny_folder, fitting=0.5).model_copy(update={"memory": Memory(embedder=embedder)})
    fit = fit_of(recipe, CONTEXTS, PROMPTS, load(str(tiny_folder)))
    for prompt in PROMPTS:
        best = max(CONTEXTS, key=lambda context: fit(prompt, context))
        assert embedder == "base" or best.note == QUESTIONS[prompt.id][1]
        assert fit(prompt, best) > min(fit(prompt, context) for context in CONTEXTS)


def test_nothing_is_ranked_where_all_is_dealt_at_random():
    assert fit_of(make_recipe(), CONTEXTS, PROMPTS, None) is None


def test_pairs_of_a_file_have_nothing_to_deal():
    with pytest.raises(ValidationError, match="pairs.fitting"):
        make_recipe(file="pairs.jsonl", fitting=0.5)
