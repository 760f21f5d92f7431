"""The training loop: one grid (or several) an optimizer step, warm-up and cosine, clipping, AdamW, and the stop rules.

Pairs that share answers belong in one step: each answer is chosen in one pair and rejected in another, the push on its overall
likelihood cancels, and only what depends on the context is learned.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers
import numpy as np

from ..errors import Failure, UserError
from ..files import append_jsonl, of_round, read_jsonl, truncate_jsonl
from ..logprobs import token_logprobs
from ..models import adapters
from ..progress import Reporter
from ..recipe import Training
from ..records import Pair
from . import checkpoints, gradients
from .curves import Curves, told


@dataclass
class Result:
    steps: int  # optimizer steps taken
    planned: int
    best_step: int
    best_loss: float | None  # validation loss of the weights that are kept, nats; None without validation pairs
    first_loss: float | None  # the same before training (in a later round: that of the weights it began with)
    stopped: str | None  # why training ended early


def group_grids(pairs: list[Pair]) -> list[list[Pair]]:
    """Pairs by grid, in the order of the file."""
    grids: dict[int, list[Pair]] = {}
    for pair in pairs:
        grids.setdefault(pair.grid, []).append(pair)
    return list(grids.values())


def plan_steps(grids: int, settings: Training, seed: int | str) -> list[list[int]]:
    """Which grids make up each optimizer step: every epoch is a fresh seeded shuffle; the last one may be a part.

    Raises UserError where a step asks for more grids than there are.
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
        Random(f"{seed}/epoch/{epoch}").shuffle(indices)
        order += indices
    order = order[:wanted]
    return [order[i : i + settings.grids_per_step] for i in range(0, len(order), settings.grids_per_step)]


