"""The training stage: pairs.jsonl in; adapters/, checkpoints/ and metrics.jsonl out."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx

from .. import backend
from ..errors import UserError
from ..models import adapters, loading
from ..progress import Reporter
from ..recipe import Recipe
from ..records import TRAIN, VALIDATION, Pair, read_records
from . import loggers, memory
from .curves import Curves
from .loop import train

CACHE = 256 << 20  # bytes of freed memory that MLX may always keep


def run(folder: Path, recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Train the adapters of one run. Returns a summary for the manifest and the terminal.

    Raises UserError where there are no pairs to train on.
    """
    curves = Curves()
    with loggers.opened(recipe, folder) as others:
        summary = fit(folder / "pairs.jsonl", folder, recipe, reporter, [curves.watch, *others], curves)
    if summary["stopped"]:
        reporter.warn(f"training ended early: {summary['stopped']}; the weights of step {summary['best_step']} are kept")
    elif None not in (summary["best_loss"], summary["first_loss"]) and summary["best_loss"] >= summary["first_loss"]:
        reporter.warn(
            f"held-out loss did not fall ({summary['first_loss']:.3f} before, {summary['best_loss']:.3f} at its best): "
            "these notes and prompts taught the model nothing that it can use; see report.html"
        )
    return summary


def fit(
    pairs_file: Path,
    folder: Path,
    recipe: Recipe,
    reporter: Reporter,
    watchers: Sequence[Callable[[dict[str, Any]], None]] = (),
    curves: Curves | None = None,
) -> dict[str, Any]:
    """Train adapters on the pairs of a file, into `folder`/adapters; continues from the checkpoints there.

    watchers: called with every row of metrics.jsonl; curves: drawn beneath the progress bar.
    """
    pairs = read_records(pairs_file, Pair)
    train_pairs = [pair for pair in pairs if pair.split == TRAIN]
    validation_pairs = [pair for pair in pairs if pair.split == VALIDATION]
    if not train_pairs:
        raise UserError(f"{pairs_file}: no pairs to train on; loosen pairs.filters or raise pairs.grids")
    loaded = loading.load(recipe.model)
    config = adapters.attach(loaded.model, recipe.training.lora, recipe.seed)
    mx.eval(loaded.model.parameters())
    settings = recipe.training
    lengths = (
        max(len(pair.prompt_tokens) for pair in pairs),
        max(len(tokens) for pair in pairs for tokens in pair.tokens),
        max(len(pair.tokens) for pair in pairs),
    )
    limit = backend.device().budget
    planned = memory.plan(loaded.model, settings, *lengths, limit_bytes=limit)
    advice = memory.advice(planned, loaded.model, settings, lengths, limit)
    if advice:
        reporter.warn(f"training may run out of memory: {advice}")
    budget = planned.token_budget if settings.micro_batch_tokens == "auto" else settings.micro_batch_tokens
    backend.settle(max(planned.activation_bytes, CACHE))
    backend.reset_peak_memory()
    result = train(
        loaded.model,
        train_pairs,
        validation_pairs,
        settings,
        folder,
        seed=recipe.seed,
        budget=budget,
        pad=min(loaded.tokenizer.eos_token_ids),
        reporter=reporter,
        watchers=watchers,
        curves=curves,
    )
    adapters.save(loaded.model, folder / "adapters", config)
    return {**asdict(result), "pairs": len(train_pairs), "peak_memory": backend.peak_memory(), "micro_batch_tokens": budget}
