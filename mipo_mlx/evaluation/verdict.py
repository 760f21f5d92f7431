"""One sentence that says whether it worked, with its interval, and what it cost where that is much. `headline` has no figures.

The verdict stands on fresh answers in the use that is recommended. Where memory finds passages of the notes, both models answer
with what it finds: does the trained model's answer fit better than the base's, and at what cost? Elsewhere both get the right
context. Reward accuracy on held-out pairs decides nothing. It can be high beside answers that nobody wants, and near chance
beside good ones.
"""

from dataclasses import dataclass, replace

from ..records import GENERAL
from .outcome import EMBEDDING, LIKELIHOOD, Heldout, Metrics, OfKind, Outcome
from .statistics import Estimate

WORKED, WENT_WRONG = "It worked", "It went wrong"  # how a verdict begins that says more than that nothing is shown
DOUBT = " (too few to tell that from chance)"
# How much a cost may grow before it is worth a warning. The report's signs and the study's drawing share these.
PERPLEXITY = 0.15  # share
LENGTH = 0.15  # share, either way
PARROTING = 0.03  # points, as a share
SELF_BLEU = 2.0  # of 100
GENERAL_KL = 0.05  # nats a token: how far answers to general questions may move from the base's
# Beyond these no gain counts: such answers are odd text, or hand the user's own words back, which any judge of fit likes.
RUINED_PERPLEXITY = 0.5
RUINED_PARROTING = 0.15
JUDGES = {EMBEDDING: "sentence embeddings", LIKELIHOOD: "the base model's own likelihood"}


@dataclass(frozen=True)
class Cost:
    """Something that got worse by more than its limit, in words."""

    text: str
    ruins: bool = False  # it is so large that no gain counts


def sentence(outcome: Outcome) -> str:
    judged, costs = compared(outcome), all_costs(outcome)
    warnings = " and ".join(cost.text for cost in costs)
    if judged is None:
        pairs = f"; {of_pairs(outcome.heldout)}" if outcome.heldout else ""
        return f"Not shown: there are no fresh answers to compare{pairs}{f'; {warnings}' if warnings else ''}."
    interval, claim = judged.interval, f"{judged.claim} in {judged.value:.0%}"
    if interval is None:
        opening = f"Not shown: {claim} of the comparisons (50 % is chance), but there are {judged.no_interval}"
        return f"{opening}; {warnings}." if warnings else f"{opening}."
    # An end that rounds to 50 % would not say on which side of it it lies.
    form = ".1%" if any(round(end, 2) == 0.5 != end for end in interval) else ".0%"
    claim += (
        f" of the comparisons (95 % interval {interval[0]:{form}} to {interval[1]:{form}}; 50 % is chance; "
        f"compared by {JUDGES[judged.judge]})"
    )
    if any(cost.ruins for cost in costs):
        return f"{WENT_WRONG}: {warnings}; {claim}."
    if interval[0] > 0.5:
        opening = f"{WORKED}: {claim}"
    elif interval[1] < 0.5:
        opening = f"{WENT_WRONG}: {claim}"
    else:
        opening = f"No effect can be shown: {claim}{by_hand(outcome)}"
    return f"{opening}, but {warnings}." if warnings else f"{opening}."


def headline(outcome: Outcome) -> str:
    """The verdict in words alone, for whoever reads no statistics; `sentence` has its figures."""
    judged, opening = compared(outcome), outcome.verdict.partition(":")[0]
    if judged is None:
        return outcome.verdict
    costs = all_costs(outcome)
    if opening == WORKED:
        return f"{opening}: {judged.claim}{', but at a cost (see all figures)' if costs else ''}."
    if opening == WENT_WRONG:
        return f"{opening}: {'its answers got worse' if any(cost.ruins for cost in costs) else 'the base gives better answers'}."
    return f"{opening}: so far nothing shows that {judged.claim}."


def all_costs(outcome: Outcome) -> list[Cost]:
    """All that got worse by more than its limit."""
    costs = costs_of(outcome.fresh.metrics if outcome.fresh else {}) + changes(outcome.kinds.get(GENERAL))
    if outcome.leak and outcome.leak.signs:
        costs.append(Cost("it shows signs of reciting the notes"))
    return costs


