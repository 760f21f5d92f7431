"""What the model itself says of passages (`sources.rank: model`): how much each changes the base's answers, in nats.

The base answers a few requests without any passage. These answers are scored under each passage: what it takes off their
log-probability estimates KL(answers without the passage || answers with it). A passage runs once for all requests. The passages are
then ordered by this before the cut to `sources.max_contexts`. Nothing is computed where no passage has to go.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..engine import fast
from ..engine.logprobs import token_logprobs, total
from ..engine.sampling import common_prefix, sample
from ..models.load import LoadedModel, load
from ..models.prompts import encode, messages
from ..progress import Reporter
from ..recipe import Pairs, Recipe
from ..records import TRAIN, Prompt, key_for
from .note import Passage
from .own_choice import FIRST

REQUESTS, TOKENS = 3, 24  # requests that each passage is tried on; tokens of an answer, at most
AT_ONCE = 64  # passages between two moves of the bar

Nats = Callable[[Sequence[str]], list[float]]


def changes(loaded: LoadedModel, settings: Pairs, requests: Sequence[str], key: int, reporter: Reporter) -> Nats:
    """A function from passages to the nats by which each changes an answer, on average over the requests."""
    model, tokenizer = loaded.model, loaded.tokenizer

    def prompts(passage: str | None) -> list[list[int]]:
        return [encode(tokenizer, messages(settings, request, passage)) for request in requests]

    brief = settings.model_copy(update={"max_tokens": TOKENS, "temperature": 1.0, "top_p": 1.0, "whole_sentences": False})
    answers = [answer.tokens for answer in sample(model, tokenizer, prompts(None), brief, key)]

    def score(passages: Sequence[str | None]) -> list[float]:
        """Log-probability of all answers under each passage, in nats."""
        rows = [prompts(passage) for passage in passages]
        before = [common_prefix(some) for some in rows]
        after = [
            [prompt[len(shared) :] + answer for prompt, answer in zip(some, answers, strict=True)]
            for some, shared in zip(rows, before, strict=True)
        ]
        with fast(model):
            scored = token_logprobs(model, before, after)
        return [sum(total(logps[-len(answer) :]) for logps, answer in zip(some, answers, strict=True)) for some in scored]

    without = score([None])[0]

    def nats(passages: Sequence[str]) -> list[float]:
        values: list[float] = []
        with reporter.track("asking the model about passages", total=len(passages), unit="passages") as bar:
            for first in range(0, len(passages), AT_ONCE):
                part = passages[first : first + AT_ONCE]
                values += [(without - value) / len(requests) for value in score(part)]
                bar.advance(len(part))
        return values

    return nats


def by_model(recipe: Recipe, reporter: Reporter) -> Callable[[list[Passage], list[Prompt]], list[Passage]]:
    """What orders passages by the recipe's base, which is loaded where there are too many of them."""

    def order(passages: list[Passage], prompts: list[Prompt]) -> list[Passage]:
        if len(passages) <= recipe.sources.max_contexts:
            return passages
        requests = [prompt.text for prompt in prompts if prompt.split == TRAIN][:REQUESTS]
        nats = changes(load(recipe.model), recipe.pairs, requests, key_for(recipe.seed, "answers without passages"), reporter)
        return in_order(passages, nats([passage.text for passage in passages]))

    return order


def in_order(passages: list[Passage], nats: Sequence[float]) -> list[Passage]:
    """The passages with the same ranks dealt anew: the highest to the one with most nats. What the owner keeps stays above all."""
    mine = [place for place, passage in enumerate(passages) if passage.rank < FIRST / 2]
    ranks = sorted((passages[place].rank for place in mine), reverse=True)
    ordered = sorted(mine, key=lambda place: -nats[place])
    dealt = dict(zip(ordered, ranks, strict=True))
    return [replace(passage, rank=dealt.get(place, passage.rank)) for place, passage in enumerate(passages)]
