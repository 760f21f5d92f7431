"""`mipo-mlx train RECIPE --dry-run`: what a run will read, sample, train and write, with the memory and time to expect.

The notes are read into a temporary folder. Of the model, the tokenizer and the configuration are loaded, and no weights.
"""

import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from .. import backend, recipe_loading
from ..errors import UserError
from ..files import read_json, read_records
from ..memory.contexts import AUTO, BOTH, context_of, insists_on_profile, of_people
from ..models.prompts import window_of
from ..pairs import own_prompts
from ..pairs.grids import by_split, set_apart
from ..progress import Reporter, duration, shortened
from ..recipe import Dataset, Recipe, Training
from ..records import HELDOUT, TRAIN, VALIDATION, Context, Pair, Prompt
from ..run import STAGES, Run, changed, outputs, steps
from ..sources.note import Tally
from ..sources.sparing import warn_of_spared
from . import preflight

# Shares of the measured matrix rate that each kind of work reaches, from runs of the demo on two CPU cores. Memory and many small
# operations bound decoding; matrix products bound scoring and training.
SAMPLING, SCORING, TRAINING = 0.16, 0.55, 0.45
OVERHEAD = 20.0  # seconds to load, export and write the report
SMALL = 5e7  # bytes of a run's texts, adapters, checkpoints and report
EXTRA = 40  # tokens of template, instruction and request around a context
SHOWN, BEGINNING = 10, 80  # passages of the best and of the worst; characters of each
QUESTION = 200  # tokens of a multiple-choice question, its choices included
PREFERENCE = 110  # tokens of a request under a preference, and of its four answers
PROFILE_ANSWER = 64  # tokens that the model writes about each note, where a profile is made


@dataclass(frozen=True)
class Work:
    """What a run computes. Tokens are upper bounds, since answers may end before max_tokens."""

    contexts: dict[str, int]  # by split: contexts that grids are dealt from
    prompts: dict[str, int]
    answers: int
    pairs: int
    steps: int
    sampled: int  # tokens decoded
    scored: int  # tokens of forward passes without gradients
    trained: int  # tokens of forward and backward passes
    prompt_tokens: int  # longest expected prompt
    answer_tokens: int  # longest expected answer
    candidates: int  # answers a pair, at most