@dataclass(frozen=True)
class Compared:
    """The comparison that the verdict stands on."""

    claim: str
    value: float
    interval: list[float] | None
    no_interval: str | None
    judge: str


def compared(outcome: Outcome) -> Compared | None:
    """With memory where there is one, else under the right context; None without fresh answers."""
    fit, fresh, memory, opinion = outcome.fit, outcome.fresh, outcome.remembered, outcome.with_notes
    if memory and opinion and opinion.win_rate and opinion.win_rate.value is not None:
        claim = "its answers with your notes fit better than the base's with the same notes"
        return Compared(claim, opinion.win_rate.value, opinion.win_rate.interval, memory.no_interval, opinion.judge)
    if fresh and fit and fit.win_rate and fit.win_rate.value is not None:
        claim = f"its answers fit {'the user' if fresh.apart_by == 'context' else 'the request'} better than the base's"
        return Compared(claim, fit.win_rate.value, fit.win_rate.interval, fresh.no_interval, fit.judge)
    return None


def by_hand(outcome: Outcome) -> str:
    """What is shown under the right context, where it is not shown with memory."""
    known = outcome.fit.win_rate if outcome.fit and outcome.remembered else None
    if known is None or known.value is None or not known.interval or known.interval[0] <= 0.5:
        return ""
    return f"; told the right passage alone, it does in {known.value:.0%}"


def of_pairs(heldout: Heldout) -> str:
    """What the reward accuracy counts, with its figure."""
    accuracy, over = heldout.metrics["accuracy"].after.value or 0.0, "contexts" if heldout.contexts else "prompts"
    if heldout.candidates == 2:
        return f"on held-out {over} it ranks the right answer first in {accuracy:.0%} of the pairs (50 % before)"
    return f"on held-out {over} it ranks the right answer above {accuracy:.0%} of the wrong ones (50 % before)"


def changes(general: OfKind | None) -> list[Cost]:
    """What changed too much about answers to general questions, which should stay the same, with a context and without.

    They may not move more than GENERAL_KL from the base's, nor get longer, odder or hand more back than is allowed elsewhere.
    """
    if not general:
        return []
    costs = []
    for kl, when in ((general.kl_told, "with a note that does not matter"), (general.kl_untold, "with nothing in the prompt")):
        low, _ = kl.interval or (kl.value or 0.0, None)
        if low > GENERAL_KL:
            text = f"its answers to general questions do not stay the same {when} ({kl.value:.2f} nats a token from the base's)"
            costs.append(Cost(text if kl.interval else f"{text}{DOUBT}"))
    return costs + [replace(cost, ruins=False) for cost in costs_of(general.metrics, "its answers to general questions")]


def costs_of(metrics: Metrics, whose: str = "its answers") -> list[Cost]:
    """What got worse by more than its limit, of some answers.

    A change whose interval covers 0 may be chance and is no cost. One without an interval is a cost with that doubt.
    """
    costs: list[Cost] = []

    def change(name: str) -> float:
        estimate = metrics[name].change if name in metrics else Estimate(None, None)
        low, high = estimate.interval or (1.0, 1.0)
        return 0.0 if low <= 0 <= high else estimate.value or 0.0

    def add(name: str, text: str, ruins: bool) -> None:
        known = metrics[name].change.interval
        costs.append(Cost(text if known else f"{text}{DOUBT}", ruins and known is not None))

    odder, longer, handed_back = change("perplexity"), change("tokens"), change("parroting")
    if odder > PERPLEXITY:
        text = f"{whose} read {odder:.0%} less naturally to the base model (perplexity)"
        add("perplexity", text, odder > RUINED_PERPLEXITY)
    if abs(longer) > LENGTH:
        add("tokens", f"{whose} are {abs(longer):.0%} {'longer' if longer > 0 else 'shorter'}", False)
    if handed_back > PARROTING:
        text = f"{handed_back * 100:.0f} points more of {whose} hand the user's words back"
        add("parroting", text, handed_back > RUINED_PARROTING)
    return costs
