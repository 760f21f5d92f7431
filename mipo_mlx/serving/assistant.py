"""The assistant behind `mipo-mlx ask`, `chat` and `serve`: a run's model, its memory, and the frame in which training put both."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_lm.generate import stream_generate

from ..engine import fast
from ..engine.sampling import nucleus_sampler
from ..errors import UserError
from ..memory.access import open_memory, renew
from ..memory.contexts import profile_of
from ..memory.retrieve import Match
from ..models import adapters
from ..models.chat_template import Messages
from ..models.load import load
from ..models.prompts import encode, system_message, window_of
from ..progress import Reporter
from ..recipe import Recipe
from ..records import BASE, TUNED, Context
from ..sources.changes import Changes
from .answer_text import loops
from .renewal import Taken, renewed

LABELS = {TUNED: "[trained] ", BASE: "[base] "}  # before the answers of two models


@dataclass(frozen=True)
class NamedContext:
    """A context that the user names, in place of what memory finds."""

    passages: tuple[str, ...]
    profile: str = ""

    @staticmethod
    def of(contexts: Sequence[Context]) -> "NamedContext":
        """Several contexts as one, with the profile that they share."""
        return NamedContext(tuple(passage for context in contexts for passage in context.passages), contexts[0].profile)


@dataclass(frozen=True)
class AnswerOptions:
    """What the user wants of the answers."""

    notes: bool = True  # find passages of the notes
    context: NamedContext | None = None  # in place of profile and notes
    base: bool = False  # the base answers beside the trained model
    max_tokens: int = 400
    temperature: float | None = None  # None: the recipe's, at which evaluation answered


@dataclass(frozen=True)
class Background:
    system: str
    matches: tuple[Match, ...] = ()  # best first
    before: str = ""  # a system message of the client's own, which stands before the frame

    @property
    def places(self) -> str:
        """The places of the passages, as in "[bees.md:12] [tea.md:3]"."""
        return " ".join(f"[{match.place}]" for match in self.matches)


class Assistant:
    """A run's base with its adapters, and its memory where the run has notes.

    Raises UserError where nothing of the talk fits into the model's window.
    """

    def __init__(self, folder: Path, recipe: Recipe, options: AnswerOptions, reporter: Reporter) -> None:
        self.folder, self.recipe, self.options, self.reporter = folder, recipe, options, reporter
        self.loaded, self.taken = load(recipe.model), Taken.of(folder)
        adapters.load(self.loaded.model, folder / "adapters")
        self.longest = window_of(self.loaded.config, 0)
        self.max_tokens = self.affordable(options.max_tokens)
        self.temperature = recipe.pairs.temperature if options.temperature is None else options.temperature
        self.window = self.longest and self.longest - self.max_tokens
        self.memory = open_memory(folder, recipe, self.loaded, reporter) if options.notes and not options.context else None
        if self.memory:
            self.memory.warm()

    def renew(self) -> Changes:
        """Take changed notes into memory; returns what was new, changed and gone."""
        if self.memory is None:
            return Changes()
        return renew(self.memory, self.folder, self.recipe, self.loaded, Reporter(quiet=True))

    @property
    def outdated(self) -> bool:
        return self.taken.is_old(self.folder)

    def take_adapters(self) -> None:
        self.taken = renewed(self.taken, self.folder, self.recipe, self.loaded.model, self.reporter)

    def affordable(self, max_tokens: int) -> int:
        """That many tokens of answer, or half of the model's window where they are more."""
        return max_tokens if self.longest is None else min(max_tokens, self.longest // 2)

    @property
    def profile(self) -> str:
        return "" if self.options.context else profile_of(self.folder, self.recipe)

    @property
    def sides(self) -> tuple[str, ...]:
        return (TUNED, BASE) if self.options.base else (TUNED,)

    def background(self, question: str, notes: bool = True, before: str = "") -> Background:
        """What memory tells the model with this question. before: a system message of the client's own."""
        if context := self.options.context:
            return Background(system_message(self.recipe.pairs, context.passages, context.profile))
        matches = self.memory.search(question, self.recipe.passages) if notes and self.memory else []
        return self._framed(matches, before)

    def prompt(self, history: Messages, background: Background, window: int | None = None) -> tuple[list[int], Background]:
        """Token ids of a talk, and what of the background is in them. window: how many there may be, in place of the talk's own.

        Where they outgrow the window, the oldest questions and answers go, then the passages that fit least.
        """
        window = window or self.window
        begins = [place for place, message in enumerate(history) if not place or message["role"] == "user"]

        def tokens_from(begin: int) -> list[int]:
            opening = [{"role": "system", "content": background.system}] if background.system else []
            return encode(self.loaded.tokenizer, [*opening, *history[begin:]])

        tokens = tokens_from(0)
        if window is not None and len(tokens) > window and len(begins) > 1:  # of the later beginnings, the first that fits
            place = bisect_left(begins, True, 1, len(begins) - 1, key=lambda begin: len(tokens_from(begin)) <= window)
            begins = begins[place:]
            tokens = tokens_from(begins[0])
        while window is not None and len(tokens) > window:
            if not background.matches:
                raise UserError(
                    f"context and question have {len(tokens)} tokens, and {window} fit into the model's window beside the "
                    "answer; shorten them, or let the answer have fewer tokens"
                )
            background = self._framed(background.matches[:-1], background.before)
            tokens = tokens_from(begins[0])
        return tokens, background

    def answer(self, prompt: list[int], side: str, show: Callable[[str], Any]) -> str:
        """The answer of one model, shown piece by piece. It ends where it loops, and Ctrl-C cuts it short."""
        parts, tokens, model = list[str](), list[int](), self.loaded.model
        sampler = nucleus_sampler(self.temperature, self.recipe.pairs.top_p)
        try:
            with adapters.disabled(model) if side == BASE else nullcontext(), fast(model):
                pieces = stream_generate(model, self.loaded.tokenizer, prompt, max_tokens=self.max_tokens, sampler=sampler)
                for piece in pieces:
                    parts.append(piece.text)
                    tokens.append(piece.token)
                    show(piece.text)
                    if loops(tokens):
                        show(" ...")
                        break
        except KeyboardInterrupt:
            show(" ...")
        return "".join(parts)

    def _framed(self, matches: Sequence[Match], before: str = "") -> Background:
        """The frame of training, after the client's own system message.

        The client's words come first: they are the same in each of its requests, so the prompt cache has them. The frame stands
        next to the question, as in training. Where memory says nothing, the client's message replaces the plain one.
        """
        profile, passages = self.profile, [match.entry.text for match in reversed(matches)]  # best last
        framed = system_message(self.recipe.pairs, passages, profile)
        system = "\n\n".join(filter(None, (before, framed if passages or profile or not before else "")))
        return Background(system, tuple(matches), before)
