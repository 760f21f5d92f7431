"""Stage `training`: pairs.jsonl in; adapters/, checkpoints/ and metrics.jsonl out.

    mipo-mlx train RECIPE    # cli.train -> run.execute -> `run` below, which calls `fit`, which calls `train`: the loop

One grid (or `training.grids_per_step` of them) is one optimizer step: its gradient, clipping, AdamW. The validation pairs pick the
weights that are kept. A training that was killed goes on from its newest checkpoint and ends with the same bytes. Recipes with
several rounds of sampling and training come here through `rounds.py`.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers

from .. import backend
from ..errors import DISPLAY, Failure, UserError
from ..files import of_round, read_records
from ..models import adapters, identity, load
from ..progress import Reporter
from ..recipe import Recipe, Training
from ..records import TRAIN, VALIDATION, Pair, seed_for
from . import checkpoints, memory_plan, metrics, monitor
from .metrics import Row
from .monitor import Curves, Watcher
from .schedule import group_grids, learning_rate, plan_steps, should_stop
from .step import Step, gradient_step
from .team import Team, current
from .validation import Validation


@dataclass(frozen=True)
class Start:
    train: list[Pair]
    validation: list[Pair]  # they pick the best weights; without them the last ones are kept
    longest: memory_plan.Shape  # a micro-batch of one pair, as long as the longest prompt and answer
    seed: int | str
    round_number: int = 1
    adapters: Path | None = None  # the folder of the weights that it trains on from; None: fresh ones


@dataclass(frozen=True)
class Job:
    """A training whose model is loaded: what is trained on, how, and where its files are."""

    train: list[Pair]
    validation: list[Pair]
    settings: Training
    folder: Path  # of metrics.jsonl and checkpoints/
    seed: int | str
    budget: int  # tokens computed at once
    pad: int  # token id that fills shorter rows
    round_number: int = 1  # a later round has checkpoints-2/ and so on
    team: Team = field(default_factory=Team)  # the machines that train; the first one alone reads and writes the folder

    @property
    def checkpoints(self) -> Path:
        return self.folder / of_round("checkpoints", self.round_number)


@dataclass(frozen=True)
class Watch:
    """Who follows the training."""

    reporter: Reporter
    watchers: Sequence[Watcher] = ()  # see every row of metrics.jsonl in its order, earlier ones first
    curves: Curves | None = None  # drawn beneath the bar

    def see(self, row: Row) -> None:
        for watcher in self.watchers:
            watcher(row)


@dataclass(frozen=True)
class Result:
    steps: int  # optimizer steps taken
    planned: int
    best_step: int  # step of the weights that are kept
    best_loss: float | None  # their validation loss, nats; None without validation pairs
    first_loss: float | None  # the same before training; in a later round, of the weights that it began with
    stopped: str | None  # why training ended early

    @property
    def improved(self) -> bool:
        """Whether the validation loss fell. Without validation pairs nobody can say, and the last weights count."""
        return self.first_loss is None or (self.best_loss is not None and self.best_loss < self.first_loss)

    @property
    def gain(self) -> str:
        """How far the validation loss fell, in words."""
        if self.first_loss is None:
            return "no validation pairs measure this training, so its last weights are kept"
        if self.best_loss is None or not self.improved:
            return "the validation loss did not fall"
        return f"the validation loss fell by {self.first_loss - self.best_loss:.4f} nats"


@dataclass(frozen=True)
class Summary(Result):
    """One round of training in the manifest."""

    pairs: int  # trained on
    peak_memory: int  # bytes
    round: int = 1
    taken: bool = True  # adapters/ holds this round's adapters, or those of a later round that trained on from them
    ends_rounds: str | None = None  # why no further round makes sense
    baked: dict[str, Any] | None = None  # of the bake that followed, if any


def run(folder: Path, recipe: Recipe, reporter: Reporter, profile: str = "") -> dict[str, Any]:
    """Train the adapters on pairs.jsonl into adapters/. Returns the `Summary` for the manifest.

    profile: the facts that `training.bake` bakes. Raises UserError where there are no pairs to train on.
    """
    start = begin(read_records(folder / "pairs.jsonl", Pair), recipe)
    if not start.train:
        raise UserError(f"{folder / 'pairs.jsonl'}: no pairs to train on; loosen pairs.filters or raise pairs.grids")
    if not start.validation:
        unmeasured = "training.max_kl stops nothing and " if recipe.training.max_kl is not None else ""
        reporter.warn(f"there are no validation pairs, so {unmeasured}the last weights are kept; add notes and prompts")
    result = fit_watched(start, folder, recipe, reporter)
    if not result.stopped and not result.improved:
        reporter.warn(
            f"validation loss did not fall ({result.first_loss:.3f} before, {result.best_loss:.3f} at its best): "
            "these notes and prompts taught the model nothing that it can use; see report.html"
        )
    if recipe.rounds == 1:
        reporter.conclude(f"  {result.gain}")
    baked = None
    if recipe.training.bake.answers:
        from . import bake  # it trains by the loop of this file

        baked = bake.run(folder, recipe, reporter, profile)
    return asdict(Summary(**asdict(result), pairs=len(start.train), peak_memory=backend.peak_memory(), baked=baked))


def begin(pairs: list[Pair], recipe: Recipe) -> Start:
    sides = {split: [pair for pair in pairs if pair.split == split] for split in (TRAIN, VALIDATION)}
    return Start(sides[TRAIN], sides[VALIDATION], longest(pairs), recipe.seed)


def longest(pairs: list[Pair]) -> memory_plan.Shape:
    """A micro-batch of one pair that has the longest prompt, the longest answer and the most candidates of `pairs`."""
    return memory_plan.Shape.of_pair(
        prompt=max((len(pair.prompt_tokens) for pair in pairs), default=1),
        candidates=max((len(pair.tokens) for pair in pairs), default=1),
        answer=max((len(tokens) for pair in pairs for tokens in pair.tokens), default=1),
    )


def fit_watched(start: Start, folder: Path, recipe: Recipe, reporter: Reporter, target: str = "adapters") -> Result:
    """`fit` with the curves on the terminal and the recipe's loggers."""
    curves = Curves()
    with monitor.opened(recipe, folder) as loggers:
        result = fit(start, folder, recipe, Watch(reporter, [curves.watch, *loggers], curves), target)
    if result.stopped:
        reporter.warn(f"training ended early: {result.stopped}; the weights of step {result.best_step} are kept")
    return result


