"""The trained model against others: a judge's votes, the baselines, and the kinds of request."""

from ..evaluation.outcome import BaselineMeasure, Fresh, Judged, Metrics, OfKind, Opinion, Retrieval, Use
from ..evaluation.statistics import Estimate
from ..records import CHORES, GENERAL, HALF_PERSONAL, PERSONAL
from .figures import Shown, around, show

COLUMNS = (
    ("identified_by_base", "Right {apart_by} identified", ".2f"),
    ("identified_by_embedding", "By an embedding", ".2f"),
    ("perplexity", "Perplexity", ".2f"),
    ("tokens", "Tokens", ".1f"),
    ("parroting", "Parroting", ".2f"),
    ("self_bleu", "Self-BLEU", ".1f"),
)
LEAD = "Trained identifies more"  # the last column
Cells = list[tuple[str, Shown]]  # (column, figure)


def baselines(measured: dict[str, dict[str, BaselineMeasure]] | None, fresh: Fresh | None) -> list[tuple[str, Cells]]:
    """Rows of (method, cells): the base without and with the context, context-aware decoding, SFT, the trained model.

    The last column is how much more often the right context is identified from the trained model's answers, paired.
    """
    if not measured or not fresh:
        return []
    first, *rest = [(name, _cells(measures, fresh, "after", "to_tuned")) for name, measures in measured.items()]
    base = ("context in the prompt (base)", _cells(fresh.metrics, fresh, "before", "change"))
    return [first, base, *rest, ("trained", _cells(fresh.metrics, fresh, "after", ""))]


def _cells(metrics: Metrics | dict[str, BaselineMeasure], fresh: Fresh, side: str, lead: str) -> Cells:
    """side: which of the two models of each measure; lead: which of its figures is the trained model's lead, "" for none."""
    cells = []
    for key, label, form in COLUMNS:
        full = f"{key}_{fresh.choices[0]}" if key.startswith("identified") and fresh.choices else key
        if measure := metrics.get(full):
            cells.append((label.format(apart_by=fresh.apart_by), show(getattr(measure, side), form)))
    for k in fresh.choices[:1]:
        more: Estimate | None = getattr(metrics[f"identified_by_base_{k}"], lead) if lead else None
        cells.append((LEAD, show(more, "+.2f") if more else Shown("")))
    return cells


KINDS = {
    PERSONAL: "personal (what should I cook?)",
    HALF_PERSONAL: "half personal (write a toast)",
    GENERAL: "general (explain photosynthesis)",
    CHORES: "chores on a given text",
}
CHANGES = (  # measures of fresh answers, as changes
    ("pmi_per_token", "PMI, nats a token", "+.3f"),
    ("tokens", "Length", "+.0%"),
    ("perplexity", "Perplexity", "+.0%"),
    ("parroting", "Parroting", "+.2f"),
)


def kinds(measured: dict[str, OfKind]) -> list[tuple[str, Cells]]:
    """Rows of (kind of request, cells): the gain, the distance from the base, and what changed in the answers."""
    rows = []
    for kind, of_kind in measured.items():
        cells: Cells = [("Requests", Shown(str(of_kind.requests)))]
        if of_kind.fit.win_rate:
            cells.append(("Fit better", show(of_kind.fit.win_rate, ".0%")))
        for label, kl in (("KL with a note", of_kind.kl_told), ("KL with nothing", of_kind.kl_untold)):
            cells.append((label, show(kl, ".3f")))
        changed = ((label, of_kind.metrics.get(key), form) for key, label, form in CHANGES)
        cells += [(label, show(measure.change, form)) for label, measure, form in changed if measure]
        rows.append((KINDS[kind], cells))
    return rows


def votes(opinion: Opinion | None) -> str:
    """A judge's opinion in words; "" without a judge."""
    if not opinion:
        return ""
    missed = f"; {opinion.nonsense} requests it could not judge" if opinion.nonsense else ""
    if opinion.unanswered:
        missed += f", {opinion.unanswered} of them without any reply, which the same command asks for again"
    if opinion.mode == "rubric":
        rubric = opinion.metrics["rubric"]
        before, after = show(rubric.before, ".2f").value, show(rubric.after, ".2f").value
        return f"On a scale of 1 to 5: base {before}, trained {after}, a change of {around(rubric.change, '+.2f')}{missed}."
    if not opinion.win_rate or opinion.win_rate.value is None:
        return f"No verdict{missed}."
    equal, bias = opinion.length_controlled, opinion.first_preferred
    unknown = "at equal length unknown: one side's answers are the longer ones"
    at_equal = f"{around(equal, '.2f')} at equal length" if equal else unknown
    leaning = f" It prefers the first answer of a pair in {around(bias, '.0%')} of its votes (50% is fair)." if bias else ""
    return (
        f"{opinion.win} wins, {opinion.tie} ties, {opinion.loss} losses of the trained model in both orders{missed}: "
        f"win rate {around(opinion.win_rate, '.2f')}, {at_equal}.{leaning}"
    )


WAYS = {
    "alone": "With the profile as its system message and nothing pasted, its answers fit the profile better than the bare base's",
    "profile": "With the profile told to both, its answers fit the profile better than the base's",
}
WITH_NOTES = {
    "memory": "Asked with your notes, its answers fit the right passage better than the base's with the same notes",
    "alone": "... better than the bare base's",
    "profile": "... better than the base's with the profile alone",
    "by_hand": "... better than its own with the right passage given by hand",
    "retrieval": "The base's answers with your notes fit better than without any",
}


def in_use(use: Use | None) -> list[str]:
    """How the result does in the ways that its owner will use it, in words."""
    lines, memory = [], use and use.memory
    for labels, ways in ((WITH_NOTES, memory.ways if memory else {}), (WAYS, use.ways if use else {})):
        for way, opinion in ways.items():
            if opinion.win_rate:
                total = opinion.win + opinion.tie + opinion.loss
                lines.append(f"{labels[way]} in {around(opinion.win_rate, '.0%')} of {total} comparisons; 50% is chance.")
    return [*lines, *(_retrieval(memory.retrieval, memory.requests) if memory else [])]


def _retrieval(retrieval: Retrieval, requests: int) -> list[str]:
    """How well memory finds passages, in words."""
    recall = ", ".join(f"{around(share, '.0%')} among the first {depth}" for depth, share in retrieval.recall.items())
    return [
        f"Of {requests} requests that name two words of a held-out passage, memory finds that passage for {recall}, of "
        f"{retrieval.passages} passages. The model is told it for {around(retrieval.given, '.0%')}.",
        f"Of {retrieval.strangers} questions of general knowledge, which should fit no note, {around(retrieval.none_given, '.0%')} "
        "get none.",
    ]


def second_opinions(judged: Judged | None) -> list[str]:
    """The votes of further judges, and how far the judges agree, in words."""
    if not judged:
        return []
    lines = [f"{other.judge}: {votes(other)}" for other in judged.others]
    for pair in judged.agreement:
        if pair.same.value is not None:
            kappa = f", kappa {pair.kappa:.2f}" if pair.kappa is not None else ""
            lines.append(f"{' and '.join(pair.judges)} agree on {around(pair.same, '.0%')} of {pair.requests} requests{kappa}.")
    return lines
