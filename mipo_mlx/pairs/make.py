"""Stage `pairs`: sample answers under right and wrong contexts, score them under all, keep the informative pairs.

    contexts.jsonl, prompts.jsonl, profile.md -> samples.jsonl (one grid a line) -> pairs.jsonl, pairs.json

Grids are sampled and scored a chunk at a time and written as each chunk ends. A chunk's randomness depends on the seed and its
number alone. So a run that was killed samples its unfinished chunk anew and ends with the same bytes.

A later round samples fresh training grids from the policy that the round before has trained, into samples-2.jsonl and
pairs-2.jsonl. An update of the notes is such a round, whose grids are made of new passages. That policy's own scores give PMI and
filters; the reference stays the base. With `pairs.file` nothing is sampled.

Other machines may compute shares of the first round's chunks (`parts.py`): `share` writes them, and the stage takes them.
"""

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..engine.sampling import Prefixes, sample
from ..errors import Failure, UserError
from ..files import (
    CONTEXTS,
    append_jsonl,
    of_round,
    read_json,
    read_records,
    truncate_jsonl,
    updates,
    write_json,
    write_jsonl,
    write_records,
)  # fmt: skip
from ..memory.contexts import digest, kept_contexts, read_contexts, settle
from ..memory.settling import lacks_profile, settle_contexts
from ..models import adapters
from ..models.load import LoadedModel, load, load_tokenizer, model_config
from ..models.prompts import PromptBuilder, window_of
from ..progress import Reporter
from ..recipe import Recipe
from ..records import HELDOUT, TRAIN, Context, Grid, Prompt, key_for
from ..sources.note import Tally
from ..sources.sparing import warn_of_spared
from .ballots import HeldOut, voted_pairs
from .build import Built, add_said_back, build
from .exchange import import_pairs
from .fitting import fit_of
from .grids import Fit, News, Plan, in_chunks, make_plan, plan_update
from .overview import Overview, summarize
from .own_prompts import add_questions, lacks_questions
from .parts import FOLDER, Origin, Parts, Share, header
from .score import check_same_tokenizer, score_grids, under_named_reference, with_reference


@dataclass
class Sampled:
    """The pairs of one round, before the recipe's own reference has seen them."""

    built: Built
    grids: list[Grid]
    speed: dict[str, Any]  # of this call, and which other devices made how many grids


def run(folder: Path, recipe: Recipe, reporter: Reporter, round_number: int = 1) -> dict[str, Any]:
    """Write samples.jsonl, pairs.jsonl and pairs.json of a round; continues where an earlier call was interrupted.

    Returns the `Overview` without its histogram, and how many tokens this call sampled a second.
    Raises UserError where contexts or prompts do not suffice or nothing is left to train on, Failure where the model
    answers nothing.
    """
    folder = Path(folder)
    named = recipe.training.reference != "base"
    if named:
        check_same_tokenizer(recipe.training.reference, load_tokenizer(recipe.model))  # not after hours of sampling
    if recipe.pairs.file:
        sampled = from_file(folder, recipe, reporter)
    else:
        sampled = from_notes(folder, recipe, reporter, round_number)
    pairs = sampled.built.pairs
    if named:
        pairs = under_named_reference(pairs, recipe.training.reference, reporter)
    overview = summarize(sampled.built, sampled.grids, digest(folder, recipe))
    write_records(folder / of_round("pairs.jsonl", round_number), pairs)
    write_json(folder / of_round("pairs.json", round_number), asdict(overview))
    report(sampled.built, overview, reporter, round_number)
    if round_number == 1:
        check_enough(sampled.built, overview)
    return {**{key: value for key, value in asdict(overview).items() if key != "histogram"}, **sampled.speed}


def check_samples(recipe: Recipe) -> None:
    """Raise UserError for a recipe that samples nothing, so that there is nothing to share."""
    if recipe.pairs.file:
        raise UserError("--part, --with: the pairs of this recipe come from pairs.file, so nothing is sampled")


def from_file(folder: Path, recipe: Recipe, reporter: Reporter) -> Sampled:
    """Pairs made elsewhere, scored by the base; samples.jsonl stays empty."""
    window = window_of(model_config(recipe.model), 0)
    # Read before the weights are loaded, so that a bad line ends the run at once.
    tally = Tally()
    pairs = import_pairs(Path(recipe.pairs.file), load_tokenizer(recipe.model), recipe, window, tally)  # type: ignore[arg-type]
    warn_of_spared("pairs", tally, reporter)
    loaded = load(recipe.model)
    write_jsonl(folder / "samples.jsonl", [])
    return Sampled(Built(with_reference(pairs, loaded.model, reporter)), [], {})


