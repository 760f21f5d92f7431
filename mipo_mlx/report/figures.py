"""From a run's files to what the page shows: charts of the training, tables of the results, what was dropped."""

import math
from typing import Any

from . import charts

# (key, label, number format, what it means, better: 1 higher, -1 lower, 0 neither), in the order of the page
HELDOUT = (
    ("accuracy", "Reward accuracy", ".2f", "share of held-out pairs whose chosen answer the model prefers; 0.5 is chance", 1),
    ("information", "Information, nats", ".3f", "log N - loss: a lower bound on what an answer tells of its context", 1),
    ("margin", "Reward margin", ".2f", "chosen reward minus rejected reward", 1),
    ("loss", "Loss, nats", ".3f", "on pairs never trained on; log N is an untrained model", -1),
    ("chosen_reward", "Chosen reward", ".2f", "beta times the log-ratio to the base; far below 0 means decay", 0),
    ("rejected_reward", "Rejected reward", ".2f", "the same for rejected answers", 0),
)
COSTS = (
    ("ability", "Questions answered right", ".2f", "general questions, without a context", 1),
    ("tokens", "Answer length, tokens", ".1f", "mean over fresh answers", 0),
    ("perplexity", "Perplexity under the base", ".2f", "of the answers, with their context; a rise means odder text", -1),
    ("parroting", "Hands the context back", ".2f", "share that quotes six words of the context or claims its facts as its own", -1),
    ("quotes_context", "Quotes the context", ".2f", "share with six or more words of the context in a row", -1),
    ("role_confusion", "Confuses the roles", ".2f", "share where the assistant claims a fact of the user as its own", -1),
    ("self_bleu", "Self-BLEU", ".1f", "how alike the answers are, 0 to 100", -1),
    ("distinct_1", "Distinct words", ".3f", "different words over all words", 1),
    ("distinct_2", "Distinct pairs of words", ".3f", "different bigrams over all bigrams", 1),
    ("cut_off", "Cut off", ".2f", "share that reached the longest length allowed", -1),
)
SHARES = ("ability", "checkable", "accuracy", "identified", "parroting", "quotes_context", "role_confusion", "cut_off")


def information_rows(choices: list[int]) -> tuple:
    """The measures of fresh answers that say what was gained."""
    rows: list[tuple] = []
    for k in choices:
        rows += [
            (f"identified_{k}", f"Right context of {k} found", ".2f", f"by each model's own likelihood; chance {1 / k:.2f}", 1),
            (f"identified_by_base_{k}", f"... of {k}, read by the base", ".2f", "both models' answers, one and the same reader", 1),
            (f"identified_by_embedding_{k}", f"... of {k}, read by an embedding", ".2f", "a judge of another family (MiniLM)", 1),
            (f"answer_information_{k}", "Information of fresh answers", ".3f", f"nats, at most log {k} = {math.log(k):.2f}", 1),
        ]
    rows += [
        ("checkable", "Meets a stated requirement", ".2f", "form, length, language, words: checked by a program", 1),
        ("checkable_without", "... without being told", ".2f", "the same requests with no requirement in sight", 0),
    ]
    return (*rows, ("pmi_per_token", "PMI, nats per token", ".3f", "how much likelier the context makes a token, to the base", 1))


def table(measures: dict[str, Any], rows: tuple) -> list[dict[str, Any]]:
    """Rows of (label, before, after, change, note, drawing) for the measures that there are."""
    shown = []
    for key, label, form, note, better in rows:
        if key not in measures:
            continue
        measure = measures[key]
        sides = [measure[side] for side in ("before", "after")]
        points = [v for s in sides for v in (s["value"], *(s["interval"] or ())) if v is not None]
        share = key.startswith(SHARES)  # on the axis from 0 to 1; everything else from 0 to its largest
        span = (0.0, 1.0) if share else (min(0.0, *points), max(0.0, *points))
        shown.append(
            {
                "label": label,
                "note": note,
                "before": _show(sides[0], form),
                "after": _show(sides[1], form),
                "change": _show(measure["change"], "+.1%" if measure["relative"] else f"+{form}"),
                "tone": _tone(measure["change"], better),
                "drawing": charts.estimate(*sides, span, f"{label}: before and after with intervals"),
            }
        )
    return shown


