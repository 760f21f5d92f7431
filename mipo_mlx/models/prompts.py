"""Chat messages and their token ids, through the model's own chat template, cut to the model's window."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import UserError
from ..progress import Reporter
from ..recipe import Pairs
from ..records import Context, Prompt
from . import control_tokens
from .chat_template import Messages, knows_system_role

FACTS = "These are facts about the user:\n{}"


def system_message(pairs: Pairs, passages: str | Sequence[str] | None, profile: str = "") -> str:
    """The one frame of a context. All stages, export, chat and ask call this.

    passages: the owner's words, the best fit last. The profile stands before passages; alone it has its own frame
    (`pairs.profile_system`). Without passages and profile, the message is `pairs.plain_system`.
    """
    parts = [passages] if isinstance(passages, str) else passages or []
    if not parts:
        return pairs.profile_system.replace("{profile}", profile.strip()) if profile else pairs.plain_system
    system = pairs.system.replace("{context}", "\n\n".join(passage.strip() for passage in parts))
    return f"{FACTS.format(profile.strip())}\n\n{system}" if profile else system


def messages(pairs: Pairs, prompt: str, passages: str | Sequence[str] | None, profile: str = "") -> Messages:
    """The chat messages of a request under a context, or under none: see `system_message`."""
    system = system_message(pairs, passages, profile)
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": prompt}]


def encode(tokenizer: Any, messages: Messages) -> list[int]:
    """Token ids of the prompt, the assistant's header included, so that an answer's first token follows directly.

    Control tokens in the messages are text. Raises UserError where the model has no chat template.
    """
    if not getattr(tokenizer, "has_chat_template", True):
        raise UserError(
            f"{tokenizer.name_or_path}: the model has no chat template; take an instruction-tuned model "
            "(its name ends in -Instruct, -it or -chat)"
        )
    if messages[0]["role"] == "system" and not knows_system_role(tokenizer):
        # Some templates (Gemma) know no system role: its text opens the user's message instead.
        system, user, *rest = messages
        messages = [{"role": "user", "content": f"{system['content']}\n\n{user['content']}"}, *rest]
    return control_tokens.of(tokenizer).encode_messages(messages)


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text that a user or a file gives, without special tokens; control tokens in it are text."""
    return control_tokens.of(tokenizer).encode(text)


def count_tokens(tokenizer: Any, text: str) -> int:
    """How many ids `encode_text` gives."""
    return control_tokens.of(tokenizer).count(text)


def window_of(config: dict[str, Any], max_tokens: int) -> int | None:
    """How many tokens a prompt may have, so that `max_tokens` of answer still fit; None where the model names no limit.

    Raises UserError where the answers alone fill the window.
    """
    longest = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    if longest is None:
        return None
    if max_tokens >= longest:
        raise UserError(
            f"pairs.max_tokens: {max_tokens} tokens of answer leave no room for a prompt in the model's window of {longest}; "
            "lower it"
        )
    return int(longest) - max_tokens


class PromptBuilder:
    """Turns (request, context) into messages and token ids, each once; `cut` has the ids of contexts that were shortened."""

    def __init__(self, tokenizer: Any, settings: Pairs, window: int | None = None):
        self.tokenizer, self.settings, self.window = tokenizer, settings, window
        self.cut: set[str] = set()
        self._known: dict[tuple[str, str | None, tuple[str, ...]], tuple[Messages, list[int]]] = {}

    def __call__(self, prompt: Prompt, context: Context | None) -> tuple[Messages, list[int]]:
        """Chat messages and prompt token ids, the assistant's header included.

        A prompt beyond the window loses the end of its context, never of its request. Raises UserError where that is not enough.
        """
        key = (prompt.id, context.id, context.passages[:-1]) if context else (prompt.id, None, ())
        if key not in self._known:
            self._known[key] = self._fit(prompt, context)
        return self._known[key]

    def fits(self, prompt: Prompt, context: Context | None) -> bool:
        """Whether a prompt fits into the window as it is."""
        return self.window is None or len(self._build(prompt, context)[1]) <= self.window

    def warn_of_cuts(self, reporter: Reporter) -> None:
        if self.cut:
            reporter.warn(
                f"{len(self.cut)} contexts were cut to fit the model's window of {self.window} prompt tokens; "
                "lower sources.context_tokens to choose yourself where they end"
            )

    def _fit(self, prompt: Prompt, context: Context | None) -> tuple[Messages, list[int]]:
        messages, tokens = self._build(prompt, context)
        if self.window is None or len(tokens) <= self.window:
            return messages, tokens
        words = encode_text(self.tokenizer, context.text) if context else []
        low, high = 0, len(words)  # `low` tokens of the context are known to fit once it is above 0
        while context and low < high:
            middle = (low + high + 1) // 2
            if len(self._build(prompt, _shortened(context, self.tokenizer.decode(words[:middle])))[1]) <= self.window:
                low = middle
            else:
                high = middle - 1
        if context is None or low == 0:
            raise UserError(
                f"prompts: {prompt.id} ({prompt.text[:40]!r}...) has no room beside a context in the model's window "
                f"({len(tokens)} tokens, {self.window} fit beside pairs.max_tokens); shorten the prompt or lower pairs.max_tokens"
            )
        self.cut.add(context.id)
        return self._build(prompt, _shortened(context, self.tokenizer.decode(words[:low])))

    def _build(self, prompt: Prompt, context: Context | None) -> tuple[Messages, list[int]]:
        passages, profile = (context.passages, context.profile) if context else ((), "")
        built = messages(self.settings, prompt.text, passages, profile)
        return built, encode(self.tokenizer, built)


def _shortened(context: Context, text: str) -> Context:
    """The context with the beginning of its passage, or of its profile where that is all."""
    return replace(context, text=text, profile=context.profile if context.passages else text)
