"""The result as its owner will use it, on held-out requests (`use` in eval.json).

- distractors: the right passage comes last, behind two passages of other notes. Does the answer still fit the right one?
- profile: both models get the profile. Whose answers fit it better?
- alone: the trained model has the profile as its default system message, as the exported file does; the base has nothing.
- memory: what chat and ask tell the model with a request (with_memory.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..memory.contexts import profile_of
from ..models import embedding
from ..models.prompts import encode
from ..recipe import Recipe
from ..records import Answer, Prompt
from . import pairwise, with_memory
from .answers import clusters_of, identified
from .outcome import Metrics, Opinion, Use
from .requests import Answered, Group, heldout_of, scored_by_base
from .statistics import SHARE, Measures, key_of, too_few
from .workbench import SIDES, Side, Workbench

Replies = Mapping[Side, Sequence[Answer]]  # both models' answers
AMONG = 3  # the right passage and its distractors


def bar_total(folder: Path, recipe: Recipe, groups: Sequence[Group], by_embedding: bool) -> int:
    """How much the bar moves in `evaluate`, memory aside."""
    wanted, requests = sum(group.wanted for group in distractible(groups, recipe)), len(_requests(folder, recipe))
    return 4 * wanted + 3 * requests + pairwise.bar_total(requests, 3, by_embedding)


def distractible(groups: Sequence[Group], recipe: Recipe) -> list[Group]:
    """The first groups, `evaluation.use` answers in all, that have passages of two other notes."""
    kept: list[Group] = []
    for group in groups:
        left = recipe.evaluation.use - sum(one.wanted for one in kept)
        if left > 0 and group.passages and len(group.passages) >= AMONG:
            kept.append(replace(group, wanted=min(left, group.wanted)))
    return kept


def evaluate(bench: Workbench, answered: Sequence[Answered], remembered: with_memory.Requests | None = None) -> Use | None:
    """None where there is nothing to ask. answered: the requests with the right passage alone."""
    by_place = {(id(a.group.prompts), a.own): a for a in answered}
    groups = distractible(list({id(a.group): a.group for a in answered}.values()), bench.recipe)
    right = [by_place[id(group.prompts), own] for group in groups for own in range(group.wanted)]
    requests, profile = _requests(bench.folder, bench.recipe), profile_of(bench.folder, bench.recipe)
    memory_prompts = with_memory.framed(bench, remembered) if remembered else []
    lists = {
        "distracted": _distracted_prompts(bench, right),
        "profile": [bench.prompt(request.text, None, profile) for request in requests],
        "memory": [prompt for prompt, _ in memory_prompts],
    }
    answers = bench.sample_both("use", lists)
    ways = _ways(bench, requests, lists["profile"], answers["profile"]) if requests else {}
    memory = with_memory.evaluate(bench, remembered, memory_prompts, answers["memory"]) if remembered else None
    if not (right or ways or memory):
        return None
    clusters = clusters_of(right)
    distractors = _distractors(bench, groups, right, answers["distracted"]) if lists["distracted"] else {}
    return Use(len(right), too_few(clusters), distractors, ways, memory)


def _distracted_prompts(bench: Workbench, right: Sequence[Answered]) -> list[list[int]]:
    """Each request behind its own passage and, before that, two others; [] where three passages do not fit into the window."""
    prompts = [bench.prompt(a.request, *_distracted(a)) for a in right]
    fits = bench.window is None or max(map(len, prompts), default=0) <= bench.window
    return prompts if fits else []


def _distractors(bench: Workbench, groups: list[Group], right: Sequence[Answered], replies: Replies) -> Metrics:
    """The share of answers that fit the right passage best of three, with it alone and behind the other two, and the loss."""
    both = [scored_by_base(bench, f"use-distracted-{side} scored", groups, replies[side]) for side in SIDES]
    distracted = [replace(a, base=base, tuned=tuned) for a, base, tuned in zip(right, *both, strict=True)]
    measures = Measures([key_of(a.request, a.context) for a in right], bench.resampler(clusters_of(right)))
    shares = {name: _shares(bench, answered) for name, answered in (("undistracted", right), ("distracted", distracted))}
    for name, (before, after) in shares.items():
        measures.add(name, before, after, SHARE)
    lost = [[u - d for u, d in zip(*pair, strict=True)] for pair in zip(shares["undistracted"], shares["distracted"], strict=True)]
    measures.add("lost_to_distractors", lost[0], lost[1])
    return measures.metrics


def _distracted(a: Answered) -> tuple[list[str], str]:
    """The request's passage behind those of the next two rows, and the profile."""
    rows = [(a.own + step) % len(a.group.passages) for step in (1, 2, 0)]
    profile = a.context.removesuffix(a.group.passages[a.own]).strip()
    return [a.group.passages[row] for row in rows], profile


def _shares(bench: Workbench, answered: Sequence[Answered]) -> list[list[float]]:
    """For the base's answers and the trained model's: 1 where the right passage fits best, by embeddings or by likelihood."""
    shares = []
    for side in SIDES:
        if bench.embedder:
            rows = embedding.cosines(bench.embedder, [a.by(side).text for a in answered], [a.group.passages for a in answered])
        else:
            rows = [a.by(side).totals("base") for a in answered]
        shares.append([identified(row, a.own, AMONG) for row, a in zip(rows, answered, strict=True)])
    return shares


def _ways(bench: Workbench, requests: Sequence[Prompt], prompts: Sequence[list[int]], replies: Replies) -> dict[str, Opinion]:
    """Whose answers fit the profile better, by the way of use. replies: the answers to `prompts`, which have the profile."""
    profile = profile_of(bench.folder, bench.recipe)
    groups = [  # one profile, so the requests alone are independent: each stands for a note too
        pairwise.group_of(bench, request.id, request.text, request.id, prompt, [profile])
        for request, prompt in zip(requests, prompts, strict=True)
    ]
    bare = [encode(bench.tokenizer, [{"role": "user", "content": request.text}]) for request in requests]
    with bench.as_side("base"):
        alone = bench.sample("use-alone-base", bare, "use")
    answers: dict[str, Sequence[Answer]] = {"tuned": replies["tuned"], "alone": alone, "profile": replies["base"]}
    ways = {way: (way, "tuned") for way in ("alone", "profile")}
    return pairwise.opinions(bench, "use-profile scored", groups, answers, ways)


def _requests(folder: Path, recipe: Recipe) -> list[Prompt]:
    """The first `evaluation.use` held-out requests; none without a profile."""
    return heldout_of(folder, recipe)[1][: recipe.evaluation.use] if profile_of(folder, recipe) else []
