"""What can go wrong with this method, one row each: what was seen in this run, and what to do where it looks bad."""

from dataclasses import dataclass
from typing import Any

from ..evaluation.statistics import figure
from ..evaluation.verdict import LENGTH, PARROTING, PERPLEXITY
from ..recipe import Recipe, Training

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
    result: dict[str, Any],
    rows: list[dict[str, Any]],
    pairs: list[dict[str, Any]],
    trained: list[dict[str, Any]],
    recipe: Recipe,
) -> list[Sign]:
    """Rows for what was measured; what was not is left out.

    result: eval.json; rows: metrics.jsonl; pairs: pairs.json of each round; trained: each round's summary of its training.
    """
    stopped = next((summary["stopped"] for summary in trained if summary.get("stopped")), None)
    found = [_learned(trained), _diverged(stopped), _decay(result, rows, stopped), _lengths(result)]
    found += [_trivial(result, rows), _uninformative(result, pairs), _odd(result)]
    found += [_drift(rows, stopped, recipe), _parroting(result), _recites(result)]
    return [sign for sign in found if sign]


def _learned(trained: list[dict[str, Any]]) -> Sign | None:
    """Whether the first round lowered the held-out loss, and which weights each round kept."""
    told = []
    for summary in trained:
        if "best_step" not in summary:
            continue  # too few pairs were left: nothing was trained
        of_round = f"round {summary['round']}: " if len(trained) > 1 else ""
        first, best = summary["first_loss"], summary["best_loss"]
        losses = "no validation pairs" if first is None else f"held-out loss {first:.4f} before, "
        losses += "" if first is None else "never measured again" if best is None else f"{best:.4f} at its best"
        early = f"; training ended early, at step {summary['steps']} of {summary['planned']}" if summary["stopped"] else ""
        told.append(f"{of_round}{losses}; the weights of step {summary['best_step']} are {_fate(summary)}{early}")
    if not told:
        return None
    first, best = trained[0]["first_loss"], trained[0]["best_loss"]
    bad = None if first is None else best is None or best >= first
    remedy = "train on more notes, longer contexts or more pairs.grids; where the loss rose, lower training.learning_rate"
    return Sign("Nothing is learned", ". ".join(told), bad, remedy)


def _fate(summary: dict[str, Any]) -> str:
    return "kept" if counts(summary) else "left aside, those of the round before are kept"


def counts(summary: dict[str, Any]) -> bool:
    """Whether the weights that a round of training ended with are the run's: the first round's are, a later one's where they
    lowered the held-out loss or nobody could measure it."""
    first, best = summary.get("first_loss"), summary.get("best_loss")
    return "best_step" in summary and (summary.get("round", 1) == 1 or first is None or (best is not None and best < first))


def _why(stopped: str) -> str:
    """A reason to stop without its advice, which stands beside the row."""
    return f"training ended early: {stopped.split('; lower ')[0]}"


def _diverged(stopped: str | None) -> Sign | None:
    """The reasons to stop are those of training/schedule.py."""
    if not stopped or "training.min_chosen_reward" in stopped or "training.max_kl" in stopped:
        return None
    return Sign("Training falls apart", _why(stopped), True, "lower training.learning_rate")


def _values(rows: list[dict[str, Any]], *keys: str) -> list[float]:
    return [row[key] for row in rows for key in keys if isinstance(row.get(key), int | float)]


def _decay(result: dict[str, Any], rows: list[dict[str, Any]], stopped: str | None) -> Sign | None:
    lowest = _values(rows, "chosen_reward", "heldout_chosen_reward")
    if not lowest:
        return None
    heldout = result.get("heldout")
    seen = f"chosen reward at its lowest {figure(min(lowest), '+.2f')}"
    if heldout:
        seen += f", on held-out pairs {figure(heldout['metrics']['chosen_reward']['after']['value'], '+.2f')} at the end"
    ended = stopped and "training.min_chosen_reward" in stopped
    seen += f"; {_why(stopped)}" if ended else ""
    remedy = "lower training.learning_rate, or add training.nll_weight"
    return Sign("Both likelihoods fall, text decays", seen, bool(ended) or min(lowest) < DECAY, remedy)


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


