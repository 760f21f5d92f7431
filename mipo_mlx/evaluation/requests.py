"""Who is asked what in the evaluation: held-out prompts, each under several held-out contexts of different notes; without notes,
several held-out prompts beside one another.

~~~ Ask both models the same held-out requests, and score what they answered under every context of the group.

~~~ Fresh answers of the model under test, in the form in which the journal keeps them; the same seeds for both models.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import logprobs
from ..engine.sampling import sample
from ..memory.contexts import read_contexts
from ..models import adapters
from ..models.prompts import PromptBuilder
from ..progress import Bar
from ..recipe import Pairs, Recipe
from ..records import HELDOUT, Answer, Context, Pair, Prompt, read_records
from .journal import Journal


@dataclass(frozen=True)
class Group:
    """K rows, as a rule one prompt under K contexts; the first `asked` are answered, and told apart among all K."""

    prompt_ids: list[str]
    prompts: list[str]
    notes: list[str]  # whose contexts they are; a context without a note of its own stands for itself
    contexts: list[str]  # "": nothing is told about a user, and the rows are told apart by their prompts
    tokens: list[list[int]]  # what each row is asked, as token ids; a context's end is cut where the window is too small
    asked: int
    plain: list[int] | None = None  # the prompt's token ids without a context; None for pairs made elsewhere
    bare: list[str] = field(default_factory=list)  # each context without a profile that others share; []: as `contexts`

    @property
    def apart(self) -> list[str]:
        """The text by which a judge can tell each row from the others."""
        return (self.bare or self.contexts) if any(self.contexts) else self.prompts


@dataclass(frozen=True)
class Scored:
    """One answer and its likelihoods."""

    text: str
    tokens: list[int]
    finish: str
    base: list[list[float]]  # (contexts, tokens) log-probabilities under the base, nats
    tuned: list[list[float]]  # the same under the tuned model; () for the base's answers

    def own(self, which: str, own: int) -> np.ndarray:
        return np.asarray(getattr(self, which)[own], dtype=np.float64)

    def sums(self, which: str) -> list[float]:
        return [float(np.sum(row)) for row in getattr(self, which)]


@dataclass(frozen=True)
class Asked:
    """One request: row `own` of a group, with the answer of either model."""

    group: Group
    own: int
    base: Scored
    tuned: Scored

    @property
    def prompt(self) -> str:
        return self.group.prompts[self.own]

    @property
    def context(self) -> str:
        """What is told about the user; "" for nothing."""
        return self.group.contexts[self.own]


def build(folder: Path, recipe: Recipe, ask: PromptBuilder) -> list[Group]:
    """Groups for `evaluation.answers` answers from contexts.jsonl and prompts.jsonl, or from the held-out pairs where a run
    started from a pair file made elsewhere. [] where fewer than two contexts are held out."""
    contexts = [c for c in read_contexts(folder, recipe) if c.split == HELDOUT]
    prompts = [p for p in read_records(folder / "prompts.jsonl", Prompt) if p.split == HELDOUT]
    if not contexts or not prompts:
        return _from_pairs(read_records(folder / "pairs.jsonl", Pair), recipe.evaluation.answers)
    notes = {context.note for context in contexts}
    among = min(max(recipe.evaluation.choices), len(notes))
    if among < 2:
        return []
    asked = min(recipe.pairs.contexts_per_grid, among)
    rng = np.random.default_rng([recipe.seed, 0xE7A1])
    order = rng.permutation(len(prompts))
    groups: list[Group] = []
    deck: list[int] = []
    left = recipe.evaluation.answers
    while left > 0:
        prompt = prompts[order[len(groups) % len(prompts)]]
        chosen = _deal(contexts, asked, deck, rng)
        if among > asked:
            chosen += _others(contexts, chosen, among - asked, rng)
        groups.append(
            Group(
                [prompt.id] * among,
                [prompt.text] * among,
                [c.note for c in chosen],
                [c.told for c in chosen],
                [ask(prompt, context)[1] for context in chosen],
                min(asked, left),
                ask(prompt, None)[1],
                [c.text for c in chosen],
            )
        )
        left -= asked
    return groups


def _others(contexts: list[Context], chosen: list[Context], count: int, rng: np.random.Generator) -> list[Context]:
    """`count` more contexts, all of different notes, that an answer may be mistaken for."""
    found: dict[str, Context] = {}
    for index in rng.permutation(len(contexts)):
        if contexts[index].note not in {context.note for context in chosen}:
            found.setdefault(contexts[index].note, contexts[index])
    return list(found.values())[:count]


def _deal(contexts: list[Context], among: int, deck: list[int], rng: np.random.Generator) -> list[Context]:
    """`among` contexts of different notes from a shuffled deck, so that all contexts are asked about equally often."""
    chosen: list[Context] = []
    aside: list[int] = []
    while len(chosen) < among:
        if not deck:
            held = {*aside, *(contexts.index(c) for c in chosen)}
            deck += [i for i in rng.permutation(len(contexts)).tolist() if i not in held]
        index = deck.pop(0)
        if any(contexts[index].note == c.note for c in chosen):
            aside.append(index)
        else:
            chosen.append(contexts[index])
    deck[:0] = aside
    return chosen


def _from_pairs(pairs: list[Pair], answers: int) -> list[Group]:
    """A grid's right prompts, in file order; its contexts are the system messages (or what stands before the last turn), and none
    where all of them are the same."""
    grids: dict[int, dict[tuple[int, ...], Pair]] = {}
    for pair in pairs:
        if pair.split == HELDOUT:
            grids.setdefault(pair.grid, {}).setdefault(tuple(pair.prompt_tokens), pair)
    groups: list[Group] = []
    left = answers
    for grid, unique in grids.items():
        of = list(unique.values())
        if len(of) < 2 or left <= 0:
            continue
        contexts = ["\n".join(m["content"] for m in pair.prompt[:-1]) for pair in of]
        groups.append(
            Group(
                [pair.prompt_id or f"grid-{grid}" for pair in of],
                [pair.prompt[-1]["content"] for pair in of],
                [pair.context_id or f"{grid}-{i}" for i, pair in enumerate(of)],
                contexts if len(set(contexts)) > 1 else [""] * len(of),
                [pair.prompt_tokens for pair in of],
                min(len(of), left),
            )
        )
        left -= len(of)
    return groups


def ask(model: Any, tokenizer: Any, groups: list[Group], recipe: Recipe, journal: Journal, bar: Bar | None = None) -> list[Asked]:
    """Sample one answer a request from the base and one from the tuned model; score all by the base and the tuned model's own
    by itself too, under each context. `model` has adapters on it. The bar moves by four for each request."""
    requests = [(number, own) for number, group in enumerate(groups) for own in range(group.asked)]

    def sample(side: str) -> list[list[dict[str, Any]]]:
        def compute(chunk: int, part: Sequence[tuple[int, int]]) -> list[Any]:
            prompts = [groups[number].tokens[own] for number, own in part]
            # The same seed for both models: what differs is the model.
            return answers(model, tokenizer, prompts, recipe.pairs, seed_of(recipe.seed, "eval", chunk))

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


def answers(model: Any, tokenizer: Any, prompts: Sequence[list[int]], settings: Pairs, seed: int) -> list[dict[str, Any]]:
    """One sampled answer a prompt: {"text", "tokens", "finish"}, under the sampling settings of the pairs.

    `tokens` ends with the end-of-turn token where the model wrote one (finish "stop"); "length" means cut at max_tokens.
    The whole list is one batch: the same list and seed give the same answers.
    """
    one_batch = settings.model_copy(update={"batch": max(1, len(prompts))})
    written = sample(model, tokenizer, [list(prompt) for prompt in prompts], one_batch, seed)
    return [row(answer) for answer in written]


def row(answer: Answer) -> dict[str, Any]:
    """An answer as the journal keeps it."""
    return {"text": answer.text.strip(), "tokens": answer.tokens, "finish": answer.finish}


def seed_of(seed: int, *names: object) -> int:
    """A seed of its own for each piece of work, the same on every machine."""
    digest = hashlib.sha256(":".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
