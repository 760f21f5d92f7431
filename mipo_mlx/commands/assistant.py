"""The assistant behind `mipo-mlx ask` and `chat`: a run's model, its memory, and the frame in which training put both."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from mlx_lm.generate import stream_generate

from ..engine import fast
from ..engine.sampling import nucleus_sampler
from ..errors import UserError
from ..memory.access import open_memory
from ..memory.contexts import profile_of
from ..memory.retrieve import Match
from ..models import adapters
from ..models.chat_template import Messages
from ..models.load import load
from ..models.prompts import encode, system_message, window_of
from ..progress import Reporter
from ..records import Context
from ..run import Run

TUNED, BASE = "tuned", "base"
TOP_P = 0.95


@dataclass(frozen=True)
class Named:
    """A context that the user names, in place of what memory finds."""

    passages: tuple[str, ...]
    profile: str = ""

    @staticmethod
    def of(contexts: Sequence[Context]) -> "Named":
        """Several contexts as one, with the profile that they share."""
        return Named(tuple(passage for context in contexts for passage in context.passages), contexts[0].profile)


@dataclass(frozen=True)
class Wishes:
    """What the user wants of the answers."""

    notes: bool = True  # find passages of the notes
    context: Named | None = None  # in place of profile and notes
    base: bool = False  # the base answers beside the tuned model
    max_tokens: int = 400
    temperature: float = 0.7


@dataclass(frozen=True)
class Background:
    """What the model is told with a question."""

    system: str
    matches: tuple[Match, ...] = ()  # best first
    profile: str = ""

    @property
    def places(self) -> str:
        """The places of the passages, as in "[bees.md:12] [tea.md:3]"."""
        return " ".join(f"[{match.place}]" for match in self.matches)


class Assistant:
    """A run's base with its adapters, and its memory where the run has notes.

    Raises UserError where nothing of the talk fits into the model's window.
    """

    def __init__(self, run: Run, wishes: Wishes, reporter: Reporter) -> None:
        self.run, self.wishes = run, wishes
        self.loaded = load(run.recipe.model)
        adapters.load(self.loaded.model, run.folder / "adapters")
        longest = window_of(self.loaded.config, 0)
        self.max_tokens = wishes.max_tokens if longest is None else min(wishes.max_tokens, longest // 2)
        self.window = longest and longest - self.max_tokens
        self.profile = "" if wishes.context else profile_of(run.folder, run.recipe)
        self.memory = open_memory(run.folder, run.recipe, self.loaded, reporter) if wishes.notes and not wishes.context else None

    @property
    def sides(self) -> tuple[str, ...]:
        return (TUNED, BASE) if self.wishes.base else (TUNED,)

    def background(self, question: str) -> Background:
        """What memory tells the model with this question."""
        if context := self.wishes.context:
            return Background(system_message(self.run.recipe.pairs, context.passages, context.profile))
        found = self.memory.search(question, self.run.recipe.memory.passages) if self.memory else []
        return self._framed(found)

    def prompt(self, history: Messages, background: Background) -> tuple[list[int], Background]:
        """Token ids of a talk, and what of the background is in them.

        Where they outgrow the window, the oldest questions and answers go, then the passages that fit least.
        """
        history = list(history)
        while True:
            opening = [{"role": "system", "content": background.system}] if background.system else []
            tokens = encode(self.loaded.tokenizer, [*opening, *history])
            if self.window is None or len(tokens) <= self.window:
                return tokens, background
            if len(history) > 1:
                del history[:2]
            elif background.matches:
                background = self._framed(background.matches[:-1])
            else:
                raise UserError(
                    f"context and question have {len(tokens)} tokens, and {self.window} fit into the model's window beside the "
                    "answer; shorten them, or lower --max-tokens"
                )

    def answer(self, prompt: list[int], side: str, show: Callable[[str], Any]) -> str:
        """The answer of one model, shown piece by piece. Ctrl-C cuts it short."""
        parts, model = [], self.loaded.model
        sampler = nucleus_sampler(self.wishes.temperature, TOP_P)
        try:
            with adapters.disabled(model) if side == BASE else nullcontext(), fast(model):
                pieces = stream_generate(model, self.loaded.tokenizer, prompt, max_tokens=self.max_tokens, sampler=sampler)
                for piece in pieces:
                    parts.append(piece.text)
                    show(piece.text)
        except KeyboardInterrupt:
            show(" ...")
        return "".join(parts)

    def _framed(self, matches: Sequence[Match]) -> Background:
        passages = [match.entry.text for match in reversed(matches)]  # best last
        return Background(system_message(self.run.recipe.pairs, passages, self.profile), tuple(matches), self.profile)


def shortened(match: Match, width: int) -> str:
    """The beginning of a passage on one line."""
    text = " ".join(match.entry.text.split())
    return text if len(text) <= width else f"{text[: width - 4]} ..."
