"""Ask both models the same held-out requests, and score what they answered under every context of the group."""

from collections.abc import Sequence
from typing import Any

from .. import logprobs
from ..models import adapters
from ..progress import Bar
from ..recipe import Recipe
from . import sampling
from .answers import Asked, Scored
from .cases import Group
from .journal import Journal


def ask(model: Any, tokenizer: Any, groups: list[Group], recipe: Recipe, journal: Journal, bar: Bar | None = None) -> list[Asked]:
    """Sample one answer a request from the base and one from the tuned model; score all by the base and the tuned model's own
    by itself too, under each context. `model` has adapters on it. The bar moves by four for each request."""
    requests = [(number, own) for number, group in enumerate(groups) for own in range(group.asked)]

    def sample(side: str) -> list[list[dict[str, Any]]]:
        def compute(chunk: int, part: Sequence[tuple[int, int]]) -> list[Any]:
            prompts = [groups[number].tokens[own] for number, own in part]
            # The same seed for both models: what differs is the model.
            return sampling.answers(model, tokenizer, prompts, recipe.pairs, sampling.seed_of(recipe.seed, "eval", chunk))

        flat = iter(journal.map(f"sample-{side}", requests, recipe.pairs.batch, compute, bar))
        return [[next(flat) for _ in range(group.asked)] for group in groups]

    def score(side: str, written: list[list[dict[str, Any]]]) -> list[list[list[list[float]]]]:
        def compute(_: int, part: Sequence[int]) -> list[Any]:
            return [score_group(model, groups[i], [answer["tokens"] for answer in written[i]]) for i in part]

        return journal.map(f"score-{side}", range(len(groups)), 1, compute, bar, lambda i: groups[i].asked)

    with adapters.disabled(model):
        base = sample("base")
    tuned = sample("tuned")
    with adapters.disabled(model):
        by_base = score("base", [b + t for b, t in zip(base, tuned, strict=True)])
    by_tuned = score("tuned", tuned)
    return [
        Asked(
            groups[i],
            own,
            Scored(**base[i][own], base=by_base[i][own], tuned=[]),
            Scored(**tuned[i][own], base=by_base[i][groups[i].asked + own], tuned=by_tuned[i][own]),
        )
        for i, own in requests
    ]


def score_group(model: Any, group: Group, written: list[list[int]]) -> list[list[list[float]]]:
    """(answers, contexts, tokens) log-probabilities of token ids, nats."""
    scored = logprobs.token_logprobs(model, group.tokens, [written] * len(group.tokens))
    return [[[float(v) for v in context[i]] for context in scored] for i in range(len(written))]
