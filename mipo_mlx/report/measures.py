"""The tables of measures, before and after training, and the few figures at the top of the page."""

import math
from dataclasses import dataclass

from markupsafe import Markup

from ..evaluation.outcome import Checkable, Fresh, Metrics, Outcome
from . import charts
from .figures import Shown, against_chance, show, tone


@dataclass(frozen=True)
class Spec:
    """How one measure is shown. {apart_by} in a note is what an answer is matched with: the context, else the request."""

    key: str
    label: str
    form: str
    note: str
    better: int  # 1: higher is better, -1: lower, 0: neither


@dataclass(frozen=True)
class Row:
    key: str
    label: str
    note: str
    before: Shown
    after: Shown
    change: Shown
    tone: str
    drawing: Markup


@dataclass(frozen=True)
class Tile:
    """One of the figures at the top."""

    label: str
    before: str
    after: Shown
    tone: str


HELDOUT = (
    Spec("accuracy", "Reward accuracy", ".2f", "share of rejected answers that rank below the chosen one; 0.5 is chance", 1),
    Spec("information", "Information, nats", ".3f", "log N - loss: a lower bound on what an answer says of its {apart_by}", 1),
    Spec("margin", "Reward margin", ".2f", "chosen reward minus rejected reward", 1),
    Spec("loss", "Held-out loss, nats", ".3f", "on pairs never trained on; log N is an untrained model", -1),
    Spec("chosen_reward", "Chosen reward", ".2f", "beta times the log-ratio to the base; far below 0 means decay", 0),
    Spec("rejected_reward", "Rejected reward", ".2f", "the same for rejected answers", 0),
)
COSTS = (
    Spec("ability", "Questions answered right", ".2f", "general questions, without a context", 1),
    Spec("tokens", "Answer length, tokens", ".1f", "mean over fresh answers", 0),
    Spec("perplexity", "Perplexity under the base", ".2f", "of the answers, each with its {apart_by}; a rise means odder text", -1),
    Spec(
        "parroting",
        "Hands the context back",
        ".2f",
        "share that quotes six words of the context or claims its facts as its own",
        -1,
    ),
    Spec("quotes_context", "Quotes the context", ".2f", "share with six or more words of the context in a row", -1),
    Spec("role_confusion", "Confuses the roles", ".2f", "share where the assistant claims a fact of the user as its own", -1),
    Spec("self_bleu", "Self-BLEU", ".1f", "how alike the answers are, 0 to 100", -1),
    Spec("distinct_1", "Distinct words", ".3f", "different words over all words", 1),
    Spec("distinct_2", "Distinct pairs of words", ".3f", "different bigrams over all bigrams", 1),
    Spec("cut_off", "Cut off", ".2f", "share that reached the longest length allowed", -1),
)
REQUIREMENTS = (
    Spec("checkable", "Meets a stated requirement", ".2f", "form, length, language, words: checked by a program", 1),
    Spec("checkable_without", "... that is not stated", ".2f", "the same requests without the requirement", 0),
    Spec("checkable_gain", "... more than where it is not stated", ".2f", "stated minus not stated", 1),
    Spec("checkable_unseen", "... of kinds that were not trained on", ".2f", "stated in no training pair", 1),
    Spec("checkable_unseen_gain", "... of these, more than where it is not stated", ".2f", "stated minus not stated", 1),
)
PREFERENCES = (
    Spec("preferences", "Respects a stated preference", ".2f", "takes the one of four answers that respects it; chance 0.25", 1),
    Spec("preferences_untold", "... that is not stated", ".2f", "the same questions; three answers are the usual ones", 0),
    Spec("preferences_gain", "... more than where it is not stated", ".2f", "stated minus not stated", 1),
    Spec("preferences_added", "... by what stating it adds", ".2f", "takes the answer that it makes likelier the most", 1),
)
USE = (
    Spec(
        "undistracted", "Right passage used", ".2f", "share of answers that fit the right passage best of three notes' passages", 1
    ),
    Spec("distracted", "... behind passages of two other notes", ".2f", "the same requests with those two before the right one", 1),
    Spec("lost_to_distractors", "... lost by these", ".2f", "the difference", -1),
)
# Of all measures, those that a terminal shows.
BRIEF = (
    "identified", "undistracted", "distracted", "accuracy", "information", "margin", "loss", "tokens", "perplexity", "parroting",
    "self_bleu", "ability", "preferences", "checkable",
)  # fmt: skip
PMI = Spec("pmi_per_token", "PMI, nats per token", ".3f", "how much likelier the {apart_by} makes a token, to the base", 1)
SHARES = (
    "ability",
    "checkable",
    "preferences",
    "accuracy",
    "identified",
    "distracted",
    "undistracted",
    "parroting",
    "quotes_context",
    "role_confusion",
    "cut_off",
)


