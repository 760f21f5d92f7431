"""The SFT baseline: the same base, pairs (of several rounds: the first's), steps, adapters and learning rate, but trained on the
chosen answers alone.

Training and evaluation do not know each other; this trains with the one what the other compares with, before
`mipo-mlx eval RUN --baselines`. The adapters stay in the run's folder, so an evaluation that was killed or is repeated finds them.
"""

import hashlib
import shutil
from pathlib import Path

from .files import dump, read_json, sha256, write_json
from .progress import Reporter
from .recipe import Recipe

FOLDER = "sft"


def settings(recipe: Recipe) -> Recipe:
    """The run's recipe with the other objective. Stop rules would end it at another step than the run; what belongs to the
    contrast or to the look of the run (label smoothing, a second likelihood term, loggers) goes."""
    changed = {
        "objective": "sft", "label_smoothing": 0.0, "nll_weight": 0.0, "max_kl": None, "min_chosen_reward": None, "loggers": [],
    }  # fmt: skip
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changed), "rounds": 1})


def prepare(folder: Path, recipe: Recipe, reporter: Reporter) -> None:
    """Leave the baseline's adapters in `folder`/sft/adapters; training continues where it stopped, and a finished one is kept.
    Other pairs or another recipe start it over."""
    from .training import stage

    trained = settings(recipe)
    into = folder / FOLDER
    described = {"model": recipe.model, "seed": recipe.seed, "training": trained.training.model_dump(mode="json")}
    key = hashlib.sha256(dump({**described, "pairs": sha256(folder / "pairs.jsonl")}).encode()).hexdigest()
    kept = into / "key.json"
    if not kept.exists() or read_json(kept) != key:
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir()
        write_json(kept, key)
    if (into / "adapters" / "adapter_config.json").exists():  # written last
        return
    reporter.say("  training the SFT baseline on the chosen answers; it is kept")
    stage.fit(folder, into, trained, reporter)
