"""Gain and cost by the kind of request (`kinds` in eval.json).

The answer to a personal request depends on its owner, and training should change it. The answer to a general request hardly does:
success there means that nothing changes, whatever the context says. So held-out requests of each kind meet held-out contexts, and
each is also asked without one. The personal requests are those of the fresh answers (requests.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import read_records
from ..memory.contexts import read_contexts
from ..recipe import Recipe
from ..records import CHORES, GENERAL, HALF_PERSONAL, HELDOUT, PERSONAL, Answer, Prompt, key_for
from . import answers, drift, judge_votes, requests
from .answers import clusters_of
from .outcome import OfKind
from .requests import Answered, Group
from .statistics import too_few
from .workbench import Workbench

OTHERS = (HALF_PERSONAL, GENERAL, CHORES)


def groups_of(folder: Path, recipe: Recipe, ask: requests.Ask) -> dict[str, list[Group]]:
    """`evaluation.kinds` groups of each kind but personal, each of another request. One context of a group gets an answer.

    {} where the run has no such requests, as with a file of own ones, or fewer than two held-out contexts.
    """
    contexts = [context for context in read_contexts(folder, recipe) if context.split == HELDOUT]
    among = requests.among_of(contexts, recipe)
    held = [prompt for prompt in read_records(folder / "prompts.jsonl", Prompt) if prompt.split == HELDOUT]
    groups: dict[str, list[Group]] = {}
    for kind in OTHERS:
        of_kind = [prompt for prompt in held if prompt.kind == kind]
        count = min(recipe.evaluation.kinds, len(of_kind))
        if count and among >= 2:
            rng = np.random.default_rng(key_for(recipe.seed, f"evaluation requests {kind}"))
            groups[kind] = requests.dealt(contexts, of_kind, ask, requests.Sizes(among, 1, count), rng)
    return groups


def bar_total(groups: dict[str, list[Group]], personal: Sequence[Group]) -> int:
    """How much the bar moves in `evaluate`: answers and their scores, then the distances with a context and without."""
    others = [len(some) for some in groups.values()]
    compared = min(max(others, default=0), sum(group.wanted for group in personal))
    return 3 * sum(others) + 3 * (sum(others) + compared)


def evaluate(bench: Workbench, groups: dict[str, list[Group]], personal: list[Answered]) -> dict[str, OfKind]:
    """The kinds, personal first; {} where only one kind could be measured. personal: the fresh answers, of which some are taken."""
    if not groups or not personal:
        return {}
    rows = {PERSONAL: spread_out(personal, max(map(len, groups.values())))}
    # All kinds together: a step of decoding takes hardly longer for all of them than for one.
    others = iter(requests.answer(bench, [group for some in groups.values() for group in some], "kinds-", by_tuned=False))
    rows |= {kind: [next(others) for _ in some] for kind, some in groups.items()}
    measured = iter(_distances(bench, [a for some in rows.values() for a in some]))
    of_kinds = {kind: _of_kind(bench, answered, [next(measured) for _ in answered]) for kind, answered in rows.items()}
    return {kind: of_kind for kind, of_kind in of_kinds.items() if of_kind}


@dataclass(frozen=True)
class _Distance:
    """How far the trained model is from the base at one request, nats a token: at its answer with the context, and without."""

    under_context: float
    alone: float
    answer_alone: Answer


def _distances(bench: Workbench, answered: Sequence[Answered]) -> list[_Distance]:
    prompts = [a.group.prompts[a.own] for a in answered]
    plain = [a.group.plain or prompt for a, prompt in zip(answered, prompts, strict=True)]
    plain_answers = bench.sample("kinds-untold", plain, "kinds untold")
    under_context = drift.distances(bench, "kinds-told-kl", prompts, [a.tuned.answer for a in answered])
    alone = drift.distances(bench, "kinds-untold-kl", plain, plain_answers)
    return [_Distance(*row) for row in zip(under_context, alone, plain_answers, strict=True)]


def spread_out(answered: Sequence[Answered], count: int) -> list[Answered]:
    """`count` of these in their order, those first whose request and note no earlier one has; never picked by result."""
    rows: list[int] = []
    taken: set[tuple[str, str]] = set()
    for place, a in enumerate(answered):
        names = {("request", a.group.request_ids[a.own]), ("note", a.group.notes[a.own])}
        if not names & taken:
            rows.append(place)
            taken |= names
    rows += [place for place in range(len(answered)) if place not in rows]
    return [answered[place] for place in sorted(rows[:count])]


def _of_kind(bench: Workbench, answered: list[Answered], distances: Sequence[_Distance]) -> OfKind | None:
    settings, seed = bench.recipe.evaluation, bench.recipe.seed
    fit = judge_votes.fit(answered, settings, seed, bench.embedder)
    if fit is None:
        return None
    measures, clusters = answers.gain_and_cost(answered, settings, seed), clusters_of(answered)
    under_context, alone = [a.tuned.answer for a in answered], [d.answer_alone for d in distances]
    return OfKind(
        requests=len(answered),
        no_interval=too_few(clusters),
        fit=fit,
        metrics=measures.metrics,
        kl_told=drift.mean_per_token(bench, [d.under_context for d in distances], under_context, clusters),
        kl_untold=drift.mean_per_token(bench, [d.alone for d in distances], alone, clusters[1:]),
        items=measures.items(),
    )
