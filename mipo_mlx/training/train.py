"""The training loop: one grid (or several) an optimizer step, clipping, AdamW, looks at the validation pairs, and checkpoints.

~~~ The training stage: pairs.jsonl in; adapters/, checkpoints/ and metrics.jsonl out.

A later round trains on from the adapters of the round before, on pairs-2.jsonl, into checkpoints-2/ and adapters-2/. The validation
pairs are those of the first round in every round, so that the information is one and the same measure; `adapters/` is replaced
only where it has grown, and a round in which it has not is the last.

~~~ Which rounds of sampling and training a run's adapters are the result of, and the pairs that these were trained on.
"""

import filecmp
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers

from .. import backend
from ..errors import Failure, UserError
from ..files import append_jsonl, of_round, read_jsonl, truncate_jsonl
from ..models import adapters, load
from ..progress import Reporter
from ..recipe import Recipe, Training
from ..records import TRAIN, VALIDATION, Pair, read_records, seed_for
from . import checkpoints, memory_plan, monitor
from . import step as gradients
from .monitor import Curves, told
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
    validation = Validation.start(model, job.validation, settings.reference != "base") if job.validation else None
    begun = checkpoints.latest(job.checkpoints)
    state = _restore(model, optimizer, job, begun)

    def log(row: dict[str, Any]) -> None:
        finite = {"round": job.round_number, **{k: (v if math.isfinite(v) else None) for k, v in row.items()}}
        append_jsonl(job.metrics, [finite])
        state.metrics_lines += 1
        watch.see(finite)

    def look(step: int) -> str | None:
        """Validate, remember the best step, and say why training must end, if it must."""
        row = {"step": step, **validation.measure(model, settings.beta)}
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
    mx.random.seed(Random(seed_for(job.seed, f"step/{state.step}", "/")).getrandbits(31))
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


CACHE = 256 << 20  # bytes of freed memory that MLX may always keep


def run(folder: Path, recipe: Recipe, reporter: Reporter, round_number: int = 1) -> dict[str, Any]:
    """Train the adapters of one round. Returns a summary for the manifest and the terminal; `ends_rounds` says why no further
    round makes sense, or is None.

    Raises UserError where the first round has no pairs to train on.
    """
    path = folder / of_round("pairs.jsonl", round_number)
    own = read_records(path, Pair)
    train_pairs = [pair for pair in own if pair.split == TRAIN]
    if round_number == 1 and not train_pairs:
        raise UserError(f"{path}: no pairs to train on; loosen pairs.filters or raise pairs.grids")
    if round_number > 1 and len({pair.grid for pair in train_pairs}) < recipe.training.grids_per_step:
        return keep_earlier(folder, recipe, round_number, len(train_pairs))
    if round_number == 1 and not any(pair.split == VALIDATION for pair in own):
        unmeasured = "training.max_kl stops nothing and " if recipe.training.max_kl is not None else ""
        reporter.warn(f"there are no validation pairs, so {unmeasured}the last weights are kept; add notes and prompts")
    curves = Curves()
    with monitor.opened(recipe, folder) as others:
        result = fit(folder, folder, recipe, Watch(reporter, [curves.watch, *others], curves), round_number)
    if result.stopped:
        reporter.warn(f"training ended early: {result.stopped}; the weights of step {result.best_step} are kept")
    elif round_number == 1 and not grew(result):
        reporter.warn(
            f"held-out loss did not fall ({result.first_loss:.3f} before, {result.best_loss:.3f} at its best): "
            "these notes and prompts taught the model nothing that it can use; see report.html"
        )
    reporter.conclude(f"  round {round_number}: {gain(result)}" if recipe.rounds > 1 else f"  {gain(result)}")
    return {
        **asdict(result),
        "round": round_number,
        "ends_rounds": ends_rounds(result, round_number),
        "pairs": len(train_pairs),
        "peak_memory": backend.peak_memory(),
    }


