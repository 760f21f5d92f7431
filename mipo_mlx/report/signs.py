"""What can go wrong with this method, one row each: what was seen in this run, and what to do where it looks bad."""

from dataclasses import dataclass
from typing import Any

from ..evaluation.limits import LENGTH, PARROTING, PERPLEXITY
from ..recipe import Recipe

DECAY = -1.0  # chosen reward (beta x nats): an answer became exp(10) times less likely at a beta of 0.1
AT_ONCE, TRIVIAL = 0.25, 0.95  # share of the training, and the reward accuracy in it, that make negatives trivial
ENOUGH_STEPS = 12  # below that, a few easy pairs in a row are chance
UNINFORMATIVE = 0.5  # share of the sampled pairs whose PMI is below 0
TOO_FEW = "; too few to tell that from chance"


@dataclass(frozen=True)
class Sign:
    failure: str
    seen: str
    bad: bool | None  # None: it cannot be told
    remedy: str


def signs(
    result: dict[str, Any], rows: list[dict[str, Any]], pairs: dict[str, Any], stopped: str | None, recipe: Recipe
) -> list[Sign]:
    """Rows for what was measured; what was not is left out.

    result: eval.json; rows: metrics.jsonl; pairs: pairs.json; stopped: why training ended early.
    """
    found = [_decay(result, rows), _lengths(result), _trivial(rows), _uninformative(pairs), _odd(result)]
    found += [_drift(rows, stopped, recipe), _parroting(result), _recites(result)]
    return [sign for sign in found if sign]


def _values(rows: list[dict[str, Any]], *keys: str) -> list[float]:
    return [row[key] for row in rows for key in keys if isinstance(row.get(key), int | float)]


def _decay(result: dict[str, Any], rows: list[dict[str, Any]]) -> Sign | None:
    lowest = _values(rows, "chosen_reward", "heldout_chosen_reward")
    if not lowest:
        return None
    heldout = result.get("heldout")
    seen = f"chosen reward at its lowest {min(lowest):+.2f}"
    if heldout:
        seen += f", on held-out pairs {heldout['metrics']['chosen_reward']['after']['value']:+.2f} at the end"
    remedy = "lower training.learning_rate, or add training.nll_weight"
    return Sign("Both likelihoods fall, text decays", seen, min(lowest) < DECAY, remedy)


def _change(result: dict[str, Any], name: str) -> tuple[float, bool | None] | None:
    """(change, whether it is more than chance; None without an interval) of a measure of fresh answers."""
    measure = ((result.get("fresh") or {}).get("metrics") or {}).get(name)
    if not measure or measure["change"]["value"] is None:
        return None
    interval = measure["change"]["interval"]
    return measure["change"]["value"], interval and not interval[0] <= 0 <= interval[1]


def _judged(failure: str, seen: str, real: bool | None, large: bool, remedy: str) -> Sign:
    """The row of a change: bad where it is large and more than chance."""
    return Sign(failure, seen + TOO_FEW, None, "") if real is None else Sign(failure, seen, real and large, remedy)


def _lengths(result: dict[str, Any]) -> Sign | None:
    change = _change(result, "tokens")
    if change is None:
        return None
    value, real = change
    remedy = "set pairs.filters.max_length_ratio, or training.length_normalized"
    how = "as long as before" if not value else f"{abs(value):.1%} {'longer' if value > 0 else 'shorter'}"
    seen = f"fresh answers are {how}"
    return _judged("Answers grow or shrink", seen, real, abs(value) > LENGTH, remedy)


def _trivial(rows: list[dict[str, Any]]) -> Sign | None:
    accuracy = _values(rows, "accuracy")
    if len(accuracy) < ENOUGH_STEPS:
        return None
    early = accuracy[1 : 1 + max(1, round(AT_ONCE * len(accuracy)))]  # the first step's is the untrained model's
    mean = sum(early) / len(early)
    seen = f"reward accuracy {mean:.2f} in the first quarter of the training"
    return Sign("Negatives are trivial", seen, mean >= TRIVIAL, "take pairs.negatives: {hard_context: 1.0}")


def _uninformative(pairs: dict[str, Any]) -> Sign | None:
    """From the histogram that is counted before any filter by PMI; 0 is one of its edges, or all lies on one side of it."""
    found = pairs.get("histogram", {})
    if not sum(found.get("train", [])):
        return None
    below = sum(count for count, upper in zip(found["train"], found["edges"][1:], strict=True) if upper <= 0)
    share = below / sum(found["train"])
    seen = f"in {share:.0%} of the sampled pairs the context makes its own answer less likely than a wrong one does"
    return Sign("Pairs say nothing", seen, share > UNINFORMATIVE, "use contexts that say more: longer ones, or other notes")


def _odd(result: dict[str, Any]) -> Sign | None:
    change = _change(result, "perplexity")
    if change is None:
        return None
    value, real = change
    remedy = "lower training.learning_rate or training.max_kl"
    seen = f"perplexity of the answers under the base {value:+.1%}"
    return _judged("Odd, rare words", seen, real, value > PERPLEXITY, remedy)


def _drift(rows: list[dict[str, Any]], stopped: str | None, recipe: Recipe) -> Sign | None:
    kl = _values(rows, "heldout_kl")
    if stopped:
        return Sign("Drifts from the base", f"training ended early: {stopped}", True, "lower training.learning_rate")
    if not kl:
        return None
    budget = f" of {recipe.training.max_kl:g} allowed" if recipe.training.max_kl else ""
    return Sign("Drifts from the base", f"about {max(kl):.3f} nats a token on unseen pairs{budget}", False, "")


def _parroting(result: dict[str, Any]) -> Sign | None:
    change = _change(result, "parroting")
    if change is None:
        return None
    value, real = change
    seen = f"{100 * value:+.0f} points of the answers hand the context back or take the user's part"
    remedy = "lower training.learning_rate; keep pairs.filters.quotes_context and first_person"
    return _judged("Parrots the user", seen, real, value > PARROTING, remedy)


def _recites(result: dict[str, Any]) -> Sign | None:
    leak = result.get("leak")
    if not leak:
        return None
    asked = f" in {leak['samples']} samples without a context" if leak["samples"] else ""
    seen = "; ".join(leak["signs"]) or f"no sign{asked}"
    return Sign("Recites private text", seen, bool(leak["signs"]), "lower training.epochs; do not share this model")
