"""The training stage: pairs.jsonl in; adapters/, checkpoints/ and metrics.jsonl out.

A later round trains on from the adapters of the round before, on pairs-2.jsonl, into checkpoints-2/ and adapters-2/. The validation
pairs are those of the first round in every round, so that the information is one and the same measure; `adapters/` is replaced
only where it has grown, and a round in which it has not is the last.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx

from .. import backend
from ..errors import UserError
from ..files import of_round
from ..models import adapters, loading
from ..progress import Reporter
from ..recipe import Recipe
from ..records import TRAIN, VALIDATION, Pair, read_records
from . import loggers, memory
from .curves import Curves
from .loop import Job, Result, Watch, train

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
    with loggers.opened(recipe, folder) as others:
        result = fit(folder, folder, recipe, Watch(reporter, [curves.watch, *others], curves), round_number)
    if result.stopped:
        reporter.warn(f"training ended early: {result.stopped}; the weights of step {result.best_step} are kept")
    elif round_number == 1 and not grew(result):
        reporter.warn(
            f"held-out loss did not fall ({result.first_loss:.3f} before, {result.best_loss:.3f} at its best): "
            "these notes and prompts taught the model nothing that it can use; see report.html"
        )
    if recipe.rounds > 1:
        reporter.say(f"  round {round_number}: {gain(result)}")
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
    loaded = loading.load(recipe.model)
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
    planned = memory.plan(loaded.model, settings, *lengths, limit_bytes=limit)
    advice = memory.advice(planned, loaded.model, settings, lengths, limit)
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
    loaded = loading.load(recipe.model)
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
