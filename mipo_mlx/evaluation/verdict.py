"""One sentence that says whether it worked, with its interval, and what it cost where that is much.

~~~ How much a cost may grow before it is worth a warning; the verdict, the report's signs and the study's drawing share these.
"""

from typing import Any

DOUBT = " (too few to tell that from chance)"


def sentence(heldout: dict[str, Any], fresh: dict[str, Any] | None, leak: dict[str, Any] | None = None) -> str:
    """The verdict on a run from its eval.json."""
    accuracy = heldout["metrics"]["accuracy"]["after"]
    value, interval = accuracy["value"], accuracy["interval"]
    over = "contexts" if heldout["contexts"] else "prompts"
    claim = f"on held-out {over} it {picks(heldout['candidates']).format(f'{value:.0%}')}"
    warnings = costs(fresh)
    if leak and leak["signs"]:
        warnings.append("it shows signs of reciting the notes")
    if interval is None:
        found = f"Not shown: {claim} (50 % before), but there are {heldout['no_interval']}"
        return f"{found}; {' and '.join(warnings)}." if warnings else f"{found}."
    # An end that rounds to 50 % would not say on which side of it it lies.
    form = ".1%" if any(round(end, 2) == 0.5 != end for end in interval) else ".0%"
    claim += f" (95 % interval {interval[0]:{form}} to {interval[1]:{form}}; 50 % before)"
    if interval[0] > 0.5:
        found = f"It worked: {claim}"
    elif interval[1] < 0.5:
        found = f"It went wrong: {claim}"
    else:
        found = f"No effect can be shown: {claim}"
    return f"{found}, but {' and '.join(warnings)}." if warnings else f"{found}."


def picks(candidates: int) -> str:
    """What the reward accuracy counts, as a sentence's end with a place for the figure."""
    if candidates == 2:
        return "picks the right answer in {} of the pairs"
    return "ranks the right answer above {} of the wrong ones"


def costs(fresh: dict[str, Any] | None) -> list[str]:
    """What got worse by more than its limit, in words; a change whose interval covers 0 may be chance and is no warning,
    one without an interval is told with that doubt."""
    if not fresh:
        return []
    metrics, found = fresh["metrics"], []

    def change(name: str) -> float:
        estimate = metrics[name]["change"]
        low, high = estimate["interval"] or (1.0, 1.0)
        return 0.0 if low <= 0 <= high else estimate["value"] or 0.0

    def tell(name: str, warning: str) -> None:
        found.append(warning if metrics[name]["change"]["interval"] else f"{warning}{DOUBT}")

    if change("perplexity") > PERPLEXITY:
        tell("perplexity", f"its answers read {change('perplexity'):.0%} less naturally to the base model (perplexity)")
    if abs(change("tokens")) > LENGTH:
        tell("tokens", f"its answers are {abs(change('tokens')):.0%} {'longer' if change('tokens') > 0 else 'shorter'}")
    if "parroting" in metrics and change("parroting") > PARROTING:
        tell("parroting", f"{change('parroting') * 100:.0f} points more of its answers hand the user's words back")
    return found


ROWS = (  # key, label, format, scale
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
    ("checkable_gain", "... more than without being told", ".2f"),
)


def rows(
    heldout: dict[str, Any], fresh: dict[str, Any] | None, *others: dict[str, Any] | None
) -> list[tuple[str, dict[str, Any], str]]:
    """(label, measure, number format) of what a person wants to see first, in order; others: parts that not every run has."""
    listed = [(label, heldout["metrics"][key], form) for key, label, form in ROWS]
    if fresh:
        for k in fresh["choices"]:
            right = f"right {fresh['told_apart_by']} of {k} found"
            listed.append((f"{right}, own likelihood", fresh["metrics"][f"identified_{k}"], ".2f"))
            if f"identified_by_embedding_{k}" in fresh["metrics"]:
                listed.append((f"{right}, embedding judge", fresh["metrics"][f"identified_by_embedding_{k}"], ".2f"))
        listed += [(label, fresh["metrics"][key], form) for key, label, form in FRESH_ROWS if key in fresh["metrics"]]
    for part in filter(None, others):
        listed += [(label, part["metrics"][key], form) for key, label, form in MORE_ROWS if key in part["metrics"]]
        unseen = part.get("heldout_kinds")
        if unseen and unseen["requests"]:
            listed.append(("... of kinds that were not trained on", unseen["metrics"]["checkable"], ".2f"))
    return listed


PERPLEXITY = 0.15  # share
LENGTH = 0.15  # share, either way
PARROTING = 0.03  # points, as a share
SELF_BLEU = 2.0  # of 100
