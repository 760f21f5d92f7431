"""Uploading an exported run to the Hub, after a yes to a list of everything that leaves this machine."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Failure, UserError, first_line
from ..gguf_format.file import GGUFFile
from ..recipe import Recipe
from ..sources.gather import places
from .card import model_card
from .install import ggufs
from .results import SHARD, check
from .system import default_of

PARTS = ("adapter", "mlx", "gguf")
TEMPLATE = "chat_template"  # in names of files and keys: it may hold the default system message


@dataclass(frozen=True)
class Upload:
    folder: Path
    recipe: Recipe
    repository: str  # owner/name
    parts: tuple[str, ...]  # some of PARTS
    public: bool = False


@dataclass(frozen=True)
class Remote:
    """A repository as the Hub has it."""

    private: bool
    files: frozenset[str]


Confirm = Callable[[str], bool]


def push(upload: Upload, confirm: Confirm, api: Any = None) -> str:
    """Upload a run's adapter, MLX folder and / or GGUF files with a model card to the Hub; returns the address.

    confirm(question) is called before anything leaves the machine, and once more where the repository has a README. A public
    repository needs `upload.public`. Raises UserError for a refusal, a missing or changed file, a bad name or a public
    repository, Failure when the Hub refuses.
    """
    name, folder = upload.repository, upload.folder
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise UserError(f"push: {name!r} is no Hub repository; write owner/name")
    files = _files(folder, upload.parts)
    _check(folder, upload.recipe, files)
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    before = _remote(api, name)
    _refuse_public(upload, before, UserError)
    if not confirm(_question(upload, files, before)):
        raise UserError("push: nothing was uploaded")
    there = before.files if before else frozenset()
    card = "README.md" not in there or confirm(f"{name} has a README.md of its own. Replace it by the model card?")
    _call(api.create_repo, name, private=not upload.public, exist_ok=True)
    after = _remote(api, name)
    if after is None:
        raise Failure(f"push: the Hub does not show {name} after creating it; nothing was uploaded")
    _refuse_public(upload, after, Failure)
    if card:
        text = model_card(folder, upload.recipe, name).encode()
        _call(api.upload_file, path_or_fileobj=text, path_in_repo="README.md", repo_id=name)
    for source, target in files:
        _call(api.upload_file, path_or_fileobj=str(source), path_in_repo=target, repo_id=name)
    return f"https://huggingface.co/{name}"


def _remote(api: Any, name: str) -> Remote | None:
    """The repository, or None where the Hub shows none under this name."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = _call(api.repo_info, name)
    except GatedRepoError as error:
        raise Failure(f"push: the Hub does not let you see {name} ({first_line(error)}); run `hf auth login`") from None
    except RepositoryNotFoundError:
        return None
    return Remote(info.private is True, frozenset(file.rfilename for file in info.siblings or ()))


def _refuse_public(upload: Upload, remote: Remote | None, kind: type[UserError] | type[Failure]) -> None:
    if remote and not remote.private and not upload.public:
        raise kind(
            f"push: {upload.repository} is public, so everyone could read what is uploaded; make it private in its settings on the "
            "Hub, name another repository, or pass --public. Nothing was uploaded"
        )


def _call(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The Hub's answer. Raises Failure for any error but an unknown repository: its client raises those of three libraries."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return call(*arguments, **options)
    except RepositoryNotFoundError:
        raise
    except Exception as error:
        raise Failure(f"push: the Hub did not take it ({first_line(error)}); run `hf auth login` and try again") from None


def _question(upload: Upload, files: list[tuple[Path, str]], before: Remote | None) -> str:
    """Everything that would leave the machine, with each place that holds the owner's words."""
    public = not before.private if before else upload.public
    kind = f"{'PUBLIC' if public else 'private'} repository {upload.repository}{'' if before else ' (new)'}"
    there = before.files if before else frozenset()
    lines = [f"Upload to the {kind}:"]
    for source, target in files:
        replaces = ", replaces the one that is there" if target in there else ""
        lines.append(f"  {target} ({source.stat().st_size / 1e6:,.1f} MB{replaces})")
        lines += [f"    its chat template holds your words: {text}" for text in filter(None, map(default_of, _templates(source)))]
    lines.append("  README.md (the model card: base, method, figures)")
    if upload.recipe.training.bake.answers:
        lines.append("Your profile was baked into the weights: they tell it to everybody who asks.")
    lines.append("The weights were trained on your notes and may recite them. Go on?")
    return "\n".join(lines)


def _templates(path: Path) -> list[str]:
    """The chat templates in a file."""
    if path.suffix == ".gguf":
        return [str(value) for key, value in _metadata(path).items() if TEMPLATE in key]
    if path.suffix == ".jinja":
        return [path.read_text(encoding="utf-8")]
    if path.name == "tokenizer_config.json":
        value = json.loads(path.read_text(encoding="utf-8")).get(TEMPLATE) or ""
        return [value] if isinstance(value, str) else [str(entry.get("template", "")) for entry in value]
    return []


def _check(folder: Path, recipe: Recipe, files: list[tuple[Path, str]]) -> None:
    """Raise UserError for a file that is not as the run wrote it, and for one that names a path of this machine."""
    check(folder, (str(source.relative_to(folder)) for source, _ in files))
    again = f"run `mipo-mlx export {folder.name}` again"
    own = [recipe.model, *map(str, places(recipe.sources) if recipe.sources.notes else [])]
    private = {str(folder.resolve()), str(Path.home()), *(path for path in own if path[0] in "/~")}
    for source, _ in files:
        if path := next((path for path in private if len(path) > 1 and any(path in text for text in _texts(source))), None):
            raise UserError(f"{source}: names {path}, a path of this machine; {again}, which leaves it out")


def _texts(path: Path) -> list[str]:
    """What a file says about itself: the keys of a GGUF file, or a configuration. Vocabularies and chat templates are left out."""
    if path.suffix == ".gguf":
        return [value for key, value in _metadata(path).items() if isinstance(value, str) and TEMPLATE not in key]
    if path.suffix == ".json" and path.name != "tokenizer.json":
        return [path.read_text(encoding="utf-8", errors="replace")]
    return []


def _metadata(path: Path) -> dict[str, Any]:
    """The keys of a GGUF file. Those of a split model are all in its first file."""
    part = SHARD.search(path.name)
    return GGUFFile(path).metadata if not part or int(part[1]) == 1 else {}


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
        files = [file for file in sorted(source.glob("*")) if file.is_file() and not file.is_symlink() and file.name[0] != "."]
        if not files:
            raise UserError(f"{source}: nothing there to push; run `mipo-mlx export {folder.name}` first")
        chosen += [(file, prefix + file.name) for file in files]
    return chosen