def fit(source: Path, folder: Path, recipe: Recipe, watch: Watch, round_number: int = 1) -> Result:
    """Train adapters on a round's pairs in `source`, into `folder`/adapters; continues from the checkpoints there."""
    first = read_records(source / "pairs.jsonl", Pair)
    own = first if round_number == 1 else read_records(source / of_round("pairs.jsonl", round_number), Pair)
    pairs = [*first, *own]
    loaded = load.load(recipe.model)
    settings = recipe.training
    config = adapters.attach(loaded.model, settings.lora, recipe.seed)
    if round_number > 1:
        adapters.restore(loaded.model, folder / f"adapters-{round_number - 1}")
    mx.eval(loaded.model.parameters())
    lengths = (
        max(len(pair.prompt_tokens) for pair in pairs),
        max(len(tokens) for pair in pairs for tokens in pair.tokens),
        max(len(pair.tokens) for pair in pairs),
    )
    limit = backend.device().budget
    planned = memory_plan.plan(loaded.model, settings, *lengths, limit_bytes=limit)
    advice = memory_plan.advice(planned, loaded.model, settings, lengths, limit)
    if advice:
        watch.reporter.warn(f"training may run out of memory: {advice}")
    backend.settle(max(planned.activation_bytes, CACHE))
    backend.reset_peak_memory()
    job = Job(
        [pair for pair in own if pair.split == TRAIN],
        [pair for pair in first if pair.split == VALIDATION],
        settings,
        folder,
        seed=recipe.seed if round_number == 1 else f"{recipe.seed}/round/{round_number}",
        budget=planned.token_budget if settings.micro_batch_tokens == "auto" else settings.micro_batch_tokens,
        pad=min(loaded.tokenizer.eos_token_ids),
        round_number=round_number,
    )
    result = train(loaded.model, job, watch)
    if recipe.rounds > 1:
        adapters.save(loaded.model, folder / f"adapters-{round_number}", config)
    if round_number == 1 or grew(result):
        adapters.save(loaded.model, folder / "adapters", config)
    return result


def keep_earlier(folder: Path, recipe: Recipe, round_number: int, pairs: int) -> dict[str, Any]:
    """A later round that has too few pairs for a step ends with the adapters of the round before."""
    loaded = load.load(recipe.model)
    config = adapters.attach(loaded.model, recipe.training.lora, recipe.seed)
    adapters.restore(loaded.model, folder / f"adapters-{round_number - 1}")
    adapters.save(loaded.model, folder / f"adapters-{round_number}", config)
    return {"round": round_number, "pairs": pairs, "ends_rounds": f"too few pairs were left in round {round_number}"}


def grew(result: Result) -> bool:
    """Whether this round raised the held-out information (lowered the validation loss); without validation pairs nobody can say,
    and the last weights count."""
    return result.first_loss is None or (result.best_loss is not None and result.best_loss < result.first_loss)


def gain(result: Result) -> str:
    if result.first_loss is None:
        return "there are no validation pairs, so every round counts"
    if not grew(result):
        return "held-out information did not grow"
    return f"held-out information grew by {result.first_loss - result.best_loss:.4f} nats"  # type: ignore[operator]


def ends_rounds(result: Result, round_number: int) -> str | None:
    """Why no round after this one makes sense, or None."""
    if not grew(result):
        return f"held-out information no longer grew in round {round_number}"
    return f"training ended early in round {round_number}" if result.stopped else None


ADAPTERS = "adapters.safetensors"


def kept(folder: Path) -> list[int]:
    """The rounds that count: from the first to the one whose own adapters `adapters/` holds; [1] of a run of one round.

    A round that raised no held-out information left `adapters/` as it was, and one without enough pairs trained nothing and
    ended with the adapters of the round before.
    """
    number = 1
    while (own := folder / f"adapters-{number}" / ADAPTERS).exists():
        if filecmp.cmp(own, folder / "adapters" / ADAPTERS, shallow=False):
            break
        number += 1
    return list(range(1, number + 1))


def pair_files(folder: Path) -> list[Path]:
    """The pair files of the rounds that count."""
    return [folder / of_round("pairs.jsonl", number) for number in kept(folder)]


def trained_pairs(folder: Path) -> list[Pair]:
    """The pairs that the adapters were trained on, in the order of the rounds."""
    return [pair for path in pair_files(folder) for pair in read_records(path, Pair) if pair.split == TRAIN]
