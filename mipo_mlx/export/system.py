"""A default system message inside the chat template: the exported model is personal without a flag, and a system message of
the user's own still replaces it."""

from typing import Any

from ..errors import UserError
from ..models import chat
from .tokenizer import inner

PROBE_USER = "probe-user"


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
        if _shows(tokenizer, candidate, text):
            return candidate
    raise UserError("export.system: the model's chat template has no place for a system message; write none")


def render(tokenizer: Any, template: str | None, messages: list[dict[str, str]], opened: bool = True) -> str:
    """The prompt as text, under a chat template of one's own."""
    return chat.render(inner(tokenizer), messages, tokenize=False, opened=opened, template=template)


def _shows(tokenizer: Any, template: str, text: str) -> bool:
    import jinja2

    try:
        shown = render(tokenizer, template, [{"role": "user", "content": PROBE_USER}])
        return text.strip() in shown and PROBE_USER in shown
    except jinja2.TemplateError:  # a template refuses a role by raising
        return False


def _quote(text: str) -> str:
    """A Jinja string literal; jinja2 and llama.cpp's own Jinja both read these escapes and no others alike."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\r\n", "\n").replace("\r", "\n")
    return "'" + escaped.replace("\n", "\\n").replace("\t", "\\t") + "'"