def from_notes(folder: Path, recipe: Recipe, reporter: Reporter, round_number: int) -> Sampled:
    """Sample and score the grids of a round, and build its pairs."""
    inputs = prepare_round(folder, recipe, reporter, round_number)
    sampler, contexts, prompts = inputs.sampler, inputs.contexts, inputs.prompts
    loaded, ask = sampler.loaded, sampler.ask
    path = folder / of_round("samples.jsonl", round_number)
    parts = Parts(folder / FOLDER, Origin.of(recipe), reporter) if round_number == 1 else None
    speed: dict[str, Any] = sample_grids(path, inputs.plans, sampler, parts)
    if parts and (devices := parts.devices({plan.id for plan in inputs.plans})):
        speed["made_on"] = devices

    grids = read_records(path, Grid)
    if round_number == 1 and not any(answer.text.strip() for grid in grids for answer in grid.answers):
        raise Failure(f"{recipe.model}: every sampled answer is empty; take an instruction-tuned model with a chat template")
    by_id = {context.id: context for context in contexts}
    built = build(grids, by_id, {prompt.id: prompt for prompt in prompts}, recipe, ask)
    built.pairs = add_said_back(built.pairs, by_id, recipe, loaded)
    if recipe.pairs.votes:
        first_grid = max((grid.id for grid in grids), default=-1) + 1
        built.pairs += voted_pairs(folder, HeldOut.of(contexts, prompts), loaded, first_grid, reporter)
    if round_number > 1 and recipe.training.reference == "base":
        with adapters.disabled(loaded.model):
            built.pairs = with_reference(built.pairs, loaded.model, reporter)
    ask.warn_of_cuts(reporter)
    return Sampled(built, grids, speed)


@dataclass
class RoundInputs:
    """What a round is sampled from."""

    contexts: list[Context]
    prompts: list[Prompt]
    plans: list[Plan]
    sampler: "Sampler"


def prepare_round(folder: Path, recipe: Recipe, reporter: Reporter, round_number: int = 1) -> RoundInputs:
    """Load the model; write the profile and the questions from the notes where they are missing; plan the grids."""
    update = round_number if round_number > recipe.rounds else 0
    contexts = kept_contexts(folder, update)
    prompts = read_records(folder / "prompts.jsonl", Prompt)
    planned(folder, recipe, contexts, prompts, round_number)  # before the model is loaded: too few notes end the run at once
    loaded = load(recipe.model)
    if contexts:
        settle_contexts(folder, recipe, loaded, reporter)
        contexts = read_contexts(folder, recipe, update)
    if add_questions(folder, recipe, loaded, reporter):
        prompts = read_records(folder / "prompts.jsonl", Prompt)
    fit = None if update else fit_of(recipe, contexts, prompts, loaded)  # an update takes every new passage
    plans = planned(folder, recipe, contexts, prompts, round_number, fit)
    if round_number > 1:
        loaded.model = adapters.load(loaded.model, folder / f"adapters-{round_number - 1}")
    ask = PromptBuilder(loaded.tokenizer, recipe.pairs, window_of(loaded.config, recipe.pairs.max_tokens))
    plans = [within_window(plan, ask) for plan in plans]
    return RoundInputs(contexts, prompts, plans, Sampler(loaded, ask, recipe, reporter, round_number))


def share(folder: Path, recipe: Recipe, part: Share, have: Iterable[int], out: Callable[[list[dict[str, Any]]], None]) -> None:
    """Sample and score a part of the first round's chunks, and hand each to `out` as rows, behind a header.

    `have`: ids of grids that are there already; chunks of them alone are left out.
    Raises UserError where the recipe samples nothing.
    """
    check_samples(recipe)
    reporter, there = Reporter(quiet=True), set(have)
    inputs = prepare_round(folder, recipe, reporter)
    chunks = Chunks(inputs.plans, inputs.sampler)
    out([header(part, Origin.of(recipe))])
    for number in part.numbers(len(chunks.plans)):
        if not there.issuperset(plan.id for plan in chunks.plans[number]):
            out([asdict(grid) for grid in chunks.sampled(number)])


def write_missing(folder: Path, recipe: Recipe, reporter: Reporter) -> None:
    """Write the profile and the questions that the model makes of the notes, where they are missing, and settle what contexts tell:
    the plan needs them."""
    if lacks_profile(folder, recipe) or lacks_questions(recipe, read_records(folder / "prompts.jsonl", Prompt)):
        prepare_round(folder, recipe, reporter)
    settle(folder, recipe)


