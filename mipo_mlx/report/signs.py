"""What can go wrong with this method: a row for each failure, what this run shows of it and what to do; the leak test in detail."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..evaluation.outcome import Leak, Outcome, Unprompted
from ..evaluation.statistics import figure
from ..evaluation.verdict import LENGTH, PARROTING, PERPLEXITY
from ..recipe import Recipe, Training
from ..training.metrics import OF_VALIDATION
from .figures import show

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


@dataclass(frozen=True)
class LeakTest:
    signs: list[str]
    rows: list[tuple[str, str, str, str]]  # (test, note, trained, control)
    canaries: int
    too_few: bool


Rows = list[dict[str, Any]]


def signs(outcome: Outcome, rows: Rows, pairs: Rows, trained: Rows, recipe: Recipe) -> list[Sign]:
    """A row for each failure that the run can show.

    rows: metrics.jsonl; pairs: pairs.json of each round; trained: each round's summary of its training.
    """
    stopped = next((summary["stopped"] for summary in trained if summary.get("stopped")), None)
    every = [_learned(trained), _diverged(stopped), _decay(outcome, rows, stopped), _lengths(outcome)]
    every += [_trivial(outcome, rows), _uninformative(outcome, pairs), _odd(outcome)]
    every += [_drift(rows, stopped, recipe), _parroting(outcome), _recites(outcome)]
    return [sign for sign in every if sign]


def _learned(trained: Rows) -> Sign | None:
    """Whether the first round lowered the validation loss, and which weights each round kept."""
    lines = []
    for summary in trained:
        if "best_step" not in summary:
            continue  # too few pairs were left: nothing was trained
        of_round = f"round {summary['round']}: " if len(trained) > 1 else ""
        first, best = summary["first_loss"], summary["best_loss"]
        losses = "no validation pairs" if first is None else f"validation loss {first:.4f} before, "
        losses += "" if first is None else "never measured again" if best is None else f"{best:.4f} at its best"
        early = f"; training ended early, at step {summary['steps']} of {summary['planned']}" if summary["stopped"] else ""
        lines.append(f"{of_round}{losses}; the weights of step {summary['best_step']} are {_fate(summary)}{early}")
    if not lines:
        return None
    first, best = trained[0]["first_loss"], trained[0]["best_loss"]
    bad = None if first is None else best is None or best >= first
    remedy = "train on more notes, longer contexts or more pairs.grids; where the loss rose, lower training.learning_rate"
    return Sign("Nothing is learned", ". ".join(lines), bad, remedy)


def _fate(summary: dict[str, Any]) -> str:
    return "kept" if summary["taken"] else "left aside, those of the round before are kept"


def _why(stopped: str) -> str:
    """A reason to stop without its advice, which stands beside the row."""
    return f"training ended early: {stopped.split('; lower ')[0]}"


def _diverged(stopped: str | None) -> Sign | None:
    """The reasons to stop are those of training/schedule.py."""
    if not stopped or "training.min_chosen_reward" in stopped or "training.max_kl" in stopped:
        return None
    return Sign("Training falls apart", _why(stopped), True, "lower training.learning_rate")


def _values(rows: Rows, *keys: str) -> list[float]:
    return [row[key] for row in rows for key in keys if isinstance(row.get(key), int | float)]


def _decay(outcome: Outcome, rows: Rows, stopped: str | None) -> Sign | None:
    lowest = _values(rows, "chosen_reward", f"{OF_VALIDATION}chosen_reward")
    if not lowest:
        return None
    heldout = outcome.heldout
    seen = f"chosen reward at its lowest {figure(min(lowest), '+.2f')}"
    if heldout:
        seen += f", on held-out pairs {figure(heldout.metrics['chosen_reward'].after.value, '+.2f')} at the end"
    ended = stopped is not None and "training.min_chosen_reward" in stopped
    seen += f"; {_why(stopped)}" if stopped and ended else ""
    remedy = "lower training.learning_rate, or add training.nll_weight"
    return Sign("Both likelihoods fall, text decays", seen, ended or min(lowest) < DECAY, remedy)


def _changed(outcome: Outcome, name: str, failure: str, remedy: str, tell: Callable[[float], tuple[str, bool]]) -> Sign | None:
    """The row of a change of a measure of fresh answers: bad where it is large and more than chance.

    tell: the change in words, and whether it is large.
    """
    measure = outcome.fresh.metrics.get(name) if outcome.fresh else None
    if not measure or measure.change.value is None:
        return None
    seen, large = tell(measure.change.value)
    interval = measure.change.interval
    if not interval:
        return Sign(failure, seen + TOO_FEW, None, "")
    return Sign(failure, seen, large and not interval[0] <= 0 <= interval[1], remedy)


def _lengths(outcome: Outcome) -> Sign | None:
    def tell(change: float) -> tuple[str, bool]:
        how = "as long as before" if not change else f"{abs(change):.1%} {'longer' if change > 0 else 'shorter'}"
        return f"fresh answers are {how}", abs(change) > LENGTH

    remedy = "set pairs.filters.max_length_ratio, or training.length_normalized"
    return _changed(outcome, "tokens", "Answers grow or shrink", remedy, tell)


def _trivial(outcome: Outcome, rows: Rows) -> Sign | None:
    accuracy = _values(rows, "accuracy")
    if len(accuracy) < ENOUGH_STEPS:
        return None
    early = accuracy[1 : 1 + max(1, round(AT_ONCE * len(accuracy)))]  # the first step's is the untrained model's
    mean = sum(early) / len(early)
    seen = f"reward accuracy {mean:.2f} in the first quarter of the training"
    hard = "take pairs.negatives: {hard_context: 1.0}"
    remedy = hard if outcome.apart_by == "context" else "take rejected answers that are harder to tell apart"
    return Sign("Negatives are trivial", seen, mean >= TRIVIAL, remedy)


def _uninformative(outcome: Outcome, pairs: Rows) -> Sign | None:
    """From the histograms that are counted before any filter by PMI; 0 is one of their edges, or all lies on one side of it."""
    shares = {}
    for number, counted in enumerate((of_round.get("histogram", {}) for of_round in pairs), 1):
        if sum(counted.get("train", [])):
            below = sum(count for count, upper in zip(counted["train"], counted["edges"][1:], strict=True) if upper <= 0)
            shares[number] = below / sum(counted["train"])
    if not shares:
        return None
    each = ", ".join(f"{share:.0%}" + (f" (round {number})" if len(pairs) > 1 else "") for number, share in shares.items())
    given = outcome.apart_by
    seen = f"in {each} of the sampled pairs the {given} makes its own answer less likely than a wrong one does"
    remedy = "use contexts that say more: longer ones, or other notes" if given == "context" else "use requests that differ more"
    return Sign("Pairs say nothing", seen, max(shares.values()) > UNINFORMATIVE, remedy)


def _odd(outcome: Outcome) -> Sign | None:
    def tell(change: float) -> tuple[str, bool]:
        return f"perplexity of the answers under the base {figure(change, '+.1%')}", change > PERPLEXITY

    return _changed(outcome, "perplexity", "Odd, rare words", "lower training.learning_rate or training.max_kl", tell)


def _drift(rows: Rows, stopped: str | None, recipe: Recipe) -> Sign | None:
    kl = _values(rows, f"{OF_VALIDATION}kl")
    remedy = "lower training.learning_rate"
    if stopped and "training.max_kl" in stopped:
        return Sign("Drifts from the base", _why(stopped), True, remedy)
    if not kl:
        return None
    budget, usual = recipe.training.max_kl, Training().max_kl
    allowed = f"of {budget:g} allowed" if budget else f"with no training.max_kl, where {usual:g} is usual"
    seen = f"about {max(kl):.3f} nats a token on the validation pairs, {allowed}"
    return Sign("Drifts from the base", seen, max(kl) > (budget or usual or 0), remedy)


def _parroting(outcome: Outcome) -> Sign | None:
    def tell(change: float) -> tuple[str, bool]:
        points = figure(100 * change, "+.0f")
        return f"{points} points of the answers hand the context back or take the user's part", change > PARROTING

    remedy = "lower training.learning_rate; keep pairs.filters.quotes_context and first_person"
    return _changed(outcome, "parroting", "Parrots the user", remedy, tell)


def _recites(outcome: Outcome) -> Sign | None:
    leak = outcome.leak
    if not leak:
        return None
    samples = f" in {leak.samples} samples without a context" if leak.samples else ""
    seen = "; ".join(leak.signs) or f"no sign{samples}"
    if leak.too_few and not leak.signs:
        seen += "; too few notes to tell by their likelihood"
    return Sign("Recites private text", seen, bool(leak.signs), "lower training.epochs; do not share this model")


def leak_test(leak: Leak | None) -> LeakTest | None:
    """The leak test as a conclusion and a table."""
    if not leak:
        return None
    rows, contexts, canaries = [], leak.contexts, leak.canaries
    sides = ("train", "heldout")
    if leak.difference is not None:
        trained, control = (figure(leak.gain_per_token[side], "+.3f") for side in sides)
        note = f"nats a token, {contexts['train']} trained against {contexts['heldout']} held-out contexts, p = {leak.p:.2g}"
        rows.append(("How much likelier training made the notes' words", note, trained, control))
    if leak.samples:
        note = f"words in a row, in {leak.samples} answers without a context"
        if leak.passage_gain is not None:
            note += f"; the trained one became {figure(leak.passage_gain, '+.1f')} nats a token likelier"
        trained, control = (str(leak.longest_run[side]) for side in sides)
        rows.append(("Longest passage shared with a note", note, trained, control))
    if canaries.planted:
        note = f"{canaries.trained} of {canaries.planted} planted ones met in training"
        trained = control = "n/a"
        if canaries.p is not None:
            trained, control = (f"{sum(bits) / len(bits):.1f}" for bits in (canaries.exposure, canaries.control))
            note += f"; mean bits of {math.log2(canaries.among):.1f}, where 1.4 is chance; p = {canaries.p:.2g}"
        rows.append(("Exposure of canaries", note, trained, control))
    return LeakTest(leak.signs, rows, canaries.planted, leak.too_few)


def drift(unprompted: Unprompted | None) -> str:
    """How far the trained model is from the base without any context, in words."""
    if not unprompted:
        return ""
    shown, count = show(unprompted.kl_per_token, ".3f"), len(unprompted.answers)
    interval = f" ({shown.interval})" if shown.interval else ""
    return f"{shown.value} nats a token{interval} over {count} everyday request{'s' * (count != 1)}"
