"""The SFT baseline: the same base, pairs, steps, adapters and learning rate, but trained on the chosen answers alone; of several
rounds on those that the run's adapters are the result of, one after another, as the run was. Which weights of a round are its
result the validation pairs say, as in the run; whether a round counts is what the run found.

Training and evaluation do not know each other; this trains with the one what the other compares with, before
`mipo-mlx eval RUN --baselines`. The adapters stay in the run's folder, so an evaluation that was killed or is repeated finds them.
"""

import hashlib
import shutil
from pathlib import Path

from . import rounds
from .files import dump, read_json, sha256, write_json
from .progress import Reporter
from .recipe import Recipe

FOLDER = "sft"


def settings(recipe: Recipe, count: int) -> Recipe:
    """The run's recipe of `count` rounds with the other objective. Stop rules would end it at another step than the run; what
    belongs to the contrast or to the look of the run (label smoothing, a second likelihood term, loggers) goes."""
    changed = {
        "objective": "sft", "label_smoothing": 0.0, "nll_weight": 0.0, "max_kl": None, "min_chosen_reward": None, "loggers": [],
    }  # fmt: skip
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changed), "rounds": count})


def prepare(folder: Path, recipe: Recipe, reporter: Reporter) -> None:
    """Leave the baseline's adapters in `folder`/sft/adapters; training continues where it stopped, and a finished one is kept.
    Other pairs or another recipe start it over."""
    from .training import stage
    from .training.loop import Watch

    numbers = rounds.kept(folder)
    trained = settings(recipe, len(numbers))
    into = folder / FOLDER
    described = {"model": recipe.model, "seed": recipe.seed, "training": trained.training.model_dump(mode="json")}
    pairs = [sha256(path) for path in rounds.pair_files(folder)]
    key = hashlib.sha256(dump({**described, "pairs": pairs}).encode()).hexdigest()
    state = into / "state.json"
    known = read_json(state) if state.exists() else {}
    if known.get("key") != key:
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir()
        known = {"key": key, "rounds": 0}
        write_json(state, known)
    for number in numbers[known["rounds"] :]:
        around = f", round {number} of {len(numbers)}" if len(numbers) > 1 else ""
        reporter.say(f"  training the SFT baseline on the chosen answers{around}; it is kept")
        stage.fit(folder, into, trained, Watch(reporter), number)
        if number > 1:  # this round counts, though its contrastive validation loss may say nothing of SFT
            shutil.copytree(into / f"adapters-{number}", into / "adapters", dirs_exist_ok=True)
        write_json(state, {"key": key, "rounds": number})