def fit(start: Start, folder: Path, recipe: Recipe, watch: Watch, target: str = "adapters") -> Result:
    """Load the model, train its adapters into `folder`/`target`; continues from the checkpoints in `folder`.

    On the first of several machines the others get the same training from here.
    """
    if (team := current()).size > 1:
        team.broadcast({"recipe": recipe.model_dump(mode="json"), "start": {**asdict(start), "adapters": None}})
    return fit_here(start, folder, recipe, watch, target)


def follow(order: dict[str, Any]) -> None:
    """On another machine: take part in a training of the first one, which `fit` ordered."""
    given = order["start"]
    sides = {name: [Pair(**row) for row in given[name]] for name in ("train", "validation")}
    start = Start(**{**given, **sides, "longest": memory_plan.Shape(**given["longest"])})
    fit_here(start, Path(), Recipe.model_validate(order["recipe"]), Watch(Reporter(quiet=True)))


def fit_here(start: Start, folder: Path, recipe: Recipe, watch: Watch, target: str = "adapters") -> Result:
    """This machine's part of `fit`."""
    team, loaded = current(), load.load(recipe.model)
    settings, device = recipe.training, backend.device()
    base = identity.identity_of(loaded.path)
    team.require_same(f"base {base}, {device.kind}, MLX {backend.versions()['mlx']}", "base, device and MLX's version")
    config = {**adapters.attach(loaded.model, settings.lora, recipe.seed), identity.KEY: base}
    if start.adapters:
        adapters.restore(loaded.model, start.adapters)
    mx.eval(loaded.model.parameters())
    plan = memory_plan.choose(loaded.model, settings, start.longest, device.budget)
    if not plan.fits:
        advice = memory_plan.advice(plan, loaded.model, settings, start.longest, device.budget)
        watch.reporter.warn(f"training may run out of memory: {advice}")
    elif crowded := memory_plan.crowded(plan, device):
        watch.reporter.warn(crowded)
    backend.set_memory_limits(plan.activation_bytes, plan.peak_bytes)
    backend.reset_peak_memory()
    job = Job(
        start.train,
        start.validation,
        settings,
        folder,
        start.seed,
        budget=plan.token_budget if settings.micro_batch_tokens == "auto" else settings.micro_batch_tokens,
        pad=min(loaded.tokenizer.eos_token_ids),
        round_number=start.round_number,
        team=team,
    )
    result = train(loaded.model, job, watch)
    if team.leads:
        adapters.save(loaded.model, folder / target, config)
    return result


