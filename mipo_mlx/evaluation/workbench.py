"""What every part of the evaluation works with: the model, its tokenizer, the run, the journal, the bar."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from .. import backend
from ..engine import sampling
from ..engine.logprobs import Recorded
from ..engine.sampling import Labels, Prefixes, Start
from ..models import adapters, embedding
from ..models.embedding import Embed
from ..models.journal import Journal
from ..models.prompts import encode, messages
from ..progress import Bar, Reporter
from ..recipe import Evaluation, Pairs, Recipe
from ..records import Answer, key_for
from .statistics import Clusters, Resampler

Side = Literal["base", "tuned"]
SIDES: tuple[Side, Side] = ("base", "tuned")
Begin = Callable[[Sequence[list[int]]], list[Start]]  # runs prompts (token ids) up to their last token
T = TypeVar("T")


def embedder_of(settings: Evaluation) -> Embed | None:
    """The installed embedder; None where there is none, or where the recipe turns it off."""
    return embedding.minilm() if settings.embedding_judge else None


def drawn(items: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """`count` of the items at most, drawn at random, in the order that they have."""
    return [items[place] for place in sorted(rng.permutation(len(items))[:count].tolist())]


class Beginnings:
    """Prompts that several parts of the evaluation run. What they share, as a context, runs once for each model.

    It runs by itself, so its bits do not depend on what ran before, and an evaluation that was killed goes on with the same ones.
    """

    def __init__(self, model: Any, prompts: Iterable[tuple[list[int], Labels]]) -> None:
        """prompts: token ids of each, and the labels of what it shares with others, the widest first."""
        self.labels = {tuple(prompt): labels for prompt, labels in prompts}
        rows, labels = [list(prompt) for prompt in self.labels], list(self.labels.values())
        most = backend.cache_bytes(sampling.KEPT_BYTES) // len(SIDES)
        self.prefixes = {side: Prefixes(model, rows, labels, most) for side in SIDES}

    def starts(self, side: Side, prompts: Sequence[list[int]]) -> list[Start]:
        """These of the prompts, run up to their last token by the model of `side`."""
        return self.prefixes[side].starts(prompts, [self.labels[tuple(prompt)] for prompt in prompts])

    def recorded(self, side: Side, prompts: Sequence[list[int]]) -> list[Recorded] | None:
        """As `token_logprobs` takes them. None where other prompts are among them, or the model's caches are of other kinds."""
        if not self.prefixes[side].usable or not all(tuple(prompt) in self.labels for prompt in prompts):
            return None
        recorded = [start.recorded for start in self.starts(side, prompts)]
        return [one for one in recorded if one] if all(recorded) else None


@dataclass(frozen=True)
class Workbench:
    model: Any  # the base with the adapters on it: the trained model
    tokenizer: Any
    folder: Path  # of the run
    recipe: Recipe
    journal: Journal
    reporter: Reporter
    bar: Bar | None = None
    window: int | None = None  # tokens that a prompt may have; None: no limit
    embedder: Embed | None = None  # None: none is installed, or the recipe turns it off
    beginnings: Beginnings | None = None  # of the held-out pairs and of the requests

    def keyed_by(self, *settings: Any) -> "Workbench":
        """The same with a journal whose phases depend on these settings too."""
        return replace(self, journal=self.journal.keyed_by(*settings))

    @contextmanager
    def as_side(self, side: Side) -> Iterator[None]:
        """The model is the base, or the trained model, in here."""
        if side == "tuned":
            yield
            return
        with adapters.disabled(self.model):
            yield

    def by_side(self, phase: str, items: Sequence[T], compute: Callable[[Sequence[T]], list[Any]]) -> list[list[Any]]:
        """What `compute` gives for the items by the base, then by the trained model. The bar moves by two for each item."""
        results = []
        for side in SIDES:
            with self.as_side(side):
                size = self.recipe.pairs.batch
                results.append(self.journal.map(f"{phase}-{side}", items, size, lambda _, part: compute(part), self.bar))
        return results

    def prompt(self, request: str, passages: str | Sequence[str] | None, profile: str = "") -> list[int]:
        """Token ids of a request under a context, or under none: see `models.prompts.system_message`."""
        return encode(self.tokenizer, messages(self.recipe.pairs, request, passages, profile))

    def sample(
        self, phase: str, prompts: Sequence[list[int]], purpose: str, settings: Pairs | None = None, begin: Begin | None = None
    ) -> list[Answer]:
        """One answer a prompt, kept in the journal as `phase`. Two phases of one purpose draw the same random numbers.

        settings: of the sampling, those of the recipe's pairs unless others are given. begin: see `sample_now`.
        """

        def compute(chunk: int, part: Sequence[list[int]]) -> list[Any]:
            return [asdict(answer) for answer in self.sample_now(part, f"{purpose} {chunk}", settings, begin)]

        rows = self.journal.map(phase, prompts, self.recipe.pairs.batch, compute, self.bar)
        return [Answer(**row) for row in rows]

    def sample_both(self, phase: str, lists: Mapping[str, Sequence[list[int]]]) -> dict[str, dict[Side, list[Answer]]]:
        """Both models' answers to several lists of prompts, which share batches: a step hardly takes longer for more rows."""
        here = self.keyed_by(lists)
        every = [prompt for some in lists.values() for prompt in some]
        answers: dict[str, dict[Side, list[Answer]]] = {name: {} for name in lists}
        for side in SIDES:
            with self.as_side(side):
                rest = iter(here.sample(f"{phase}-{side}", every, phase, begin=self.unpadded))
            for name, some in lists.items():
                answers[name][side] = [next(rest) for _ in some]
        return answers

    def sample_now(
        self, prompts: Sequence[list[int]], purpose: str, settings: Pairs | None = None, begin: Begin | None = None
    ) -> list[Answer]:
        """One answer a prompt, all in one batch: the same list and purpose give the same answers.

        begin: how the prompts run, unless all together in one padded batch.
        """
        one_batch = (settings or self.recipe.pairs).model_copy(update={"batch": max(1, len(prompts))})
        key = key_for(self.recipe.seed, f"evaluation {purpose}")
        rows = [list(prompt) for prompt in prompts]
        written = sampling.sample(self.model, self.tokenizer, begin(rows) if begin else rows, one_batch, key)
        return [replace(answer, text=answer.text.strip()) for answer in written]

    def unpadded(self, prompts: Sequence[list[int]]) -> list[Start]:
        """Each prompt by itself, after the opening of all: where lengths differ much, that saves the work of the padding."""
        nobody = [()] * len(prompts)
        return Prefixes(self.model, prompts, nobody).starts(prompts, nobody)

    def recorded(self, side: Side, prompts: Sequence[list[int]]) -> list[Recorded] | None:
        """What the evaluation keeps of these prompts' beginnings, for `token_logprobs`; None for nothing."""
        return self.beginnings.recorded(side, prompts) if self.beginnings else None

    def resampler(self, clusters: Clusters) -> Resampler:
        return Resampler(clusters, self.recipe.evaluation.bootstrap, self.recipe.seed)
