"""The evaluation stage: held-out pairs before and after training, fresh answers of both models, and what they show (eval.json).

mipo-mlx eval RUN
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..engine import logprobs
from ..errors import UserError
from ..files import dump, read_records, sha256
from ..memory import contexts
from ..memory.access import open_memory
from ..models import adapters, embedding, load
from ..models.journal import Journal
from ..models.prompts import PromptBuilder, window_of
from ..progress import Reporter
from ..recipe import Evaluation, Recipe
from ..records import HELDOUT, Pair
from ..sources import questions
from . import (
    abilities,
    answers,
    baselines,
    by_kind,
    checkable,
    drift,
    heldout,
    judge,
    judge_votes,
    leak,
    outcome,
    preferences,
    requests,
    use,
    verdict,
    with_memory,
)
from .outcome import FORMAT, Example, Outcome, ShadedAnswer
from .requests import Answered
from .workbench import Beginnings, Workbench, embedder_of

JOURNAL = "eval-samples.jsonl"
PAIRS_AT_ONCE = 16  # held-out pairs scored between two entries of the journal
# Settings of what is added to the samples, of what has samples of its own, and of what is computed from samples.
ON_TOP = {"baselines", "judge", "judge_model", "judge_mode", "judge_timeout"}
APART = {"everyday", "kinds", "leak_contexts", "unprompted", "checkable", "abilities", "abilities_questions", "preferences", "use"}
COMPUTED = {"examples", "gallery", "bootstrap", "embedding_judge"}
INPUTS = ("pairs.jsonl", "prompts.jsonl", "adapters/adapters.safetensors", "adapters/adapter_config.json")


def run(folder: Path, recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Evaluate the run in `folder`, write eval.json, return its headline figures.

    Finished chunks are kept in eval-samples.jsonl, so a killed evaluation goes on where it stopped.
    Raises UserError for a run whose training has not finished, and for one without held-out pairs.
    """
    pairs = _heldout_pairs(folder)
    key = fingerprint(folder, recipe)
    known = outcome.read(folder) if outcome.is_current(folder) else None
    result = known if known and known.key == key else None
    if result is None or _asks_for_more(result, recipe.evaluation):
        known_answers = _questions(folder, recipe)  # before the journal: a wrong path must not cost the samples
        journal = Journal(folder / JOURNAL, samples_key(folder, recipe))
        result = _evaluate(folder, recipe, reporter, pairs, known_answers, journal)
        settings = settings_of(recipe.evaluation, known.settings if known else {}, result)
        result = replace(result, key=key, settings=settings)
        if known and known.baselines and not result.baselines:
            reporter.say("  the baselines were those of other answers and are left out; --baselines measures them on these")
        outcome.write(folder, result)
    _show(result, recipe, reporter)
    return summary(result)


def fingerprint(folder: Path, recipe: Recipe) -> str:
    """What an evaluation depends on: its samples and the settings of what is computed from them."""
    questions_file = _questions_file(folder, recipe)
    settings = {
        "samples": samples_key(folder, recipe),
        "beta": recipe.training.beta,
        "evaluation": recipe.evaluation.model_dump(mode="json", include=COMPUTED | APART),
        "questions": sha256(questions_file) if questions_file and questions_file.is_file() else None,
        "embedding": embedding.installed() is not None,
        "memory": recipe.memory.model_dump(mode="json"),
    }
    return hashlib.sha256(dump(settings).encode()).hexdigest()


def samples_key(folder: Path, recipe: Recipe) -> str:
    """What the samples and scores of the journal depend on: the input files and the settings that they are sampled with."""
    settings = {
        "format": FORMAT,
        "model": recipe.model,
        "seed": recipe.seed,
        "pairs": recipe.pairs.model_dump(mode="json"),
        # Baselines and named judges come on top: what is known without them stays known.
        "evaluation": recipe.evaluation.model_dump(mode="json", exclude=ON_TOP | COMPUTED | APART),
        "canaries": recipe.sources.canaries,
        "files": {name: sha256(folder / name) for name in inputs(folder) if (folder / name).exists()},
        "profile": contexts.digest(folder, recipe),
    }
    return hashlib.sha256(dump(settings).encode()).hexdigest()


def inputs(folder: Path) -> list[str]:
    """The names of the files that the samples depend on."""
    pairs, *others = INPUTS
    return [pairs, *contexts.context_files(folder), *others]


