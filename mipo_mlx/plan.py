"""`mipo-mlx train RECIPE --dry-run`: what a run will read, sample, train and write, with the memory and time to expect.

Notes are really read (into a temporary folder), the tokenizer and the configuration of the model are loaded, its weights are not.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import backend
from .contexts import of_people, uses_profile
from .files import read_json
from .progress import Reporter, duration
from .recipe import Recipe
from .records import HELDOUT, TRAIN, Context, Prompt, read_records
from .run import Run

# Shares of the measured matrix rate that each kind of work reaches, from runs of the demo on two CPU cores: decoding is bound by
# memory and by many small operations, scoring and training by matrix products.
SAMPLING, SCORING, TRAINING = 0.16, 0.55, 0.45
OVERHEAD = 20.0  # seconds to load, export and write the report
PROFILE_ANSWER = 64  # tokens that the model writes about each note, where a profile is made


@dataclass(frozen=True)
class Work:
    """What a run computes; tokens are upper bounds (answers may end before max_tokens)."""

    contexts: dict[str, int]
    prompts: dict[str, int]
    answers: int
    pairs: int
    steps: int
    sampled: int  # tokens decoded
    scored: int  # tokens of forward passes without gradients
    trained: int  # tokens of forward and backward passes
    prompt_tokens: int  # longest expected prompt


def count(recipe: Recipe, contexts: list[Context], prompts: list[Prompt]) -> Work:
    """Count the work of a recipe over these contexts and prompts."""
    pairs, k = recipe.pairs, recipe.pairs.contexts_per_grid
    rows = k + ("no_context" in pairs.negatives)
    extra = 40  # template, instruction and request around a context, in tokens
    told = [told_tokens(c, recipe) for c in contexts]
    mean = sum(told) // max(1, len(told)) + extra
    heldout = pairs.heldout_grids + pairs.validation_grids
    answers = (pairs.grids + heldout) * rows
    scored = (pairs.grids + heldout) * rows * (mean + rows * pairs.max_tokens)
    each = mean + pairs.candidates * pairs.max_tokens
    steps = max(1, round(recipe.training.epochs * pairs.grids / recipe.training.grids_per_step))
    looks = 2 + steps // recipe.training.evaluate_every
    scored += (looks * pairs.validation_grids + pairs.heldout_grids) * k * each
    evaluated = 2 * pairs.heldout_grids * k
    read = sum(c.split == TRAIN or of_people(recipe) for c in contexts) if uses_profile(recipe) else 0  # for the profile
    return Work(
        {split: sum(c.split == split for c in contexts) for split in (TRAIN, HELDOUT)},
        {split: sum(p.split == split for p in prompts) for split in (TRAIN, HELDOUT)},
        answers,
        pairs.grids * k,
        steps,
        (answers + evaluated + recipe.evaluation.unprompted) * pairs.max_tokens + read * PROFILE_ANSWER,
        scored + 2 * evaluated * (mean + pairs.max_tokens) + read * (extra + recipe.sources.context_tokens),
        int(recipe.training.epochs * pairs.grids * k * each),
        max(told, default=0) + extra,
    )


def told_tokens(context: Context, recipe: Recipe) -> int:
    """How long a context will be with the profile that is not written yet; an upper bound."""
    profile = recipe.sources.profile_tokens
    return {"passage": context.tokens, "profile": profile, "both": context.tokens + profile}[recipe.sources.context]


def describe(run: Run) -> str:
    """The plan as text. Raises what the sources stage raises for notes that cannot make one grid."""
    backend.start()
    from .evaluation.endpoint import endpoints
    from .models.skeleton import skeleton
    from .sources import stage as sources
    from .training import memory

    recipe = run.recipe
    with tempfile.TemporaryDirectory() as scratch:
        sources.run(Path(scratch), recipe, Reporter(quiet=True))
        contexts = read_records(Path(scratch, "contexts.jsonl"), Context)
        prompts = read_records(Path(scratch, "prompts.jsonl"), Prompt)
        dropped = read_json(Path(scratch, "sources.json")) if Path(scratch, "sources.json").exists() else {}
    work = count(recipe, contexts, prompts)
    model, parameters = skeleton(recipe.model)
    device = backend.device()
    lengths = (work.prompt_tokens, recipe.pairs.max_tokens, recipe.pairs.candidates)
    together = recipe.training.grids_per_step * recipe.pairs.contexts_per_grid
    planned = memory.plan(model, recipe.training, *lengths, limit_bytes=device.budget, most_pairs=together)
    advice = memory.advice(planned, model, recipe.training, lengths, device.budget)
    rate = backend.sgemm_rate()
    flops = 2 * parameters
    sampling = work.sampled * flops / (SAMPLING * rate)
    scoring = work.scored * flops / (SCORING * rate)
    training = 2 * work.trained * flops / (TRAINING * rate)
    files = ["contexts.jsonl", "prompts.jsonl", *(["profile.md"] if uses_profile(recipe) else [])]
    files += ["samples.jsonl", "pairs.jsonl", "adapters/", "metrics.jsonl", "eval.json"]
    files += (["fused/"] if recipe.export.mlx else []) + [f"{recipe.name or run.folder.name}-{t}.gguf" for t in recipe.export.gguf]
    files += ["Modelfile", "report.html", "manifest.json"]
    gone = dropped.get("passages", {}).get("dropped", {})
    lines = [
        f"model      {recipe.model}, {parameters / 1e6:,.0f} M parameters, on {device}",
        f"notes      {dropped.get('notes')}: {len(contexts)} contexts "
        f"({work.contexts[TRAIN]} to train on, {work.contexts[HELDOUT]} held out)"
        + (f"; dropped {', '.join(f'{n} {why}' for why, n in gone.items() if n)}" if gone else ""),
        f"prompts    {work.prompts[TRAIN]} to train on, {work.prompts[HELDOUT]} held out",
        f"answers    {work.answers} of at most {recipe.pairs.max_tokens} tokens",
        f"pairs      up to {work.pairs}, {recipe.pairs.candidates} answers each",
        f"steps      {work.steps} of {recipe.training.grids_per_step * recipe.pairs.contexts_per_grid} pairs, "
        f"objective {recipe.training.objective}",
        f"memory     about {planned.peak_bytes / 1e9:.1f} GB at the peak of training, "
        f"micro-batches of {planned.token_budget} tokens",
        *([f"           DOES NOT FIT: {advice}"] if advice else []),
        f"time       about {duration(sampling + scoring + training + OVERHEAD)}: sampling {duration(sampling)}, "
        f"scoring and evaluation {duration(scoring)}, training {duration(training)}",
        f"disk       {shutil.disk_usage(_existing(run.folder)).free / 1e9:,.0f} GB free where {run.folder} will be",
        f"writes     {run.folder}/: {', '.join(files)}",
    ]
    lines += [f"sends      {endpoint.warning()}" for endpoint in endpoints(recipe.evaluation)]
    return "\n".join(lines)


def _existing(path: Path) -> Path:
    path = path.resolve()
    return path if path.exists() else _existing(path.parent)
