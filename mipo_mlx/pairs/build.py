"""From sampled and scored grids to contrastive pairs.

`build` is a pure function, so filters and negatives can change without new samples. Every answer under a context is the chosen one
of one pair, or is counted under the reason why not. `add_said_back` then gives some training pairs their own passage as a rejected
answer. The reason: training rewards whatever tells contexts apart, and repeating them does that best. The filters keep answers that
repeat from being chosen, but a base hardly writes any, so without these pairs training has none to push down.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from ..engine.logprobs import token_logprobs, total
from ..models.load import LoadedModel
from ..models.prompts import PromptBuilder, encode_text
from ..recipe import Recipe
from ..records import HELDOUT, TRAIN, VALIDATION, Context, Grid, Pair, Prompt
from ..text.words import likeness
from . import negatives
from .filters import REJECTED_ONLY, answer_fault, pair_fault
from .grids import behind, seeded

SPLITS = (TRAIN, VALIDATION, HELDOUT)
SAID_BACK = "said_back"  # the kind of a rejected answer that is the context itself (`add_said_back`)
AT_ONCE = 32  # pairs scored together for `add_said_back`
TOO_FEW = "too_few_left"  # the reason of a fit answer whose grid has no fit partner for it


@dataclass
class Built:
    """Pairs in the order of their grids, and what happened to every answer."""

    pairs: list[Pair] = field(default_factory=list)
    dropped: dict[str, Counter[str]] = field(default_factory=lambda: {split: Counter() for split in SPLITS})
    measured: dict[str, list[float]] = field(default_factory=lambda: {split: [] for split in SPLITS})  # PMI, unfiltered


@dataclass(frozen=True)
class Negative:
    kind: str
    row: int  # its answer's column in the grid, and its context's row


@dataclass(frozen=True)
class Rows:
    """A grid, and the prompt and context of each of its rows, as the model was shown them."""

    grid: Grid
    prompts: list[Prompt]
    contexts: list[Context | None]

    @property
    def of_prompts(self) -> bool:
        """One context and several prompts: the wrong answers are those to other questions."""
        return bool(self.grid.prompts)

    def has_own(self, row: int) -> bool:
        """Whether the row's answer is the chosen one of a pair: all but the answer without a context."""
        return self.of_prompts or self.contexts[row] is not None


def build(grids: list[Grid], contexts: dict[str, Context], prompts: dict[str, Prompt], recipe: Recipe, ask: PromptBuilder) -> Built:
    """Pairs of all grids, each treated by itself. contexts, prompts: by id."""
    built = Built()
    for grid in grids:
        names = grid.prompts or [grid.prompt] * len(grid.contexts)
        of_rows = [contexts[name] if name is not None else None for name in grid.contexts]
        row_contexts = behind(of_rows, [contexts[name] for name in grid.distractors])
        rows = Rows(grid, [prompts[name] for name in names], row_contexts)
        fit, barred = fit_rows(rows, recipe, built)
        built.pairs += balanced(rows, fit, barred, recipe, ask, built)
    return built


def balanced(rows: Rows, fit: list[int], barred: set[int], recipe: Recipe, ask: PromptBuilder, built: Built) -> list[Pair]:
    """The pairs of one grid; the answers of `barred` rows are rejected ones only.

    An answer whose pair has a fault leaves the grid whole, as chosen and as rejected one, and the others are dealt anew. If only
    its pair went, it would still be rejected elsewhere, and training would push its likelihood down whatever the context.
    """
    split, first = rows.grid.split, True
    while True:
        chosen = [row for row in fit if rows.has_own(row) and row not in barred]
        wrong = choose_negatives(rows, fit, recipe)
        if wrong is None:
            built.dropped[split][TOO_FEW] += len(chosen)
            return []
        pairs = {row: make_pair(rows, row, wrong[row], ask) for row in chosen}
        if first:
            built.measured[split] += [pmi for pair in pairs.values() for pmi in pair.pmi]
            first = False
        faults = {}
        for row, pair in pairs.items():
            fault = pair_fault([len(tokens) for tokens in pair.tokens], pair.pmi, recipe.pairs.filters, split)
            if fault:
                faults[row] = fault
        if not faults:
            return list(pairs.values())
        worst = min(faults, key=lambda row: (min(pairs[row].pmi), row))
        built.dropped[split][faults[worst]] += 1
        fit = [row for row in fit if row != worst]


def fit_rows(rows: Rows, recipe: Recipe, built: Built) -> tuple[list[int], set[int]]:
    """(rows whose answers may take part, those among them that may only be rejected); what is not chosen is counted.

    The answer without a context comes first. So of two equal answers it stays, and the one that ignored its context goes.
    """
    answers, split = rows.grid.answers, rows.grid.split
    fit: list[int] = []
    barred: set[int] = set()
    for row in sorted(range(len(answers)), key=lambda r: (rows.has_own(r), r)):
        prompt, context, earlier = rows.prompts[row], rows.contexts[row], [answers[r] for r in fit]
        fault = answer_fault(answers[row], prompt, context, earlier, recipe.pairs.filters, split)
        if fault is None or fault in REJECTED_ONLY:
            fit.append(row)
        if fault in REJECTED_ONLY:
            barred.add(row)
        if fault and rows.has_own(row):
            built.dropped[split][fault] += 1
    return sorted(fit), barred