def count(recipe: Recipe, contexts: list[Context], prompts: list[Prompt]) -> Work:
    """The work of a recipe over these contexts and requests. Every round that may take place counts."""
    pairs, k = recipe.pairs, recipe.pairs.contexts_per_grid
    rows = k + ("no_context" in pairs.negatives)
    lengths = [with_profile(context, recipe) for context in contexts]
    passages = [context.tokens for context in contexts] or [0]
    shares = recipe.distractors
    distractors = sum(number * share for number, share in enumerate(shares)) / sum(shares)
    alone = sum(lengths) // max(1, len(lengths)) + EXTRA
    mean = alone + round(distractors * sum(passages) / len(passages))
    most = max(number for number, share in enumerate(shares) if share) * max(passages)
    heldout = pairs.heldout_grids + pairs.validation_grids
    answers = (pairs.grids + heldout) * rows
    scored = (pairs.grids + heldout) * rows * (mean + rows * pairs.max_tokens)
    pair_tokens = mean + pairs.candidates * pairs.max_tokens
    steps = max(1, round(recipe.training.epochs * pairs.grids / recipe.training.grids_per_step))
    validations = recipe.rounds * _validations(steps, recipe.training) + recipe.rounds - 1  # a later round begins off the base
    scored += (validations * pairs.validation_grids + pairs.heldout_grids) * k * pair_tokens
    scored += round(recipe.rounds * pairs.said_back * pairs.grids * k) * pair_tokens
    later = (recipe.rounds - 1) * pairs.grids
    answers += later * rows
    scored += later * (rows * (mean + rows * pairs.max_tokens) + k * pair_tokens)  # by the policy, then by the reference
    if recipe.training.reference != "base":
        scored += (pairs.grids + pairs.validation_grids) * k * pair_tokens
    requests, divided = by_split(recipe, contexts, prompts)
    set_apart(recipe, requests, divided)  # as the pairs stage does
    evaluated = of_evaluation(recipe, alone)
    written = own_prompts.TRIES * pairs.own_prompts  # questions about the notes
    scored += written * own_prompts.GRID * (alone + own_prompts.TOKENS)
    read = sum(c.split == TRAIN or of_people(recipe) for c in contexts) if insists_on_profile(recipe) else 0  # for the profile
    bake, tilted = recipe.training.bake, recipe.training.objective == "tilt"
    bake_sampled = bake.answers + round(bake.answers * bake.anchors / bake.batch)
    baked = (bake_sampled + round(bake.answers * bake.pairs / bake.batch)) * (alone + pairs.max_tokens)  # tokens
    if tilted:  # the base scores each grid's chosen answers at each step, and these alone are trained on
        pair_tokens = mean + pairs.max_tokens
        scored += round(recipe.rounds * recipe.training.epochs * pairs.grids * k) * (mean + k * pairs.max_tokens)
    return Work(
        {split: len(some) for split, some in divided.items()},
        {split: len(some) for split, some in requests.items()},
        answers,
        recipe.rounds * pairs.grids * k,
        recipe.rounds * steps,
        (answers + bake_sampled) * pairs.max_tokens + evaluated.sampled + read * PROFILE_ANSWER + written * own_prompts.TOKENS,
        scored + evaluated.scored + read * (EXTRA + recipe.sources.context_tokens) + baked,
        int(evaluated.trainings * recipe.rounds * recipe.training.epochs * pairs.grids * k * pair_tokens + bake.epochs * baked),
        max(lengths, default=0) + most + EXTRA,
        pairs.max_tokens,
        pairs.candidates,
    )


@dataclass(frozen=True)
class Evaluated:
    sampled: int  # tokens decoded
    scored: int  # tokens of forward passes
    trainings: int  # the run's own, and that of the SFT baseline


def of_evaluation(recipe: Recipe, prompt: int, most: int | None = None) -> Evaluated:
    """The work of the evaluation. prompt: tokens of a prompt; most: fresh answers, where the held-out pairs limit them."""
    from ..evaluation.abilities import WORKING
    from ..evaluation.endpoint import is_url

    settings, longest = recipe.evaluation, recipe.pairs.max_tokens
    fresh = settings.answers if most is None else min(settings.answers, most)
    in_use = 0 if recipe.pairs.file else (5 if insists_on_profile(recipe) else 2) * settings.use
    if recipe.sources.notes and not of_people(recipe):  # with memory
        in_use += (5 if insists_on_profile(recipe) else 4) * settings.use
    answers = 2 * fresh + in_use + 4 * settings.checkable + (4 * fresh if settings.baselines else 0)
    # Of three kinds beside the personal one each model answers; the tuned one also without a context, as it does to personal ones.
    of_kinds = settings.kinds if recipe.sources.prompts == "builtin" and not recipe.sources.prompt_dataset else 0
    answers += 0 if recipe.pairs.file else 10 * of_kinds
    questions = 2 * settings.abilities_questions * QUESTION if settings.abilities else 0
    sampled = (answers + settings.unprompted + settings.everyday) * longest + 2 * _worked(recipe) * WORKING
    scored = 2 * answers * (prompt + longest) + 2 * settings.everyday * (EXTRA + longest) + questions
    scored += 4 * settings.preferences * PREFERENCE  # stated and not stated, of each model
    judges = sum(not is_url(name) for name in settings.judges)  # an endpoint computes elsewhere
    shown = 2 if settings.judge_mode == "pairwise" else 1  # answers in a question; there are two questions in either mode
    return Evaluated(sampled, scored + judges * 2 * fresh * (prompt + shown * longest), 1 + settings.baselines)