def won(outcome: Outcome) -> list[Tile]:
    """How often the trained model's answers fit better."""
    opinions = {"Comparisons won, both with your notes": outcome.with_notes, "Comparisons won": outcome.fit}
    rates = {label: opinion.win_rate for label, opinion in opinions.items() if opinion and opinion.win_rate}
    return [Tile(label, "50%", show(rate, ".0%"), against_chance(rate)) for label, rate in rates.items()]


def tiles(outcome: Outcome) -> list[Tile]:
    fresh, shown = outcome.fresh, won(outcome)
    wanted: list[tuple[Metrics, Spec]] = []
    if fresh:
        k = fresh.choices[0] if fresh.choices else 0
        by = "embedding" if f"identified_by_embedding_{k}" in fresh.metrics else "base"
        matched = Spec(f"identified_by_{by}_{k}", f"Right {fresh.apart_by} of {k} identified by the {by}", ".0%", "", 1)
        wanted += [
            (fresh.metrics, matched),
            (fresh.metrics, Spec("perplexity", "Perplexity of the answers", ".2f", "", -1)),
            (fresh.metrics, Spec("parroting", "Parroting", ".0%", "", -1)),
        ]
    for metrics, spec in wanted:
        if measure := metrics.get(spec.key):
            before, after = show(measure.before, spec.form).value, show(measure.after, spec.form)
            shown.append(Tile(spec.label, before, after, tone(measure.change, spec.better)))
    return shown


def gained(outcome: Outcome) -> list[Row]:
    """What the trained model does better: on held-out pairs, and in fresh answers."""
    rows = table(outcome.heldout.metrics, HELDOUT, outcome) if outcome.heldout else []
    fresh = outcome.fresh
    in_use = outcome.use.distractors if outcome.use else {}
    chosen = outcome.preferences.metrics if outcome.preferences else {}
    metrics = {**(fresh.metrics if fresh else {}), **in_use, **chosen, **checked(outcome.checkable)}
    specs = (*(_identified(fresh) if fresh else ()), *USE, *PREFERENCES, *REQUIREMENTS, PMI)
    return rows + table(metrics, specs, outcome)


def costs(outcome: Outcome) -> list[Row]:
    """What the training cost: length, odd text, parroting, general ability."""
    abilities, fresh = outcome.abilities, outcome.fresh
    metrics = {**(fresh.metrics if fresh else {}), **(abilities.metrics if abilities else {})}
    return table(metrics, COSTS, outcome)


def brief(outcome: Outcome) -> list[tuple[str, str, Shown]]:
    """(label, before, after) of what a terminal shows."""
    rows = [row for row in (*gained(outcome), *costs(outcome)) if row.key.startswith(BRIEF)]
    return [*((tile.label, tile.before, tile.after) for tile in won(outcome)), *((r.label, r.before.value, r.after) for r in rows)]


