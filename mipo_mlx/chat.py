"""`mipo-mlx chat RUN`: talk to the result in a terminal, streaming, with a context and with the base beside it."""

import sys
from pathlib import Path
from typing import Any

from .contexts import joined, of_people, read_contexts
from .errors import UserError
from .recipe import Recipe
from .run import Run


def find_context(folder: Path, recipe: Recipe, name: str | None) -> str | None:
    """The text of `--context`: a file, or a context of the run by its id, its note or a part of its file name; without a name
    the author's profile, where the run trained with it (`sources.context: both`), or None.

    Raises UserError where nothing, or more than one note, has that name.
    """
    contexts = read_contexts(folder, recipe)
    if name is None:
        return contexts[0].profile or None if contexts and not of_people(recipe) else None
    path = Path(name).expanduser()
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace").strip()
    for attribute in ("id", "note", "source"):
        found = [c for c in contexts if getattr(c, attribute) == name]
        if found:
            return joined(found)
    notes = sorted({c.source for c in contexts if name.lower() in c.source.lower()})
    if len(notes) == 1:
        return joined([c for c in contexts if c.source == notes[0]])
    if notes:
        raise UserError(f"--context {name}: more than one note has that in its name: {', '.join(notes[:5])}")
    some = ", ".join(sorted({c.source for c in contexts})[:5])
    raise UserError(f"--context {name}: no such file, and no note of this run has that name; there are {some}, ...")


def talk(run: Run, context: str | None, base: bool, max_tokens: int, temperature: float) -> None:
    """Read lines from standard input and stream the answers; an empty line or end of file ends it."""
    from .models import adapters, loading

    text = find_context(run.folder, run.recipe, context)
    loaded = loading.load(run.recipe.model)
    adapters.load(loaded.model, run.folder / "adapters")
    system = run.recipe.pairs.system.replace("{context}", text) if text else None
    opening = [{"role": "system", "content": system}] if system else []
    histories: dict[str, list[dict[str, str]]] = {"tuned": list(opening)}
    if base:
        histories["base"] = list(opening)
    interactive = sys.stdin.isatty()
    if interactive:
        told = " with a context" if context else " with your profile" if text else ""
        print(f"{run.folder.name}{told}; an empty line ends the talk")
    while question := _ask(interactive):
        for who, history in histories.items():
            history.append({"role": "user", "content": question})
            if len(histories) > 1:
                print(f"[{who}] ", end="")
            history.append({"role": "assistant", "content": _answer(loaded, history, who == "base", max_tokens, temperature)})


def _ask(interactive: bool) -> str:
    try:
        return input("> " if interactive else "").strip()
    except EOFError:
        return ""


def _answer(loaded: Any, history: list[dict[str, str]], base: bool, max_tokens: int, temperature: float) -> str:
    from contextlib import nullcontext

    from mlx_lm.generate import stream_generate
    from mlx_lm.sample_utils import make_sampler

    from .models import adapters, chat

    prompt = chat.encode(loaded.tokenizer, history)
    parts = []
    with adapters.disabled(loaded.model) if base else nullcontext():
        sampler = make_sampler(temp=temperature, top_p=0.95 if temperature else 0.0)
        for piece in stream_generate(loaded.model, loaded.tokenizer, prompt, max_tokens=max_tokens, sampler=sampler):
            parts.append(piece.text)
            print(piece.text, end="", flush=True)
    print()
    return "".join(parts)
