"""A model's chat template: it renders messages to text or token ids."""

from datetime import datetime
from typing import Any

from . import template_probe

Messages = list[dict[str, str]]
# A fixed date, for templates that write today's date (Llama 3, SmolLM3): a run has the same prompts tomorrow.
# The day is the one that Llama 3's template has where there is no clock.
DAY = datetime(2024, 7, 26, 12)
CODES = ("%-d", "%-m", "%d", "%m", "%a", "%A", "%b", "%B", "%y", "%Y", "%j", "%H", "%I", "%M", "%S", "%p")
CLOCK = (
    "{% macro strftime_now(form) %}{{ form"
    + "".join(f".replace({code!r}, {DAY.strftime(code)!r})" for code in CODES)
    + " }}{% endmacro +%}"
)


def render(tokenizer: Any, messages: Messages, *, tokenize: bool, opened: bool = True, template: str | None = None) -> Any:
    """Token ids or text of messages under the model's chat template, or another `template`; `opened`: up to where an answer begins.

    All code that renders a template calls this, so that all agree: models that can think (Qwen3, SmolLM3) answer at once.
    """
    messages = [{**message, "content": plain(message["content"])} for message in messages]
    template = template or template_of(tokenizer)
    if isinstance(template, str):
        template_probe.check(template, str(getattr(tokenizer, "name_or_path", "") or "model"))
        template = CLOCK + template if "strftime_now" in template else template
    return tokenizer.apply_chat_template(
        messages,
        chat_template=template,
        add_generation_prompt=opened,
        tokenize=tokenize,
        return_dict=False,
        enable_thinking=False,
    )


def plain(text: str) -> str:
    """The text as a template sees it: \\n at the end of each line, and no NUL, at which a C library would end it."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def template_of(tokenizer: Any) -> str | None:
    """The model's chat template; of several, the one called default (`load.check_chat_template` makes sure of it)."""
    template = tokenizer.chat_template
    return template["default"] if isinstance(template, dict) else template


_with_system_role: dict[str | None, bool] = {}  # by the template's text


def knows_system_role(tokenizer: Any) -> bool:
    """Whether the template takes a system message. Gemma's refuses one."""
    template = template_of(tokenizer)
    if template not in _with_system_role:
        probe = [{"role": "system", "content": "probe-system"}, {"role": "user", "content": "probe-user"}]
        try:
            _with_system_role[template] = "probe-system" in render(tokenizer, probe, tokenize=False)
        except Exception as error:  # templates refuse through jinja2's own exception type, wrapped in different ways
            if "system" not in str(error).lower() and "role" not in str(error).lower():
                raise
            _with_system_role[template] = False
    return _with_system_role[template]