def train(model: Any, job: Job, watch: Watch) -> Result:
    """Train the adapters on `model` and leave the best weights on it.

    Continues from the newest checkpoint of the job and appends to its metrics.jsonl. A later round begins with the adapters that
    `model` has, behind the metrics of the rounds before. The best weights are those of the lowest validation loss after step 0;
    without validation pairs, the last. Raises UserError for impossible settings, Failure where no step left usable weights.
    """
    settings, grids = job.settings, group_grids(job.train)
    steps = plan_steps(len(grids), settings, job.seed)
    optimizer = optimizers.AdamW(
        learning_rate=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay, bias_correction=True
    )
    optimizer.init(model.trainable_parameters())
    leads = job.team.leads
    validation = Validation.start(model, job.validation, settings.reference != "base") if job.validation and leads else None
    state, is_begun = _restore(model, optimizer, job)
    for row in metrics.read(job.folder) if leads else ():
        watch.see(row)
    stopped, warned = None, False
    with watch.reporter.track("training", len(steps), "steps", watch.curves.lines if watch.curves else None) as bar:
        bar.skip(state.step)
        if not is_begun:
            state.token_budget = job.budget  # kept: a plan counts other programs, and the last bits depend on it
            if job.validation:
                _validate(model, validation, job, state, watch)
            _save(model, optimizer, job, state)
        while state.step < len(steps) and stopped is None:
            began = time.perf_counter()
            pairs = [pair for grid in steps[state.step] for pair in grids[grid]]
            rate = learning_rate(state.step, len(steps), settings)
            step = _gradient(model, pairs, job, state)
            if step.watchdog and not warned:
                watch.reporter.warn(f"the system ended work on the GPU that took too long, and smaller pieces ran; {DISPLAY}")
                warned = True
            update, norm = optimizers.clip_grad_norm(step.gradients, settings.clip)
            row = {"step": state.step + 1, "learning_rate": rate, "grad_norm": norm.item(), **step.metrics, "loss": step.loss}
            stopped = should_stop(row, settings)
            if stopped is None:  # else the weights are left alone
                optimizer.learning_rate = rate
                optimizer.update(model, update)
                mx.eval(model.trainable_parameters(), optimizer.state)
                state.step += 1
            _log({**row, **_speed(pairs, time.perf_counter() - began)}, job, state, watch)
            bar.advance(1, f"loss {row['loss']:.3f}" + (f"  accuracy {row['accuracy']:.2f}" if "accuracy" in row else ""))
            if stopped is None:
                last = state.step == len(steps)
                if job.validation and (last or state.step % settings.evaluate_every == 0):
                    stopped = _validate(model, validation, job, state, watch)
                if stopped is None and (last or state.step % settings.checkpoint_every == 0 or state.best_step == state.step):
                    _save(model, optimizer, job, state)
    best = _keep_best(model, job, state, stopped)
    return Result(state.step, len(steps), best, state.best_loss, state.first_loss, stopped)


