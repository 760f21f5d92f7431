"""What each process of test_team.py runs, started with MLX_RANK and MLX_HOSTFILE as mlx.launch does.

    python -m tests.training.ranked gradient FOLDER    # steps of some objectives, and a training's adapters, in npz files
    python -m tests.training.ranked fit FOLDER         # one training of the run in FOLDER, as `mipo-mlx train` does it

With RANKED_LOST="RANK SIGNAL STEP", the process of that rank sends itself the signal at that step of this session.
"""

import os
import signal
import sys
from pathlib import Path

from mipo_mlx import backend

backend.start()

import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from mipo_mlx.commands import together  # noqa: E402
from mipo_mlx.errors import one_line  # noqa: E402
from mipo_mlx.progress import Reporter  # noqa: E402
from mipo_mlx.recipe import Recipe, Training  # noqa: E402
from mipo_mlx.training import heartbeat, team, train  # noqa: E402
from mipo_mlx.training.step import gradient_step  # noqa: E402
from tests.conftest import build_model, tiny_config  # noqa: E402

QUIET = Reporter(quiet=True)
SETTINGS = Training(learning_rate=1e-3, epochs=2.0, checkpoint_every=2, evaluate_every=3, max_kl=None, min_chosen_reward=None)
CASES = [("dpo", 0.0, 3), ("dpo", 0.2, 3), ("infonce_authors", 0.0, 2), ("tilt", 0.0, 1), ("dpo", 0.0, 1)]  # dropout, grids


def steps(pairs, members):
    """The flat gradient and the figures of a step, for each case."""
    from tests.training.test_train import fresh

    for objective, dropout, grids in CASES:
        lora = SETTINGS.lora.model_copy(update={"dropout": dropout, "rank": 4})
        settings = SETTINGS.model_copy(update={"objective": objective, "lora": lora})
        model = fresh(lora)
        mx.random.seed(5)
        some = [pair for pair in pairs if pair.grid < grids]
        some = some[:1] if (objective, grids) == ("dpo", 1) else some  # fewer pairs than machines
        # One pair at a time: another split into micro-batches would round otherwise, on one machine too.
        own = gradient_step(model, some, settings, token_budget=1, pad_id=0, share=(members.rank, members.size))
        whole = members.combined(own)
        yield (
            np.concatenate([np.array(leaf).reshape(-1) for _, leaf in tree_flatten(whole.gradients)]),
            [whole.loss, *whole.metrics.values()],
        )


def trained(folder, pairs, members):
    """The adapters after a training."""
    from tests.training.test_train import fresh, make_pairs

    model = fresh(seed=members.rank)  # the first one's count
    held = make_pairs(build_model(tiny_config()), grids=2, split="validation", seed=9)
    job = train.Job(pairs, held, SETTINGS, folder, 0, budget=512, pad=0, team=members)
    train.train(model, job, train.Watch(QUIET))
    return {name.replace(".", "-"): np.array(value) for name, value in tree_flatten(model.trainable_parameters())}


def gradient(folder: Path) -> None:
    from tests.training.test_train import make_pairs

    members = team.join(heartbeat.Heartbeat(heartbeat.place()))
    pairs = make_pairs(build_model(tiny_config()))
    for i, (flat, figures) in enumerate(steps(pairs, members)):
        np.savez(folder / f"step-{i}-{members.rank}.npz", flat=flat, figures=figures)
    np.savez(folder / f"adapters-{members.rank}.npz", **trained(folder, pairs, members))
    team.leave()


def lose_one(text: str) -> None:
    """Send this process a signal at a step, if it is the one that is to be lost. Silence is noticed sooner than by default."""
    rank, name, step = text.split()
    heartbeat.SILENT, real, calls = 8.0, train.gradient_step, []

    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) == int(step) and os.environ["MLX_RANK"] == rank:
            os.kill(os.getpid(), getattr(signal, name))
        return real(*args, **kwargs)

    train.gradient_step = counted


def fit(folder: Path) -> None:
    if "RANKED_LOST" in os.environ:
        lose_one(os.environ["RANKED_LOST"])
    with together.team() as leads:
        if leads:
            train.run(folder, Recipe.model_validate_json((folder / "recipe.json").read_text()), QUIET)
            team.release(team.current())


if __name__ == "__main__":
    try:
        {"gradient": gradient, "fit": fit}[sys.argv[1]](Path(sys.argv[2]))
    except Exception as error:
        print(f"error: {one_line(error)[0]}", file=sys.stderr)
        sys.exit(1)