def _show(estimate: dict[str, Any], form: str) -> dict[str, str]:
    if estimate["value"] is None:
        return {"value": "n/a", "interval": ""}
    interval = estimate["interval"]
    # An interval of no width is a value by definition: the reference against itself.
    text = f"{format(interval[0], form)} to {format(interval[1], form)}" if interval and interval[0] < interval[1] else ""
    return {"value": format(estimate["value"], form), "interval": text}


def _tone(change: dict[str, Any], better: int) -> str:
    """good or bad where the interval of the change leaves out 0, else nothing."""
    if not change["interval"] or not better or change["interval"][0] <= 0 <= change["interval"][1]:
        return ""
    return "good" if (change["interval"][0] > 0) == (better > 0) else "bad"


def training_charts(rows: list[dict[str, Any]], candidates: int) -> list[dict[str, Any]]:
    """Charts over steps from metrics.jsonl, later rounds behind the earlier ones: those that have points."""
    places, begin = [], 0
    for before, row in zip([None, *rows], rows, strict=False):
        if before and before.get("round", 1) != row.get("round", 1):
            begin += before["step"]
        places.append(begin + row["step"])

    def curve(name: str, style: str, key: str) -> charts.Line:
        points = [(place, row[key]) for place, row in zip(places, rows, strict=True) if isinstance(row.get(key), int | float)]
        return charts.Line(name, style, points)

    unseen = "unseen pairs"
    wanted: list[tuple[str, list[charts.Line], tuple[str, float] | None, bool]] = [
        (
            "Loss, nats",
            [curve("training", "faint", "loss"), curve(unseen, "tuned", "heldout_loss")],
            ("untrained", math.log(candidates)),
            False,
        ),
        (
            "Reward margin",
            [curve("training", "faint", "margin"), curve(unseen, "tuned", "heldout_margin")],
            None,
            True,
        ),
        (
            "Chosen and rejected reward",
            [curve("chosen", "tuned", "chosen_reward"), curve("rejected", "rejected", "rejected_reward")],
            None,
            True,
        ),
        (
            "Reward accuracy",
            [curve("training", "faint", "accuracy"), curve(unseen, "tuned", "heldout_accuracy")],
            ("chance", 1 / candidates),
            False,
        ),
        ("KL from the base, nats per token", [curve("training", "faint", "kl"), curve(unseen, "tuned", "heldout_kl")], None, True),
        ("Learning rate", [curve("learning rate", "tuned", "learning_rate")], None, True),
        ("Gradient norm, before clipping", [curve("gradient norm", "tuned", "grad_norm")], None, True),
    ]
    found = []
    for title, curves, reference, zero in wanted:
        drawing = charts.lines(title, curves, reference=reference, zero=zero)
        if drawing:
            found.append({"title": title, "drawing": drawing, "legend": [(c.name, c.style) for c in curves if c.points]})
    return found


def without_context(unprompted: dict[str, Any] | None) -> list[str]:
    """Drift and leaks in words, for the end of the costs."""
    if not unprompted:
        return []
    found, leak = [], unprompted["leak"]
    drift = _show(unprompted["kl_per_token"], ".3f")
    if drift["value"] != "n/a":
        around = f" ({drift['interval']})" if drift["interval"] else ""
        found.append(f"{drift['value']} nats a token away from the base{around}")
    if leak["signs"]:
        found += [f"a sign of reciting: {sign}" for sign in leak["signs"]]
    elif leak["p"] is not None:
        notes, runs = leak["contexts"], leak["longest_run"]
        found.append(
            f"no sign of reciting: {notes['train']} trained notes became {leak['difference']:+.3f} nats a token likelier "
            f"than {notes['heldout']} held-out ones (p = {leak['p']:.2f}), and its answers share at most "
            f"{runs['train']} words in a row with a trained note, {runs['heldout']} with a held-out one"
        )
    return found