def _trivial(result: dict[str, Any], rows: list[dict[str, Any]]) -> Sign | None:
    accuracy = _values(rows, "accuracy")
    if len(accuracy) < ENOUGH_STEPS:
        return None
    early = accuracy[1 : 1 + max(1, round(AT_ONCE * len(accuracy)))]  # the first step's is the untrained model's
    mean = sum(early) / len(early)
    seen = f"reward accuracy {mean:.2f} in the first quarter of the training"
    hard = "take pairs.negatives: {hard_context: 1.0}"
    remedy = hard if _has_contexts(result) else "take rejected answers that are harder to tell apart"
    return Sign("Negatives are trivial", seen, mean >= TRIVIAL, remedy)


def _has_contexts(result: dict[str, Any]) -> bool:
    """Whether answers are told apart by contexts; there are none in pairs that name none, and in runs of prompts alone."""
    return (result.get("heldout") or {}).get("contexts", 1) > 0


def _uninformative(result: dict[str, Any], pairs: list[dict[str, Any]]) -> Sign | None:
    """From the histograms that are counted before any filter by PMI; 0 is one of their edges, or all lies on one side of it."""
    shares = {}
    for round_number, found in enumerate((of_round.get("histogram", {}) for of_round in pairs), 1):
        if sum(found.get("train", [])):
            below = sum(count for count, upper in zip(found["train"], found["edges"][1:], strict=True) if upper <= 0)
            shares[round_number] = below / sum(found["train"])
    if not shares:
        return None
    each = ", ".join(f"{share:.0%}" + (f" (round {number})" if len(pairs) > 1 else "") for number, share in shares.items())
    told = "context" if _has_contexts(result) else "request"
    seen = f"in {each} of the sampled pairs the {told} makes its own answer less likely than a wrong one does"
    remedy = "use contexts that say more: longer ones, or other notes" if told == "context" else "use prompts that differ more"
    return Sign("Pairs say nothing", seen, max(shares.values()) > UNINFORMATIVE, remedy)


def _odd(result: dict[str, Any]) -> Sign | None:
    change = _change(result, "perplexity")
    if change is None:
        return None
    value, real = change
    remedy = "lower training.learning_rate or training.max_kl"
    seen = f"perplexity of the answers under the base {figure(value, '+.1%')}"
    return _judged("Odd, rare words", seen, real, value > PERPLEXITY, remedy)


def _drift(rows: list[dict[str, Any]], stopped: str | None, recipe: Recipe) -> Sign | None:
    kl = _values(rows, "heldout_kl")
    remedy = "lower training.learning_rate"
    if stopped and "training.max_kl" in stopped:
        return Sign("Drifts from the base", _why(stopped), True, remedy)
    if not kl:
        return None
    budget, usual = recipe.training.max_kl, Training().max_kl
    allowed = f"of {budget:g} allowed" if budget else f"with no training.max_kl, where {usual:g} is usual"
    seen = f"about {max(kl):.3f} nats a token on unseen pairs, {allowed}"
    return Sign("Drifts from the base", seen, max(kl) > (budget or usual or 0), remedy)


def _parroting(result: dict[str, Any]) -> Sign | None:
    change = _change(result, "parroting")
    if change is None:
        return None
    value, real = change
    seen = f"{figure(100 * value, '+.0f')} points of the answers hand the context back or take the user's part"
    remedy = "lower training.learning_rate; keep pairs.filters.quotes_context and first_person"
    return _judged("Parrots the user", seen, real, value > PARROTING, remedy)


def _recites(result: dict[str, Any]) -> Sign | None:
    leak = result.get("leak")
    if not leak:
        return None
    asked = f" in {leak['samples']} samples without a context" if leak["samples"] else ""
    seen = "; ".join(leak["signs"]) or f"no sign{asked}"
    if leak["too_few"] and not leak["signs"]:
        seen += "; too few notes to tell by their likelihood"
    return Sign("Recites private text", seen, bool(leak["signs"]), "lower training.epochs; do not share this model")
