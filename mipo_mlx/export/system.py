"""The default system message of the exported files: what `export.system` means, and its place inside the chat template.

With it the exported model is personal without a flag. A system message of the user's own still replaces it.
"""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from ..errors import UserError
from ..gguf_format.tokenizer import inner
from ..memory.contexts import PROFILE, of_people, plain, read_profile, sections
from ..models import chat_template
from ..models.prompts import system_message
from ..recipe import Recipe
from ..sources.gather import places
from ..sources.redact import without_secrets

PROBE_USER = "probe-user"
BESIDE_NOTES = (PROFILE, "profile.txt")


@dataclass(frozen=True)
class Default:
    """The default system message; "" for none, with the reason where the recipe wants one."""

    text: str
    missing: str = ""


def default_system(folder: Path, recipe: Recipe) -> Default:
    """The meaning of `export.system`: auto, none, profile or a text of the user's own.

    `auto` takes profile.md of the run where it has facts about one author. `profile` insists on one, which may also lie inside or
    beside the notes. Secrets are replaced as in notes. Raises UserError where `profile` has none, or one of several people.
    """
    wanted = clean(recipe.export.system)
    if wanted in ("", "none"):
        return Default("")
    if wanted not in ("auto", "profile"):
        return Default(without_secrets(wanted, recipe.sources))
    notes = places(recipe.sources) if wanted == "profile" and recipe.sources.notes else []
    beside = [place / name for note in notes for place in (note, note.parent) for name in BESIDE_NOTES]
    missing = f"{folder / PROFILE} is missing or has no facts; `mipo-mlx profile` writes it, and `mipo-mlx export` takes it in"
    for path in (folder / PROFILE, *beside):
        text = read_profile(path, recipe) if path.is_file() else ""
        people = [person for person in sections(text) if person]
        if of_people(recipe) and len(people) > 1:
            missing = f"{path} is the profile of {len(people)} people, and a model has one system message; write a text of your own"
            break
        if plain(text):
            return Default(clean(system_message(recipe.pairs, None, plain(text))))
    if wanted == "profile":
        raise UserError(f"export.system: {missing}")
    return Default("", missing)


def without_profile(folder: Path, recipe: Recipe) -> str:
    """One line for a run of one owner's notes whose exported files carry no profile; "" for any other."""
    if not recipe.sources.notes or of_people(recipe) or clean(recipe.export.system) != "auto":
        return ""
    if not default_system(folder, recipe).missing or not (recipe.export.gguf or recipe.export.mlx):
        return ""
    run = quote(str(folder))
    return (
        f"The exported files carry no profile, so by themselves they know nothing of you: `mipo-mlx profile {run}` makes one "
        f"to edit, `mipo-mlx export {run}` takes it in."
    )


def clean(text: str) -> str:
    """`text` with "\\n" at the end of each line and without control characters: the same in every exported file."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in lines if c in "\n\t" or unicodedata.category(c) != "Cc").strip()


def with_default(template: str, text: str, tokenizer: Any) -> str:
    """`template` with `text` as the system message of every conversation that brings none.

    Where a model knows no system role (Gemma), the text opens the first user message instead. Raises UserError where neither works.
    """
    quoted = _quote(text)
    attempts = (
        "{% if not messages or messages[0]['role'] != 'system' %}"
        f"{{% set messages = [{{'role': 'system', 'content': {quoted}}}] + messages %}}{{% endif %}}",
        "{% if messages and messages[0]['role'] == 'user' %}"
        f"{{% set messages = [{{'role': 'user', 'content': {quoted} + '\\n\\n' + messages[0]['content']}}] "
        "+ messages[1:] %}{% endif %}",
    )
    for opening in attempts:
        candidate = opening + template
        if _shows(tokenizer, candidate, text.strip()):
            return candidate
    raise UserError("export.system: the model's chat template has no place for a system message; write none")


def default_of(template: str) -> str:
    """The text that `with_default` put into a chat template; "" where there is none."""
    begin = r"\{% if [^%]*%\}\{% set messages = \[\{'role': '(?:system|user)', 'content': '((?:[^'\\]|\\.)*)'"
    quoted = re.match(begin, template, re.DOTALL)
    return re.sub(r"\\(.)", lambda escape: {"n": "\n", "t": "\t"}.get(escape[1], escape[1]), quoted[1]) if quoted else ""


def render(tokenizer: Any, template: str | None, messages: list[dict[str, str]], opened: bool = True) -> str:
    """The prompt as text, under a chat template of one's own."""
    return chat_template.render(inner(tokenizer), messages, tokenize=False, opened=opened, template=template)


def _shows(tokenizer: Any, template: str, text: str) -> bool:
    import jinja2

    try:
        shown = render(tokenizer, template, [{"role": "user", "content": PROBE_USER}])
        return text in shown and PROBE_USER in shown
    except jinja2.TemplateError:  # a template refuses a role by raising
        return False


def _quote(text: str) -> str:
    """A Jinja string literal; jinja2 and llama.cpp's own Jinja both read these escapes and no others alike."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + escaped.replace("\n", "\\n").replace("\t", "\\t") + "'"
