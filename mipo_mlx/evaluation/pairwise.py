"""Whose answers fit better, where the same requests were answered in several ways."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..records import Answer
from .judge_votes import fit
from .outcome import Opinion
from .requests import Answered, Group, Scored, score
from .workbench import Workbench

Ways = Mapping[str, tuple[str, str]]  # name of the comparison -> (what stands as the base's answers, what as the trained model's)


def bar_total(requests: int, answers: int, by_embedding: bool) -> int:
    """How much the bar moves in `opinions`: without an embedder every answer is scored."""
    return 0 if by_embedding else requests * answers


def group_of(bench: Workbench, request_id: str, request: str, note: str, prompt: list[int], apart: list[str]) -> Group:
    """A request under one context, the first of `apart`, and under none. prompt: token ids with that context."""
    plain = bench.prompt(request, None)
    return Group([request_id] * 2, [request] * 2, [note] * 2, [apart[0], ""], [prompt, plain], 1, plain, apart)


def opinions(
    bench: Workbench, phase: str, groups: Sequence[Group], answers: Mapping[str, Sequence[Answer]], ways: Ways
) -> dict[str, Opinion]:
    """The opinion on each of `ways`: the embedder's or, without one, that of the base's likelihood.

    groups: one for each request, as `group_of` gives them. answers: by their names, one for each group.
    """
    if bench.embedder:
        scored = {name: [Scored(answer, [], []) for answer in given] for name, given in answers.items()}
    else:
        rows = [list(row) for row in zip(*answers.values(), strict=True)]
        with bench.as_side("base"):
            scores = score(bench, phase, [replace(group, wanted=len(answers)) for group in groups], rows, "base")
        scored = {
            name: [Scored(answer, of_row[place], []) for answer, of_row in zip(of, scores, strict=True)]
            for place, (name, of) in enumerate(answers.items())
        }
    measured = {}
    for way, (base, tuned) in ways.items():
        pairs = [Answered(group, 0, b, t) for group, b, t in zip(groups, scored[base], scored[tuned], strict=True)]
        opinion = fit(pairs, bench.recipe.evaluation, bench.recipe.seed, bench.embedder)
        if opinion:
            measured[way] = opinion
    return measured
