"""`mipo-mlx chat RUN`: talk to the result in a terminal, streaming, with a context and with the base beside it."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unicodedata import normalize

from ..errors import UserError
from ..memory.contexts import joined, of_people, read_contexts
from ..recipe import Recipe
from ..run import Run

Messages = list[dict[str, str]]


def find_context(folder: Path, recipe: Recipe, name: str | None) -> str | None:
    """The text of `--context`: a file, or a context of the run by its id, its note or a part of its file name; without a name
    the author's profile, where the run trained with it (`sources.context: both`), or None.

    Raises UserError where nothing, or more than one note, has that name, and for a file without text.
    """
    contexts = read_contexts(folder, recipe)
    if name is None:
        return contexts[0].profile or None if contexts and not of_people(recipe) else None
    path = Path(name).expanduser()
    if path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        if not text or "\0" in text:
            raise UserError(f"--context {name}: {'not text' if text else 'empty'}; expected a text file about the user")
        return text
    for attribute in ("id", "note", "source"):
        named = [c for c in contexts if alike(getattr(c, attribute)) == alike(name)]
        if named:
            return joined(named)
    notes = sorted({c.source for c in contexts if alike(name) in alike(c.source)})
    if len(notes) == 1:
        return joined([c for c in contexts if c.source == notes[0]])
    if notes:
        raise UserError(f"--context {name}: more than one note has that in its name: {', '.join(notes[:5])}")
    sources = sorted({c.source for c in contexts})
    some = f"there are {', '.join(sources[:5])}{', ...' if len(sources) > 5 else ''}" if sources else "the run keeps no notes"
    raise UserError(f"--context {name}: no such file, and no note of this run has that name; {some}")


def alike(name: str) -> str:
    """A name as names are compared: in one case and in NFC, since a file's name may hold a letter and its mark apart."""
    return normalize("NFC", name).casefold()


def talk(run: Run, context: str | None, base: bool, max_tokens: int, temperature: float) -> None:
    """Read lines from standard input and stream the answers; an empty line or end of file ends it.

    Ctrl-C cuts an answer short, and ends the talk where no answer is being written. Raises UserError for a context that does not
    fit into the model's window.
    """
    text = find_context(run.folder, run.recipe, context)  # before seconds of loading
    from ..models import adapters, load, prompts
    from ..models.prompts import window_of

    loaded = load.load(run.recipe.model)
    adapters.load(loaded.model, run.folder / "adapters")
    longest = window_of(loaded.config, 0)
    if longest is not None:
        max_tokens = min(max_tokens, longest // 2)
    window = longest and longest - max_tokens
    system = prompts.system_message(run.recipe.pairs, text or None)
    opening = [{"role": "system", "content": system}] if system else []
    histories: dict[str, Messages] = {"tuned": list(opening), **({"base": list(opening)} if base else {})}
    interactive = sys.stdin.isatty()
    if interactive:
        how = f"with {context}" if context else "with your profile" if text else "without a context (--context FILE_OR_NOTE)"
        print(f"{run.folder.name}, {how}; an empty line ends the talk")
    while question := _ask(interactive):
        for who, history in histories.items():
            history.append({"role": "user", "content": question})
            prompt = _fit(loaded.tokenizer, history, len(opening), window)
            if len(histories) > 1:
                print(f"[{who}] ", end="", flush=True)
            history.append({"role": "assistant", "content": _answer(loaded, prompt, who == "base", max_tokens, temperature)})


def _ask(interactive: bool) -> str:
    try:
        return input("> " if interactive else "").strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return ""


def _fit(tokenizer: Any, history: Messages, opening: int, window: int | None) -> list[int]:
    """Token ids of the talk; its oldest questions and answers go where it has outgrown the model's window."""
    from ..models import prompts

    while window is not None and len(prompt := prompts.encode(tokenizer, history)) > window:
        if len(history) <= opening + 1:
            raise UserError(
                f"context and question have {len(prompt)} tokens, and {window} fit into the model's window beside the answer; "
                "shorten them, or lower --max-tokens"
            )
        del history[opening : opening + 2]
    return prompt if window is not None else prompts.encode(tokenizer, history)


def _answer(loaded: Any, prompt: list[int], base: bool, max_tokens: int, temperature: float) -> str:
    from mlx_lm.generate import stream_generate

    from ..engine import fast
    from ..engine.sampling import nucleus_sampler
    from ..models import adapters

    parts, model = [], loaded.model
    try:
        with adapters.disabled(model) if base else nullcontext(), fast(model):
            sampler = nucleus_sampler(temperature, 0.95)
            for piece in stream_generate(model, loaded.tokenizer, prompt, max_tokens=max_tokens, sampler=sampler):
                parts.append(piece.text)
                print(piece.text, end="", flush=True)
    except KeyboardInterrupt:
        print(" ...", end="")
    print()
    return "".join(parts)
