"""Validation: held-out pairs that tell during training whether it helps, and pick the weights that are kept."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.logprobs import token_logprobs
from ..models import adapters
from ..records import Pair


@dataclass
class Validation:
    """Held-out grids that pick the best weights, with log-probabilities of their answers in nats."""

    pairs: list[Pair]
    base: list[list[np.ndarray]]  # per token, under the base
    reference: list[list[float]]  # summed, under the reference

    @staticmethod
    def make(model: Any, pairs: list[Pair], named: bool) -> "Validation":
        """`named`: the reference is another model than the base, and only the pairs know its values."""
        with adapters.disabled(model):
            base = _score(model, pairs)
        sums = [[float(tokens.sum(dtype=np.float64)) for tokens in row] for row in base]
        return Validation(pairs, base, [pair.reference for pair in pairs] if named else sums)

    def look(self, model: Any, beta: float) -> dict[str, float]:
        """Means over pairs. The loss is DPO's (N > 2: InfoNCE's) whatever objective is trained, so that log N - loss is the
        information in nats. kl is the mean of q - 1 - log q, q = p / p_base, over the tokens of chosen answers: a divergence from
        the base that is never negative. Over samples of p_base itself its mean is KL(p_base || p) (Schulman 2020, "k3"); these were
        drawn at the recipe's temperature and top_p, so it is an estimate, on tokens that are likelier than such samples."""
        losses, margins, chosen, rejected, correct, divergence = [], [], [], [], [], []
        chosen_logp, rejected_logp = [], []
        for policy, base, reference in zip(_score(model, self.pairs), self.base, self.reference, strict=True):
            reward = beta * (np.array([p.sum(dtype=np.float64) for p in policy]) - reference)
            losses.append(float(np.logaddexp.reduce(reward) - reward[0]))
            margins.append(float(reward[0] - reward[1:].mean()))
            chosen.append(float(reward[0]))
            rejected.append(float(reward[1:].mean()))
            chosen_logp.append(float(policy[0].sum()))
            rejected_logp.append(float(np.mean([p.sum() for p in policy[1:]])))
            correct.append(float(np.mean((np.sign(reward[0] - reward[1:]) + 1) / 2)))  # a tie counts half
            log_q = policy[0].astype(np.float64) - base[0]
            divergence += (np.expm1(log_q) - log_q).tolist()
        ceiling = float(np.mean([math.log(len(pair.tokens)) for pair in self.pairs]))
        return {
            "heldout_loss": float(np.mean(losses)),
            "heldout_accuracy": float(np.mean(correct)),
            "heldout_margin": float(np.mean(margins)),
            "heldout_chosen_reward": float(np.mean(chosen)),
            "heldout_rejected_reward": float(np.mean(rejected)),
            "heldout_chosen_logp": float(np.mean(chosen_logp)),
            "heldout_rejected_logp": float(np.mean(rejected_logp)),
            "heldout_information": ceiling - float(np.mean(losses)),
            "heldout_kl": float(np.mean(divergence)),
        }


def _score(model: Any, pairs: list[Pair]) -> list[list[np.ndarray]]:
    return token_logprobs(model, [pair.prompt_tokens for pair in pairs], [pair.tokens for pair in pairs])
