"""Models that Ollama or LM Studio already keep on this machine, by their names there; nothing is copied.

Ollama keeps a manifest for each name, and the weights as blobs that are named by their hash. LM Studio keeps
publisher/repository folders.
"""

import json
import os
import re
from pathlib import Path

from ..errors import UserError

MODEL_LAYER = "application/vnd.ollama.image.model"
ADAPTER_LAYER = "application/vnd.ollama.image.adapter"


def find(name: str) -> Path:
    """`ollama:qwen2.5:1.5b` or `lmstudio:publisher/repository` -> a .gguf path or an MLX folder.

    Raises UserError where the store, the name or its file is missing; it lists what is there.
    """
    store, _, wanted = name.partition(":")
    if not wanted.strip():
        raise UserError(f"{name}: the name of a model is missing; write {store}:NAME")
    return _ollama(wanted.strip()) if store == "ollama" else _lmstudio(wanted.strip())


def ollama_folder() -> Path:
    return Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models").expanduser()


def _ollama(wanted: str) -> Path:
    root = ollama_folder()
    manifests = root / "manifests"
    if not manifests.is_dir():
        raise UserError(f"ollama:{wanted}: no Ollama models in {root}; run `ollama pull {wanted}`, or set OLLAMA_MODELS")
    head, colon, tag = wanted.rpartition(":")
    parts = (head if colon and "/" not in tag else wanted).split("/")
    tag = tag if colon and "/" not in tag else "latest"
    place = {1: ["registry.ollama.ai", "library"], 2: ["registry.ollama.ai"]}.get(len(parts), [])
    path = manifests.joinpath(*place, *parts, tag)
    if not path.is_file() or ".." in parts or tag == "..":
        known = sorted(_ollama_name(p.relative_to(manifests)) for p in manifests.glob("**/*") if p.is_file())
        raise UserError(f"ollama:{wanted}: not in {root}; there are {_few(known)}. `ollama pull {wanted}` fetches it")
    try:
        layers = {layer["mediaType"]: layer["digest"] for layer in json.loads(path.read_text(encoding="utf-8"))["layers"]}
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an Ollama manifest ({type(error).__name__}); run `ollama pull {wanted}` again") from None
    if MODEL_LAYER not in layers:
        raise UserError(f"ollama:{wanted}: this entry has no weights of its own; name another model")
    if ADAPTER_LAYER in layers:
        raise UserError(f"ollama:{wanted}: this entry is a base with an adapter on it; name its base model instead")
    digest = str(layers[MODEL_LAYER])
    if not re.fullmatch(r"sha256[:-][0-9a-f]+", digest):
        raise UserError(f"{path}: the digest of the weights is no sha256; run `ollama pull {wanted}` again")
    blob = root / "blobs" / digest.replace(":", "-")
    if not blob.is_file():
        raise UserError(f"{blob}: the weights of ollama:{wanted} are missing; run `ollama pull {wanted}` again")
    return _linked(blob, "-".join([*parts, tag]))


def _ollama_name(path: Path) -> str:
    *parts, tag = path.parts
    shown = parts[2:] if parts[:2] == ["registry.ollama.ai", "library"] else parts
    return f"{'/'.join(shown)}:{tag}"


def _linked(blob: Path, name: str) -> Path:
    """A link that ends in .gguf: all other code knows a GGUF file by that."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mipo-mlx" / "ollama"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / f"{name}.gguf"
    if not (link.is_symlink() and link.resolve() == blob.resolve()):
        link.unlink(missing_ok=True)
        link.symlink_to(blob.resolve())
    return link


def lmstudio_folder() -> Path:
    pointer = Path.home() / ".lmstudio-home-pointer"
    home = Path(pointer.read_text(encoding="utf-8").strip()) if pointer.is_file() else Path.home() / ".lmstudio"
    for folder in (home / "models", Path.home() / ".cache" / "lm-studio" / "models"):
        if folder.is_dir():
            return folder
    return home / "models"


def _lmstudio(wanted: str) -> Path:
    root = lmstudio_folder()
    if not root.is_dir():
        raise UserError(f"lmstudio:{wanted}: no LM Studio models in {root}; download one there first")
    entries = {str(p.relative_to(root)): p for p in sorted(root.glob("*/*")) if p.is_dir()}
    direct = [p for p in root.glob("*/*/*.gguf") if str(p.relative_to(root)).lower() == wanted.lower()]
    if direct:
        return direct[0]
    matches = [p for name, p in entries.items() if wanted.lower() in (name.lower(), name.split("/", 1)[-1].lower())]
    if len(matches) != 1:
        what = "is there more than once" if matches else "is not there"
        raise UserError(f"lmstudio:{wanted}: {what}; {root} has {_few(sorted(entries))}")
    if (matches[0] / "config.json").exists():
        return matches[0]
    files = [p for p in sorted(matches[0].glob("*.gguf")) if not p.name.startswith("mmproj") and _first_part(p)]
    if len(files) != 1:
        names = _few([f"lmstudio:{p.relative_to(root)}" for p in files])
        raise UserError(f"lmstudio:{wanted}: it holds {len(files)} GGUF models; name one of {names}")
    return files[0]


def _first_part(path: Path) -> bool:
    """Of a model in several files, the first names it."""
    return "-of-" not in path.name or "-00001-of-" in path.name


def _few(names: list[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + more) or "none"
