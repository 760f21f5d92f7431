"""Small folders of notes, and an index over them, without a model."""

from pathlib import Path

from mipo_mlx.memory.index import Index
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Recipe

QUIET = Reporter(quiet=True)


def count(text: str) -> int:
    """Tokens of a text, about."""
    return len(text) // 4


def recipe(notes: Path | None, **sources) -> Recipe:
    return Recipe(model="any", sources={"notes": str(notes) if notes else None, "min_tokens": 3, **sources})


def write_notes(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def indexed(folder: Path, texts: dict[str, str]) -> Index:
    """An index of these notes, beside them."""
    index = Index(folder / "memory.sqlite")
    index.refresh(recipe(write_notes(folder / "notes", texts)), count, QUIET)
    return index
