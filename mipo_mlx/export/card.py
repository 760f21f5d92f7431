"""What an exported file says about itself, and the model card for the Hub."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import printable
from ..files import read_json, sha256
from ..gguf_format.file import GGUFFile
from ..recipe import Recipe
from .results import exported_models, read_state, run_name

SAMPLING = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "repetition_penalty": "penalty_repeat"}

LONGEST = 200  # characters of a name
HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
LICENCE = re.compile(r"\w[\w.+ -]*", re.ASCII)  # the Hub's own identifiers, such as apache-2.0


@dataclass(frozen=True)
class Card:
    """What a GGUF file says about itself."""

    name: str
    base: str  # the base as others may read it: a Hub repository, or the bare name of a local model
    hub: bool = False  # whether `base` is a Hub repository
    license: str | None = None
    recipe_sha256: str | None = None
    sampling: dict[str, float] = field(default_factory=dict)  # temp, top_p, top_k, ... as llama.cpp names them


def make_card(folder: Path, recipe: Recipe, base: Path, generation: dict[str, Any]) -> Card:
    """The card of a run. `base`: the base's folder or GGUF file; `generation`: its generation_config.json."""
    kept = folder / "recipe.yaml"
    name, hub = public_name(recipe.model)
    digest = sha256(kept) if kept.exists() else None
    measured = {"temp": recipe.pairs.temperature, "top_p": recipe.pairs.top_p}  # by evaluation
    return Card(label(run_name(folder, recipe)), name, hub, _license(base), digest, _sampling(base, generation) or measured)


def label(text: str) -> str:
    """A name or a licence as other programs print it, on one line: nothing in it steers a terminal or opens a key of YAML."""
    return " ".join(printable(text).split())[:LONGEST]


def public_name(model: str) -> tuple[str, bool]:
    """(name of the base that others may read, whether it is a Hub repository). A local path never leaves this machine."""
    local = model.startswith((".", "/", "~")) or model.endswith(".gguf") or Path(model).expanduser().exists()
    return label(Path(model).name if local else model), not local and HUB.fullmatch(model) is not None


def _sampling(base: Path, generation: dict[str, Any]) -> dict[str, float]:
    """The base's own sampling defaults under llama.cpp's names, from a GGUF file or from generation_config.json."""
    if base.suffix == ".gguf":
        prefix, known = "general.sampling.", GGUFFile(base).metadata
        return {k.removeprefix(prefix): v for k, v in known.items() if k.startswith(prefix) and type(v) in (int, float)}
    return {
        ours: int(generation[name]) if ours == "top_k" else float(generation[name])
        for name, ours in SAMPLING.items()
        if isinstance(generation.get(name), int | float)
    }


def _license(base: Path) -> str | None:
    """The base's licence: a key of a GGUF file, or of the front matter of a folder's README."""
    if base.suffix == ".gguf":
        return label(GGUFFile(base).get("general.license", str) or "") or None
    readme = base / "README.md"
    lines = readme.read_text(encoding="utf-8", errors="replace").splitlines()[:40] if readme.exists() else []
    return next((label(line.split(":", 1)[1]) for line in lines if line.startswith("license:")), None)


def model_card(folder: Path, recipe: Recipe, repository: str) -> str:
    """README.md for the Hub: the base, the method, the measured figures. It holds no word of the notes."""
    adapter = read_json(folder / "adapters" / "adapter_config.json", {}).get("lora_parameters", {})
    base, hub = public_name(recipe.model)
    license = next((label(GGUFFile(path).get("general.license", str) or "") for path in exported_models(folder)), None)
    resolved = folder / "recipe.yaml"
    front = ["---", "library_name: mlx", "pipeline_tag: text-generation", "tags: [mipo, personalization, mlx, gguf, lora]"]
    front += [f"base_model: {base}"] if hub else []
    front += [f"license: {license}"] if license and LICENCE.fullmatch(license) else []
    body = [
        "---",
        f"# {repository.split('/')[-1]}",
        f"{base}, fine-tuned with MIPO (Maximizing Mutual Information Between Prompt and Response, arXiv 2603.19294): the model "
        "taught itself to use what it is told about its user.",
        f"LoRA rank {adapter.get('rank', '?')}, objective {recipe.training.objective}, beta {recipe.training.beta}, "
        f"learning rate {recipe.training.learning_rate}"
        + (f"; SHA-256 of the recipe {sha256(resolved)}." if resolved.exists() else "."),
        *_kept(folder),
        "**It was trained on one person's private notes and may know things from them.**",
    ]
    return "\n".join(front) + "\n" + "\n\n".join(body) + "\n"


def _kept(folder: Path) -> list[str]:
    """A table of what the fused and quantised files keep of the training, as export measured it."""
    rows = [(kind, entry.fidelity) for kind, entry in sorted(read_state(folder).items())]
    lines = [f"| {kind} | {f.kl:.2g} | {f.argmax:.0%} | {1 - min(f.lost, 1):.0%} |" for kind, f in rows if f]
    head = "| file | KL to the trained model, nats a token | likeliest token equal | trained change kept |\n|---|---|---|---|\n"
    return [head + "\n".join(lines)] if lines else []
