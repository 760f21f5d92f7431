"""Whether adapters are those that a run's training left, and belong to the run's base.

The manifest of a run has the hash of its adapters, and adapter_config.json has the identity of the base that they were trained on.
"""

import hashlib
from pathlib import Path

from ..errors import Failure, UserError
from ..files import is_whole, read_json, sha256
from ..progress import Reporter

ADAPTERS = ("adapters/adapters.safetensors", "adapters/adapter_config.json")
KEY = "base_identity"  # in adapter_config.json
BLOCK = 4096  # bytes of a sample
SAMPLES = 256  # of each file of weights, evenly spread


def identity_of(base: Path) -> str:
    """A hash of a base's folder or GGUF file: other weights and another configuration have another one.

    Files of weights are large, so their sizes and `SAMPLES` blocks of each stand for them. A quantised copy is another base. The
    place of a base and the times of its files do not count.
    """
    digest = hashlib.sha256()
    files = sorted(base.glob("*.safetensors")) if base.is_dir() else [base]
    if (base / "config.json").is_file():
        digest.update((base / "config.json").read_bytes())
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name if base.is_dir() else ''} {size}\n".encode())
        with open(path, "rb") as handle:
            for sample in range(SAMPLES):
                handle.seek(max(0, size - BLOCK) * sample // (SAMPLES - 1))
                digest.update(handle.read(BLOCK))
    return digest.hexdigest()[:16]


def check_adapters(folder: Path, model: str) -> None:
    """Raise UserError unless a run's adapters are those that its training left, for the base that `model` names."""
    again = "remove it and run `mipo-mlx train` with this run's recipe, which makes it again from its checkpoint"
    entries = [entry.get("sha256", {}) for entry in read_json(folder / "manifest.json", {}).get("stages", {}).values()]
    known = {name: digest for entry in entries for name, digest in entry.items() if name in ADAPTERS}  # the last round's counts
    for name, digest in known.items():
        path = folder / name
        if path.exists() and (own := sha256(path)) != digest and own != _of_a_started_round(folder, name):
            raise UserError(
                f"{path}: not the adapters that training left (their hash is in manifest.json); put it back, or {again}"
            )
    from . import load

    trained_on = read_json(folder / ADAPTERS[1], {}).get(KEY)
    if trained_on and trained_on != identity_of(load.resolve(model)):
        raise UserError(
            f"{folder / 'adapters'}: trained on another base than {model} is now; put that base back, or start over with --fresh"
        )


def _of_a_started_round(folder: Path, name: str) -> str | None:
    """The hash of the same file in the folder of a later round that was stopped while its adapters were taken; None without one."""
    stages = read_json(folder / "manifest.json", {}).get("stages", {}).items()
    started = [step for step, entry in stages if step.startswith("training-") and entry.get("state") == "started"]
    own = folder / f"adapters-{started[-1].partition('-')[2]}" / Path(name).name if started else None
    return sha256(own) if own and own.exists() else None


def check_file(path: Path, digest: str, step: str, reporter: Reporter) -> None:
    """Compare a file that `step` wrote with its hash. Raises Failure where it is gone or cut off.

    A person may edit the texts and the pairs of a run. So a whole file that differs is taken as it stands, with a warning.
    """
    again = "run `mipo-mlx train` with this run's recipe, which makes it again"
    if not path.exists():
        raise Failure(f"{path}: gone since {step} wrote it; put it back, or {again}")
    if sha256(path) == digest:
        return
    if not is_whole(path):
        raise Failure(f"{path}: cut off or broken; remove it and {again}")
    if step != "sources" or not path.name.startswith("prompts"):  # to these the pairs stage adds questions of its own
        reporter.warn(
            f"{path} is not as {step} left it: edited, damaged, or lines are missing; it is taken as it stands. If you did not "
            f"edit it, remove it and {again}"
        )
