"""Checkpoints: everything that the next step depends on, so that a killed run ends bit-identical to one that was not.

The random state needs no file of its own: every step seeds its own from the run's seed and the step number, which is also
the position in the data.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from ..files import disk_errors


@dataclass
class State:
    """Where training stands after `step` optimizer steps."""

    step: int
    metrics_lines: int  # lines of metrics.jsonl that belong to it
    first_loss: float | None = None  # validation loss before training, nats
    best_step: int | None = None  # step of the lowest validation loss so far, after step 0
    best_loss: float | None = None
    token_budget: int | None = None  # what out-of-memory errors left of it, so that later steps do not meet them again
    checkpointed: bool = False  # whether they switched gradient checkpointing on


def _folder(root: Path, step: int) -> Path:
    return root / f"step-{step:06d}"


def save(root: Path, state: State, weights: dict[str, mx.array], optimizer: Any) -> None:
    """Write one checkpoint folder; it appears whole or not at all. Older ones go, but for the best."""
    final = _folder(root, state.step)
    partial = root / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with disk_errors(final):
        mx.save_safetensors(str(partial / "adapters.safetensors"), dict(sorted(weights.items())))
        flat = {name: value for name, value in tree_flatten(optimizer.state) if isinstance(value, mx.array)}
        mx.save_safetensors(str(partial / "optimizer.safetensors"), dict(sorted(flat.items())))
        (partial / "state.json").write_text(json.dumps(asdict(state)))
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for old in root.glob("step-*"):
        if old not in (final, _folder(root, state.best_step or 0)):
            shutil.rmtree(old)


def latest(root: Path) -> State | None:
    """The newest whole checkpoint."""
    folders = sorted(root.glob("step-*"))
    return State(**json.loads((folders[-1] / "state.json").read_text())) if folders else None


def load_weights(root: Path, step: int) -> dict[str, mx.array]:
    return mx.load(str(_folder(root, step) / "adapters.safetensors"))


def load_optimizer(root: Path, step: int) -> dict[str, Any]:
    return tree_unflatten(list(mx.load(str(_folder(root, step) / "optimizer.safetensors")).items()))