def planned(
    folder: Path, recipe: Recipe, contexts: list[Context], prompts: list[Prompt], number: int, fit: Fit | None = None
) -> list[Plan]:
    """The grids of round `number` of the recipe, or of an update of the notes."""
    first = {context.id for context in read_records(folder / CONTEXTS, Context)}
    beginning = [context for context in contexts if context.id in first]
    if number <= recipe.rounds:
        return make_plan(recipe, beginning, prompts, number, fit)
    own = {context.id for context in read_records(folder / of_round(CONTEXTS, number), Context)}
    earlier = [n for n in updates(folder) if n < number]
    stale = frozenset(name for n in (*earlier, number) for name in read_json(folder / of_round("sources.json", n))["stale"])
    new, later = ([c for c in contexts if c.id not in first and (c.id in own) == is_new] for is_new in (True, False))
    return plan_update(recipe, News(beginning, later, new, stale), prompts, number)


@dataclass(frozen=True)
class Sampler:
    loaded: LoadedModel
    ask: PromptBuilder
    recipe: Recipe
    reporter: Reporter
    round_number: int = 1


def sample_grids(path: Path, plans: list[Plan], sampler: Sampler, parts: Parts | None = None) -> dict[str, float]:
    """Append every planned grid that `path` lacks, a chunk at a time: from `parts` where these have it.

    Returns how fast answers were sampled and scored.
    """
    chunks = Chunks(plans, sampler)
    done = keep_whole_chunks(path, chunks.plans, sampler.ask)
    with sampler.reporter.track("sampling", total=sum(map(len, plans)), unit="answers") as bar:
        bar.skip(sum(len(plan) for chunk in chunks.plans[:done] for plan in chunk))
        for number, chunk in enumerate(chunks.plans[done:], done):
            grids = taken(chunk, parts, sampler.ask) if parts else None
            if grids:
                bar.skip(sum(map(len, chunk)))
            append_jsonl(path, [asdict(grid) for grid in grids or chunks.sampled(number, lambda: bar.advance(1))])
    return chunks.speed


def taken(chunk: list[Plan], parts: Parts, ask: PromptBuilder) -> list[Grid] | None:
    """The grids of a chunk from other machines; None where one is missing, or is another than planned."""
    parts.read_on()
    grids = parts.grids_of([plan.id for plan in chunk])
    if grids and all(is_planned(grid, plan, ask) and fills(grid, plan) for grid, plan in zip(grids, chunk, strict=True)):
        return grids
    return None


def fills(grid: Grid, plan: Plan) -> bool:
    """Whether a grid has an answer and a row of scores for each row of the plan."""
    return len(grid.answers) == len(plan) and [len(row) for row in grid.scores] == [len(plan)] * len(plan)


@dataclass
class Chunks:
    """The chunks of a plan, each sampled by itself: the answers of one do not depend on which others ran before."""

    every: list[Plan]
    sampler: Sampler
    answers: int = 0
    tokens: int = 0
    seconds: float = 0.0  # spent on sampling, without scoring
    plans: list[list[Plan]] = field(init=False)

    def __post_init__(self) -> None:
        ask = self.sampler.ask
        rows = [(prompt, context) for plan in self.every for prompt, context in zip(plan.prompts, plan.shown, strict=True)]
        labels = [labels for plan in self.every for labels in shared_by(plan)]
        self.prefixes = Prefixes(self.sampler.loaded.model, [ask(*row)[1] for row in rows], labels)
        self.plans = in_chunks(self.every, self.sampler.recipe.pairs.batch)

    @property
    def speed(self) -> dict[str, float]:
        if not self.answers:
            return {}
        return {"answers_sampled": self.answers, "tokens_per_second": round(self.tokens / self.seconds, 1)}

    def sampled(self, number: int, advance: Callable[[], None] = lambda: None) -> list[Grid]:
        """Sample and score chunk `number`; `advance` is called as each answer ends."""
        sampler, chunk = self.sampler, self.plans[number]
        ask, model, begin = sampler.ask, sampler.loaded.model, time.perf_counter()
        prompts = [[ask(p, c)[1] for p, c in zip(plan.prompts, plan.shown, strict=True)] for plan in chunk]
        started = [
            self.prefixes.start(prompt, labels)
            for plan, grid in zip(chunk, prompts, strict=True)
            for prompt, labels in zip(grid, shared_by(plan), strict=True)
        ]
        of_round = f" of round {sampler.round_number}" if sampler.round_number > 1 else ""
        key = key_for(sampler.recipe.seed, f"sampling {number}{of_round}")
        fresh = iter(sample(model, sampler.loaded.tokenizer, started, sampler.recipe.pairs, key, lambda answer: advance()))
        sampled = [[next(fresh) for _ in plan.contexts] for plan in chunk]
        self.seconds += time.perf_counter() - begin
        self.answers += len(started)
        self.tokens += sum(len(answer.tokens) for row in sampled for answer in row)
        recorded = [start.recorded for start in started if start.recorded] if self.prefixes.usable else None
        jobs = [(grid, [answer.tokens for answer in row]) for grid, row in zip(prompts, sampled, strict=True)]
        scores = score_grids(model, jobs, recorded)
        return [
            Grid(**identity(plan, ask), answers=row, scores=matrix)
            for plan, row, matrix in zip(chunk, sampled, scores, strict=True)
        ]


