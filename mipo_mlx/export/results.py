"""What exports left in a run's folder: the models to run, and how much of what was trained each file keeps."""

import re
from pathlib import Path
from typing import Any

from ..files import read_json

STATE = "export.json"
LIMIT = 0.25  # of the trained change lost: above it, a warning
ASKED = "What should I cook tonight?"  # of a printed command
SHARD = re.compile(r"-(\d{5})-of-\d{5}\.gguf$")


def exported_models(folder: Path, shards: bool = False) -> list[Path]:
    """The GGUF models of a run, adapters left out; of a split one the first file, which names the others to whoever opens it,
    or with `shards` all of them."""
    models = [path for path in sorted(folder.glob("*.gguf")) if not path.name.endswith("-lora.gguf")]
    return [path for path in models if shards or not (part := SHARD.search(path.name)) or int(part[1]) == 1]


def lost(folder: Path) -> dict[str, float]:
    """The share of the trained change that each measured file has lost, by its name; a folder under its own."""
    found = {}
    for kind, entry in _state(folder).items():
        if "lost" in entry.get("fidelity", {}):
            names = ["fused"] if kind == "fused" else entry.get("files", {})
            found.update(dict.fromkeys(names, entry["fidelity"]["lost"]))
    return found


def modelfile_source(folder: Path) -> str:
    """The name of the file or folder that the Modelfile starts from; "" where it names none."""
    path = folder / "Modelfile"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return next((Path(line.removeprefix("FROM ").strip()).name for line in lines if line.startswith("FROM ")), "")


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the exported files that are still there, as they were written."""
    known = {name: digest for entry in _state(folder).values() for name, digest in entry.get("sha256", {}).items()}
    return {name: digest for name, digest in known.items() if (folder / name).exists()}


def kept(share: float) -> str:
    """What a file keeps, from the share that it lost: 'keeps 93% of what was trained'."""
    return f"keeps {said(1 - share)} of what was trained"


def said(share: float) -> str:
    """A share as a percentage, or nothing or all where it rounds to them: noise may be larger than what was trained."""
    text = f"{min(max(share, 0.0), 1.0):.0%}"
    return {"0%": "nothing", "100%": "all"}.get(text, text)


def _state(folder: Path) -> dict[str, Any]:
    return read_json(folder / STATE, {})
