"""The validation pairs: they show during training whether it helps, and they pick the weights that are kept."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import preference
from ..engine.logprobs import token_logprobs
from ..models import adapters
from ..records import Pair
from .metrics import OF_VALIDATION


@dataclass
class Validation:
    """Validation pairs with the log-probabilities of their answers under the two models that training leaves alone, nats."""

    pairs: list[Pair]
    base: list[list[np.ndarray]]  # of each token, under the base
    reference: list[list[float]]  # summed, under the reference

    @staticmethod
    def start(model: Any, pairs: list[Pair], named: bool) -> "Validation":
        """Score the pairs under the base. `named`: the reference is another model, whose values only the pairs have."""
        with adapters.disabled(model):
            base = _score(model, pairs)
        sums = [[float(tokens.sum(dtype=np.float64)) for tokens in row] for row in base]
        return Validation(pairs, base, [pair.reference for pair in pairs] if named else sums)

    def measure(self, model: Any, beta: float) -> dict[str, float]:
        """Means over the pairs, as columns of metrics.jsonl.

        The loss is DPO's (N > 2: InfoNCE's), whatever objective is trained. chosen_logp and rejected_logp: log-probabilities of
        whole answers, nats. kl: the mean of q - 1 - log q, q = p / p_base, over the tokens of chosen answers. It is never negative.
        Over samples of p_base its mean is KL(p_base || p) (Schulman 2020, "k3"). The chosen answers were drawn at the recipe's
        temperature and top_p, so it is an estimate, on tokens that are likelier than such samples.
        """
        rows, divergence = [], []
        scored = self.base if adapters.are_idle(model) else _score(model, self.pairs)  # before the first step the model is the base
        for policy, base, reference in zip(scored, self.base, self.reference, strict=True):
            measures = preference.measure([float(tokens.sum(dtype=np.float64)) for tokens in policy], reference, beta)
            rejected = float(np.mean([tokens.sum() for tokens in policy[1:]]))
            rows.append({**asdict(measures), "chosen_logp": float(policy[0].sum()), "rejected_logp": rejected})
            log_q = policy[0].astype(np.float64) - base[0]
            divergence += (np.expm1(log_q) - log_q).tolist()
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        return {f"{OF_VALIDATION}{name}": value for name, value in {**means, "kl": float(np.mean(divergence))}.items()}


def _score(model: Any, pairs: list[Pair]) -> list[list[np.ndarray]]:
    return token_logprobs(model, [pair.prompt_tokens for pair in pairs], [pair.tokens for pair in pairs])
