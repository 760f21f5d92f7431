"""How well the tuned model tells apart the held-out pairs that it never trained on: loss, accuracy, margin, information."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from .. import preference
from ..records import Pair
from .statistics import Measures, case, enough


def evaluate(
    pairs: Sequence[Pair], policy: Sequence[Sequence[float]], notes: dict[str, str], beta: float, draws: int, seed: int
) -> dict[str, Any]:
    """Measures of the held-out pairs before (the reference itself) and after training, with intervals.

    policy: for each pair, the candidates' summed log-probabilities under the tuned model, nats; notes: whose each context is, by
    the context's id. Information is
    log N - loss, a lower bound on what the answer tells about the context (InfoNCE, van den Oord et al. 2018), whatever
    objective was trained, for the recipe's beta.
    """
    # Pairs of one grid share answers; a grid has one request or, without contexts, one for each row, which then share the grid.
    named = [pair.context_id and notes.get(pair.context_id, pair.context_id) for pair in pairs]
    of_notes = [name or pair.grid for name, pair in zip(named, pairs, strict=True)]
    clusters = [of_notes, [pair.prompt_id or pair.grid for pair in pairs]]
    before = [preference.measure(pair.reference, pair.reference, beta) for pair in pairs]
    after = [preference.measure(scores, pair.reference, beta) for scores, pair in zip(policy, pairs, strict=True)]
    measures = Measures([case(pair.prompt, pair.tokens) for pair in pairs], clusters, draws, seed)
    for name in (measure.name for measure in fields(preference.Preference)):
        values = [[getattr(pair, name) for pair in side] for side in (before, after)]
        measures.add(name, *values, share=name == "accuracy")
    return {
        "pairs": len(pairs),
        "grids": len({pair.grid for pair in pairs}),
        "contexts": len({pair.context_id for pair in pairs} - {None}),  # 0: there are none, or the pairs' file does not name them
        "candidates": max(len(pair.tokens) for pair in pairs),
        "beta": beta,
        "no_interval": enough(clusters),
        "metrics": measures.metrics,
        "items": measures.items(),
    }