def table(metrics: Metrics, specs: tuple[Spec, ...], outcome: Outcome) -> list[Row]:
    """Rows of the measures that exist."""
    rows, counts = [], questions(outcome)
    for spec in specs:
        measure = metrics.get(spec.key)
        if measure is None:
            continue
        sides = (measure.before, measure.after)
        points = [value for side in sides for value in (side.value, *(side.interval or ())) if value is not None]
        share = spec.key.startswith(SHARES)  # the axis of a share reaches to 1, another one to the largest value
        span = (min(0.0, *points), max(1.0 if share else 0.0, *points))
        counted = f"; {counts[spec.key]} questions" if spec.key in counts else ""
        rows.append(
            Row(
                key=spec.key,
                label=spec.label,
                note=spec.note.format(apart_by=outcome.apart_by) + counted,
                before=show(sides[0], spec.form),
                after=show(sides[1], spec.form),
                change=show(measure.change, "+.1%" if measure.relative else f"+{spec.form}"),
                tone=tone(measure.change, spec.better),
                drawing=charts.estimate(measure.before, measure.after, span, f"{spec.label}: before and after with intervals"),
            )
        )
    return rows


def _identified(fresh: Fresh) -> list[Spec]:
    """How often the right context is identified from a fresh answer, among each number of choices."""
    right, specs = f"Right {fresh.apart_by}", []
    for k in fresh.choices:
        specs += [
            Spec(f"identified_{k}", f"{right} of {k} identified", ".2f", f"by each model's own likelihood; chance {1 / k:.2f}", 1),
            Spec(f"identified_by_base_{k}", f"... of {k}, by the base", ".2f", "the same reader for both models' answers", 1),
            Spec(f"identified_by_embedding_{k}", f"... of {k}, by an embedding", ".2f", "a judge of another family (MiniLM)", 1),
            Spec(f"answer_information_{k}", "Information of fresh answers", ".3f", f"nats, at most log {k} = {math.log(k):.2f}", 1),
        ]
    return specs


def checked(requirements: Checkable | None) -> Metrics:
    """The measures of checkable requirements. Those of kinds that were not trained on have names of their own."""
    if not requirements:
        return {}
    unseen = requirements.heldout_kinds
    names = {"checkable_unseen": "checkable", "checkable_unseen_gain": "checkable_gain"} if unseen.requests else {}
    return {**requirements.metrics, **{name: unseen.metrics[key] for name, key in names.items()}}


def questions(outcome: Outcome) -> dict[str, int]:
    """The number of questions behind each measure that has questions of its own."""
    abilities, requirements = outcome.abilities, outcome.checkable
    counted = {"ability": abilities.questions} if abilities else {}
    if outcome.preferences:
        counted |= dict.fromkeys(outcome.preferences.metrics, outcome.preferences.questions)
    if requirements:
        counted |= dict.fromkeys(("checkable", "checkable_without", "checkable_gain"), requirements.requests)
        counted |= dict.fromkeys(("checkable_unseen", "checkable_unseen_gain"), requirements.heldout_kinds.requests)
    return counted


def scope(fresh: Fresh | None) -> str:
    """What the fresh answers are over, in words."""
    if not fresh:
        return ""
    notes = f"{fresh.notes} notes and " if fresh.apart_by == "context" else ""
    return f"over {notes}{fresh.requests} requests"


def no_interval(outcome: Outcome) -> list[str]:
    """Why there are no intervals: each reason once, with the parts that it holds for."""
    requirements = outcome.checkable
    kinds = requirements.heldout_kinds if requirements and requirements.heldout_kinds.requests else None
    parts = {
        "held-out pairs": outcome.heldout,
        "fresh answers": outcome.fresh,
        "questions": outcome.abilities,
        "preferences": outcome.preferences,
        "requirements": requirements,
        "requirements of kinds that were not trained on": kinds,
    }
    reasons: dict[str, list[str]] = {}
    for name, part in parts.items():
        if part and part.no_interval:
            reasons.setdefault(part.no_interval, []).append(name)
    return [f"{reason} ({', '.join(names)})" for reason, names in reasons.items()]