BASELINE_COLUMNS = (
    ("identified_by_base", "right context found", ".2f"),
    ("identified_by_embedding", "... by an embedding", ".2f"),
    ("perplexity", "perplexity", ".2f"),
    ("tokens", "tokens", ".1f"),
    ("parroting", "parroting", ".2f"),
    ("self_bleu", "self-BLEU", ".1f"),
)


def baselines(found: dict[str, Any] | None, fresh: dict[str, Any] | None) -> list[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """Rows of (method, [(column, value and interval)]): the base without and with the context, context-aware decoding, tuned."""
    if not found or not fresh:
        return []
    (first, *rest) = [(name, measures, "after") for name, measures in found.items()]
    methods = [first, ("context in the prompt (base)", fresh["metrics"], "before"), *rest, ("tuned", fresh["metrics"], "after")]
    rows = []
    for name, measures, side in methods:
        cells = []
        for key, label, form in BASELINE_COLUMNS:
            full = f"{key}_{fresh['choices'][0]}" if key.startswith("identified") and fresh["choices"] else key
            if full in measures:
                cells.append((label, _show(measures[full][side], form)))
        rows.append((name, cells))
    return rows


def verdict_of_judge(judged: dict[str, Any] | None) -> str:
    """What a judge model said, in words."""
    if not judged:
        return ""
    missed = f"; {judged['nonsense']} requests it could not judge" if judged["nonsense"] else ""
    if judged["mode"] == "rubric":
        before, after = (_show(judged["metrics"]["rubric"][side], ".2f") for side in ("before", "after"))
        around = f" ({after['interval']})" if after["interval"] else ""
        return f"On a scale of 1 to 5: base {before['value']}, tuned {after['value']}{around}{missed}."
    rate = _show(judged["win_rate"], ".2f")
    if rate["value"] == "n/a":
        return f"No verdict{missed}."
    around = f" ({rate['interval']})" if rate["interval"] else ""
    bias = judged["first_preferred"]
    leaning = f" It prefers whichever answer comes first in {bias:.0%} of its looks (50% is fair)." if bias is not None else ""
    return (
        f"{judged['win']} wins, {judged['tie']} ties, {judged['loss']} losses of the tuned model in both orders{missed}: "
        f"win rate {rate['value']}{around}, {judged['length_controlled']:.2f} at equal length.{leaning}"
    )


def pmi_chart(fresh: dict[str, Any] | None) -> dict[str, Any] | None:
    """PMI of fresh answers, read by the base, before and after."""
    if not fresh:
        return None
    groups = [("base", "base", fresh["pmi"]["base"]), ("tuned", "tuned", fresh["pmi"]["tuned"])]
    drawing = charts.histogram("PMI of answers before and after", groups, "PMI of an answer, nats")
    if drawing is None:
        return None
    return {"title": "PMI of fresh answers, %", "drawing": drawing, "legend": [(name, style) for name, style, _ in groups]}


def shade(pieces: list[list[Any]]) -> list[tuple[str, int, str]]:
    """(text, depth 0 to 5, tip) of an answer's pieces: one step of depth for each nat of PMI from half a nat up. The space
    before a word stays unshaded."""
    shaded = []
    for text, pmi in pieces:
        word = text.lstrip()
        shaded.append((text[: len(text) - len(word)], 0, ""))
        shaded.append((word, max(0, min(5, math.floor(pmi + 0.5))), f"{pmi:+.2f} nats"))
    return [piece for piece in shaded if piece[0]]


def counts(values: dict[str, Any] | None, prefix: str = "") -> list[tuple[str, int]]:
    """{'a': 2, 'b': {'c': 1}} -> [('a', 2), ('b, c', 1)], zeros left out, the largest first."""
    found: list[tuple[str, int]] = []
    for key, value in (values or {}).items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, dict):
            found += counts(value, f"{name}, ")
        elif isinstance(value, int) and value:
            found.append((name, value))
    return sorted(found, key=lambda item: -item[1])


def size(octets: int) -> str:
    """1234567 -> '1.2 MB'."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if octets >= scale:
            return f"{octets / scale:.1f} {unit}"
    return f"{octets} bytes"
