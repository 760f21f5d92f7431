"""What a context tells the model about its user: a passage of the notes, the profile of who wrote them, or both
(`sources.context`). Every stage that asks under contexts reads them here.

`auto` is settled when the pairs are sampled: both where there is a profile then, else passages. context.json keeps it, so a profile
that comes later changes nothing, not even in an update of the notes.

The profile is profile.md in the run directory: one line a fact, made by `mipo-mlx profile` and edited by hand. Comments
(`<!-- notes/a.md:3 -->`), headings and a source in brackets at a line's end are for people, and no model is told them. Where a
recipe names whose each context is (`columns.note`), there are several people, and `## NAME` begins what is said of one of them.
"""

import hashlib
import itertools
import re
from dataclasses import replace
from pathlib import Path

from ..errors import UserError
from ..files import CONTEXTS, of_round, read_json, read_records, sha256, updates, write_json
from ..recipe import Recipe
from ..records import Context
from ..sources.redact import without_secrets

PROFILE, PROFILE_STATE = "profile.md", "profile.json"  # PROFILE_STATE: the hash of the profile as it was made
CHOSEN = "context.json"  # what `sources.context: auto` was settled as
AUTO, PASSAGE, BOTH = "auto", "passage", "both"
INDEX, LOG, HISTORY = "memory.sqlite", "update.log", "chat-history"  # LOG: of `mipo-mlx schedule` on macOS
INDEX_FILES = (INDEX, f"{INDEX}-journal")  # SQLite leaves the second one where it is killed
REMEMBERED = (*INDEX_FILES, LOG, HISTORY)  # what other commands keep of notes and talks
COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
HEADING = re.compile(r"(#{1,6})(?:\s+(.*))?$")
BULLET = re.compile(r"^(?:[-*+\u2022]|\d+[.)])\s+")
SOURCE_AT_END = re.compile(r"\s*(?:\[[^\]]*:\d+[^\]]*\]|\([^)]*\.\w+:\d+[^)]*\))\s*$")


def context_of(folder: Path, recipe: Recipe) -> str:
    """What the contexts of the run in `folder` tell: passage, profile or both. `auto` is as it was settled, or would be now."""
    if recipe.sources.context != AUTO:
        return recipe.sources.context
    chosen = read_json(folder / CHOSEN, {}).get("context")
    return chosen or (BOTH if not recipe.pairs.file and profile_of(folder, recipe) else PASSAGE)


def settle(folder: Path, recipe: Recipe) -> str:
    """`context_of`, from now on."""
    context = context_of(folder, recipe)
    if recipe.sources.context == AUTO:
        write_json(folder / CHOSEN, {"context": context})
    return context


def uses_profile(folder: Path, recipe: Recipe) -> bool:
    return context_of(folder, recipe) != PASSAGE


def insists_on_profile(recipe: Recipe) -> bool:
    """Whether the recipe names a context that tells a profile; `auto` does not."""
    return recipe.sources.context not in (AUTO, PASSAGE)


def of_people(recipe: Recipe) -> bool:
    """Whether the contexts are those of several people, each with a profile of their own, and not one author's notes."""
    return recipe.sources.whose() is not None


def context_files(folder: Path) -> list[str]:
    """The names of the files with the run's contexts: those of its beginning, and those of each update that was taken."""
    return [CONTEXTS, *(of_round(CONTEXTS, number) for number in updates(folder))]


def kept_contexts(folder: Path, at_work: int = 0) -> list[Context]:
    """The passages of the run, without a profile; `at_work`: also those of this update, which is not taken yet."""
    names = [*context_files(folder), *([of_round(CONTEXTS, at_work)] if at_work else [])]
    return [context for name in dict.fromkeys(names) for context in read_records(folder / name, Context)]


