"""One sentence that says whether it worked, with its interval, and what it cost where that is much."""

from dataclasses import dataclass

from .outcome import Fresh, Heldout, Leak, Outcome
from .statistics import Measure

DOUBT = " (too few to tell that from chance)"
# How much a cost may grow before it is worth a warning. The report's signs and the study's drawing share these.
PERPLEXITY = 0.15  # share
LENGTH = 0.15  # share, either way
PARROTING = 0.03  # points, as a share
SELF_BLEU = 2.0  # of 100


def sentence(heldout: Heldout, fresh: Fresh | None, leak: Leak | None = None) -> str:
    """The verdict on a run."""
    accuracy = heldout.metrics["accuracy"].after
    value, interval = accuracy.value or 0.0, accuracy.interval
    over = "contexts" if heldout.contexts else "prompts"
    claim = f"on held-out {over} it {picks(heldout.candidates).format(f'{value:.0%}')}"
    warnings = costs(fresh)
    if leak and leak.signs:
        warnings.append("it shows signs of reciting the notes")
    if interval is None:
        opening = f"Not shown: {claim} (50 % before), but there are {heldout.no_interval}"
        return f"{opening}; {' and '.join(warnings)}." if warnings else f"{opening}."
    # An end that rounds to 50 % would not say on which side of it it lies.
    form = ".1%" if any(round(end, 2) == 0.5 != end for end in interval) else ".0%"
    claim += f" (95 % interval {interval[0]:{form}} to {interval[1]:{form}}; 50 % before)"
    if interval[0] > 0.5:
        opening = f"It worked: {claim}"
    elif interval[1] < 0.5:
        opening = f"It went wrong: {claim}"
    else:
        opening = f"No effect can be shown: {claim}"
    return f"{opening}, but {' and '.join(warnings)}." if warnings else f"{opening}."


def picks(candidates: int) -> str:
    """What the reward accuracy counts, as a sentence's end with a place for the figure."""
    if candidates == 2:
        return "picks the right answer in {} of the pairs"
    return "ranks the right answer above {} of the wrong ones"


def costs(fresh: Fresh | None) -> list[str]:
    """What got worse by more than its limit, in words.

    A change whose interval covers 0 may be chance and is no warning. One without an interval is a warning with that doubt.
    """
    if not fresh:
        return []
    warnings = []

    def change(name: str) -> float:
        estimate = fresh.metrics[name].change
        low, high = estimate.interval or (1.0, 1.0)
        return 0.0 if low <= 0 <= high else estimate.value or 0.0

    def warn(name: str, warning: str) -> None:
        warnings.append(warning if fresh.metrics[name].change.interval else f"{warning}{DOUBT}")

    if change("perplexity") > PERPLEXITY:
        warn("perplexity", f"its answers read {change('perplexity'):.0%} less naturally to the base model (perplexity)")
    if abs(change("tokens")) > LENGTH:
        warn("tokens", f"its answers are {abs(change('tokens')):.0%} {'longer' if change('tokens') > 0 else 'shorter'}")
    if "parroting" in fresh.metrics and change("parroting") > PARROTING:
        warn("parroting", f"{change('parroting') * 100:.0f} points more of its answers hand the user's words back")
    return warnings


@dataclass(frozen=True)
class Row:
    """A measure that a person wants to see first."""

    label: str
    measure: Measure
    form: str  # of its numbers


HELDOUT_ROWS = (
    ("accuracy", "reward accuracy, held-out pairs", ".2f"),
    ("information", "information, nats", ".3f"),
    ("margin", "reward margin", ".2f"),
    ("loss", "loss, nats", ".3f"),
)
FRESH_ROWS = (
    ("tokens", "answer length, tokens", ".1f"),
    ("perplexity", "perplexity of answers (base model)", ".2f"),
    ("parroting", "answers that hand the context back", ".2f"),
    ("self_bleu", "self-BLEU (sameness)", ".1f"),
)
MORE_ROWS = (
    ("ability", "questions answered right", ".2f"),
    ("checkable", "stated requirements met", ".2f"),
    ("checkable_gain", "... more than without stating them", ".2f"),
)


def rows(outcome: Outcome) -> list[Row]:
    """What to see first, in order."""
    heldout, fresh, checkable = outcome.heldout, outcome.fresh, outcome.checkable
    listed = [Row(label, heldout.metrics[key], form) for key, label, form in HELDOUT_ROWS] if heldout else []
    if fresh:
        for k in fresh.choices:
            right = f"right {fresh.apart_by} of {k} identified"
            listed.append(Row(f"{right}, own likelihood", fresh.metrics[f"identified_{k}"], ".2f"))
            if f"identified_by_embedding_{k}" in fresh.metrics:
                listed.append(Row(f"{right}, embedding judge", fresh.metrics[f"identified_by_embedding_{k}"], ".2f"))
        listed += [Row(label, fresh.metrics[key], form) for key, label, form in FRESH_ROWS if key in fresh.metrics]
    for part in (outcome.abilities, checkable):
        if part:
            listed += [Row(label, part.metrics[key], form) for key, label, form in MORE_ROWS if key in part.metrics]
    if checkable and checkable.heldout_kinds.requests:
        listed.append(Row("... of kinds that were not trained on", checkable.heldout_kinds.metrics["checkable"], ".2f"))
    return listed
