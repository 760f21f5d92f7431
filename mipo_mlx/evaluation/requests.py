"""The evaluation's requests: each held-out request under several held-out contexts of different notes, and both models' answers.

Both models get the same requests and the same random numbers. Their answers are then scored under every context of the group.
Without notes, several held-out requests of one grid stand beside one another.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import logprobs
from ..engine.sampling import Labels
from ..files import read_records
from ..memory.contexts import read_contexts
from ..models.prompts import Messages
from ..recipe import Recipe
from ..records import HELDOUT, Answer, Context, Pair, Prompt, key_for
from .workbench import SIDES, Begin, Side, Workbench

Ask = Callable[[Prompt, Context | None], tuple[Messages, list[int]]]  # as models.prompts.PromptBuilder


@dataclass(frozen=True)
class Group:
    """K rows, as a rule one request under K contexts. The first `wanted` get answers, which are told apart among all K."""

    request_ids: list[str]
    requests: list[str]
    notes: list[str]  # whose contexts they are; a context without a note of its own stands for itself
    contexts: list[str]  # "": nothing is said about a user, and the rows are told apart by their requests
    prompts: list[list[int]]  # token ids of each row; a context's end is cut where the window is too small
    wanted: int
    plain: list[int] | None = None  # the prompt without a context; None for pairs made elsewhere
    passages: list[str] = field(default_factory=list)  # each context without a profile that others share; []: as `contexts`

    @property
    def apart(self) -> list[str]:
        """The text by which a judge can tell each row from the others."""
        return (self.passages or self.contexts) if any(self.contexts) else self.requests


@dataclass(frozen=True)
class Scored:
    """One answer and its likelihoods."""

    answer: Answer
    base: list[list[float]]  # (contexts, tokens) log-probabilities under the base, nats
    tuned: list[list[float]]  # the same under the trained model; [] for the base's answers, and where nothing needs them

    @property
    def text(self) -> str:
        return self.answer.text

    @property
    def length(self) -> int:
        """Tokens, that of the end of the turn included."""
        return len(self.answer.tokens)

    def rows(self, by: Side) -> list[list[float]]:
        return self.base if by == "base" else self.tuned

    def total(self, by: Side, row: int) -> float:
        """Log-probability under one context, nats."""
        return float(np.sum(self.rows(by)[row]))

    def totals(self, by: Side) -> list[float]:
        """(contexts,) log-probability under each, nats."""
        return [self.total(by, row) for row in range(len(self.rows(by)))]


@dataclass(frozen=True)
class Answered:
    """One request: row `own` of a group, with the answer of either model."""

    group: Group
    own: int
    base: Scored
    tuned: Scored

    @property
    def request(self) -> str:
        return self.group.requests[self.own]

    @property
    def context(self) -> str:
        """What the model is told about the user; "" for nothing."""
        return self.group.contexts[self.own]

    def by(self, side: Side) -> Scored:
        return self.base if side == "base" else self.tuned


def groups_of(folder: Path, recipe: Recipe, ask: Ask) -> list[Group]:
    """Groups for `evaluation.answers` answers. [] where fewer than two contexts are held out.

    They come from contexts.jsonl and prompts.jsonl, or from the held-out pairs where a run started from a pair file made elsewhere.
    """
    contexts, requests = heldout_of(folder, recipe)
    if not contexts or not requests:
        return _from_pairs(read_records(folder / "pairs.jsonl", Pair), recipe.evaluation.answers)
    among = among_of(contexts, recipe)
    if among < 2:
        return []
    wanted = min(recipe.pairs.contexts_per_grid, among)
    rng = np.random.default_rng(key_for(recipe.seed, "evaluation requests"))
    return dealt(contexts, requests, ask, Sizes(among, wanted, recipe.evaluation.answers), rng)


def among_of(contexts: Sequence[Context], recipe: Recipe) -> int:
    """How many contexts of different notes a group has."""
    return min(max(recipe.evaluation.choices), len({context.note for context in contexts}))


@dataclass(frozen=True)
class Sizes:
    """How many contexts a group has, how many of these get answers, and how many answers all groups get."""

    among: int
    wanted: int
    answers: int


def dealt(contexts: list[Context], requests: list[Prompt], ask: Ask, sizes: Sizes, rng: np.random.Generator) -> list[Group]:
    """Groups of these requests in a drawn order. All contexts come up equally often."""
    among, wanted = sizes.among, sizes.wanted
    order = rng.permutation(len(requests))
    groups: list[Group] = []
    deck: list[int] = []
    left = sizes.answers
    while left > 0:
        request = requests[order[len(groups) % len(requests)]]
        chosen = _deal(contexts, wanted, deck, rng)
        if among > wanted:
            chosen += _others(contexts, chosen, among - wanted, rng)
        groups.append(
            Group(
                [request.id] * among,
                [request.text] * among,
                [c.note for c in chosen],
                [c.full_text for c in chosen],
                [ask(request, context)[1] for context in chosen],
                min(wanted, left),
                ask(request, None)[1],
                [c.text for c in chosen],
            )
        )
        left -= wanted
    return groups


def heldout_of(folder: Path, recipe: Recipe) -> tuple[list[Context], list[Prompt]]:
    """The held-out contexts and personal requests of a run; none of either where it started from a pair file."""
    contexts = [context for context in read_contexts(folder, recipe) if context.split == HELDOUT]
    return contexts, [prompt for prompt in read_records(folder / "prompts.jsonl", Prompt) if prompt.judges]


def _others(contexts: list[Context], chosen: list[Context], count: int, rng: np.random.Generator) -> list[Context]:
    """`count` more contexts, all of different notes, that an answer may be mistaken for."""
    others: dict[str, Context] = {}
    for index in rng.permutation(len(contexts)):
        if contexts[index].note not in {context.note for context in chosen}:
            others.setdefault(contexts[index].note, contexts[index])
    return list(others.values())[:count]


def _deal(contexts: list[Context], count: int, deck: list[int], rng: np.random.Generator) -> list[Context]:
    """`count` contexts of different notes from a shuffled deck, so that all contexts come up equally often."""
    chosen: list[Context] = []
    aside: list[int] = []
    while len(chosen) < count:
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
    """A group for each grid, of its right prompts in file order.

    Contexts are the system messages (or what stands before the last turn). There are none where all of a grid are the same.
    """
    grids: dict[int, dict[tuple[int, ...], Pair]] = {}
    for pair in pairs:
        if pair.split == HELDOUT:
            grids.setdefault(pair.grid, {}).setdefault(tuple(pair.prompt_tokens), pair)
    groups: list[Group] = []
    left = answers
    for grid, unique in grids.items():
        rows = list(unique.values())
        if len(rows) < 2 or left <= 0:
            continue
        contexts = ["\n".join(m["content"] for m in pair.prompt[:-1]) for pair in rows]
        groups.append(
            Group(
                [pair.prompt_id or f"grid-{grid}" for pair in rows],
                [pair.prompt[-1]["content"] for pair in rows],
                [pair.context_id or f"{grid}-{i}" for i, pair in enumerate(rows)],
                contexts if len(set(contexts)) > 1 else [""] * len(rows),
                [pair.prompt_tokens for pair in rows],
                min(len(rows), left),
            )
        )
        left -= len(rows)
    return groups


def answer(bench: Workbench, groups: list[Group], phase: str = "", by_tuned: bool = True) -> list[Answered]:
    """One answer a request from the base and one from the trained model. The bar moves by four for each request.

    The base scores all answers, and the trained model its own, under each context of the group. phase: before the journal's phases,
    where there are several sets of groups. Without `by_tuned` the trained model scores none, and the bar moves by three.
    """
    rows = [(number, own) for number, group in enumerate(groups) for own in range(group.wanted)]
    prompts = [groups[number].prompts[own] for number, own in rows]
    answers: dict[Side, list[list[Answer]]] = {}
    for side in SIDES:
        with bench.as_side(side):
            # The same random numbers for both models: what differs is the model.
            written = bench.sample(f"{phase}sample-{side}", prompts, f"{phase}answers", begin=_begin(bench, side))
            answers[side] = by_group(groups, written)
    with bench.as_side("base"):
        both = [base + tuned for base, tuned in zip(answers["base"], answers["tuned"], strict=True)]
        by_base = score(bench, f"{phase}score-base", groups, both, "base")
    own = score(bench, f"{phase}score-tuned", groups, answers["tuned"], "tuned") if by_tuned else None
    return [
        Answered(
            groups[i],
            place,
            Scored(answers["base"][i][place], by_base[i][place], []),
            Scored(answers["tuned"][i][place], by_base[i][groups[i].wanted + place], own[i][place] if own else []),
        )
        for i, place in rows
    ]


def by_group(groups: Sequence[Group], answers: Sequence[Answer]) -> list[list[Answer]]:
    """The answers of each group, from one list of all."""
    rest = iter(answers)
    return [[next(rest) for _ in range(group.wanted)] for group in groups]


def score(
    bench: Workbench, phase: str, groups: Sequence[Group], answers: list[list[Answer]], by: Side
) -> list[list[list[list[float]]]]:
    """For each group the log-probabilities of its answers by the model, which is that of the side `by`, kept in the journal."""

    def compute(_: int, part: Sequence[int]) -> list[Any]:
        return [score_group(bench, groups[i], answers[i], by) for i in part]

    return bench.journal.map(phase, range(len(groups)), 1, compute, bench.bar, lambda i: groups[i].wanted)


def scored_by_base(bench: Workbench, phase: str, groups: Sequence[Group], answers: Sequence[Answer]) -> list[Scored]:
    """The answers of all groups, in one list, with their likelihoods under the base alone."""
    rows = by_group(groups, answers)
    with bench.as_side("base"):
        scores = score(bench, phase, groups, rows, "base")
    pairs = [pair for row, row_scores in zip(rows, scores, strict=True) for pair in zip(row, row_scores, strict=True)]
    return [Scored(answer, likelihoods, likelihoods) for answer, likelihoods in pairs]


def score_group(bench: Workbench, group: Group, answers: Sequence[Answer], by: Side) -> list[list[list[float]]]:
    """(answers, contexts, tokens) log-probabilities, nats."""
    tokens = [[answer.tokens for answer in answers]] * len(group.prompts)
    scored = logprobs.token_logprobs(bench.model, group.prompts, tokens, recorded=bench.recorded(by, group.prompts))
    return [[[float(v) for v in context[i]] for context in scored] for i in range(len(answers))]


def labelled(pairs: Sequence[Pair], groups: Sequence[Group], contexts: Sequence[Context]) -> Iterator[tuple[list[int], Labels]]:
    """The prompts of held-out pairs and of groups. Those of one context share a label, behind the same distractors too."""
    texts = {context.id: context.full_text for context in contexts}
    for pair in pairs:
        behind = (tuple(pair.distractor_ids),) if pair.distractor_ids else ()
        yield pair.prompt_tokens, (*behind, texts.get(pair.context_id or "", ""))
    for group in groups:
        yield from ((prompt, (text,)) for prompt, text in zip(group.prompts, group.contexts, strict=True))


def _begin(bench: Workbench, side: Side) -> Begin | None:
    beginnings = bench.beginnings
    return None if beginnings is None else lambda prompts: beginnings.starts(side, prompts)
