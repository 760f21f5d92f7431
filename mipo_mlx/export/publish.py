"""Uploading an exported run to the Hub, after a yes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Failure, UserError, first_line
from ..recipe import Recipe
from .card import model_card
from .install import ggufs
from .system import system_text

PARTS = ("adapter", "mlx", "gguf")


@dataclass(frozen=True)
class Upload:
    """What goes where."""

    folder: Path
    recipe: Recipe
    repository: str  # owner/name
    parts: tuple[str, ...]  # some of PARTS
    public: bool = False


def push(upload: Upload, confirm: Callable[[str], bool], api: Any = None) -> str:
    """Upload a run's adapter, MLX folder and / or GGUF files with a model card to the Hub; returns the address.

    confirm(question): called once, with every file named, before anything leaves the machine. Raises UserError for a refusal,
    a missing file or a bad name, Failure when the Hub refuses.
    """
    folder, repository = upload.folder, upload.repository
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise UserError(f"push: {repository!r} is no Hub repository; write owner/name")
    files = _files(folder, upload.parts)
    shown = ", ".join(f"{target} ({source.stat().st_size / 1e6:,.1f} MB)" for source, target in files)
    kind = "PUBLIC" if upload.public else "private"
    warned = "It was trained on your notes and may recite them"
    warned += ", and its chat template holds your default system message" if system_text(folder, upload.recipe) else ""
    if not confirm(f"Upload to the {kind} repository {repository}: {shown}. {warned}. Go on?"):
        raise UserError("push: nothing was uploaded")
    from huggingface_hub.errors import HfHubHTTPError

    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    try:
        api.create_repo(repository, private=not upload.public, exist_ok=True)
        card = model_card(folder, upload.recipe, repository).encode()
        api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repository)
        for source, target in files:
            api.upload_file(path_or_fileobj=str(source), path_in_repo=target, repo_id=repository)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise Failure(f"push: the Hub did not take it ({first_line(error)}); run `hf auth login` and try again") from None
    return f"https://huggingface.co/{repository}"


def _files(folder: Path, parts: tuple[str, ...]) -> list[tuple[Path, str]]:
    """(file, its name in the repository). The MLX folder lies at the top, where mlx-lm and transformers expect it."""
    chosen: list[tuple[Path, str]] = []
    for part in parts:
        if part not in PARTS:
            raise UserError(f"push: there is no part {part!r}; expected some of {', '.join(PARTS)}")
        if part == "gguf":
            chosen += [(file, file.name) for file in ggufs(folder)]
            continue
        source, prefix = (folder / "adapters", "adapters/") if part == "adapter" else (folder / "fused", "")
        files = [file for file in sorted(source.glob("*")) if file.is_file() and not file.name.startswith(".")]
        if not files:
            raise UserError(f"{source}: nothing there to push; run `mipo-mlx export {folder.name}` first")
        chosen += [(file, prefix + file.name) for file in files]
    return chosen
