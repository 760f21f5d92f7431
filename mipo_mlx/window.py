"""What the model is asked, in a grid and in the evaluation: chat messages and their token ids, cut to the model's window."""

from typing import Any

from .errors import UserError
from .models import chat
from .progress import Reporter
from .recipe import Pairs
from .records import Context, Prompt


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
    return longest - max_tokens


class Asker:
    """Turns (prompt, context) into messages and token ids, each once; remembers in `cut` whose context had to be shortened."""

    def __init__(self, tokenizer: Any, settings: Pairs, window: int | None = None):
        self.tokenizer, self.settings, self.window = tokenizer, settings, window
        self.cut: set[str] = set()
        self._known: dict[tuple[str, str | None], tuple[chat.Messages, list[int]]] = {}

    def __call__(self, prompt: Prompt, context: Context | None) -> tuple[chat.Messages, list[int]]:
        """Chat messages and prompt token ids, the assistant's header included.

        A prompt beyond the window loses the end of its context, never of its own; UserError where that is not enough.
        """
        key = (prompt.id, context.id if context else None)
        if key not in self._known:
            self._known[key] = self._fit(prompt, context)
        return self._known[key]

    def tell_cuts(self, reporter: Reporter) -> None:
        """Warn of contexts that did not fit."""
        if self.cut:
            reporter.warn(
                f"{len(self.cut)} contexts were cut to fit the model's window of {self.window} prompt tokens; "
                "lower sources.context_tokens to choose yourself where they end"
            )

    def _fit(self, prompt: Prompt, context: Context | None) -> tuple[chat.Messages, list[int]]:
        messages, tokens = self._ask(prompt, context.told if context else None)
        if self.window is None or len(tokens) <= self.window:
            return messages, tokens
        words = self.tokenizer.encode(context.told, add_special_tokens=False) if context else []
        low, high = 0, len(words)  # `low` tokens of the context are known to fit once it is above 0
        while context and low < high:
            middle = (low + high + 1) // 2
            if len(self._ask(prompt, self.tokenizer.decode(words[:middle]))[1]) <= self.window:
                low = middle
            else:
                high = middle - 1
        if low == 0:
            raise UserError(
                f"prompts: {prompt.id} ({prompt.text[:40]!r}...) has no room beside a context in the model's window "
                f"({len(tokens)} tokens, {self.window} fit beside pairs.max_tokens); shorten the prompt or lower pairs.max_tokens"
            )
        self.cut.add(context.id)  # type: ignore[union-attr]
        return self._ask(prompt, self.tokenizer.decode(words[:low]))

    def _ask(self, prompt: Prompt, context: str | None) -> tuple[chat.Messages, list[int]]:
        messages = chat.messages(self.settings, prompt.text, context)
        return messages, chat.encode(self.tokenizer, messages)
