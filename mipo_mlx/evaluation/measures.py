"""Measures gathered item by item: summed up with intervals for eval.json, and kept so that two runs can be compared later."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..files import dump
from .intervals import Clusters, paired

FORMAT = 3  # of eval.json and of the samples behind it: what another version left is computed anew
# What turns sum of values / sum of weights into the measure, by name, so that eval.json says how to compute it again.
TRANSFORMS = {"mean": lambda x: x, "exp": np.exp}


def case(*parts: Any) -> str:
    """The name of a case in every run that has it: a short hash of its texts and token ids, since ids count within one run."""
    return hashlib.sha256(dump(parts).encode()).hexdigest()[:16]


class Measures:
    """Measures of the same items under two models; items are grouped by `clusters`, and `keys` names them across runs."""

    def __init__(self, keys: Sequence[str], clusters: Clusters, draws: int, seed: int) -> None:
        self.keys, self.clusters, self.draws, self.seed = list(keys), clusters, draws, seed
        self.metrics: dict[str, dict[str, Any]] = {}
        self.values: dict[str, dict[str, Any]] = {}

    def add(
        self,
        name: str,
        before: Sequence[float],
        after: Sequence[float],
        *,
        weights: tuple[Sequence[float], Sequence[float]] | None = None,
        transform: str = "mean",
        relative: bool = False,
        share: bool = False,
    ) -> None:
        """One value an item and model; see intervals.paired."""
        self.metrics[name] = paired(
            before, after, self.clusters, self.draws, self.seed,
            weights=weights, transform=TRANSFORMS[transform], relative=relative, share=share,
        )  # fmt: skip
        kept = {"after": after, **({"weight": weights[1]} if weights else {})}
        self.values[name] = {
            "transform": transform,
            "relative": relative,
            **{key: [round(float(v), 6) for v in values] for key, values in kept.items()},
        }

    def items(self) -> dict[str, Any]:
        """The tuned model's values for `compare`: keys, groups, and for each measure its values and weights."""
        clusters = [[str(label) for label in labels] for labels in self.clusters]
        return {"keys": self.keys, "clusters": clusters, "values": self.values}