def settings_of(settings: Evaluation, before: dict[str, Any], result: Outcome) -> dict[str, Any]:
    """The settings behind an evaluation. Judges and baselines that an earlier one has left keep their own."""
    earlier = {"baselines"} if result.baselines is not None and not settings.baselines else set()
    earlier |= ON_TOP - {"baselines"} if result.judged and not settings.judge else set()
    return {**settings.model_dump(mode="json"), **{name: before[name] for name in earlier & before.keys()}}


def can_ask(folder: Path, recipe: Recipe) -> bool:
    """Whether there are requests for judges and baselines; no model is loaded."""
    return bool(requests.groups_of(folder, recipe, lambda *_: ([], [])))


def summary(result: Outcome) -> dict[str, Any]:
    """The headline of eval.json for the manifest: each measure's before, after and interval after."""
    headline: dict[str, Any] = {"verdict": result.verdict, "heldout_pairs": result.heldout.pairs if result.heldout else 0}
    for part in (result.heldout, result.fresh, result.abilities, result.preferences, result.checkable):
        for name, measure in (part.metrics if part else {}).items():
            after = measure.after
            headline[name] = {"before": measure.before.value, "after": after.value, "interval": after.interval}
    for name, opinion in (("comparisons_won", result.fit), ("comparisons_won_with_notes", result.with_notes)):
        if opinion and opinion.win_rate:
            headline[name] = {"before": 0.5, "after": opinion.win_rate.value, "interval": opinion.win_rate.interval}
    return headline


def _questions_file(folder: Path, recipe: Recipe) -> Path | None:
    given = recipe.evaluation.abilities
    if not given:
        return None
    return Path(given).expanduser() if isinstance(given, str) else questions.path_in(folder, given)


def _questions(folder: Path, recipe: Recipe) -> list[dict[str, Any]]:
    path = _questions_file(folder, recipe)
    return abilities.read_questions(path, recipe.evaluation.abilities_questions, recipe.seed) if path else []


def _asks_for_more(result: Outcome, settings: Evaluation) -> bool:
    """Whether the recipe wants baselines or judges that a finished evaluation of the same key does not have."""
    if not result.fresh:
        return False  # nothing that could be judged or compared
    return not judge.complete(settings, result.judged) or (settings.baselines and result.baselines is None)


def _heldout_pairs(folder: Path) -> list[Pair]:
    if not (folder / "adapters" / "adapters.safetensors").exists():
        raise UserError(f"{folder}: training has not finished, so there is nothing to evaluate; run `mipo-mlx train` first")
    pairs = [pair for pair in read_records(folder / "pairs.jsonl", Pair) if pair.split == HELDOUT]
    if not pairs:
        raise UserError(
            f"{folder / 'pairs.jsonl'}: no held-out pairs to evaluate on; raise pairs.heldout_grids or sources.heldout_contexts"
        )
    return pairs


