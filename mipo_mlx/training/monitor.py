"""Optional loggers of the training metrics: TensorBoard files and Weights & Biases, where `training.loggers` names them.

metrics.jsonl is the record. When a run goes on after an interruption, its last steps are computed again, so a logger is started
over and fed from that file: each step is logged once, whatever happened in between.

~~~ Training as a few lines of text: for each figure its first value, a sparkline and its latest value.
"""

import importlib.util
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..errors import Failure, UserError
from ..files import read_json, write_json
from ..recipe import Recipe
from . import checkpoints

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}  # what is imported for each
Watch = Callable[[dict[str, Any]], None]  # called with each row of metrics.jsonl


def check(names: Sequence[str]) -> None:
    """Raises UserError, with the command that mends it, where a logger's package is not installed."""
    for name in names:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            mend = f"pip install -e '.[{name}]'"
            raise UserError(f"training.loggers: {name} is not installed; in the folder of mipo-mlx run: {mend}, or leave it out")


@contextmanager
def opened(recipe: Recipe, folder: Path) -> Iterator[list[Watch]]:
    """The loggers of a run, closed at the end; each is fed with every row of metrics.jsonl from the first one on."""
    names = recipe.training.loggers
    check(names)
    with ExitStack() as stack:
        yield [stack.enter_context({"tensorboard": _tensorboard, "wandb": _wandb}[name](recipe, folder)) for name in names]


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """What of a row is a curve: train/loss, heldout/loss, ..."""
    found = {}
    for key, value in row.items():
        if key not in ("step", "round") and value is not None:
            found[f"heldout/{key.removeprefix('heldout_')}" if key.startswith("heldout_") else f"train/{key}"] = value
    return found


def counted() -> Callable[[dict[str, Any]], int]:
    """Row -> its step, counted on over rounds."""
    before, last = {1: 0}, 0

    def step(row: dict[str, Any]) -> int:
        nonlocal last
        last = before.setdefault(row.get("round", 1), last) + row["step"]
        return last

    return step


@contextmanager
def _tensorboard(recipe: Recipe, folder: Path) -> Iterator[Watch]:
    """Event files in `folder`/tensorboard; look at them with `tensorboard --logdir`."""
    from tensorboardX import SummaryWriter

    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    step = counted()
    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def watch(row: dict[str, Any]) -> None:
            at = step(row)
            for name, value in scalars(row).items():
                writer.add_scalar(name, value, at)

        yield watch


@contextmanager
def _wandb(recipe: Recipe, folder: Path) -> Iterator[Watch]:
    """Files in `folder`/wandb that `wandb sync` uploads; sent at once only where WANDB_MODE=online says so. Nothing of the notes
    is among them: the training section of the recipe, and the metrics; the command, its output and the code are left out."""
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
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Failure(f"training.loggers: wandb cannot start ({line}); run `wandb login`, or leave it out") from None
    there, step = run.step, counted()  # online, a run that goes on already has the steps before `there`

    def watch(row: dict[str, Any]) -> None:
        at = step(row)
        if at >= there:
            run.log(scalars(row), step=at)

    try:
        yield watch
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


RAMPS = {True: "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588", False: "_.-~=+*#"}  # for terminals with and without Unicode
WIDEST = 48  # characters of a sparkline
ROWS = (  # key of metrics.jsonl, label, number format; losses in nats, drift in nats a token
    ("loss", "loss", ".3f"),
    ("heldout_loss", "held-out loss", ".3f"),
    ("heldout_accuracy", "held-out accuracy", ".2f"),
    ("heldout_margin", "held-out margin", ".3f"),
    ("heldout_kl", "held-out drift", ".4f"),
)


class Curves:
    """Gathers rows of metrics.jsonl, and draws them."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {key: [] for key, _, _ in ROWS}

    def watch(self, row: dict[str, Any]) -> None:
        """Add one row: a step's, or a look's at the validation pairs."""
        for key, values in self.values.items():
            if isinstance(row.get(key), int | float):
                values.append(row[key])

    def lines(self, width: int, unicode: bool = True) -> list[str]:
        """One line a figure that has values, none longer than `width`."""
        room = min(WIDEST, width - 40)
        drawn = []
        for key, label, form in ROWS:
            if values := self.values[key]:
                line = sparkline(values, room, unicode) if room >= 4 else ""
                drawn.append(f"  {label:17s} {format(values[0], form):>7s} {line:{max(room, 0)}s} {format(values[-1], form):>7s}")
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


def told(row: dict[str, Any]) -> str:
    """A look at the validation pairs, for a log."""
    figures = [f"{label} {format(row[key], form)}" for key, label, form in ROWS if isinstance(row.get(key), int | float)]
    return f"  step {row['step']}: {', '.join(figures)}"
