"""The training loop: one grid (or several) an optimizer step, clipping, AdamW, looks at the validation pairs, and checkpoints."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers

from ..errors import Failure
from ..files import append_jsonl, of_round, read_jsonl, truncate_jsonl
from ..models import adapters
from ..progress import Reporter
from ..recipe import Training
from ..records import Pair
from . import checkpoints, gradients
from .curves import Curves, told
from .schedule import group_grids, learning_rate, plan_steps, should_stop
from .validation import Validation


@dataclass(frozen=True)
class Job:
    """What is trained on, how, and where it is kept."""

    train: list[Pair]
    validation: list[Pair]  # they pick the best weights; without them the last ones are kept
    settings: Training
    folder: Path  # of metrics.jsonl and checkpoints/
    seed: int | str
    budget: int  # tokens computed at once
    pad: int  # token id that fills shorter rows
    round_number: int = 1  # a later round has checkpoints-2/ and so on

    @property
    def checkpoints(self) -> Path:
        return self.folder / of_round("checkpoints", self.round_number)

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"


@dataclass(frozen=True)
class Watch:
    """Who follows the training."""

    reporter: Reporter
    watchers: Sequence[Callable[[dict[str, Any]], None]] = ()  # see every row of metrics.jsonl in its order, earlier ones first
    curves: Curves | None = None  # drawn beneath the bar
    after_step: Callable[[int], None] = lambda step: None  # called behind every step; tests interrupt there

    def see(self, row: dict[str, Any]) -> None:
        for watcher in self.watchers:
            watcher(row)


@dataclass
class Result:
    steps: int  # optimizer steps taken
    planned: int
    best_step: int
    best_loss: float | None  # validation loss of the weights that are kept, nats; None without validation pairs
    first_loss: float | None  # the same before training (in a later round: that of the weights it began with)
    stopped: str | None  # why training ended early


def train(model: Any, job: Job, watch: Watch) -> Result:
    """Train the adapters on `model` and leave the best weights on it.

    Continues from the newest checkpoint of the job and appends to its metrics.jsonl; a later round begins with the adapters that
    `model` has, behind the metrics of the rounds before. The best weights are those of the lowest validation loss after step 0;
    without validation pairs, the last. Raises UserError for impossible settings, Failure where no step left usable weights.
    """
    settings, grids = job.settings, group_grids(job.train)
    steps = plan_steps(len(grids), settings, job.seed)
    optimizer = optimizers.AdamW(
        learning_rate=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay, bias_correction=True
    )
    optimizer.init(model.trainable_parameters())
    validation = Validation.make(model, job.validation, settings.reference != "base") if job.validation else None
    begun = checkpoints.latest(job.checkpoints)
    state = _restore(model, optimizer, job, begun)

    def log(row: dict[str, Any]) -> None:
        finite = {"round": job.round_number, **{k: (v if math.isfinite(v) else None) for k, v in row.items()}}
        append_jsonl(job.metrics, [finite])
        state.metrics_lines += 1
        watch.see(finite)

    def look(step: int) -> str | None:
        """Validate, remember the best step, and say why training must end, if it must."""
        row = {"step": step, **validation.look(model, settings.beta)}
        log(row)
        if not watch.reporter.terminal:
            watch.reporter.say(told(row))
        reason = should_stop(row, settings)
        if step == 0:
            state.first_loss = row["heldout_loss"]
        elif reason is None and (state.best_loss is None or row["heldout_loss"] < state.best_loss):
            state.best_step, state.best_loss = step, row["heldout_loss"]
        return reason

    def save() -> None:
        checkpoints.save(job.checkpoints, state, adapters.weights(model), optimizer)

    stopped = None
    for row in read_jsonl(job.metrics):
        watch.see(row)
    with watch.reporter.track("training", len(steps), "steps", watch.curves.lines if watch.curves else None) as bar:
        bar.skip(state.step)
        if not begun:
            if validation:
                look(0)
            save()
        while state.step < len(steps) and stopped is None:
            batch = [pair for grid in steps[state.step] for pair in grids[grid]]
            row = _step(model, optimizer, job, state, batch, learning_rate(state.step, len(steps), settings))
            log(row)
            bar.advance(1, f"loss {row['loss']:.3f}  accuracy {row['accuracy']:.2f}")
            stopped = should_stop(row, settings)
            if stopped:
                break
            state.step += 1
            last = state.step == len(steps)
            if validation and (last or state.step % settings.evaluate_every == 0):
                stopped = look(state.step)
            if stopped is None and (last or state.step % settings.checkpoint_every == 0 or state.best_step == state.step):
                save()
            watch.after_step(state.step)
    best = _keep_best(model, job, state, stopped)
    return Result(state.step, len(steps), best, state.best_loss, state.first_loss, stopped)


def _restore(model: Any, optimizer: Any, job: Job, begun: checkpoints.State | None) -> checkpoints.State:
    """Put the newest checkpoint on model and optimizer, and cut off the metrics behind it; or begin."""
    state = begun
    if state:
        model.load_weights(list(checkpoints.load_weights(job.checkpoints, state.step).items()), strict=False)
        optimizer.state = checkpoints.load_optimizer(job.checkpoints, state.step)
    else:
        state = checkpoints.State(0, sum(row.get("round", 1) < job.round_number for row in read_jsonl(job.metrics)))
    truncate_jsonl(job.metrics, state.metrics_lines)
    state.token_budget = min(job.budget, state.token_budget or job.budget)
    return state


def _step(model: Any, optimizer: Any, job: Job, state: checkpoints.State, batch: list[Pair], rate: float) -> dict[str, Any]:
    """One optimizer step, as a row of metrics.jsonl. Weights are left alone where the row is a reason to stop."""
    begin, settings = time.perf_counter(), job.settings
    # The random state of a step depends on the seed and the step alone, so that a resumed run repeats it.
    mx.random.seed(Random(f"{job.seed}/step/{state.step}").getrandbits(31))
    # What did not fit into memory once would not fit again.
    fitting = settings.model_copy(update={"checkpoint_gradients": True}) if state.checkpointed else settings
    step = gradients.step(model, batch, fitting, token_budget=state.token_budget, pad_id=job.pad)
    state.token_budget, state.checkpointed = step.token_budget, step.checkpointed
    update, norm = optimizers.clip_grad_norm(step.gradients, settings.clip)
    row = {"step": state.step + 1, "learning_rate": rate, "grad_norm": norm.item(), **step.metrics, "loss": step.loss}
    if should_stop(row, settings) is None:
        optimizer.learning_rate = rate
        optimizer.update(model, update)
        mx.eval(model.trainable_parameters(), optimizer.state)
    seconds = time.perf_counter() - begin
    tokens = sum(len(pair.prompt_tokens) + sum(map(len, pair.tokens)) for pair in batch)
    return {**row, "tokens_per_second": tokens / seconds, "seconds": seconds}


def _keep_best(model: Any, job: Job, state: checkpoints.State, stopped: str | None) -> int:
    """Put the best weights on the model and say of which step they are: by validation loss, else the last good checkpoint; in a
    later round even its first one, which is what the round before has learned."""
    saved = checkpoints.latest(job.checkpoints)
    best = state.best_step or (saved.step if saved else 0)
    if not best and job.round_number == 1:
        raise Failure(f"training stopped before its first checkpoint: {stopped}")
    model.load_weights(list(checkpoints.load_weights(job.checkpoints, best).items()), strict=False)
    mx.eval(model.parameters())
    return best
