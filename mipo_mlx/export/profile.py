"""What `export.system` means: none, a text of the user's own, or the user's profile."""

from pathlib import Path

from .. import canaries
from ..contexts import of_people, plain, sections
from ..errors import UserError
from ..recipe import Recipe
from ..records import TRAIN, Context, read_records

WORDS = 300  # a profile longer than this costs every conversation more context than it is worth
FILES = ("profile.md", "profile.txt")


def system_text(folder: Path, recipe: Recipe) -> str:
    """The default system message; "" for none.

    `profile`: profile.md in the run folder (`mipo-mlx profile`), else profile.md or profile.txt inside or beside the notes, without
    comments, headings and sources; without one the run's own training contexts, in order, up to WORDS words. It is framed as the
    contexts were in training (`pairs.system`). Raises UserError where there is nothing, or a profile of several people.
    """
    wanted = recipe.export.system.strip()
    if wanted in ("", "none"):
        return ""
    if wanted != "profile":
        return wanted
    return recipe.pairs.system.replace("{context}", _profile(folder, recipe))


def _profile(folder: Path, recipe: Recipe) -> str:
    notes = Path(recipe.sources.notes) if recipe.sources.notes else folder
    for place in (folder, notes, notes.parent):
        for name in FILES:
            if (place / name).is_file():
                text = (place / name).read_text(encoding="utf-8", errors="replace")
                people = [person for person in sections(text) if person]
                if of_people(recipe) and len(people) > 1:
                    raise UserError(
                        f"export.system: {place / name} is the profile of {len(people)} people, and a model has one system "
                        "message; write a text of your own"
                    )
                if plain(text):
                    return plain(text)
    trained = [c for c in read_records(folder / "contexts.jsonl", Context) if c.split == TRAIN]
    contexts = [c.text.strip() for c in canaries.unplanted(trained, recipe.seed, recipe.sources.canaries)]
    if not contexts:
        raise UserError(
            f"export.system: profile needs a {FILES[0]}, or the contexts of a run, and {folder} has neither; write the file, or a "
            "text of your own in place of profile"
        )
    kept, words = [contexts[0]], len(contexts[0].split())
    for text in contexts[1:]:
        words += len(text.split())
        if words > WORDS:
            break
        kept.append(text)
    return "\n".join(kept)
