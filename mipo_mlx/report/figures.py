"""From a run's files to what the page shows: charts of the training, tables of the results, what was dropped."""

import math
from typing import Any

from ..evaluation.statistics import figure
from ..recipe import Training
from . import charts

# (key, label, number format, what it means, better: 1 higher, -1 lower, 0 neither), in the order of the page
# {told}: what answers are told apart by: the context or, where pairs have none, the request.
HELDOUT = (
    ("accuracy", "Reward accuracy", ".2f", "share of rejected answers that rank below the chosen one; 0.5 is chance", 1),
    ("information", "Information, nats", ".3f", "log N - loss: a lower bound on what an answer tells of its {told}", 1),
    ("margin", "Reward margin", ".2f", "chosen reward minus rejected reward", 1),
    ("loss", "Loss, nats", ".3f", "on pairs never trained on; log N is an untrained model", -1),
    ("chosen_reward", "Chosen reward", ".2f", "beta times the log-ratio to the base; far below 0 means decay", 0),
    ("rejected_reward", "Rejected reward", ".2f", "the same for rejected answers", 0),
)
COSTS = (
    ("ability", "Questions answered right", ".2f", "general questions, without a context", 1),
    ("tokens", "Answer length, tokens", ".1f", "mean over fresh answers", 0),
    ("perplexity", "Perplexity under the base", ".2f", "of the answers, each with its {told}; a rise means odder text", -1),
    ("parroting", "Hands the context back", ".2f", "share that quotes six words of the context or claims its facts as its own", -1),
    ("quotes_context", "Quotes the context", ".2f", "share with six or more words of the context in a row", -1),
    ("role_confusion", "Confuses the roles", ".2f", "share where the assistant claims a fact of the user as its own", -1),
    ("self_bleu", "Self-BLEU", ".1f", "how alike the answers are, 0 to 100", -1),
    ("distinct_1", "Distinct words", ".3f", "different words over all words", 1),
    ("distinct_2", "Distinct pairs of words", ".3f", "different bigrams over all bigrams", 1),
    ("cut_off", "Cut off", ".2f", "share that reached the longest length allowed", -1),
)
SHARES = ("ability", "checkable", "accuracy", "identified", "parroting", "quotes_context", "role_confusion", "cut_off")


def information_rows(fresh: dict[str, Any] | None) -> tuple:
    """The measures of fresh answers that say what was gained."""
    rows: list[tuple] = []
    right = f"Right {fresh['apart_by']}" if fresh else ""
    for k in fresh["choices"] if fresh else []:
        rows += [
            (f"identified_{k}", f"{right} of {k} found", ".2f", f"by each model's own likelihood; chance {1 / k:.2f}", 1),
            (f"identified_by_base_{k}", f"... of {k}, read by the base", ".2f", "both models' answers, one and the same reader", 1),
            (f"identified_by_embedding_{k}", f"... of {k}, read by an embedding", ".2f", "a judge of another family (MiniLM)", 1),
            (f"answer_information_{k}", "Information of fresh answers", ".3f", f"nats, at most log {k} = {math.log(k):.2f}", 1),
        ]
    rows += [
        ("checkable", "Meets a stated requirement", ".2f", "form, length, language, words: checked by a program", 1),
        ("checkable_without", "... without being told", ".2f", "the same requests with no requirement in sight", 0),
        ("checkable_gain", "... more than without being told", ".2f", "told minus not told", 1),
        ("checkable_unseen", "... of kinds that were not trained on", ".2f", "told in no training pair", 1),
        ("checkable_unseen_gain", "... of these, more than without being told", ".2f", "told minus not told", 1),
    ]
    return (*rows, ("pmi_per_token", "PMI, nats per token", ".3f", "how much likelier the {told} makes a token, to the base", 1))


def asked_over(fresh: dict[str, Any] | None) -> str:
    """What the fresh answers were asked about, in words."""
    if not fresh:
        return ""
    notes = f"{fresh['notes']} notes and " if fresh["apart_by"] == "context" else ""
    return f"over {notes}{fresh['requests']} prompts"


