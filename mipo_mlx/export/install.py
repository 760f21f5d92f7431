"""Entering an exported run into Ollama or LM Studio. Nothing here runs unless a command names it."""

import shutil
import subprocess
from pathlib import Path

from ..errors import Failure, UserError
from ..files import write_json
from ..models.stores import lmstudio_folder
from ..recipe import Recipe
from .results import check, exported_models, hashes, ollama_name
from .system import default_system


def ggufs(folder: Path) -> list[Path]:
    """The run's exported models, without adapters. Raises UserError where there is none."""
    models = exported_models(folder, shards=True)
    if not models:
        raise UserError(f"{folder}: no GGUF file there; run `mipo-mlx export {folder.name}` first")
    return models


def install_ollama(folder: Path, name: str) -> str:
    """`ollama create` from the run's Modelfile, under `name` in a form that Ollama takes; returns the command that talks to it."""
    program = shutil.which("ollama")
    if program is None:
        raise UserError("--install ollama: the program ollama is not on this machine; see https://ollama.com/download")
    if not (folder / "Modelfile").exists():
        raise UserError(
            f"{folder}: no Modelfile there, since no GGUF file is in one piece; run `mipo-mlx export {folder.name} --type q8_0 "
            "--set export.split=null` first"
        )
    check(folder, hashes(folder))
    name = ollama_name(name)
    done = subprocess.run([program, "create", name, "-f", "Modelfile"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise Failure(f"ollama create {name} failed: {reason}")
    return f"ollama run {name}"


def install_lmstudio(folder: Path, recipe: Recipe, name: str) -> str:
    """Link the GGUF files into LM Studio's models/mipo/NAME, and write a preset where there is a default system message."""
    root = lmstudio_folder()
    if not root.parent.is_dir():
        raise UserError(f"--install lmstudio: LM Studio has no folder {root.parent} on this machine; start it once first")
    check(folder, (file.name for file in ggufs(folder)))
    place = root / "mipo" / name
    place.mkdir(parents=True, exist_ok=True)
    for file in ggufs(folder):
        link = place / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(file.resolve())
    text = default_system(folder, recipe).text
    if text:
        fields = [{"key": "llm.prediction.systemPrompt", "value": text}]
        preset = {"identifier": f"@local:{name}", "name": name, "changed": False}
        preset |= {"operation": {"fields": fields}, "load": {"fields": []}}
        write_json(root.parent / "config-presets" / f"{name}.preset.json", preset)
    return f"LM Studio shows it as mipo/{name}"