def learning_rate(step: int, total: int, settings: Training) -> float:
    """Linear warm-up over `warmup` of the steps, then a cosine to `final_learning_rate` times the peak. step from 0."""
    warm = math.ceil(settings.warmup * total)
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, total - 1 - warm)
    floor = settings.final_learning_rate
    return settings.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


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
        information in nats. kl is per token of chosen answers, from the base, which sampled them: q - 1 - log q for
        q = p / p_base, which is never negative and whose mean over samples of p_base is KL(p_base || p) (Schulman 2020, "k3")."""
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


def should_stop(row: dict[str, float], settings: Training) -> str | None:
    """Why training must end here, or None."""
    for key in ("loss", "grad_norm", "heldout_loss"):
        if key in row and not math.isfinite(row[key]):
            return f"{key.replace('_', ' ')} is {row[key]} at step {row['step']}; lower training.learning_rate"
    for key in ("chosen_reward", "heldout_chosen_reward"):
        if settings.min_chosen_reward is not None and row.get(key, 0.0) < settings.min_chosen_reward:
            return (
                f"the chosen reward fell to {row[key]:.2f} at step {row['step']}, below training.min_chosen_reward "
                f"({settings.min_chosen_reward:g}): chosen answers become unlikely; lower training.learning_rate"
            )
    if settings.max_kl is not None and row.get("heldout_kl", 0.0) > settings.max_kl:
        return (
            f"the KL from the base reached {row['heldout_kl']:.3f} nats a token at step {row['step']}, "
            f"above training.max_kl ({settings.max_kl:g})"
        )
    return None


def train(
    model: Any,
    train_pairs: list[Pair],
    validation_pairs: list[Pair],
    settings: Training,
    folder: Path,
    *,
    seed: int | str,
    budget: int,
    pad: int,
    reporter: Reporter,
    watchers: Sequence[Callable[[dict[str, Any]], None]] = (),
    curves: Curves | None = None,
    round_number: int = 1,
    after_step: Callable[[int], None] = lambda step: None,
) -> Result:
    """Train the adapters on `model` and leave the best weights on it.

    Continues from the newest checkpoint in `folder`/checkpoints and appends to `folder`/metrics.jsonl; a later round begins with
    the adapters that `model` has, in `checkpoints-2` and so on, behind the metrics of the rounds before. The best weights are
    those of the lowest validation loss after step 0; without validation pairs, the last. `watchers` see every row of metrics.jsonl
    in its order, those of an interrupted run first; `curves` are drawn beneath the bar; `after_step` is called behind every
    step (tests interrupt there). Raises UserError for impossible settings, Failure where no step left usable weights.
    """
    root, metrics = folder / of_round("checkpoints", round_number), folder / "metrics.jsonl"
    grids = group_grids(train_pairs)
    steps = plan_steps(len(grids), settings, seed)
    optimizer = optimizers.AdamW(
        learning_rate=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay, bias_correction=True
    )
    optimizer.init(model.trainable_parameters())

    validation = Validation.make(model, validation_pairs, settings.reference != "base")
    state = checkpoints.latest(root)
    begun = state is not None
    if state:
        model.load_weights(list(checkpoints.load_weights(root, state.step).items()), strict=False)
        optimizer.state = checkpoints.load_optimizer(root, state.step)
        truncate_jsonl(metrics, state.metrics_lines)
    else:
        earlier = sum(row.get("round", 1) < round_number for row in read_jsonl(metrics))
        truncate_jsonl(metrics, earlier)
        state = checkpoints.State(0, earlier)
    state.token_budget = min(budget, state.token_budget or budget)

    def tell(row: dict[str, Any]) -> None:
        for watch in watchers:
            watch(row)

    def log(row: dict[str, float]) -> None:
        finite = {"round": round_number, **{k: (v if math.isfinite(v) else None) for k, v in row.items()}}
        append_jsonl(metrics, [finite])
        state.metrics_lines += 1
        tell(finite)

    def look(step: int) -> str | None:
        """Validate, remember the best step, and say why training must end, if it must."""
        row = {"step": step, **validation.look(model, settings.beta)}
        log(row)
        if not reporter.terminal:
            reporter.say(told(row))
        reason = should_stop(row, settings)
        if step == 0:
            state.first_loss = row["heldout_loss"]
        elif reason is None and (state.best_loss is None or row["heldout_loss"] < state.best_loss):
            state.best_step, state.best_loss = step, row["heldout_loss"]
        return reason

    def save() -> None:
        checkpoints.save(root, state, adapters.weights(model), optimizer)

    stopped = None
    for row in read_jsonl(metrics):
        tell(row)
    with reporter.track("training", len(steps), "steps", curves.lines if curves else None) as bar:
        bar.skip(state.step)
        if not begun:
            if validation_pairs:
                look(0)
            save()
        while state.step < len(steps) and stopped is None:
            begin = time.perf_counter()
            # The random state of a step depends on the seed and the step alone, so that a resumed run repeats it.
            mx.random.seed(Random(f"{seed}/step/{state.step}").getrandbits(31))
            batch = [pair for grid in steps[state.step] for pair in grids[grid]]
            # What did not fit into memory once would not fit again.
            fitting = settings.model_copy(update={"checkpoint_gradients": True}) if state.checkpointed else settings
            step = gradients.step(model, batch, fitting, token_budget=state.token_budget, pad_id=pad)
            state.token_budget, state.checkpointed = step.token_budget, step.checkpointed
            update, norm = optimizers.clip_grad_norm(step.gradients, settings.clip)
            rate = learning_rate(state.step, len(steps), settings)
            row = {"step": state.step + 1, "learning_rate": rate, "grad_norm": norm.item(), **step.metrics, "loss": step.loss}
            stopped = should_stop(row, settings)
            if stopped is None:
                optimizer.learning_rate = rate
                optimizer.update(model, update)
                mx.eval(model.trainable_parameters(), optimizer.state)
            seconds = time.perf_counter() - begin
            tokens = sum(len(p.prompt_tokens) + sum(map(len, p.tokens)) for p in batch)
            log({**row, "tokens_per_second": tokens / seconds, "seconds": seconds})
            bar.advance(1, f"loss {row['loss']:.3f}  accuracy {row['accuracy']:.2f}")
            if stopped:
                break
            state.step += 1
            last = state.step == len(steps)
            if validation_pairs and (last or state.step % settings.evaluate_every == 0):
                stopped = look(state.step)
            if stopped is None and (last or state.step % settings.checkpoint_every == 0 or state.best_step == state.step):
                save()
            after_step(state.step)
    return _keep_best(model, root, state, len(steps), stopped, round_number)


def _keep_best(model: Any, root: Path, state: checkpoints.State, planned: int, stopped: str | None, round_number: int) -> Result:
    """Put the best weights on the model: by validation loss, else the last good checkpoint; in a later round even its first one,
    which is what the round before has learned."""
    saved = checkpoints.latest(root)
    best = state.best_step or (saved.step if saved else 0)
    if not best and round_number == 1:
        raise Failure(f"training stopped before its first checkpoint: {stopped}")
    model.load_weights(list(checkpoints.load_weights(root, best).items()), strict=False)
    mx.eval(model.parameters())
    return Result(state.step, planned, best, state.best_loss, state.first_loss, stopped)