def read_contexts(folder: Path, recipe: Recipe, at_work: int = 0) -> list[Context]:
    """The run's contexts as the model is told them; `at_work`: also those of this update, which is not taken yet.

    `both`: each passage with the profile of its author. `profile`: one context a person, their profile. Who has no profile
    (nothing in their notes was fit for one) is told of by passages alone, or, for `profile`, is left out.
    Raises UserError where profile.md is missing, or says nothing.
    """
    contexts, context = kept_contexts(folder, at_work), context_of(folder, recipe)
    if context == PASSAGE or not contexts:
        return contexts
    path = folder / PROFILE
    if not path.exists():
        raise UserError(f"{path}: missing, and contexts tell it (sources.context: {context}); `mipo-mlx profile` writes it")
    text = read_profile(path, recipe)
    profiles = sections(text) if of_people(recipe) else dict.fromkeys((one_line(c.note) for c in contexts), plain(text))
    about = [profiles.get(one_line(context.note), "") for context in contexts]
    if not any(about):
        raise UserError(f"{path}: says nothing about {'anyone' if of_people(recipe) else 'the author'}; write a line, or --fresh")
    if context == BOTH:
        return [replace(one, profile=profile) for one, profile in zip(contexts, about, strict=True)]
    first: dict[str, Context] = {}
    for one, profile in zip(contexts, about, strict=True):
        if profile:
            first.setdefault(one.note, replace(one, text=profile, profile=profile))
    return list(first.values())


def profile_of(folder: Path, recipe: Recipe) -> str:
    """What profile.md says about the author; "" where there is none, or where it is about several people."""
    try:
        return "" if of_people(recipe) else plain(read_profile(folder / PROFILE, recipe))
    except FileNotFoundError:  # none, or none any more: a run may be removed under its server
        return ""


def check_bake(folder: Path, recipe: Recipe, fresh: bool = False) -> None:
    """Raise UserError where training.bake has no profile to learn; call it where the pairs stage makes none.

    fresh: whether the run starts over, which keeps a profile that was edited by hand and no other.
    """
    if not recipe.training.bake.answers or insists_on_profile(recipe):
        return
    stays = not fresh or edited(folder)
    if not (stays and profile_of(folder, recipe)):
        raise UserError(
            f"training.bake: {folder / PROFILE} is missing or has no facts, and they are what is baked; write "
            "sources.profile: true, which makes one, or run `mipo-mlx profile` first"
        )


def read_profile(path: Path, recipe: Recipe) -> str:
    """The text of a profile, which people edit by hand, with its secrets replaced unless the recipe says otherwise."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return without_secrets(text, recipe.sources)


def sections(text: str) -> dict[str, str]:
    """What a profile says of each person: lines under `## NAME`; "" stands for lines before the first such heading."""
    lines_of: dict[str, list[str]] = {"": []}
    name = ""
    for line in COMMENT.sub("", text).splitlines():
        heading = HEADING.match(line.strip())
        if heading and len(heading[1]) == 2:
            name = one_line(heading[2] or "")
            lines_of.setdefault(name, [])
        elif not heading and line.strip():
            lines_of[name].append(bare(line))
    return {name: "\n".join(filter(None, lines)) for name, lines in lines_of.items() if any(lines)}


def plain(text: str) -> str:
    """All that a profile says, whatever its headings."""
    return "\n".join(sections(text).values())


def bare(line: str) -> str:
    """A line without its bullet and the sources at its end."""
    return SOURCE_AT_END.sub("", BULLET.sub("", line.strip())).strip()


def one_line(text: str) -> str:
    return " ".join(text.split())


def edited(folder: Path) -> bool:
    """Whether there is a profile.md that is not as it was made: somebody's own words."""
    path, state = folder / PROFILE, folder / PROFILE_STATE
    return path.exists() and not (state.exists() and read_json(state)["sha256"] == sha256(path))


def put_aside(folder: Path) -> str:
    """Rename profile.md to profile.old.md, or profile.old-2.md and so on where there are such; returns the new name."""
    names = itertools.chain(["profile.old.md"], (f"profile.old-{number}.md" for number in itertools.count(2)))
    name = next(name for name in names if not (folder / name).exists())
    (folder / PROFILE).replace(folder / name)
    return name


def digest(folder: Path, recipe: Recipe) -> str | None:
    """A hash of what the profile tells with the contexts, comments aside; None where they are told without one."""
    path = folder / PROFILE
    if not uses_profile(folder, recipe) or not path.exists():
        return None
    return hashlib.sha256(str(sections(path.read_text(encoding="utf-8", errors="replace"))).encode()).hexdigest()
