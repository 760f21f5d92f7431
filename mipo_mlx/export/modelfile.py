"""A Modelfile for Ollama: which GGUF, the prompt's layout as a Go template, the default system message, stop tokens, sampling.

Ollama knows chat templates as Go templates only. So the layout is measured: the model's Jinja template renders marked messages.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from ..gguf_format.tokenizer import inner
from .system import render

S, U, A, V = "\x01system\x01", "\x01user\x01", "\x01answer\x01", "\x01again\x01"
CONTEXT, ROOM = 4096, 2048  # num_ctx: Ollama's own default, and the tokens that stay for the conversation
PARAMETERS = {"temp": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p"}
UNKNOWN = (
    "Modelfile: the layout of this model's chat template cannot be written for Ollama, which then guesses it and may not show the "
    "system message; check with `ollama show --modelfile`, or add a TEMPLATE by hand"
)


@dataclass(frozen=True)
class Contents:
    source: str  # FROM: a GGUF file or a model folder
    template: str | None  # the base's own chat template
    system: str = ""  # the default system message; "" leaves the template's own
    window: int | None = None  # the model's context length, tokens
    sampling: dict[str, float] = field(default_factory=dict)  # as llama.cpp names it
    adapter: str | None = None  # a LoRA GGUF beside the Modelfile


@dataclass(frozen=True)
class Layout:
    """What stands around the messages. A first turn is before_system S between U after_user; a turn without S is before_user U
    after_user."""

    before_system: str
    between: str
    before_user: str
    after_user: str  # up to the begin of the answer
    after_answer: str
    default_system: str  # the template's own system message


def modelfile(contents: Contents, tokenizer: Any) -> tuple[str, list[str]]:
    """The text of a Modelfile, and a warning for each thing that it cannot hold."""
    warnings = []
    lines = ["# ollama create NAME -f Modelfile", f"FROM {contents.source}"]
    if contents.adapter:
        lines.append(f"ADAPTER ./{contents.adapter}")
    parts = layout(tokenizer, contents.template)
    system = contents.system or (parts.default_system if parts else "")
    held = held_by_ollama(system)
    if parts:
        lines.append(f'TEMPLATE """{go_template(parts)}"""')
    elif system or contents.template:
        warnings.append(UNKNOWN)
    if system:
        lines.append(f'SYSTEM """{held}"""')
    if held != system:
        warnings.append(
            "Modelfile: Ollama cannot hold this system message as it is; there three quotes at the end of a line became ''', and "
            "characters that cannot be printed were left out"
        )
    numbers = {name: value for name, value in contents.sampling.items() if name in PARAMETERS and math.isfinite(value)}
    lines += [f"PARAMETER {PARAMETERS[name]} {value}" for name, value in numbers.items()]
    tokens = len(tokenizer.encode(system)) if system else 0
    if contents.window and tokens + ROOM > contents.window:
        warnings.append(f"Modelfile: the system message takes {tokens} tokens of the model's {contents.window}")
    wanted = max(CONTEXT, -(-(tokens + ROOM) // 1024) * 1024)
    lines.append(f"PARAMETER num_ctx {min(wanted, contents.window or wanted)}")
    stops = sorted(t for t in tokenizer.convert_ids_to_tokens(sorted(tokenizer.eos_token_ids)) if t)
    lines += [f'PARAMETER stop "{stop}"' for stop in stops if held_by_ollama(stop) == stop and "\n" not in stop]
    return "\n".join(lines) + "\n", warnings


def layout(tokenizer: Any, template: str | None) -> Layout | None:
    """The layout of a chat template; None without a template, and for a layout that no single turn can show.

    Where the template refuses or drops a system message, its text opens the user's message, as in training.
    """
    import jinja2

    if template is None:
        return None
    user, answer, again = {"role": "user", "content": U}, {"role": "assistant", "content": A}, {"role": "user", "content": V}
    try:
        first = render(tokenizer, template, [{"role": "system", "content": S}, user])
    except jinja2.TemplateError:
        first = ""
    try:
        if S not in first:
            first = render(tokenizer, template, [{"role": "user", "content": f"{S}\n\n{U}"}])
        plain = render(tokenizer, template, [user])
        ended = render(tokenizer, template, [user, answer], opened=False)
        whole = render(tokenizer, template, [user, answer, again])
    except jinja2.TemplateError:
        return None
    marks = [(first, (S, U)), (plain, (U,)), (ended, (U, A)), (whole, (U, A, V))]
    if any(re.findall("|".join((S, U, A, V)), text) != list(order) for text, order in marks):
        return None
    before_system, between, after_first = re.split(f"{S}|{U}", first)
    before_first, after_user = plain.split(U)  # where an answer begins may differ from where an earlier answer began (Qwen3)
    after_answer, turn_over = ended.split(A)[1], re.split(f"{A}|{V}", whole)[1]
    bos, added = inner(tokenizer).bos_token or "", _added_bos(tokenizer)
    if turn_over.startswith(after_answer):
        before_user = turn_over[len(after_answer) :]
    else:  # templates that open an answer in any case (Llama 3's first one)
        before_user = before_first.removeprefix(bos)
        after_answer = turn_over.removesuffix(before_user)
    if after_first != after_user or not turn_over.endswith(before_user):
        return None
    default = ""
    opening = before_first.removesuffix(before_user)  # perhaps the bos token, perhaps a default system message
    after_system = between.removesuffix(before_user)
    if opening.startswith(before_system) and opening.endswith(after_system) and opening.strip() not in ("", bos):
        default = opening[len(before_system) : len(opening) - len(after_system)]
    return Layout(before_system.removeprefix(added), between, before_user, after_user, after_answer, default)


def _added_bos(tokenizer: Any) -> str:
    """The text of a beginning-of-sequence token that the runtime puts before every prompt by itself, or ""."""
    fast = inner(tokenizer)
    ids = fast("a", add_special_tokens=True)["input_ids"]
    return str(fast.bos_token) if ids and ids[0] == fast.bos_token_id else ""


def go_template(parts: Layout) -> str:
    """The layout as Ollama's Go template. Ollama runs it once a turn; only the first turn has a .System."""
    before_system, between, before_user, after_user, after_answer = (
        _literal(text) for text in (parts.before_system, parts.between, parts.before_user, parts.after_user, parts.after_answer)
    )
    if parts.between.endswith(parts.before_user):
        after_system = _literal(parts.between.removesuffix(parts.before_user))
        opening = f"{{{{- if .System }}}}{before_system}{{{{ .System }}}}{after_system}{{{{ end }}}}"
        turn = f"{{{{- if .Prompt }}}}{before_user}{{{{ .Prompt }}}}{after_user}{{{{ end }}}}"
    else:  # the system message stands inside the user's (Gemma, Mistral)
        opening = f"{{{{ if .System }}}}{before_system}{{{{ .System }}}}{between}{{{{ else }}}}{before_user}{{{{ end }}}}"
        turn = f"{{{{ .Prompt }}}}{after_user}"
    return f"{opening}{turn}{{{{ .Response }}}}{after_answer}"


def _literal(text: str) -> str:
    """Text of the base's template. What Go or the parser of the Modelfile would act on is escaped."""
    text = re.sub(r'\{\{|\{\Z|"""|"\Z', lambda part: _escaped(part[0]), text)
    return "".join(c if _kept(c) else _escaped(c) for c in text)


def _escaped(text: str) -> str:
    return '{{ "' + "".join(f"\\U{ord(c):08x}" for c in text) + '" }}'


def _kept(character: str) -> bool:
    """Whether Ollama's parser keeps a character."""
    return character.isprintable() or character in "\n\t"


def held_by_ollama(text: str) -> str:
    """What a Modelfile can hold of `text` between three quotes.

    Ollama's parser drops characters that cannot be printed, and ends the text at a line that ends in three quotes.
    """
    kept = "".join(c if _kept(c) else " " if c.isspace() else "" for c in text)
    return re.sub(r'"""(?=[ \t]*\n)', "'''", kept)
