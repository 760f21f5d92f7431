"""What exports left in a run's folder: the models to run, and how much of what was trained each file keeps (export.json)."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shlex import quote

from ..errors import UserError
from ..files import read_json, sha256, write_json
from ..recipe import Recipe

STATE = "export.json"
LIMIT = 0.25  # of the trained change lost: above it, a warning
REQUEST = "What should I cook tonight?"  # of a printed command
SHARD = re.compile(r"-(\d{5})-of-\d{5}\.gguf$")


@dataclass(frozen=True)
class Fidelity:
    """How far an exported file is from the adapter model, over held-out answers."""

    lost: float  # KL(adapters || file) / KL(adapters || base): the share of the trained change that the file lost
    kl: float = 0.0  # KL(adapters || file), nats a token
    moved: float = 0.0  # KL(adapters || base), nats a token
    argmax: float = 1.0  # share of positions with the same likeliest token
    by: str = "mlx"  # what ran the file: llama.cpp or mlx
    answers: int = 0


@dataclass(frozen=True)
class Exported:
    """One kind of exported file: a GGUF type, `fused` or `lora`."""

    made_from: str = ""  # a hash of everything that the files are made from
    files: dict[str, int] = field(default_factory=dict)  # name -> bytes
    sha256: dict[str, str] = field(default_factory=dict)
    fidelity: Fidelity | None = None


def run_name(folder: Path, recipe: Recipe) -> str:
    """The name in the exported files' names: the recipe's, or that of the folder where it is no plain file name."""
    plain = recipe.name and re.fullmatch(r"\w[\w.\- ]*", recipe.name)
    return recipe.name if plain else "".join(char if char.isprintable() else "-" for char in folder.name)  # type: ignore[return-value]


def ollama_name(name: str) -> str:
    """A run's name as Ollama takes it: ASCII letters, digits, `_ - .`, at most 80.

    Names that differ in more than spaces stay different.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.")[:70].rstrip("-.")
    if plain == name:
        return name
    if re.sub(r"\s+", "-", name) == plain:  # only spaces changed
        return plain
    return f"{plain or 'run'}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def read_state(folder: Path) -> dict[str, Exported]:
    """export.json as kind -> entry; {} where there is none."""
    state = {}
    for kind, row in read_json(folder / STATE, {}).items():
        measured = row.get("fidelity")
        known = Fidelity(**measured) if measured else None
        state[kind] = Exported(row.get("made_from", ""), row.get("files", {}), row.get("sha256", {}), known)
    return state


def write_state(folder: Path, state: dict[str, Exported]) -> None:
    rows = {kind: asdict(entry) for kind, entry in state.items()}
    write_json(folder / STATE, {kind: {k: v for k, v in row.items() if v is not None} for kind, row in rows.items()})


def exported_models(folder: Path, shards: bool = False) -> list[Path]:
    """The GGUF models of a run, without adapters. A split model is its first file, which names the others; with `shards`, all."""
    models = [path for path in sorted(folder.glob("*.gguf")) if not path.name.endswith("-lora.gguf")]
    return [path for path in models if shards or not (part := SHARD.search(path.name)) or int(part[1]) == 1]


def lost(folder: Path) -> dict[str, float]:
    """The share of the trained change that each measured file lost, by the file's name; a folder under its own name."""
    shares: dict[str, float] = {}
    for kind, entry in read_state(folder).items():
        if entry.fidelity:
            shares.update(dict.fromkeys(["fused"] if kind == "fused" else entry.files, entry.fidelity.lost))
    return shares


def modelfile_source(folder: Path) -> str:
    """The name of the file or folder that the Modelfile starts from; "" where it names none."""
    path = folder / "Modelfile"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return next((Path(line.removeprefix("FROM ").strip()).name for line in lines if line.startswith("FROM ")), "")


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the exported files that still exist, as export recorded them."""
    known = {name: digest for entry in read_state(folder).values() for name, digest in entry.sha256.items()}
    return {name: digest for name, digest in known.items() if (folder / name).exists()}


def check(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError where one of these files of the run is not as the run wrote it."""
    known = recorded(folder)
    for name in names:
        if name in known and sha256(folder / name) != known[name]:
            raise UserError(f"{folder / name}: not as the run wrote it, so nothing is done with it; {remedy(folder, name)}")


def remedy(folder: Path, name: str) -> str:
    """The command that makes a file of a run again."""
    if name.startswith("adapters"):
        return f"remove it and run `mipo-mlx train {quote(str(folder))}`, which makes it again from its checkpoint"
    return f"run `mipo-mlx export {quote(str(folder))}`, which writes it again"


def recorded(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that the run recorded, in the manifest or in export.json; of several entries the last one counts."""
    stages = read_json(folder / "manifest.json", {}).get("stages", {})
    known = {name: digest for entry in stages.values() for name, digest in entry.get("sha256", {}).items()}
    return {**known, **hashes(folder)}


def compared(folder: Path) -> list[tuple[str, str]]:
    """`recorded`, each hash with a mark where the file has another one by now, or is gone."""
    rows = []
    for name, digest in recorded(folder).items():
        path = folder / name
        mark = "" if path.exists() and sha256(path) == digest else " (changed since)" if path.exists() else " (gone)"
        rows.append((name, digest + mark))
    return rows


def kept(share: float) -> str:
    """What a file keeps, from the share that it lost: 'keeps 93% of what was trained'."""
    return f"keeps {percent(1 - share)} of what was trained"


def percent(share: float) -> str:
    """A share as a percentage; 'nothing' or 'all' where it rounds to them, since noise may be larger than what was trained."""
    text = f"{min(max(share, 0.0), 1.0):.0%}"
    return {"0%": "nothing", "100%": "all"}.get(text, text)