def _gradient(model: Any, pairs: list[Pair], job: Job, state: checkpoints.State) -> Step:
    """The gradient of one step; `state` remembers what fitted into memory, since more would not fit the next time either."""
    # The random state of a step depends on the seed and the step alone, so that a resumed run repeats it.
    mx.random.seed(Random(seed_for(job.seed, f"step/{state.step}", "/")).getrandbits(31))
    fitting = job.settings.model_copy(update={"checkpoint_gradients": True}) if state.checkpointed else job.settings
    budget = state.token_budget or job.budget
    if job.team.size > 1:  # one machine goes on as it was planned when it began
        budget = min(job.budget, budget)
    share = (job.team.rank, job.team.size)
    step = job.team.combined(gradient_step(model, pairs, fitting, token_budget=budget, pad_id=job.pad, share=share))
    state.token_budget, state.checkpointed = step.token_budget, step.checkpointed
    return step


def _validate(model: Any, validation: Validation | None, job: Job, state: checkpoints.State, watch: Watch) -> str | None:
    """Measure the validation pairs and remember the best step. Returns why training must end, or None."""
    measured = validation.measure(model, job.settings.beta) if validation else None
    row = {"step": state.step, **job.team.broadcast(measured)}  # the first machine's, and the others wait for it
    _log(row, job, state, watch)
    if not watch.reporter.terminal:
        watch.reporter.say(monitor.line(row))
    reason, loss = should_stop(row, job.settings), row["validation_loss"]
    if state.step == 0:
        state.first_loss = loss
    elif reason is None and (state.best_loss is None or loss < state.best_loss):
        state.best_step, state.best_loss = state.step, loss
    return reason


def _log(row: Row, job: Job, state: checkpoints.State, watch: Watch) -> None:
    """Append a row to metrics.jsonl and show it to everybody who watches."""
    if job.team.leads:
        watch.see(metrics.append(job.folder, {"round": job.round_number, **row}))
    state.metrics_lines += 1


def _speed(pairs: list[Pair], seconds: float) -> Row:
    tokens = sum(len(pair.prompt_tokens) + sum(map(len, pair.tokens)) for pair in pairs)
    return {"tokens_per_second": tokens / seconds, "seconds": seconds}


def _save(model: Any, optimizer: Any, job: Job, state: checkpoints.State) -> None:
    weights = adapters.weights(model)
    job.team.require_same_weights(weights)
    if job.team.leads:
        checkpoints.save(job.checkpoints, state, weights, optimizer)


def _restore(model: Any, optimizer: Any, job: Job) -> tuple[checkpoints.State, bool]:
    """Put the newest checkpoint on model and optimizer, and cut off the metrics behind it; without one, begin at step 0.

    Returns where training stands, and whether there was a checkpoint.
    """
    saved = checkpoints.latest(job.checkpoints) if job.team.leads else None
    earlier = metrics.read(job.folder) if job.team.leads and not saved else []
    state = saved or checkpoints.State(0, sum(row["round"] < job.round_number for row in earlier))
    if saved:
        model.load_weights(list(checkpoints.load_weights(job.checkpoints, saved.step).items()), strict=False)
        optimizer.state = checkpoints.load_optimizer(job.checkpoints, saved.step)
    if job.team.leads:
        metrics.keep(job.folder, state.metrics_lines)
    row, is_begun = job.team.broadcast([asdict(state), saved is not None])
    model.update(job.team.broadcast_arrays(model.trainable_parameters()))
    optimizer.state = job.team.broadcast_arrays(optimizer.state)
    return checkpoints.State(**row), is_begun


def _keep_best(model: Any, job: Job, state: checkpoints.State, stopped: str | None) -> int:
    """Put the best weights on the model and return their step: by validation loss, else the last good checkpoint.

    A later round may keep its first checkpoint, which holds what the round before has learned. Only the first machine has them.
    """
    if not job.team.leads:
        return state.best_step or state.step
    saved = checkpoints.latest(job.checkpoints)
    best = state.best_step or (saved.step if saved else 0)
    if not best and job.round_number == 1:
        raise Failure(f"training stopped before its first checkpoint: {stopped}")
    model.load_weights(list(checkpoints.load_weights(job.checkpoints, best).items()), strict=False)
    mx.eval(model.parameters())
    return best
