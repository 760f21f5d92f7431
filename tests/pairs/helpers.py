"""A run directory with contexts and prompts, and a recipe for the tiny model."""

from pathlib import Path

from mipo_mlx.files import write_records
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Recipe
from mipo_mlx.records import GENERAL, PERSONAL, Context, Prompt

QUIET = Reporter(quiet=True)
THINGS = ["bees", "bread", "violins", "foxes", "gardens", "knees", "trains", "Lisbon", "waltzes", "sisters", "dogs", "soup"]


def make_contexts(notes: int, each: int = 2, split: str = "train") -> list[Context]:
    """`each` contexts of every one of `notes` notes, all worded differently."""
    return [
        Context(
            id=f"{split}-{note}-{part}",
            text=f"I like {THINGS[note % 12]} and {THINGS[(note + part + 1) % 12]}, since year {note * each + part}.",
            note=f"{split}-{note}",
            source=f"{split}/{note}.md",
            line=1 + part,
            split=split,
            tokens=20,
        )
        for note in range(notes)
        for part in range(each)
    ]


def make_prompts(count: int, split: str = "train", kind: str = PERSONAL) -> list[Prompt]:
    """Of another kind than personal they are about the same, in other words, and have other ids."""
    words, name = ("How do I plan week", "p") if kind == PERSONAL else (f"What does the {kind} word say of week", kind)
    return [Prompt(f"{split}-{name}{i}", f"{words} {i} with {THINGS[i % 12]}?", "planning", split, kind) for i in range(count)]


def make_recipe(model: str = "none", sources: dict | None = None, seed: int = 0, **pairs) -> Recipe:
    small = {
        "contexts_per_grid": 3,
        "grids": 5,
        "validation_grids": 2,
        "heldout_grids": 3,
        "max_tokens": 8,
        "temperature": 1.0,
        "top_p": 1.0,
        "batch": 8,
        "said_back": 0.0,
        "system": "{context} In two sentences.",
        "plain_system": "In two sentences.",
    }
    return Recipe.model_validate({"model": str(model), "seed": seed, "sources": sources or {}, "pairs": {**small, **pairs}})


def fill(folder: Path, notes: int = 12, prompts: int = 6) -> Path:
    """Write contexts.jsonl and prompts.jsonl as the stage before leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_records(folder / "contexts.jsonl", make_contexts(notes) + make_contexts(5, split="heldout"))
    general = make_prompts(3, kind=GENERAL) + make_prompts(2, "heldout", GENERAL)
    write_records(folder / "prompts.jsonl", make_prompts(prompts) + make_prompts(3, "heldout") + general)
    return folder
