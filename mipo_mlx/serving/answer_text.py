"""Where an answer ends: tokens to text as they come, held back while they may begin a stop text.

A small model may say the same again and again until its answer is cut. Such an answer ends here (`loops`).
"""

from collections.abc import Sequence
from typing import Any

from ..models import control_tokens

LONGEST_LOOP, TIMES, LOOPED = 64, 4, 48  # tokens that are repeated, at most; how often, and over how many tokens, at least


def loops(tokens: Sequence[int]) -> bool:
    """Whether the last tokens are the same ones again and again."""
    for size in range(1, min(LONGEST_LOOP, len(tokens) // TIMES) + 1):
        begin = len(tokens) - max(TIMES * size, LOOPED)
        if begin >= 0 and tokens[-1] == tokens[-1 - size] and tokens[begin:-size] == tokens[begin + size :]:
            return True
    return False


class AnswerText:
    """The text of one answer, token by token. `ended` is True once it loops, or once a stop text was met, which is left out."""

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self.detokenizer, self.stops = tokenizer.detokenizer, tuple(stops)
        self.control = set(control_tokens.of(tokenizer).ids.values())
        self.held, self.ended = "", False
        self.tokens: list[int] = []

    def add(self, token: int) -> str:
        """The text that is certain after one more token; control tokens are no text."""
        if token in self.control:
            return ""
        self.detokenizer.add_token(token)
        self.tokens.append(token)
        text = self._certain(self.detokenizer.last_segment)
        self.ended = self.ended or loops(self.tokens)
        return text

    def finish(self) -> str:
        """What is left at the end of the answer."""
        self.detokenizer.finalize()
        text = self._certain(self.detokenizer.last_segment)
        rest, self.held = ("" if self.ended else self.held), ""
        return text + rest

    def _certain(self, more: str) -> str:
        if self.ended:
            return ""
        text = self.held + more
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if places:
            self.held, self.ended = "", True
            return text[: min(places)]
        keep = max((_begun(text, stop) for stop in self.stops), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of a text a stop text may begin with."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
