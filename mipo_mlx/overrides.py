"""The recipe as a command line makes it: its file, and what `--notes` and `--set` change in it."""

import os
from pathlib import Path

from . import recipe
from .errors import UserError
from .paths import resolve_paths
from .recipe import Recipe


def load_recipe(path: Path, overrides: list[str], notes: str | None) -> Recipe:
    """The recipe with its overrides; `--notes` is relative to the working folder, every other path to the recipe's."""
    if path.is_dir():
        again = "; a run is continued by the command that began it" if (path / "recipe.yaml").exists() else ""
        raise UserError(f"{path}: a folder; expected a recipe, a file such as recipes/personal.yaml{again}")
    if notes is not None:
        if not notes.strip():
            raise UserError("--notes: empty; expected a folder or a file of notes")
        there = Path(os.path.expanduser(notes)).resolve()
        overrides = [*overrides, f"sources.notes={recipe.quoted(str(there))}"]
    return resolve_paths(recipe.load(path, overrides), path.resolve().parent)


def with_section(values: Recipe, stage: str, overrides: list[str]) -> Recipe:
    """The recipe with overrides of one stage's own section: what came before it stays as it was made. Paths among them are
    relative to the working folder, since the command names a run and no recipe file.

    Raises UserError for a key of another section.
    """
    for override in overrides:
        if not override.startswith(f"{stage}."):
            raise UserError(
                f"--set {override}: only keys of {stage} can change here; another recipe is another run, see `mipo-mlx train`"
            )
    return resolve_paths(recipe.parse(recipe.dump(values), "recipe.yaml", overrides), Path.cwd()) if overrides else values