def asked(result: dict[str, Any]) -> dict[str, int]:
    """Over how many questions those measures are means that have questions of their own."""
    abilities, requirements = result.get("abilities"), result.get("checkable")
    counted = {"ability": abilities["questions"]} if abilities else {}
    if requirements:
        counted |= dict.fromkeys(("checkable", "checkable_without", "checkable_gain"), requirements["requests"])
        counted |= dict.fromkeys(("checkable_unseen", "checkable_unseen_gain"), requirements["heldout_kinds"]["requests"])
    return counted


def no_interval(result: dict[str, Any]) -> list[str]:
    """Why there are no intervals, each reason once with the parts that it holds for."""
    parts = {
        "held-out pairs": result.get("heldout"),
        "fresh answers": result.get("fresh"),
        "questions": result.get("abilities"),
        "requirements": result.get("checkable"),
        "requirements of kinds that were not trained on": (result.get("checkable") or {}).get("heldout_kinds"),
    }
    reasons: dict[str, list[str]] = {}
    for name, part in parts.items():
        if part and part.get("requests", 1) and part["no_interval"]:
            reasons.setdefault(part["no_interval"], []).append(name)
    return [f"{reason} ({', '.join(names)})" for reason, names in reasons.items()]


def checked(found: dict[str, Any] | None) -> dict[str, Any]:
    """The measures of checkable requirements, those of kinds that were not trained on under names of their own."""
    if not found:
        return {}
    unseen = found["heldout_kinds"]
    of_unseen = {"checkable_unseen": "checkable", "checkable_unseen_gain": "checkable_gain"} if unseen["requests"] else {}
    return {**found["metrics"], **{name: unseen["metrics"][key] for name, key in of_unseen.items()}}


