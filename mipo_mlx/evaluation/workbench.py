"""What every part of the evaluation works with: the model, its tokenizer, the run, the journal, the bar."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from ..engine import sampling
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
T = TypeVar("T")


def embedder_of(settings: Evaluation) -> Embed | None:
    """The installed embedder; None where there is none, or where the recipe turns it off."""
    return embedding.minilm() if settings.embedding_judge else None


def drawn(items: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """`count` of the items at most, drawn at random, in the order that they have."""
    return [items[place] for place in sorted(rng.permutation(len(items))[:count].tolist())]


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
        self, phase: str, prompts: Sequence[list[int]], purpose: str, settings: Pairs | None = None, unpadded: bool = False
    ) -> list[Answer]:
        """One answer a prompt, kept in the journal as `phase`. Two phases of one purpose draw the same random numbers.

        settings: of the sampling, those of the recipe's pairs unless others are given. unpadded: see `sample_now`.
        """

        def compute(chunk: int, part: Sequence[list[int]]) -> list[Any]:
            return [asdict(answer) for answer in self.sample_now(part, f"{purpose} {chunk}", settings, unpadded)]

        rows = self.journal.map(phase, prompts, self.recipe.pairs.batch, compute, self.bar)
        return [Answer(**row) for row in rows]

    def sample_both(self, phase: str, lists: Mapping[str, Sequence[list[int]]]) -> dict[str, dict[Side, list[Answer]]]:
        """Both models' answers to several lists of prompts, which share batches: a step hardly takes longer for more rows."""
        here = self.keyed_by(lists)
        every = [prompt for some in lists.values() for prompt in some]
        answers: dict[str, dict[Side, list[Answer]]] = {name: {} for name in lists}
        for side in SIDES:
            with self.as_side(side):
                rest = iter(here.sample(f"{phase}-{side}", every, phase, unpadded=True))
            for name, some in lists.items():
                answers[name][side] = [next(rest) for _ in some]
        return answers

    def sample_now(
        self, prompts: Sequence[list[int]], purpose: str, settings: Pairs | None = None, unpadded: bool = False
    ) -> list[Answer]:
        """One answer a prompt, all in one batch: the same list and purpose give the same answers.

        unpadded: each prompt runs by itself up to its last token. Where lengths differ much, that saves the work of the padding.
        """
        one_batch = (settings or self.recipe.pairs).model_copy(update={"batch": max(1, len(prompts))})
        key = key_for(self.recipe.seed, f"evaluation {purpose}")
        rows = [list(prompt) for prompt in prompts]
        starts: list[list[int]] | list[sampling.Start] = rows
        if unpadded:
            nobody = [()] * len(prompts)
            starts = sampling.Prefixes(self.model, rows, nobody).starts(rows, nobody)
        written = sampling.sample(self.model, self.tokenizer, starts, one_batch, key)
        return [replace(answer, text=answer.text.strip()) for answer in written]

    def resampler(self, clusters: Clusters) -> Resampler:
        return Resampler(clusters, self.recipe.evaluation.bootstrap, self.recipe.seed)
