"""The default system message of the exported files: what `export.system` means, and its place inside the chat template.

With it the exported model is personal without a flag. A system message of the user's own still replaces it.
"""

import re
import unicodedata
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..gguf_format.tokenizer import inner
from ..memory.contexts import of_people, plain, sections
from ..models import prompts
from ..models.prompts import system_message
from ..recipe import Recipe
from ..records import TRAIN, Context, read_records
from ..sources import canaries

PROBE_USER = "probe-user"
WORDS = 300  # a profile longer than this costs every conversation more context than it is worth
FILES = ("profile.md", "profile.txt")


def system_text(folder: Path, recipe: Recipe) -> str:
    """The default system message; "" for none.

    `profile`: profile.md in the run folder (`mipo-mlx profile`), else profile.md or profile.txt inside or beside the notes, without
    comments, headings and sources; without one the run's own training contexts, in order, up to WORDS words. It is framed as the
    contexts were in training (`pairs.system`). Raises UserError where there is nothing, or a profile of several people.
    """
    wanted = clean(recipe.export.system)
    if wanted in ("", "none"):
        return ""
    if wanted != "profile":
        return wanted
    return clean(system_message(recipe.pairs, _profile(folder, recipe)))


def clean(text: str) -> str:
    """`text` with "\\n" at the end of each line and without control characters: the same in every exported file."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in lines if c in "\n\t" or unicodedata.category(c) != "Cc").strip()


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
    return prompts.render(inner(tokenizer), messages, tokenize=False, opened=opened, template=template)


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