def _evaluate(
    folder: Path,
    recipe: Recipe,
    reporter: Reporter,
    pairs: list[Pair],
    known_answers: list[dict[str, Any]],
    journal: Journal,
) -> Outcome:
    loaded = load.load(recipe.model)
    model = adapters.load(loaded.model, folder / "adapters")
    # Pairs made elsewhere bring their prompts as token ids, which were measured when they were read.
    window = None if recipe.pairs.file else window_of(loaded.config, recipe.pairs.max_tokens)
    ask = PromptBuilder(loaded.tokenizer, recipe.pairs, window)
    groups = requests.groups_of(folder, recipe, ask)
    kind_groups = by_kind.groups_of(folder, recipe, ask)
    ask.warn_of_cuts(reporter)
    settings, embedder = recipe.evaluation, embedder_of(recipe.evaluation)
    memory = open_memory(folder, recipe, loaded, reporter) if settings.use and recipe.sources.notes else None
    remembered = with_memory.requests_of(folder, recipe, memory, ask)
    wanted = sum(group.wanted for group in groups)
    with_baselines = settings.baselines or baselines.finished(groups, journal)
    by_embedding = embedder is not None
    totals = (
        len(pairs) + 4 * wanted,
        drift.bar_total(folder, recipe),
        abilities.bar_total(known_answers),
        judge.bar_total(recipe, wanted),
        use.bar_total(folder, recipe, groups, by_embedding),
        with_memory.bar_total(folder, recipe, remembered, by_embedding),
        checkable.bar_total(folder, recipe),
        leak.bar_total(folder, recipe),
        baselines.bar_total(groups) if with_baselines else 0,
        by_kind.bar_total(kind_groups, groups),
        preferences.bar_total(recipe),
    )
    with reporter.track("evaluating", total=sum(totals), unit="answers") as bar:
        told = contexts.read_contexts(folder, recipe)
        every = [*groups, *(group for some in kind_groups.values() for group in some)]
        beginnings = Beginnings(model, requests.labelled(pairs, every, told))
        bench = Workbench(model, loaded.tokenizer, folder, recipe, journal, reporter, bar, window, embedder, beginnings)
        notes = {context.id: context.note for context in told}
        heldout_result = heldout.evaluate(pairs, _score_pairs(bench, pairs), notes, recipe)
        answered = requests.answer(bench, groups)
        result = Outcome(
            model=recipe.model,
            heldout=heldout_result,
            fresh=answers.evaluate(answered, settings, recipe.seed, bench.embedder) if answered else None,
            fit=judge_votes.fit(answered, settings, recipe.seed, bench.embedder),
            use=use.evaluate(bench.keyed_by(settings.use), answered, remembered),
            kinds=by_kind.evaluate(bench.keyed_by(settings.kinds), kind_groups, answered),
            unprompted=drift.evaluate(bench.keyed_by(settings.everyday)),
            leak=leak.evaluate(bench.keyed_by(settings.leak_contexts, settings.unprompted)),
            baselines=baselines.evaluate(bench, answered) if with_baselines else None,
            checkable=checkable.evaluate(bench.keyed_by(settings.checkable)),
            abilities=abilities.evaluate(bench.keyed_by(known_answers), known_answers) if known_answers else None,
            preferences=preferences.evaluate(bench),
            judged=judge.evaluate(bench, answered),  # last: an endpoint that fails takes nothing else with it
            gallery=[_example(loaded.tokenizer, one) for one in _spread(answered, max(settings.gallery, settings.examples))],
        )
    return replace(result, verdict=verdict.sentence(result))


def _score_pairs(bench: Workbench, pairs: Sequence[Pair]) -> list[list[float]]:
    """The candidates' summed log-probabilities under the trained model, nats."""

    def compute(_: int, part: Sequence[Pair]) -> list[Any]:
        prompts = [pair.prompt_tokens for pair in part]
        recorded = bench.recorded("tuned", prompts)
        scored = logprobs.token_logprobs(bench.model, prompts, [pair.tokens for pair in part], recorded=recorded)
        return [[float(candidate.sum(dtype="float64")) for candidate in candidates] for candidates in scored]

    return bench.journal.map("pairs", pairs, PAIRS_AT_ONCE, compute, bench.bar)


def _spread(answered: list[Answered], count: int) -> list[Answered]:
    """`count` requests, from as many groups as there are: the first of each, then the second; never picked by result."""
    order = sorted(range(len(answered)), key=lambda i: (answered[i].own, i))
    return [answered[i] for i in order[:count]]


def _example(tokenizer: Any, one: Answered) -> Example:
    base, tuned = (ShadedAnswer(side.text, answers.shaded(tokenizer, side, one.own)) for side in (one.base, one.tuned))
    return Example(one.request, one.context, base, tuned)


def _show(result: Outcome, recipe: Recipe, reporter: Reporter) -> None:
    parts = {
        "pairs": result.heldout,
        "answers": result.fresh,
        "abilities": result.abilities,
        "requirements": result.checkable,
        "preferences": result.preferences,
    }
    for what, part in parts.items():
        if part and part.no_interval:
            reporter.say(f"  no interval for {what}: {part.no_interval}")
    if not result.fresh:
        needed = "two rows with other prompts in one held-out grid" if recipe.pairs.file else "two held-out notes and one prompt"
        wanted = [f"evaluation.{name}" for name in ("judge", "baselines") if getattr(recipe.evaluation, name)]
        if wanted:
            reporter.warn(f"{' and '.join(wanted)}: left out, as there are no fresh answers, which need at least {needed}")
        else:
            reporter.say(f"  no fresh answers: they need at least {needed}")
    elif result.fresh.choices_left_out:
        left_out = ", ".join(map(str, result.fresh.choices_left_out))
        reporter.say(f"  evaluation.choices: {left_out} left out, as fewer notes are held out")
    for example in result.gallery[: recipe.evaluation.examples]:
        about = [f"  About the user: {example.context}"] if example.context else []
        reporter.say("\n".join(["", *about, f"  Asked:   {example.request}"]))
        reporter.say(f"  Base:    {example.base.text}\n  Trained: {example.tuned.text}")
