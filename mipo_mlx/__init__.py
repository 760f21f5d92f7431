"""mipo_mlx: personalize a local assistant from its owner's notes, with MIPO on MLX.

The functions below are the library; `examples/train_in_python.py` uses all of them. `import mipo_mlx` loads nothing heavy: each
function imports what it needs. Mistakes raise `errors.UserError` and `recipe_loading.RecipeError`, failures `errors.Failure`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models.load import LoadedModel
    from .recipe import Recipe
    from .records import Context, Grid, Pair, Prompt
    from .run import Run
    from .training.train import Result

__version__ = "0.1.0"
__all__ = ["build_pairs", "load_model", "load_recipe", "run_stage", "score_answers", "train_on_pairs"]


def load_recipe(recipe: Path | str, overrides: Sequence[str] = (), notes: Path | str | None = None) -> "Recipe":
    """A recipe file, or a built-in recipe by its name, with overrides such as "training.beta=0.2".

    notes: a folder or a file in place of sources.notes. Paths in the result are absolute.
    """
    from .recipe_loading import load_recipe

    return load_recipe(recipe, overrides, None if notes is None else str(notes))


def run_stage(recipe: "Recipe", stage: str, folder: Path | str, quiet: bool = True) -> "Run":
    """Do every stage up to `stage` that is not done yet, in the run `folder`; returns the run with its manifest.

    stage: "sources", "pairs", "training", "evaluation", "export" or "report". A run that was interrupted goes on.
    """
    from . import run as runs
    from .progress import Reporter

    folder, reporter = Path(folder), Reporter(quiet)
    run = runs.open_run(recipe, folder.name, folder.parent)
    with runs.locked(run.folder, reporter):
        runs.prepare(run, fresh=False)
        runs.execute(run, stage, reporter)
    return run


def load_model(name: str, adapters: Path | str | None = None) -> "LoadedModel":
    """A model by what a recipe writes under `model`, as .model, .tokenizer and .config; with the adapters of a folder on it."""
    from .models import adapters as lora
    from .models.load import load

    loaded = load(name)
    if adapters is not None:
        lora.load(loaded.model, Path(adapters))
    return loaded


def score_answers(model: "LoadedModel", prompts: list[list[int]], answers: list[list[list[int]]]) -> list[list[float]]:
    """log p(answers[i][j] | prompts[i]), summed over the tokens of an answer, in nats. Prompts and answers are token ids."""
    from .engine.logprobs import token_logprobs, total

    return [[total(tokens) for tokens in row] for row in token_logprobs(model.model, prompts, answers)]


def build_pairs(
    grids: Sequence["Grid"], contexts: Sequence["Context"], prompts: Sequence["Prompt"], recipe: "Recipe", model: "LoadedModel"
) -> list["Pair"]:
    """Pairs of grids that are sampled and scored, with the negatives and filters of `recipe.pairs`; nothing is sampled."""
    from .models.prompts import PromptBuilder, window_of
    from .pairs.build import build

    ask = PromptBuilder(model.tokenizer, recipe.pairs, window_of(model.config, recipe.pairs.max_tokens))
    by_id = {context.id: context for context in contexts}
    return build(list(grids), by_id, {prompt.id: prompt for prompt in prompts}, recipe, ask).pairs


def train_on_pairs(pairs: Sequence["Pair"], recipe: "Recipe", folder: Path | str, quiet: bool = True) -> "Result":
    """Train adapters for `recipe.model` on the pairs of split "train", into folder/adapters.

    Pairs of split "validation" pick the weights that are kept. A training that was interrupted goes on. The result has steps,
    best_step, first_loss and best_loss.
    """
    from .progress import Reporter
    from .training import train

    return train.fit(train.begin(list(pairs), recipe), Path(folder), recipe, train.Watch(Reporter(quiet)))
