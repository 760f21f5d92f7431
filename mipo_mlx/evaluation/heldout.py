"""How well the tuned model tells apart the held-out pairs that it never trained on: loss, accuracy, margin, information."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..records import Pair
from .statistics import Measures, case, enough

TIE = 1e-3  # nats; a hundred float32 log-probabilities summed in another order differ by less


def rewards(policy: Sequence[float], reference: Sequence[float], beta: float) -> np.ndarray:
    """(candidates,) implicit rewards beta * (log p - log p_ref) of summed log-probabilities (Rafailov et al. 2023)."""
    return beta * (np.asarray(policy, dtype=np.float64) - np.asarray(reference, dtype=np.float64))


def loss(reward: np.ndarray) -> float:
    """-log softmax of the chosen candidate's reward in nats; log(candidates) for an untrained model (candidate 0 is chosen)."""
    top = reward.max()
    return float(top + np.log(np.exp(reward - top).sum()) - reward[0])


def accuracy(reward: np.ndarray, tie: float) -> float:
    """Share of rejected candidates that the chosen one beats; a tie counts half, so an untrained model has 0.5."""
    difference = reward[0] - reward[1:]
    return float(np.mean(np.where(np.abs(difference) <= tie, 0.5, difference > 0)))


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
    before, after = {}, {}
    for side, scores in ((before, [pair.reference for pair in pairs]), (after, policy)):
        reward = [rewards(s, pair.reference, beta) for s, pair in zip(scores, pairs, strict=True)]
        losses = [loss(r) for r in reward]
        side["loss"] = losses
        side["accuracy"] = [accuracy(r, beta * TIE) for r in reward]
        side["margin"] = [float(np.mean(r[0] - r[1:])) for r in reward]
        side["information"] = [float(np.log(len(r))) - nats for r, nats in zip(reward, losses, strict=True)]
        side["chosen_reward"] = [float(r[0]) for r in reward]
        side["rejected_reward"] = [float(np.mean(r[1:])) for r in reward]
    measures = Measures([case(pair.prompt, pair.tokens) for pair in pairs], clusters, draws, seed)
    for name in before:
        measures.add(name, before[name], after[name], share=name == "accuracy")
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
