"""Who follows a training: curves beneath the terminal's bar, lines in a log, and the loggers that `training.loggers` names.

All of them are called with the rows of metrics.jsonl, which is the record. A training that goes on computes its last steps again,
so a logger starts over and reads that file from the beginning. It has each step once, whatever happened in between.
"""

import importlib.util
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..errors import Failure, UserError, first_line
from ..files import read_json, write_json
from ..recipe import Recipe
from . import checkpoints
from .metrics import Row

Watcher = Callable[[Row], None]
RAMPS = {True: "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588", False: "_.-~=+*#"}  # for terminals with and without Unicode
WIDEST = 48  # characters of a sparkline
FIGURES = (  # column of metrics.jsonl, label, number format; losses in nats, drift in nats a token
    ("loss", "loss", ".3f"),
    ("validation_loss", "validation loss", ".3f"),
    ("validation_accuracy", "validation accuracy", ".2f"),
    ("validation_margin", "validation margin", ".3f"),
    ("validation_kl", "validation drift", ".4f"),
)
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}  # the module of each logger


class Curves:
    """For each figure its first value, a sparkline and its latest value."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {key: [] for key, _, _ in FIGURES}

    def watch(self, row: Row) -> None:
        for key, values in self.values.items():
            if isinstance(row.get(key), int | float):
                values.append(row[key])

    def lines(self, width: int, unicode: bool = True) -> list[str]:
        """One line a figure that has values, none longer than `width`."""
        room = min(WIDEST, width - 42)
        drawn = []
        for key, label, form in FIGURES:
            if values := self.values[key]:
                line = sparkline(values, room, unicode) if room >= 4 else ""
                drawn.append(f"  {label:19s} {format(values[0], form):>7s} {line:{max(room, 0)}s} {format(values[-1], form):>7s}")
        return [line[:width] for line in drawn]


def sparkline(values: Sequence[float], width: int, unicode: bool = True) -> str:
    """At most `width` characters from the lowest value to the highest; more values than that are averaged in equal parts."""
    ramp = RAMPS[unicode]
    if len(values) > width:
        edges = [math.floor(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:], strict=False)]
    low, high = min(values), max(values)
    if high == low:
        return ramp[len(ramp) // 2] * len(values)
    return "".join(ramp[min(len(ramp) - 1, int((v - low) / (high - low) * len(ramp)))] for v in values)


def line(row: Row) -> str:
    """A row about the validation pairs, for a log."""
    figures = [f"{label} {format(row[key], form)}" for key, label, form in FIGURES if isinstance(row.get(key), int | float)]
    return f"  step {row['step']}: {', '.join(figures)}"


def check(names: Sequence[str]) -> None:
    """Raise UserError, with the command that installs it, where a logger's package is missing."""
    for name in names:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            mend = f"pip install -e '.[{name}]'"
            raise UserError(f"training.loggers: {name} is not installed; in the folder of mipo-mlx run: {mend}, or leave it out")


@contextmanager
def opened(recipe: Recipe, folder: Path) -> Iterator[list[Watcher]]:
    names = recipe.training.loggers
    check(names)
    with ExitStack() as stack:
        yield [stack.enter_context({"tensorboard": _tensorboard, "wandb": _wandb}[name](recipe, folder)) for name in names]


def scalars(row: Row) -> dict[str, float]:
    """The curves of a row by their names: train/loss, validation/loss, ..."""
    figures = {key: value for key, value in row.items() if key not in ("step", "round") and value is not None}
    return {key.replace("_", "/", 1) if key.startswith("validation_") else f"train/{key}": v for key, v in figures.items()}


class Steps:
    """The step of a row, counted on over rounds: loggers expect one ascending axis."""

    def __init__(self) -> None:
        self.before, self.last = {1: 0}, 0

    def axis(self, row: Row) -> int:
        self.last = self.before.setdefault(row["round"], self.last) + int(row["step"])
        return self.last


@contextmanager
def _tensorboard(recipe: Recipe, folder: Path) -> Iterator[Watcher]:
    """Event files in `folder`/tensorboard; `tensorboard --logdir` shows them."""
    from tensorboardX import SummaryWriter

    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    steps = Steps()
    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def watch(row: Row) -> None:
            step = steps.axis(row)
            for name, value in scalars(row).items():
                writer.add_scalar(name, value, step)

        yield watch


@contextmanager
def _wandb(recipe: Recipe, folder: Path) -> Iterator[Watcher]:
    """Files in `folder`/wandb that `wandb sync` uploads; they are sent at once only with WANDB_MODE=online.

    They hold the training section of the recipe and the metrics. They hold nothing of the notes; the command, its output and the
    code are left out.
    """
    import wandb

    kept = folder / "wandb.json"
    if not kept.exists() or checkpoints.latest(folder / "checkpoints") is None:
        write_json(kept, {"id": uuid.uuid4().hex[:12]})
    shutil.rmtree(folder / "wandb", ignore_errors=True)  # offline files cannot be continued: the new ones hold every step
    settings = {"console": "off", "silent": True, "disable_git": True, "disable_code": True, "x_disable_meta": True}
    try:
        run = wandb.init(
            project="mipo-mlx", name=folder.name, id=read_json(kept)["id"], resume="allow", dir=str(folder),
            mode=os.environ.get("WANDB_MODE", "offline"), config=recipe.training.model_dump(mode="json"),
            settings=wandb.Settings(**settings),
        )  # fmt: skip
    except Exception as error:  # no login, no network, a broken installation: its own words say which
        mend = "run `wandb login`, or leave it out"
        raise Failure(f"training.loggers: wandb cannot start ({first_line(error)}); {mend}") from None
    there, steps = run.step, Steps()  # online, a run that goes on already has the steps before `there`

    def watch(row: Row) -> None:
        step = steps.axis(row)
        if step >= there:
            run.log(scalars(row), step=step)

    try:
        yield watch
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()
