"""Chat messages and their token ids, through the model's own chat template."""

from datetime import datetime
from typing import Any

from ..errors import UserError
from ..recipe import Pairs

Messages = list[dict[str, str]]
# A clock that stands still, for templates that write today's date (Llama 3, SmolLM3): a run goes on tomorrow with the same prompts.
# The day is the one that Llama 3's template has where there is no clock.
DAY = datetime(2024, 7, 26, 12)
CODES = ("%-d", "%-m", "%d", "%m", "%a", "%A", "%b", "%B", "%y", "%Y", "%j", "%H", "%I", "%M", "%S", "%p")
CLOCK = (
    "{% macro strftime_now(form) %}{{ form"
    + "".join(f".replace({code!r}, {DAY.strftime(code)!r})" for code in CODES)
    + " }}{% endmacro +%}"
)


def messages(pairs: Pairs, prompt: str, context: str | None) -> Messages:
    """What the model is asked: the prompt under a context, or under none (`no_context`)."""
    system = pairs.plain_system if context is None else pairs.system.replace("{context}", context.strip())
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": prompt}]


def encode(tokenizer: Any, messages: Messages) -> list[int]:
    """Token ids of the prompt, the assistant's header included, so that an answer's first token follows directly.

    Raises UserError where the model has no chat template.
    """
    if not getattr(tokenizer, "has_chat_template", True):
        raise UserError(
            f"{tokenizer.name_or_path}: the model has no chat template; take an instruction-tuned model "
            "(its name ends in -Instruct, -it or -chat)"
        )
    if _system_unsupported(tokenizer) and messages[0]["role"] == "system":
        # Some templates (Gemma) know no system role: its text opens the user's message instead.
        system, user, *rest = messages
        messages = [{"role": "user", "content": f"{system['content']}\n\n{user['content']}"}, *rest]
    return list(render(tokenizer, messages, tokenize=True))


def render(tokenizer: Any, messages: Messages, *, tokenize: bool, opened: bool = True, template: str | None = None) -> Any:
    """Token ids or text of messages under the model's chat template, or another `template`; `opened`: up to where an answer begins.

    Whatever renders one does it here, so that all agree: models that can think (Qwen3, SmolLM3) answer at once.
    """
    template = template or tokenizer.chat_template
    if isinstance(template, dict):
        template = template["default"]  # `loading.check_chat_template` has looked
    if isinstance(template, str) and "strftime_now" in template:
        template = CLOCK + template
    return tokenizer.apply_chat_template(
        messages,
        chat_template=template,
        add_generation_prompt=opened,
        tokenize=tokenize,
        return_dict=False,
        enable_thinking=False,
    )


def _system_unsupported(tokenizer: Any) -> bool:
    cached = getattr(tokenizer, "_mipo_no_system_role", None)
    if cached is None:
        probe = [{"role": "system", "content": "probe-system"}, {"role": "user", "content": "probe-user"}]
        try:
            cached = "probe-system" not in render(tokenizer, probe, tokenize=False)
        except Exception as error:  # templates refuse through jinja2's own exception type, wrapped in different ways
            if "system" not in str(error).lower() and "role" not in str(error).lower():
                raise
            cached = True
        try:
            tokenizer._mipo_no_system_role = cached
        except AttributeError:
            pass  # a tokenizer that takes no attributes is asked again
    return cached


def end_of_turn(tokenizer: Any) -> set[int]:
    """Ids that end the assistant's turn."""
    return set(tokenizer.eos_token_ids)
