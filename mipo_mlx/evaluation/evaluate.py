"""The evaluation stage: held-out pairs before and after training, fresh answers of both models, and what they show (eval.json).

mipo-mlx eval RUN
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engine import logprobs
from ..errors import UserError
from ..files import dump, read_json, sha256, write_json
from ..memory import contexts
from ..models import adapters, embedding, load
from ..models.prompts import PromptBuilder, window_of
from ..progress import Reporter
from ..recipe import Evaluation, Recipe
from ..records import HELDOUT, Pair, read_records
from ..sources import questions
from . import abilities, answers, baselines, checkable, drift, heldout, judge, leak, verdict
from . import requests as asking
from . import requests as cases
from .journal import Journal
from .judge import FILE, Verdicts
from .requests import Asked
from .statistics import FORMAT

PAIRS_AT_ONCE = 16  # held-out pairs scored between two entries of the journal
ON_TOP = {"baselines", "judge", "judge_model", "judge_mode", "judge_timeout"}
APART = {"everyday", "leak_contexts", "unprompted", "checkable", "abilities", "abilities_questions"}  # samples of their own
COMPUTED = {"examples", "gallery", "bootstrap", "embedding_judge"}  # of what is computed from samples that stay as they are
INPUTS = ("pairs.jsonl", "contexts.jsonl", "prompts.jsonl", "adapters/adapters.safetensors", "adapters/adapter_config.json")


def run(folder: Path, recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Evaluate the run in `folder`, write eval.json, return its headline figures.

    Finished chunks are kept in eval-samples.jsonl, so a killed evaluation goes on where it stopped.
    Raises UserError for a run whose training has not finished, and for one without held-out pairs.
    """
    pairs = _heldout_pairs(folder)
    key = fingerprint(folder, recipe)
    known = read_json(folder / "eval.json") if (folder / "eval.json").exists() else {}
    result = known if known.get("key") == key else {}
    if not result or _asks_for_more(result, recipe.evaluation):
        questions = _questions(folder, recipe)  # before the journal: a wrong path must not cost the samples
        journal = Journal(folder / "eval-samples.jsonl", samples_key(folder, recipe))
        made = _evaluate(folder, recipe, reporter, pairs, questions, journal)
        result = {"key": key, "settings": made_with(recipe.evaluation, known.get("settings", {}), made), **made}
        if known.get("baselines") and not result["baselines"]:
            reporter.say("  the baselines were those of other answers and are left out; --baselines measures them on these")
        write_json(folder / "eval.json", result)
    _tell(result, recipe, reporter)
    return summary(result)


def fingerprint(folder: Path, recipe: Recipe) -> str:
    """What an evaluation depends on: its samples and the settings of what is computed from them."""
    settings = {
        "samples": samples_key(folder, recipe),
        "beta": recipe.training.beta,
        "evaluation": recipe.evaluation.model_dump(mode="json", include=COMPUTED | APART),
        "questions": _digest_of_questions(folder, recipe),
        "embedding": embedding.installed() is not None,
    }
    return hashlib.sha256(dump(settings).encode()).hexdigest()


def samples_key(folder: Path, recipe: Recipe) -> str:
    """What the samples and scores of the journal depend on: the input files and the settings that they are made with."""
    settings = {
        "format": FORMAT,
        "model": recipe.model,
        "seed": recipe.seed,
        "pairs": recipe.pairs.model_dump(mode="json"),
        # Baselines and named judges come on top: what is known without them stays known.
        "evaluation": recipe.evaluation.model_dump(mode="json", exclude=ON_TOP | COMPUTED | APART),
        "canaries": recipe.sources.canaries,
        "files": {name: sha256(folder / name) for name in INPUTS if (folder / name).exists()},
        "profile": contexts.digest(folder, recipe),
    }
    return hashlib.sha256(dump(settings).encode()).hexdigest()


