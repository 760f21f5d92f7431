"""The training stage: pairs.jsonl in; adapters/, checkpoints/ and metrics.jsonl out."""

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
from . import memory
from .loop import train

CACHE = 256 << 20  # bytes of freed memory that MLX may always keep


def run(folder: Path, recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Train the adapters of one run. Returns a summary for the manifest and the terminal.

    Raises UserError where there are no pairs to train on.
    """
    pairs = read_records(folder / "pairs.jsonl", Pair)
    train_pairs = [pair for pair in pairs if pair.split == TRAIN]
    validation_pairs = [pair for pair in pairs if pair.split == VALIDATION]
    if not train_pairs:
        raise UserError(f"{folder / 'pairs.jsonl'}: no pairs to train on; loosen pairs.filters or raise pairs.grids")
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
    )
    if result.stopped:
        reporter.warn(f"training ended early: {result.stopped}; the weights of step {result.best_step} are kept")
    elif result.best_loss is not None and result.first_loss is not None and result.best_loss >= result.first_loss:
        reporter.warn(
            f"held-out loss did not fall ({result.first_loss:.3f} before, {result.best_loss:.3f} at its best): "
            "these notes and prompts taught the model nothing that it can use; see report.html"
        )
    adapters.save(loaded.model, folder / "adapters", config)
    return {**asdict(result), "pairs": len(train_pairs), "peak_memory": backend.peak_memory(), "micro_batch_tokens": budget}
