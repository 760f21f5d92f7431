"""A Modelfile for Ollama: which GGUF, the prompt's layout as a Go template, the default system message, stop tokens, sampling.

Ollama knows chat templates by Go templates only, so the layout is read off the model's Jinja template by rendering it.
"""

from dataclasses import dataclass
from typing import Any

from ..gguf_format.tokenizer import inner
from .system import render

S, U, A, V = "\x01system\x01", "\x01user\x01", "\x01answer\x01", "\x01again\x01"


@dataclass(frozen=True)
class Layout:
    """What stands around the messages of a conversation."""

    before_system: str
    after_system: str
    before_user: str
    after_user: str  # up to where the answer begins
    after_answer: str
    default_system: str  # what the template says when nobody brings a system message


def layout(tokenizer: Any, template: str | None) -> Layout | None:
    """Read the layout off the template; None without one, and for one that cannot be laid out turn by turn."""
    import jinja2

    if template is None:
        return None
    turn = [{"role": "user", "content": U}, {"role": "assistant", "content": A}]
    again = {"role": "user", "content": V}
    bos = _added_bos(tokenizer)
    try:
        whole = render(tokenizer, template, [{"role": "system", "content": S}, *turn, again])
        ended = render(tokenizer, template, [{"role": "system", "content": S}, *turn], opened=False)
        plain = render(tokenizer, template, [{"role": "user", "content": U}])
    except jinja2.TemplateError:
        return None
    if [whole.count(mark) for mark in (S, U, A, V)] != [1, 1, 1, 1] or not whole.index(S) < whole.index(U) < whole.index(A):
        return None
    before_system, rest = whole.split(S)
    between, rest = rest.split(U)
    rest = rest.split(A)[1]
    before_first, after_user = plain.split(U)  # where an answer begins may read otherwise before one that is over (Qwen3)
    after_answer = ended.split(A)[1]
    turn_over = rest.split(V)[0]
    mark = getattr(tokenizer, "bos_token", None) or ""
    if turn_over.startswith(after_answer):
        before_user = turn_over[len(after_answer) :]
    else:  # templates that open an answer even where none is asked for (Llama 3's first one)
        before_user = before_first.removeprefix(mark)
        after_answer = turn_over.removesuffix(before_user)
    if not between.endswith(before_user) or not turn_over.endswith(before_user):
        return None
    after_system = between[: len(between) - len(before_user)]
    opening = before_first.removesuffix(before_user)  # perhaps the bos token, perhaps a default system message
    default = ""
    if opening.startswith(before_system) and opening.endswith(after_system) and opening.strip() not in ("", mark):
        default = opening[len(before_system) : len(opening) - len(after_system)]
    return Layout(before_system.removeprefix(bos), after_system, before_user, after_user, after_answer, default)


def _added_bos(tokenizer: Any) -> str:
    """The text of a beginning-of-sequence token that the runtime puts before every prompt by itself, or ""."""
    fast = inner(tokenizer)
    ids = fast("a", add_special_tokens=True)["input_ids"]
    return fast.bos_token if ids and ids[0] == fast.bos_token_id else ""


def go_template(parts: Layout) -> str:
    """The layout as Ollama's Go template."""
    return (
        f"{{{{- if .System }}}}{parts.before_system}{{{{ .System }}}}{parts.after_system}{{{{ end }}}}"
        f"{{{{- if .Prompt }}}}{parts.before_user}{{{{ .Prompt }}}}{parts.after_user}{{{{ end }}}}"
        f"{{{{ .Response }}}}{parts.after_answer}"
    )


def modelfile(source: str, tokenizer: Any, template: str | None, sampling: dict[str, float], adapter: str | None = None) -> str:
    """The text of a Modelfile; `source`: the GGUF file or model folder, `adapter`: a LoRA GGUF beside the Modelfile."""
    lines = ["# ollama create NAME -f Modelfile", f"FROM {source}"]
    if adapter:
        lines.append(f"ADAPTER ./{adapter}")
    parts = layout(tokenizer, template)
    if parts is not None:
        lines.append(f'TEMPLATE """{go_template(parts)}"""')
        if parts.default_system:
            lines.append(f'SYSTEM """{parts.default_system.replace(chr(34) * 3, chr(39) * 3)}"""')
    names = {"temp": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p"}
    lines += [f"PARAMETER {names[name]} {value}" for name, value in sampling.items() if name in names]
    stops = sorted(t for t in tokenizer.convert_ids_to_tokens(sorted(tokenizer.eos_token_ids)) if t)
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    return "\n".join(lines) + "\n"