def choose_negatives(rows: Rows, fit: list[int], recipe: Recipe) -> dict[int, list[Negative]] | None:
    """The wrong answers of every fit row with one of its own; None where they do not suffice for `candidates`."""
    rng = seeded(recipe, f"negatives {rows.grid.id}")
    own = [row for row in fit if rows.has_own(row)]
    plain = next((row for row in fit if not rows.has_own(row)), None)
    weights: dict[str, float] = {
        kind: weight for kind, weight in recipe.pairs.negatives.items() if (kind == "random_prompt") == rows.of_prompts
    }
    kinds = negatives.draw_kinds(weights, recipe.pairs.candidates - 1, len(own) - 1, plain is not None, rng)
    if kinds is None or not own:
        return None
    chosen: dict[int, list[Negative]] = {row: [] for row in own}
    deranged = [kind for kind in kinds if kind not in ("no_context", "hard_context")]
    partners = {"random": negatives.derangements(len(own), len(deranged), rng)}
    hard = negatives.hard_derangements(closeness(rows, own, recipe), kinds.count("hard_context"), partners["random"])
    turns = {"hard_context": iter(hard), **dict.fromkeys(deranged, iter(partners["random"]))}
    for kind in kinds:
        partner = None if kind == "no_context" else next(turns[kind])
        for position, row in enumerate(own):
            chosen[row].append(Negative(kind, plain if partner is None else own[partner[position]]))  # type: ignore[arg-type]
    return chosen


def closeness(rows: Rows, own: list[int], recipe: Recipe) -> np.ndarray:
    """What hard negatives cost, (own, own): [i][j] is the PMI of answer i against context j in nats.

    It is lower where the model finds it likelier that j led to answer i. Contexts that say nearly the same (sources.near_duplicate)
    cost most: they are not wrong, only alike.
    """
    scores = rows.grid.scores
    cost = np.array([[scores[i][i] - scores[j][i] for j in own] for i in own])
    texts = [context.text if context else "" for context in (rows.contexts[row] for row in own)]
    highest = 2 * np.abs(cost).max() + 1
    alike = [[likeness(a, b) >= recipe.sources.near_duplicate for b in texts] for a in texts]
    return np.where(alike, highest, cost)


def make_pair(rows: Rows, row: int, wrong: list[Negative], ask: PromptBuilder) -> Pair:
    """The pair whose chosen answer is that of `row`; all its scores come from the grid's matrix."""
    grid, prompt, context = rows.grid, rows.prompts[row], rows.contexts[row]
    messages, prompt_tokens = ask(prompt, context)
    candidates = [row, *(negative.row for negative in wrong)]
    texts = [grid.answers[i].text for i in candidates]
    own_score = grid.scores[row][row]
    return Pair(
        id=f"{grid.id}-{row}",
        split=grid.split,
        grid=grid.id,
        prompt=messages,
        chosen=[{"role": "assistant", "content": texts[0]}],
        rejected=[{"role": "assistant", "content": texts[1]}],
        negatives=texts[1:],
        prompt_tokens=prompt_tokens,
        tokens=[grid.answers[i].tokens for i in candidates],
        reference=[grid.scores[row][i] for i in candidates],
        pmi=[round(own_score - grid.scores[negative.row][row], 5) for negative in wrong],
        kinds=[negative.kind for negative in wrong],
        prompt_id=prompt.id,
        context_id=context.id if context else None,
        wrong_context_ids=[grid.contexts[negative.row] for negative in wrong],
        distractor_ids=grid.distractors if context else [],
        source=context.source if context else "",
        line=context.line if context else 0,
    )


def add_said_back(pairs: list[Pair], contexts: dict[str, Context], recipe: Recipe, loaded: LoadedModel) -> list[Pair]:
    """The pairs, where `pairs.said_back` of the training pairs have their passage as the last candidate.

    That candidate is the passage's first `pairs.max_tokens` tokens without an end of turn, like an answer that was cut. Its
    `reference` is the model's. Pairs keep their number of candidates, so the loss still begins at its logarithm. The PMI of the
    chosen answer stays that against the wrong context whose answer gave way.
    """
    model, tokenizer, changed = loaded.model, loaded.tokenizer, list(pairs)
    drawn = [i for i, pair in enumerate(pairs) if _passage(pair, contexts) and _is_drawn(pair, recipe)]
    for first in range(0, len(drawn), AT_ONCE):
        some = [pairs[i] for i in drawn[first : first + AT_ONCE]]
        texts = [_passage(pair, contexts) for pair in some]
        tokens = [encode_text(tokenizer, text)[: recipe.pairs.max_tokens] for text in texts]
        scored = token_logprobs(model, [pair.prompt_tokens for pair in some], [[ids] for ids in tokens])
        for i, ids, (logps,) in zip(drawn[first:], tokens, scored, strict=False):
            text = tokenizer.decode(ids, skip_special_tokens=True)  # what the ids spell, so that the file can be imported again
            pair, score = pairs[i], total(logps)
            negatives = [*pair.negatives[:-1], text]
            changed[i] = replace(
                pair,
                rejected=[{"role": "assistant", "content": negatives[0]}],
                negatives=negatives,
                tokens=[*pair.tokens[:-1], ids],
                reference=[*pair.reference[:-1], score],
                kinds=[*pair.kinds[:-1], SAID_BACK],
            )
    return changed


def _passage(pair: Pair, contexts: dict[str, Context]) -> str:
    return contexts[pair.context_id].text if pair.context_id else ""


def _is_drawn(pair: Pair, recipe: Recipe) -> bool:
    return pair.split == TRAIN and seeded(recipe, f"said back {pair.id}").random() < recipe.pairs.said_back