def made_with(settings: Evaluation, before: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """The settings behind an evaluation: those of now and, of judges and baselines that were asked for earlier, those of then."""
    taken = {"baselines"} if result["baselines"] is not None and not settings.baselines else set()
    taken |= ON_TOP - {"baselines"} if result["judged"] and not settings.judge else set()
    return {**settings.model_dump(mode="json"), **{name: before[name] for name in taken & before.keys()}}


def _digest_of_questions(folder: Path, recipe: Recipe) -> str | None:
    path = _questions_file(folder, recipe)
    return sha256(path) if path and path.is_file() else None


def _questions_file(folder: Path, recipe: Recipe) -> Path | None:
    given = recipe.evaluation.abilities
    if not given:
        return None
    return Path(given).expanduser() if isinstance(given, str) else questions.path_in(folder, given)


def can_ask(folder: Path, recipe: Recipe) -> bool:
    """Whether there are requests for judges and baselines to look at; no model is loaded."""
    return bool(cases.build(folder, recipe, lambda *_: (0, [])))  # type: ignore[arg-type]


def _asks_for_more(result: dict[str, Any], settings: Evaluation) -> bool:
    """Whether baselines or judges are wanted that a finished evaluation of the same key does not have."""
    if not result["fresh"]:
        return False  # nothing that could be judged or compared
    return not judge.all_said(settings, result["judged"]) or (settings.baselines and result["baselines"] is None)


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """The headline of eval.json: each measure's before, after and interval after."""
    headline = {"verdict": result["verdict"], "heldout_pairs": result["heldout"]["pairs"]}
    for part in filter(None, (result["heldout"], result["fresh"], result["abilities"], result["checkable"])):
        for name, measure in part["metrics"].items():
            headline[name] = {
                "before": measure["before"]["value"],
                "after": measure["after"]["value"],
                "interval": measure["after"]["interval"],
            }
    return headline


def _heldout_pairs(folder: Path) -> list[Pair]:
    if not (folder / "adapters" / "adapters.safetensors").exists():
        raise UserError(f"{folder}: training has not finished, so there is nothing to evaluate; run `mipo-mlx train` first")
    pairs = [pair for pair in read_records(folder / "pairs.jsonl", Pair) if pair.split == HELDOUT]
    if not pairs:
        raise UserError(
            f"{folder / 'pairs.jsonl'}: no held-out pairs to evaluate on; raise pairs.heldout_grids or sources.heldout_contexts"
        )
    return pairs


def _questions(folder: Path, recipe: Recipe) -> list[dict[str, Any]]:
    path = _questions_file(folder, recipe)
    return abilities.read_questions(path, recipe.evaluation.abilities_questions, recipe.seed) if path else []


def _evaluate(
    folder: Path,
    recipe: Recipe,
    reporter: Reporter,
    pairs: list[Pair],
    questions: list[dict[str, Any]],
    journal: Journal,
) -> dict[str, Any]:
    loaded = load.load(recipe.model)
    model = adapters.load(loaded.model, folder / "adapters")
    # Pairs made elsewhere bring their prompts as token ids, which were measured when they were read.
    window = None if recipe.pairs.file else window_of(loaded.config, recipe.pairs.max_tokens)
    ask = PromptBuilder(loaded.tokenizer, recipe.pairs, window)
    groups = cases.build(folder, recipe, ask)
    ask.warn_of_cuts(reporter)
    requests = sum(group.asked for group in groups)
    settings = recipe.evaluation
    total = len(pairs) + 4 * requests + drift.work(folder, recipe) + abilities.work(questions) + judge.work(recipe, requests)
    total += checkable.work(folder, recipe) + leak.work(folder, recipe)
    total += baselines.work(groups) if settings.baselines else 0
    embedder = _embedder(recipe)
    with reporter.track("evaluating", total=total, unit="answers") as bar:
        policy = journal.map("pairs", pairs, PAIRS_AT_ONCE, lambda _, part: _score_pairs(model, part), bar)
        asked = asking.ask(model, loaded.tokenizer, groups, recipe, journal, bar)
        alone = drift.evaluate(model, loaded.tokenizer, folder, recipe, journal.of(settings.everyday), bar)
        asks = journal.of(settings.leak_contexts, settings.unprompted)
        leaked = leak.evaluate(model, loaded.tokenizer, folder, recipe, asks, bar)
        others = None
        if settings.baselines or baselines.finished(groups, journal):
            sft = folder / "sft" / "adapters"  # left there by mipo_mlx/sft.py
            others = baselines.evaluate(model, loaded.tokenizer, asked, recipe, journal, embedder, sft, bar)
        checked = checkable.evaluate(model, loaded.tokenizer, folder, recipe, journal.of(settings.checkable), bar)
        kept = abilities.evaluate(model, loaded.tokenizer, questions, recipe, journal.of(questions), bar) if questions else None
        # Last: an endpoint that fails takes nothing else with it.
        verdicts = Verdicts(folder / FILE)
        judged = judge.evaluate(model, loaded.tokenizer, asked, recipe, verdicts, embedder, reporter, bar)
    notes = {context.id: context.note for context in contexts.read_contexts(folder, recipe)}
    result: dict[str, Any] = {
        "format": FORMAT,
        "model": recipe.model,
        "heldout": heldout.evaluate(pairs, policy, notes, recipe.training.beta, settings.bootstrap, recipe.seed),
        "fresh": answers.evaluate(asked, settings.choices, settings.bootstrap, recipe.seed, embedder) if asked else None,
        "judged": judged,
        "baselines": others,
        "unprompted": alone,
        "leak": leaked,
        "abilities": kept,
        "checkable": checked,
        "gallery": [_example(loaded.tokenizer, a) for a in _spread(asked, max(settings.gallery, settings.examples))],
    }
    result["verdict"] = verdict.sentence(result["heldout"], result["fresh"], leaked)
    return result


def _score_pairs(model: Any, pairs: Sequence[Pair]) -> list[list[float]]:
    scored = logprobs.token_logprobs(model, [pair.prompt_tokens for pair in pairs], [pair.tokens for pair in pairs])
    return [[float(candidate.sum(dtype="float64")) for candidate in candidates] for candidates in scored]


def _spread(asked: list[Asked], count: int) -> list[Asked]:
    """`count` requests, from as many groups as there are: the first of each, then the second; never picked by result."""
    order = sorted(range(len(asked)), key=lambda i: (asked[i].own, i))
    return [asked[i] for i in order[:count]]


def _embedder(recipe: Recipe) -> embedding.Embed | None:
    folder = embedding.installed() if recipe.evaluation.embedding_judge else None
    return embedding.Embedder(folder) if folder else None


def _example(tokenizer: Any, asked: Asked) -> dict[str, Any]:
    return {
        "prompt": asked.prompt,
        "context": asked.context,
        "base": {"text": asked.base.text, "words": answers.shaded(tokenizer, asked.base, asked.own)},
        "tuned": {"text": asked.tuned.text, "words": answers.shaded(tokenizer, asked.tuned, asked.own)},
    }


def _tell(result: dict[str, Any], recipe: Recipe, reporter: Reporter) -> None:
    for part, what in (("heldout", "pairs"), ("fresh", "answers"), ("abilities", "abilities"), ("checkable", "requirements")):
        if result[part] and result[part]["no_interval"]:
            reporter.say(f"  no interval for {what}: {result[part]['no_interval']}")
    if not result["fresh"]:
        needed = "two rows with other prompts in one held-out grid" if recipe.pairs.file else "two held-out notes and one prompt"
        wanted = [f"evaluation.{name}" for name in ("judge", "baselines") if getattr(recipe.evaluation, name)]
        if wanted:
            reporter.warn(f"{' and '.join(wanted)}: left out, as there are no fresh answers, which need at least {needed}")
        else:
            reporter.say(f"  no fresh answers: they need at least {needed}")
    elif left_out := result["fresh"]["choices_left_out"]:
        reporter.say(f"  evaluation.choices: {', '.join(map(str, left_out))} left out, as fewer notes are held out")
    for example in result["gallery"][: recipe.evaluation.examples]:
        about = [f"  About the user: {example['context']}"] if example["context"] else []
        reporter.say("\n".join(["", *about, f"  Asked:  {example['prompt']}"]))
        reporter.say(f"  Base:   {example['base']['text']}\n  Tuned:  {example['tuned']['text']}")