def table(
    measures: dict[str, Any], rows: tuple, told: str = "context", asked: dict[str, int] | None = None
) -> list[dict[str, Any]]:
    """Rows of (label, before, after, change, note, drawing) for the measures that there are.

    told: what answers are told apart by, for the notes; asked: over how many questions a measure is a mean, where that is no
    figure of the whole page.
    """
    shown = []
    for key, label, form, note, better in rows:
        if key not in measures:
            continue
        measure = measures[key]
        sides = [measure[side] for side in ("before", "after")]
        points = [v for s in sides for v in (s["value"], *(s["interval"] or ())) if v is not None]
        share = key.startswith(SHARES)  # the axis reaches to 1; everything else's from 0 to its largest
        span = (min(0.0, *points), max(1.0 if share else 0.0, *points))
        shown.append(
            {
                "label": label,
                "note": note.format(told=told) + (f"; {asked[key]} asked" if asked and key in asked else ""),
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
    text = f"{figure(interval[0], form)} to {figure(interval[1], form)}" if interval and interval[0] < interval[1] else ""
    return {"value": figure(estimate["value"], form), "interval": text}


def _tone(change: dict[str, Any], better: int) -> str:
    """better or worse where the interval of the change leaves out 0, else nothing."""
    if not change["interval"] or not better or change["interval"][0] <= 0 <= change["interval"][1]:
        return ""
    return "better" if (change["interval"][0] > 0) == (better > 0) else "worse"


def tiles(result: dict[str, Any]) -> list[dict[str, str]]:
    """The few figures to see first: (label, value, from, interval, tone)."""
    heldout, fresh = result.get("heldout"), result.get("fresh")
    picked = "Right answer picked" if heldout and heldout["candidates"] == 2 else "Wrong answers outranked"
    wanted = [(heldout, "accuracy", picked, ".0%", 1)] if heldout else []
    if fresh:
        k = fresh["choices"][0] if fresh["choices"] else 0
        by = "embedding" if f"identified_by_embedding_{k}" in fresh["metrics"] else "base"
        wanted += [
            (fresh, f"identified_by_{by}_{k}", f"Right {fresh['apart_by']} of {k} found, read by the {by}", ".0%", 1),
            (fresh, "perplexity", "Perplexity of the answers", ".2f", -1),
            (fresh, "parroting", "Parroting", ".0%", -1),
        ]
    shown = []
    for part, key, label, form, better in wanted:
        if key not in part["metrics"]:
            continue
        measure = part["metrics"][key]
        before, after = _show(measure["before"], form)["value"], _show(measure["after"], form)
        shown.append({"label": label, "before": before, **after, "tone": _tone(measure["change"], better)})
    return shown


def same_loss(settings: Training) -> bool:
    """Whether the loss of the training is the one on unseen pairs: DPO's (InfoNCE's) of whole answers, whatever is trained."""
    plain = not settings.nll_weight and not settings.length_normalized and not settings.label_smoothing
    return settings.objective in ("dpo", "infonce") and plain


def untrained(candidates: int, settings: Training) -> tuple[str, float] | None:
    """The level at which both curves of the loss begin, where there is one: the softmax of equal rewards. Other objectives begin
    elsewhere than the loss on unseen pairs, which is DPO's for all of them."""
    softmax = settings.objective in ("dpo", "infonce", "dpop") and settings.reference == "base" and not settings.nll_weight
    return ("untrained", math.log(candidates)) if softmax else None


def training_charts(
    rows: list[dict[str, Any]], candidates: int, settings: Training, kept: tuple[int, int] | None = None
) -> list[dict[str, Any]]:
    """Charts over steps from metrics.jsonl, later rounds behind the earlier ones: those that have points. Curves break where a
    round begins, since it begins with the best weights of the one before. kept: round and step of the weights that are kept."""
    places, begin, begins = [], 0, {1: 0}
    for before, row in zip([None, *rows], rows, strict=False):
        if before and before.get("round", 1) != row.get("round", 1):
            begin += before["step"]
            begins[row["round"]] = begin
        places.append(begin + row["step"])
    mark = ("kept", begins[kept[0]] + kept[1]) if kept and kept[0] in begins else None

    def curve(name: str, style: str, key: str) -> charts.Line:
        points, last = [], None
        for place, row in zip(places, rows, strict=True):
            if isinstance(row.get(key), int | float):
                if last not in (None, row.get("round", 1)):
                    points.append((place, math.nan))
                last = row.get("round", 1)
                points.append((place, row[key]))
        return charts.Line(name, style, points)

    def sides(stem: str) -> list[charts.Line]:
        """Chosen against rejected: of the unseen pairs, which are the same at every look, else of the step's own."""
        unseen = [curve("chosen", "tuned", f"heldout_chosen_{stem}"), curve("rejected", "rejected", f"heldout_rejected_{stem}")]
        own = [curve("chosen", "tuned", f"chosen_{stem}"), curve("rejected", "rejected", f"rejected_{stem}")]
        return unseen if all(len(c.points) > 1 for c in unseen) else own

    def both(key: str) -> list[charts.Line]:
        return [curve("training", "faint", key), curve("unseen pairs", "tuned", f"heldout_{key}")]

    # In training an answer counts where it is above all others at once, on unseen pairs against each of them: chance is 0.5 there,
    # and 1 / N in training.
    together = "training" if candidates == 2 else f"training, above all {candidates - 1} others"
    right = [curve(together, "faint", "accuracy"), both("accuracy")[1]]
    if candidates == 2:
        chance = ("chance", 0.5)
    else:
        chance = ("chance on unseen pairs", 0.5) if right[1].points else ("chance", 1 / candidates)
    loss = both("loss")
    if not same_loss(settings):
        own = curve(f"training ({settings.objective} loss)", "faint", "loss")
        loss = [own, curve("unseen pairs (DPO loss)", "tuned", "heldout_loss")]
    # title, curves, unit, a named level, whether the axis has to show 0
    wanted: list[tuple[str, list[charts.Line], str, tuple[str, float] | None, bool]] = [
        ("Loss", loss, "nats a pair", untrained(candidates, settings), False),
        ("Reward margin", both("margin"), "beta \u00d7 nats", None, True),
        ("Reward accuracy", right, "share of pairs", chance, False),
        ("Rewards of chosen and rejected answers", sides("reward"), "beta \u00d7 nats", None, True),
        ("Log-probabilities of chosen and rejected answers", sides("logp"), "nats an answer", None, False),
        # The training's own kl is a mean log-ratio to the reference: another measure.
        ("Drift from the base, estimated", both("kl")[1:], "nats a token", None, True),
        ("Learning rate", [curve("learning rate", "tuned", "learning_rate")], "per step", None, True),
        ("Gradient norm, before clipping", [curve("gradient norm", "tuned", "grad_norm")], "L2 norm", None, True),
    ]
    found = []
    for title, curves, unit, reference, zero in wanted:
        drawing = charts.lines(title, curves, unit, reference=reference, zero=zero, mark=mark if title == "Loss" else None)
        if drawing:
            found.append({"title": title, "drawing": drawing, "legend": [(c.name, c.style) for c in curves if c.points]})
    return found


def leak(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """The leak test as a conclusion and a table of (what, trained, control)."""
    if not found:
        return None
    rows, contexts, canaries = [], found["contexts"], found["canaries"]
    if found["difference"] is not None:
        gains = [figure(found["gain_per_token"][split], "+.3f") for split in ("train", "heldout")]
        note = f"nats a token, {contexts['train']} trained against {contexts['heldout']} held-out contexts, p = {found['p']:.2g}"
        rows.append(("How much likelier training made the notes' words", note, *gains))
    if found["samples"]:
        note = f"words in a row, in {found['samples']} answers without a context"
        if found["passage_gain"] is not None:
            note += f"; the trained one became {figure(found['passage_gain'], '+.1f')} nats a token likelier"
        rows.append(("Longest passage shared with a note", note, *(str(found["longest_run"][s]) for s in ("train", "heldout"))))
    if canaries["planted"]:
        note = f"{canaries['trained']} of {canaries['planted']} planted ones met in training"
        means = ["n/a", "n/a"]
        if canaries["p"] is not None:
            means = [f"{sum(canaries[key]) / len(canaries[key]):.1f}" for key in ("exposure", "control")]
            note += f"; mean bits of {math.log2(canaries['among']):.1f}, where 1.4 is chance; p = {canaries['p']:.2g}"
        rows.append(("Exposure of canaries", note, *means))
    return {"signs": found["signs"], "rows": rows, "canaries": canaries["planted"], "too_few": found["too_few"]}


def drift(unprompted: dict[str, Any] | None) -> str:
    """How far the tuned model is from the base without any context, in words."""
    if not unprompted:
        return ""
    estimate, count = _show(unprompted["kl_per_token"], ".3f"), len(unprompted["answers"])
    around = f" ({estimate['interval']})" if estimate["interval"] else ""
    return f"{estimate['value']} nats a token{around} over {count} everyday request{'s' * (count != 1)}"


BASELINE_COLUMNS = (
    ("identified_by_base", "Right {told} found", ".2f"),
    ("identified_by_embedding", "Found by an embedding", ".2f"),
    ("perplexity", "Perplexity", ".2f"),
    ("tokens", "Tokens", ".1f"),
    ("parroting", "Parroting", ".2f"),
    ("self_bleu", "Self-BLEU", ".1f"),
)


def baselines(found: dict[str, Any] | None, fresh: dict[str, Any] | None) -> list[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """Rows of (method, [(column, value and interval)]): the base without and with the context, context-aware decoding, SFT, tuned;
    the last column is how much more often the tuned model's answers show their context, paired."""
    if not found or not fresh:
        return []
    (first, *rest) = [(name, measures, "after", "to_tuned") for name, measures in found.items()]
    own = fresh["metrics"]
    methods = [first, ("context in the prompt (base)", own, "before", "change"), *rest, ("tuned", own, "after", None)]
    rows = []
    for name, measures, side, lead in methods:
        cells = []
        for key, label, form in BASELINE_COLUMNS:
            full = f"{key}_{fresh['choices'][0]}" if key.startswith("identified") and fresh["choices"] else key
            if full in measures:
                cells.append((label.format(told=fresh["apart_by"]), _show(measures[full][side], form)))
        for k in fresh["choices"][:1]:
            more = _show(measures[f"identified_by_base_{k}"][lead], "+.2f") if lead else {"value": "", "interval": ""}
            cells.append(("Tuned finds", more))
        rows.append((name, cells))
    return rows


def verdict_of_judge(judged: dict[str, Any] | None) -> str:
    """What a judge model said, in words."""
    if not judged:
        return ""
    missed = f"; {judged['nonsense']} requests it could not judge" if judged["nonsense"] else ""
    if judged["unanswered"]:
        missed += f", {judged['unanswered']} of them without any reply, which the same command asks for again"
    if judged["mode"] == "rubric":
        rubric = judged["metrics"]["rubric"]
        before, after = (_show(rubric[side], ".2f")["value"] for side in ("before", "after"))
        return f"On a scale of 1 to 5: base {before}, tuned {after}, a change of {_around(rubric['change'], '+.2f')}{missed}."
    if judged["win_rate"]["value"] is None:
        return f"No verdict{missed}."
    equal, bias = judged["length_controlled"], judged["first_preferred"]
    unknown = "at equal length unknown: one side's answers are the longer ones"
    at_equal = f"{_around(equal, '.2f')} at equal length" if equal else unknown
    leaning = f" It prefers whichever answer comes first in {_around(bias, '.0%')} of its looks (50% is fair)." if bias else ""
    return (
        f"{judged['win']} wins, {judged['tie']} ties, {judged['loss']} losses of the tuned model in both orders{missed}: "
        f"win rate {_around(judged['win_rate'], '.2f')}, {at_equal}.{leaning}"
    )


def _around(estimate: dict[str, Any], form: str) -> str:
    """'0.74 (0.68 to 0.80)', or the value alone where it has no interval."""
    shown = _show(estimate, form)
    return f"{shown['value']} ({shown['interval']})" if shown["interval"] else shown["value"]


def second_opinions(judged: dict[str, Any] | None) -> list[str]:
    """What further judges said, and how far the judges agree, in words."""
    if not judged:
        return []
    found = [f"{other['judge']}: {verdict_of_judge(other)}" for other in judged.get("others", [])]
    for pair in judged.get("agreement", []):
        if pair["same"]["value"] is not None:
            kappa = f", kappa {pair['kappa']:.2f}" if pair["kappa"] is not None else ""
            same = _around(pair["same"], ".0%")
            found.append(f"{' and '.join(pair['judges'])} agree on {same} of {pair['requests']} requests{kappa}.")
    return found


def pmi_charts(fresh: dict[str, Any] | None, rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """PMI of fresh answers, read by the base, before and after; and of the answers that were sampled to train on (the histograms
    of each round's pairs.json)."""
    found = []
    if fresh:
        groups = [("base", "base", fresh["pmi"]["base"]), ("tuned", "tuned", fresh["pmi"]["tuned"])]
        drawing = charts.histogram("PMI of answers before and after", groups, "PMI, nats an answer")
        found.append({"title": "Fresh answers, held out", "drawing": drawing, "legend": [g[:2] for g in groups]})
    for number, sampled in enumerate((pairs.get("histogram", {}) for pairs in rounds), 1):
        if not sampled.get("edges"):
            continue
        units = ("PMI, nats a pair", "% of pairs")
        drawing = charts.counted("PMI of the sampled pairs", "sampled", "faint", sampled["edges"], sampled["train"], units)
        of_round = f" of round {number}" if len(rounds) > 1 else ""
        title = f"Pairs{of_round} to train on, before the filter"
        found.append({"title": title, "drawing": drawing, "legend": [("sampled", "faint")]})
    return [chart for chart in found if chart["drawing"]]


def shade(pieces: list[list[Any]]) -> list[tuple[str, int, str]]:
    """(text, depth 0 to 5, tip) of an answer's pieces: one step of depth for each nat of PMI from half a nat up. The space
    before a word stays unshaded."""
    shaded = []
    for text, pmi in pieces:
        word = text.lstrip()
        shaded.append((text[: len(text) - len(word)], 0, ""))
        shaded.append((word, max(0, min(5, math.floor(pmi + 0.5))), f"{figure(pmi, '+.2f')} nats"))
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