def _worked(recipe: Recipe) -> int:
    """How many questions each model answers at length, since their answer is a number. A missing file has none."""
    settings = recipe.evaluation
    if isinstance(settings.abilities, Dataset):
        return 0 if "choices" in settings.abilities.columns else settings.abilities_questions
    from ..evaluation.abilities import read_questions

    path = Path(settings.abilities or "").expanduser()
    rows = read_questions(path, settings.abilities_questions, recipe.seed) if path.is_file() else []
    return sum("choices" not in row for row in rows)


def as_settled(run: Run) -> Recipe:
    """The run's recipe, with what contexts will tell in place of `auto`."""
    from ..memory.settling import makes_profile

    if run.recipe.sources.context != AUTO:
        return run.recipe
    context = BOTH if makes_profile(run.recipe) else context_of(run.folder, run.recipe)
    return run.recipe.model_copy(update={"sources": run.recipe.sources.model_copy(update={"context": context})})


def with_profile(context: Context, recipe: Recipe) -> int:
    """Tokens of a context with the profile that is not written yet, at most."""
    profile = recipe.sources.profile_tokens
    return {"profile": profile, "both": context.tokens + profile}.get(recipe.sources.context, context.tokens)


def _validations(steps: int, training: Training) -> int:
    """How often a round scores its validation pairs: under the base, at each evaluation, and after the last step."""
    return 1 + -(-steps // training.evaluate_every)


def count_pairs(recipe: Recipe, pairs: list[Pair]) -> Work:
    """The work of a recipe with pairs from a file: only the evaluation samples."""
    sides = {split: [pair for pair in pairs if pair.split == split] for split in (TRAIN, VALIDATION, HELDOUT)}
    tokens = {split: sum(len(p.prompt_tokens) + sum(map(len, p.tokens)) for p in some) for split, some in sides.items()}
    training = recipe.training
    steps = max(1, round(training.epochs * len({pair.grid for pair in sides[TRAIN]}) / training.grids_per_step))
    validations = _validations(steps, training)
    longest = max(len(pair.prompt_tokens) for pair in pairs)
    evaluated = of_evaluation(recipe, longest, most=len(sides[HELDOUT]))
    named = tokens[TRAIN] + tokens[VALIDATION] if training.reference != "base" else 0
    return Work(
        {split: 0 for split in sides},
        {split: len({tuple(pair.prompt_tokens) for pair in some}) for split, some in sides.items()},
        0,
        len(sides[TRAIN]),
        steps,
        evaluated.sampled,
        sum(tokens.values()) + named + validations * tokens[VALIDATION] + tokens[HELDOUT] + evaluated.scored,
        int(evaluated.trainings * training.epochs * tokens[TRAIN]),
        longest,
        max(len(answer) for pair in pairs for answer in pair.tokens),
        max(len(pair.tokens) for pair in pairs),
    )  # fmt: skip


@dataclass(frozen=True)
class Times:
    sampling: float
    scoring: float
    training: float

    @property
    def total(self) -> float:
        return self.sampling + self.scoring + self.training + OVERHEAD


def times(work: Work, parameters: int, rate: float) -> Times:
    """How long `work` takes with a model of so many parameters. rate: of matrix products on this device, FLOP/s."""
    flops = 2 * parameters
    return Times(
        work.sampled * flops / (SAMPLING * rate),
        work.scored * flops / (SCORING * rate),
        2 * work.trained * flops / (TRAINING * rate),
    )


def measured(work: Work, parameters: int, recipe: Recipe) -> Times:
    """How long `work` takes: on a GPU by a trial of the base's sizes, on a CPU by the speed of its matrix products."""
    if not backend.on_cpu():
        from ..models.load import model_config, resolve
        from . import speed_trial

        config = model_config(recipe.model)
        if resolve(recipe.model, weights=False).suffix == ".gguf":
            config |= {"quantization": {"group_size": 32, "bits": 4}}
        with suppress(LookupError, TypeError, ValueError, RuntimeError):  # a base with odd parts, or no memory for the trial
            each = speed_trial.seconds(config, recipe)
            return Times(work.sampled * each.sampled, work.scored * each.scored, work.trained * each.trained)
    return times(work, parameters, backend.sgemm_rate())


def describe(run: Run, reporter: Reporter) -> str:
    """The plan as text. Raises what `preflight.settings` raises, and what reading the notes or the pair file raises."""
    from ..evaluation.endpoint import endpoints
    from ..models.load import load_tokenizer, model_config
    from ..models.skeleton import skeleton
    from ..pairs.exchange import import_pairs
    from ..sources import own_choice
    from ..sources import read as sources
    from ..training import memory_plan

    recipe = as_settled(run)
    preflight.settings(recipe, STAGES, Reporter(quiet=True))
    with tempfile.TemporaryDirectory() as scratch:
        own_choice.copy(run.folder, Path(scratch))
        sources.run(Path(scratch), by_signs(recipe), reporter)
        contexts = read_records(Path(scratch, "contexts.jsonl"), Context)
        prompts = read_records(Path(scratch, "prompts.jsonl"), Prompt)
        dropped = read_json(Path(scratch, "sources.json")) if Path(scratch, "sources.json").exists() else {}
    named = recipe.training.reference != "base"
    if recipe.pairs.file:
        window = window_of(model_config(recipe.model), 0)
        tally = Tally()
        pairs = import_pairs(Path(recipe.pairs.file), load_tokenizer(recipe.model), recipe, window, tally)
        warn_of_spared("pairs", tally, reporter)
        work = count_pairs(recipe, pairs)
    else:
        work = count(recipe, contexts, prompts)
    model, parameters = skeleton(recipe.model)
    device = backend.device()
    longest = memory_plan.Shape.of_pair(work.prompt_tokens, work.candidates, work.answer_tokens)
    together = recipe.training.grids_per_step * recipe.pairs.contexts_per_grid
    planned = memory_plan.choose(model, recipe.training, longest, device.budget, most_pairs=together)
    advice = memory_plan.advice(planned, model, recipe.training, longest, device.budget)
    advice = advice or memory_plan.crowded(planned, device)
    needed = measured(work, parameters, recipe)
    gone = dropped.get("passages", {}).get("dropped", {})
    notes = f"notes      {dropped.get('notes')}: {len(contexts)} contexts ({_sides(work.contexts)})" + (
        f"; dropped {', '.join(f'{n} {why}' for why, n in gone.items() if n)}" if gone else ""
    )
    a_step = f"{recipe.training.grids_per_step * recipe.pairs.contexts_per_grid} pairs"
    lines = [
        f"model      {recipe.model}, {parameters / 1e6:,.0f} M parameters, on {device}",
        *([f"reference  {recipe.training.reference}, loaded once a round to score the pairs"] if named else []),
        f"file       {recipe.pairs.file}, {len(pairs)} pairs" if recipe.pairs.file else notes,
        *(f"           {line}" for line in (sources.left_out(dropped) if "files" in dropped else [])),
        *best_and_worst(contexts),
        *(["           sources.rank: model orders them anew before training"] if recipe.sources.rank == "model" else []),
        *([f"rounds     up to {recipe.rounds}; all of them are counted here"] if recipe.rounds > 1 else []),
        f"prompts    {_sides(work.prompts)}",
        f"answers    {work.answers} of at most {recipe.pairs.max_tokens} tokens",
        f"pairs      up to {work.pairs}, {work.candidates} answers each",
        f"steps      {work.steps} of {f'{recipe.training.grids_per_step} grids' if recipe.pairs.file else a_step}, "
        f"objective {recipe.training.objective}",
        *(
            [f"bake       {bake.answers} answers under the profile, learned without it"]
            if (bake := recipe.training.bake).answers
            else []
        ),
        f"memory     about {planned.peak_bytes / 1e9:.1f} GB at the peak of training, "
        f"micro-batches of {planned.token_budget} tokens",
        *([f"           DOES NOT FIT: {advice}"] if advice else []),
        f"time       about {duration(needed.total)}: sampling {duration(needed.sampling)}, "
        f"scoring and evaluation {duration(needed.scoring)}, training {duration(needed.training)}",
        f"disk       about {disk(recipe, parameters) / 1e9:,.1f} GB needed, "
        f"{shutil.disk_usage(_existing(run.folder)).free / 1e9:,.0f} GB free where {run.folder} will be",
        f"writes     {run.folder}/: {', '.join(_files(replace(run, recipe=recipe)))}",
        *_there_already(run),
    ]
    lines += [f"sends      {endpoint.warning()}" for endpoint in endpoints(recipe.evaluation)]
    return "\n".join(lines)


def by_signs(recipe: Recipe) -> Recipe:
    """The recipe without a ranking by the model, which would load its weights; what else the notes come to stays."""
    return recipe.model_copy(update={"sources": recipe.sources.model_copy(update={"rank": "signs"})})


def best_and_worst(contexts: list[Context]) -> list[str]:
    """The passages that seem to tell most and least of their author, among those that will be used."""
    ranked = sorted(contexts, key=lambda context: -context.rank)
    if len(ranked) <= 2 * SHOWN:
        parts = {"passages": ranked}
    else:
        parts = {f"best {SHOWN}": ranked[:SHOWN], f"worst {SHOWN}": ranked[-SHOWN:]}
    lines = []
    for title, some in parts.items():
        for number, context in enumerate(some):
            beginning = shortened(context.text, BEGINNING)
            lines.append(f"{'' if number else title:10} {context.rank:+.1f} {context.source}:{context.line}  {beginning}")
    return [*lines, "           `mipo-mlx notes` shows every passage, to be kept or dropped"] if lines else []


def _files(run: Run) -> list[str]:
    recipe, export = run.recipe, run.recipe.export
    names = [name for step in steps(recipe) for name in outputs(step, recipe)]
    names += ["profile.md"] if insists_on_profile(recipe) else []
    names += ["fused/"] if export.mlx else []
    names += [f"{recipe.name or run.folder.name}-{kind}.gguf" for kind in export.gguf]
    names += ["Modelfile"] if export.mlx or export.gguf and not export.split else []
    folders = [name.partition("/")[0] + "/" if "/" in name else name for name in [*names, "manifest.json", "recipe.yaml"]]
    return list(dict.fromkeys(folders))


def _there_already(run: Run) -> list[str]:
    """What `train` would do with a run that exists."""
    if not (run.folder / "recipe.yaml").exists():
        return []
    try:
        changes = changed(run)
    except UserError as error:
        return [f"exists     {error}"]
    if not changes:
        return [f"exists     {run.folder}: `mipo-mlx train` goes on with it"]
    remedy = recipe_loading.remedy(changes, run.folder.name, run.done("training"))
    return [f"exists     {run.folder}, made from another recipe ({recipe_loading.few(changes)}); {remedy}"]


def _sides(counts: dict[str, int]) -> str:
    return f"{counts[TRAIN]} to train on, {counts[VALIDATION]} for validation, {counts[HELDOUT]} held out"


def disk(recipe: Recipe, parameters: int) -> float:
    """Bytes of the files that a run leaves; its texts and its adapters are small beside them."""
    bits = {16: 2.0, 8: 1.07, 4: 0.57}  # bytes a weight, the scales of its block included
    fused = bits[16 if recipe.export.fuse.quantize == "none" else recipe.export.fuse.quantize] if recipe.export.mlx else 0.0
    if recipe.export.mlx and recipe.export.fuse.dtype == "float32":
        fused *= 2
    widths = [int(digits) for kind in recipe.export.gguf for digits in re.findall(r"\d+", kind)[:1]]
    return parameters * (fused + sum(width / 8 * (1 if width >= 16 else 1.14) for width in widths)) + SMALL


def _existing(path: Path) -> Path:
    path = path.resolve()
    return path if path.exists() else _existing(path.parent)
