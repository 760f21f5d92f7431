"""Who is asked what in the evaluation: held-out prompts, each under several held-out contexts of different notes; without notes,
several held-out prompts beside one another."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..contexts import read_contexts
from ..recipe import Recipe
from ..records import HELDOUT, Context, Pair, Prompt, read_records
from ..window import Asker


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


def build(folder: Path, recipe: Recipe, ask: Asker) -> list[Group]:
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