def shared_by(plan: Plan) -> list[tuple[Any, ...]]:
    """For each row the labels of what its prompt shares with others, outermost first: the grid's distractors, then the context."""
    behind = (tuple(context.id for context in plan.distractors),) if plan.distractors else ()
    return [(*behind, context.id) if context else (None,) for context in plan.contexts]


def within_window(plan: Plan, ask: PromptBuilder) -> Plan:
    """The plan without those of its distractors, the first ones first, for which a row has no room in the model's window."""
    while plan.distractors and not all(map(ask.fits, plan.prompts, plan.shown)):
        plan = replace(plan, distractors=plan.distractors[1:])
    return plan


def keep_whole_chunks(path: Path, chunks: list[list[Plan]], ask: PromptBuilder) -> int:
    """Cut `path` back to the chunks that an earlier call finished, and return how many they are.

    Raises UserError where the file holds other grids than planned.
    """
    grids = read_records(path, Grid)
    for line, (grid, plan) in enumerate(zip(grids, (plan for chunk in chunks for plan in chunk), strict=False), 1):
        if not is_planned(grid, plan, ask):
            raise UserError(
                f"{path}:{line}: sampled from other contexts, prompts, settings or another profile; start over with --fresh"
            )
    done = kept = 0
    while done < len(chunks) and kept + len(chunks[done]) <= len(grids):
        kept += len(chunks[done])
        done += 1
    truncate_jsonl(path, kept)
    return done


def is_planned(grid: Grid, plan: Plan, ask: PromptBuilder) -> bool:
    return all(getattr(grid, key) == value for key, value in identity(plan, ask).items())


def identity(plan: Plan, ask: PromptBuilder) -> dict[str, Any]:
    """The fields of a grid's record that say what was sampled: its prompts and contexts, and a hash of their token ids."""
    rows = [ask(prompt, context)[1] for prompt, context in zip(plan.prompts, plan.shown, strict=True)]
    return {
        "id": plan.id,
        "split": plan.split,
        "prompt": plan.prompts[0].id,
        "contexts": [context.id if context else None for context in plan.contexts],
        "prompts": [prompt.id for prompt in plan.prompts] if plan.of_prompts else [],
        "distractors": [context.id for context in plan.distractors],
        "prompt_hash": hashlib.sha256(str(rows).encode()).hexdigest()[:16],
    }


def report(built: Built, overview: Overview, reporter: Reporter, round_number: int) -> None:
    lost = ", ".join(f"{count} {reason}" for reason, count in built.dropped[TRAIN].most_common())
    kept = overview.pairs
    heldout = f", {kept[HELDOUT]} held out" if round_number == 1 else ""
    parroted = f" ({overview.said_back} against their own passage, said back)" if overview.said_back else ""
    reporter.conclude(f"  {kept[TRAIN]} pairs to train on{parroted}{heldout}; dropped: {lost or 'none'}")


def check_enough(built: Built, overview: Overview) -> None:
    """Raise UserError where no pair is left on a side, naming what took most of them."""
    for split in (TRAIN, HELDOUT):
        if not overview.pairs[split]:
            reason, lost = (built.dropped[split].most_common(1) or [("nothing", 0)])[0]
            raise UserError(
                f"pairs.jsonl: no {split} pair is left; most were dropped as {reason} ({lost} of "
                f"{sum(built.dropped[split].values())}): loosen that under pairs.filters, or give contexts that differ more"
            )
