"""Checkpoints: everything that the next step depends on, so that a killed run ends bit-identical to one that was not.

The random state needs no file. Every step seeds its own from the run's seed and the step number, which is also the position in
the data. state.json has the hashes of the other files and of itself, so a changed bit is never trained on.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from ..errors import Failure
from ..files import SEAL, disk_errors, flush, read_json, sealed, sha256

FILES = ("adapters.safetensors", "optimizer.safetensors")
HASHES = "sha256"  # key of state.json: the hashes of FILES


@dataclass
class State:
    """Where training stands after `step` optimizer steps."""

    step: int
    metrics_lines: int  # lines of metrics.jsonl that belong to it
    first_loss: float | None = None  # validation loss before training, nats
    best_step: int | None = None  # step of the lowest validation loss so far, after step 0
    best_loss: float | None = None
    token_budget: int | None = None  # of a micro-batch: as planned at the beginning, or what fitted; None: of an older version
    checkpointed: bool = False  # an out-of-memory error switched gradient checkpointing on


def _folder(root: Path, step: int) -> Path:
    return root / f"step-{step:06d}"


def save(root: Path, state: State, weights: dict[str, mx.array], optimizer: Any) -> None:
    """Write one checkpoint folder, which appears whole or not at all; then remove older ones except the best."""
    final = _folder(root, state.step)
    partial = root / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with disk_errors(final):
        mx.save_safetensors(str(partial / "adapters.safetensors"), dict(sorted(weights.items())))
        flat = {name: value for name, value in tree_flatten(optimizer.state) if isinstance(value, mx.array)}
        mx.save_safetensors(str(partial / "optimizer.safetensors"), dict(sorted(flat.items())))
        hashes = {name: sha256(partial / name) for name in FILES}
        (partial / "state.json").write_text(json.dumps(sealed({**asdict(state), HASHES: hashes})))
        for path in (*partial.iterdir(), partial):
            flush(path)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    flush(root)  # before the older ones go
    for old in root.glob("step-*"):
        if old not in (final, _folder(root, state.best_step or 0)):
            shutil.rmtree(old)


def latest(root: Path) -> State | None:
    """The newest checkpoint. Raises Failure for a damaged one, as the functions below do."""
    folders = _folders(root)
    if not folders:
        return None
    try:
        row = _state(folders[-1])
        row.pop(HASHES, None)
        return State(**row)
    except TypeError:
        raise _damaged(folders[-1]) from None


def load_weights(root: Path, step: int) -> dict[str, mx.array]:
    """The adapters of a checkpoint by their full names."""
    return _load(_folder(root, step), "adapters.safetensors")


def load_optimizer(root: Path, step: int) -> Any:
    """The optimizer's state of a checkpoint, a tree of arrays."""
    return tree_unflatten(list(_load(_folder(root, step), "optimizer.safetensors").items()))


def _state(folder: Path) -> dict[str, Any]:
    """state.json without its seal. Raises Failure where it is not as it was written."""
    try:
        row = read_json(folder / "state.json")
    except (Failure, FileNotFoundError):
        raise _damaged(folder) from None
    seal = row.pop(SEAL, None)
    if seal is not None and sealed(row)[SEAL] != seal:
        raise _damaged(folder)
    return row


def _load(folder: Path, name: str) -> dict[str, mx.array]:
    try:
        known = _state(folder).get(HASHES, {}).get(name)  # None: a checkpoint of another version
        if known is not None and sha256(folder / name) != known:
            raise _damaged(folder)
        arrays: dict[str, mx.array] = mx.load(str(folder / name))
        mx.eval(arrays)  # a file that was cut fails when its numbers are read
    except (RuntimeError, OSError):
        raise _damaged(folder) from None
    return arrays


def _damaged(folder: Path) -> Failure:
    if _folders(folder.parent)[-1:] == [folder]:
        return Failure(f"{folder}: damaged; remove it and run the same command, which goes on from an earlier checkpoint or anew")
    # The newest one names this as the best, so that without it there is nothing to end with.
    return Failure(f"{folder}: damaged; remove {folder.parent} and run the same command, which trains from the beginning")


def _folders(root: Path) -> list[Path]:
    return sorted(root.glob("step-*"))
