"""The schedule: which grids make up each step, at what learning rate, and what ends training early.

Pairs that share answers belong in one step. There each answer is chosen in one pair and rejected in another. So the push on its
overall likelihood cancels, and the model learns what depends on the context.
"""

import math
from random import Random

from ..errors import UserError
from ..recipe import Training
from ..records import Pair, seed_for


def group_grids(pairs: list[Pair]) -> list[list[Pair]]:
    """Pairs by grid, in the order of the file."""
    grids: dict[int, list[Pair]] = {}
    for pair in pairs:
        grids.setdefault(pair.grid, []).append(pair)
    return list(grids.values())


def plan_steps(grids: int, settings: Training, seed: int | str) -> list[list[int]]:
    """The grids of each optimizer step, as indices: every epoch is a fresh seeded shuffle, and the last one may be a part.

    Raises UserError where a step needs more grids than there are.
    """
    if settings.grids_per_step > grids:
        raise UserError(
            f"training.grids_per_step: {settings.grids_per_step} grids a step, but only {grids} were kept for training; "
            "lower it, or raise pairs.grids"
        )
    wanted = max(1, round(settings.epochs * grids))
    order: list[int] = []
    for epoch in range(math.ceil(settings.epochs)):
        indices = list(range(grids))
        Random(seed_for(seed, f"epoch/{epoch}", "/")).shuffle(indices)
        order += indices
    order = order[:wanted]
    return [order[i : i + settings.grids_per_step] for i in range(0, len(order), settings.grids_per_step)]


def learning_rate(step: int, total: int, settings: Training) -> float:
    """The rate of one step, counted from 0: linear warm-up over `warmup` of the steps, then a cosine.

    The cosine ends at `final_learning_rate` times the peak.
    """
    warm = math.ceil(settings.warmup * total)
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, total - 1 - warm)
    floor = settings.final_learning_rate
    return settings.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def should_stop(row: dict[str, float], settings: Training) -> str | None:
    for key in ("loss", "grad_norm", "validation_loss"):
        if key in row and not math.isfinite(row[key]):
            return f"{key.replace('_', ' ')} is {row[key]} at step {row['step']}; lower training.learning_rate"
    for key in ("chosen_reward", "validation_chosen_reward"):
        if settings.min_chosen_reward is not None and row.get(key, 0.0) < settings.min_chosen_reward:
            return (
                f"the chosen reward fell to {row[key]:.2f} at step {row['step']}, below training.min_chosen_reward "
                f"({settings.min_chosen_reward:g}): chosen answers become unlikely; lower training.learning_rate"
            )
    if settings.max_kl is not None and row.get("validation_kl", 0.0) > settings.max_kl:
        return (
            f"the estimated KL from the base reached {row['validation_kl']:.3f} nats a token at step {row['step']}, "
            f"above training.max_kl ({settings.max_kl:g})"
        )
    return None
