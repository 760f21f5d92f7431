"""Reward, DPO loss, reward margin and reward accuracy of a pair, in NumPy.

Validation, evaluation and the tests share these functions. `training/objectives.py` has the differentiable loss and the same
measures as MLX arrays; a test compares both. Everywhere candidate 0 is the chosen answer and the others are the rejected ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TIE = 1e-3  # nats; a hundred float32 log-probabilities summed in another order differ by less


@dataclass(frozen=True)
class Preference:
    """The measures of one pair."""

    loss: float  # nats
    accuracy: float  # from 0 to 1
    margin: float  # chosen reward - mean rejected reward
    information: float  # nats: log N - loss, at most log N
    chosen_reward: float
    rejected_reward: float  # mean of the rejected answers


def measure(policy: Sequence[float], reference: Sequence[float], beta: float) -> Preference:
    """Measures of one pair from its candidates' summed log-probabilities under both models, (candidates,) in nats.

    The information is a lower bound on what the answer says about the context (InfoNCE, van den Oord et al. 2018).
    """
    reward = rewards(policy, reference, beta)
    nats = loss(reward)
    return Preference(
        loss=nats,
        accuracy=accuracy(reward, beta),
        margin=float(reward[0] - reward[1:].mean()),
        information=float(np.log(len(reward))) - nats,
        chosen_reward=float(reward[0]),
        rejected_reward=float(reward[1:].mean()),
    )


def rewards(policy: Sequence[float], reference: Sequence[float], beta: float) -> np.ndarray:
    """(candidates,) float64 implicit rewards beta * (log p - log p_ref) (Rafailov et al. 2023)."""
    return beta * (np.asarray(policy, dtype=np.float64) - np.asarray(reference, dtype=np.float64))


def loss(reward: np.ndarray) -> float:
    """-log softmax(reward)[0], in nats: DPO's loss for two candidates, InfoNCE's for more; log(candidates) before training."""
    return float(np.logaddexp.reduce(reward) - reward[0])


def accuracy(reward: np.ndarray, beta: float) -> float:
    """The share of rejected candidates with a lower reward than the chosen one.

    A tie counts half, so an untrained model has 0.5. Candidates tie where their log-ratios differ by at most `TIE` nats, since
    the same model gives values that far apart when it sums in another order.
    """
    difference = reward[0] - reward[1:]
    return float(np.mean(np.where(np.abs(difference) <= beta * TIE, 0.5, difference > 0)))
