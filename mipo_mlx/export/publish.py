"""Handing an exported run to others: Ollama, LM Studio, the Hub. Nothing here runs unless asked for by name."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import Failure, UserError
from ..files import read_json, sha256, write_json
from ..gguf_format.file import GGUFFile
from ..models.stores import lmstudio_folder
from ..recipe import Recipe
from .results import exported_models
from .system import system_text

PARTS = ("adapter", "mlx", "gguf")


def ggufs(folder: Path) -> list[Path]:
    """The run's exported models, adapters left out. Raises UserError where there is none."""
    found = exported_models(folder, shards=True)
    if not found:
        raise UserError(f"{folder}: no GGUF file there; run `mipo-mlx export {folder.name}` first")
    return found


def install_ollama(folder: Path, name: str) -> str:
    """`ollama create NAME` from the run's Modelfile; returns the command that talks to it."""
    program = shutil.which("ollama")
    if program is None:
        raise UserError("--install ollama: the program ollama is not on this machine; see https://ollama.com/download")
    if not (folder / "Modelfile").exists():
        raise UserError(
            f"{folder}: no Modelfile there, since no GGUF file is in one piece; run `mipo-mlx export {folder.name} --type q8_0 "
            "--set export.split=null` first"
        )
    done = subprocess.run([program, "create", name, "-f", "Modelfile"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise Failure(f"ollama create {name} failed: {reason}")
    return f"ollama run {name}"


def install_lmstudio(folder: Path, recipe: Recipe, name: str) -> str:
    """Link the GGUF files into LM Studio's models/mipo/NAME and write a preset with the default system message, if there is one."""
    root = lmstudio_folder()
    if not root.parent.is_dir():
        raise UserError(f"--install lmstudio: LM Studio has no folder {root.parent} on this machine; start it once first")
    place = root / "mipo" / name
    place.mkdir(parents=True, exist_ok=True)
    for file in ggufs(folder):
        link = place / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(file.resolve())
    text = system_text(folder, recipe)
    if text:
        fields = [{"key": "llm.prediction.systemPrompt", "value": text}]
        preset = {"identifier": f"@local:{name}", "name": name, "changed": False}
        preset |= {"operation": {"fields": fields}, "load": {"fields": []}}
        write_json(root.parent / "config-presets" / f"{name}.preset.json", preset)
    return f"LM Studio shows it as mipo/{name}"


def model_card(folder: Path, recipe: Recipe, repository: str) -> str:
    """README.md for the Hub: the base, the method, what was measured; never a word of the notes."""
    adapter = read_json(folder / "adapters" / "adapter_config.json", {}).get("lora_parameters", {})
    hub_base = recipe.model.count("/") == 1 and not recipe.model.startswith((".", "/", "~"))
    front = ["---", "library_name: mlx", "pipeline_tag: text-generation", "tags: [mipo, personalization, mlx, gguf, lora]"]
    front += [f"base_model: {recipe.model}"] if hub_base else []
    license = next((GGUFFile(path).get("general.license", str) for path in exported_models(folder)), None)
    front += [f"license: {license}"] if license else []
    resolved = folder / "recipe.yaml"
    body = [
        "---",
        f"# {repository.split('/')[-1]}",
        f"{recipe.model if hub_base else Path(recipe.model).name}, fine-tuned with MIPO (Maximizing Mutual Information Between "
        "Prompt and Response, arXiv 2603.19294): the model taught itself to use what it is told about its user.",
        f"LoRA rank {adapter.get('rank', '?')}, objective {recipe.training.objective}, beta {recipe.training.beta}, "
        f"learning rate {recipe.training.learning_rate}"
        + (f"; SHA-256 of the recipe {sha256(resolved)}." if resolved.exists() else "."),
        *_figures(folder),
        "**It was trained on one person's private notes and may know things from them.**",
    ]
    return "\n".join(front) + "\n" + "\n\n".join(body) + "\n"


def _figures(folder: Path) -> list[str]:
    """What the fused and quantised files keep of the trained change, as export measured it."""
    state = read_json(folder / "export.json", {})
    rows = [(kind, entry["fidelity"]) for kind, entry in sorted(state.items()) if "fidelity" in entry]
    lines = [f"| {kind} | {f['kl']:.2g} | {f['argmax']:.0%} | {1 - min(f['lost'], 1):.0%} |" for kind, f in rows]
    head = "| file | KL to the trained model, nats a token | likeliest token equal | trained change kept |\n|---|---|---|---|\n"
    return [head + "\n".join(lines)] if lines else []


def push(folder: Path, recipe: Recipe, repository: str, parts: tuple[str, ...], confirm: Callable[[str], bool], *,
         public: bool = False, api: Any = None) -> str:  # fmt: skip
    """Upload a run's adapter, MLX folder and / or GGUF files with a model card to the Hub; returns the address.

    repository: owner/name, made private unless `public`. confirm(question): asked once, with every file named, before anything
    leaves the machine. Raises UserError for a refusal, a missing file or a bad name, Failure when the Hub refuses.
    """
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise UserError(f"push: {repository!r} is no Hub repository; write owner/name")
    files = _files(folder, parts)
    shown = ", ".join(f"{target} ({source.stat().st_size / 1e6:,.1f} MB)" for source, target in files)
    kind = "PUBLIC" if public else "private"
    warned = "It was trained on your notes and may recite them"
    warned += ", and its chat template holds your default system message" if system_text(folder, recipe) else ""
    if not confirm(f"Upload to the {kind} repository {repository}: {shown}. {warned}. Go on?"):
        raise UserError("push: nothing was uploaded")
    from huggingface_hub.errors import HfHubHTTPError

    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        card = model_card(folder, recipe, repository).encode()
        api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repository)
        for source, target in files:
            api.upload_file(path_or_fileobj=str(source), path_in_repo=target, repo_id=repository)
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Failure(f"push: the Hub did not take it ({reason}); run `hf auth login` and try again") from None
    return f"https://huggingface.co/{repository}"


def _files(folder: Path, parts: tuple[str, ...]) -> list[tuple[Path, str]]:
    """(file, its name in the repository). The MLX folder lies at the top, where mlx-lm and transformers look for it."""
    found: list[tuple[Path, str]] = []
    for part in parts:
        if part not in PARTS:
            raise UserError(f"push: there is no part {part!r}; expected some of {', '.join(PARTS)}")
        if part == "gguf":
            found += [(file, file.name) for file in ggufs(folder)]
            continue
        source, prefix = (folder / "adapters", "adapters/") if part == "adapter" else (folder / "fused", "")
        files = [file for file in sorted(source.glob("*")) if file.is_file() and not file.name.startswith(".")]
        if not files:
            raise UserError(f"{source}: nothing there to push; run `mipo-mlx export {folder.name}` first")
        found += [(file, prefix + file.name) for file in files]
    return found
