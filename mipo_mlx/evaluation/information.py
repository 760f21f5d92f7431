"""What an answer tells about its context, by a model's own likelihood: identification, information in nats, PMI."""

from collections.abc import Sequence

import numpy as np


def identified(scores: Sequence[float], own: int, choices: int) -> float:
    """1 where the answer is likeliest under its own context among `choices` of them (its own and the next ones, in order,
    wrapping around), 0 where it is not; m tied contexts share the point.

    scores: (contexts,) log-probability of one answer under each context, nats.
    """
    values = _among(scores, own, choices)
    best = values >= values.max() - 1e-6
    return float(best[0] / best.sum())


def information(scores: Sequence[float], own: int, choices: int) -> float:
    """log K - cross-entropy of the posterior over K equally likely contexts, nats; averaged over answers it is a lower
    bound on I(answer; context | prompt), at most log K."""
    values = _among(scores, own, choices)
    return float(np.log(choices) + values[0] - _logsumexp(values))


def pmi(scores: Sequence[float], own: int) -> float:
    """log p(y|x,c) - log mean of p(y|x,c') over the other contexts, nats."""
    values = np.asarray(scores, dtype=np.float64)
    others = np.delete(values, own)
    return float(values[own] - _logsumexp(others) + np.log(len(others)))


def token_pmi(logprobs: Sequence[Sequence[float]], own: int) -> np.ndarray:
    """(tokens,) how much likelier the own context makes each token than the other contexts do on average, nats.

    logprobs: (contexts, tokens) per-token log-probabilities of one answer, each given the tokens before it.
    """
    table = np.asarray(logprobs, dtype=np.float64)
    others = np.delete(table, own, axis=0)
    top = others.max(axis=0)
    return table[own] - top - np.log(np.exp(others - top).mean(axis=0))


def _among(scores: Sequence[float], own: int, choices: int) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float64)
    if not 2 <= choices <= len(values):
        raise ValueError(f"{choices} contexts to tell apart, {len(values)} scored")
    return values[[(own + i) % len(values) for i in range(choices)]]


def _logsumexp(values: np.ndarray) -> float:
    top = values.max()
    return float(top + np.log(np.exp(values - top).sum()))
