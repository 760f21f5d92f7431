"""The owner's blind votes (votes.jsonl), and the preference pairs that they are.

Two answers to one request are shown in random order, by the trained model and by its base, and the owner says which fits better.
With `pairs.votes` the chosen answer and the other one become a training pair like any other, under the prompt that both had.

A vote on a held-out request, or one in whose prompt a held-out passage stands, is left out: the result is judged by these.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..models import adapters
from ..models.load import LoadedModel
from ..progress import Reporter
from ..records import HELDOUT, NEITHER, TRAIN, TUNED, VOTES, Ballot, Context, Pair, Prompt
from ..sources.note import Tally
from ..sources.sparing import read_votes, warn_of_spared
from .exchange import Vocabulary, pair_of
from .score import with_reference

VOTED = "voted"  # the kind of the rejected answer


@dataclass(frozen=True)
class HeldOut:
    """What judges the result."""

    requests: frozenset[str]
    passages: frozenset[str]

    @staticmethod
    def of(contexts: Sequence[Context], prompts: Sequence[Prompt]) -> "HeldOut":
        return HeldOut(
            frozenset(prompt.text.strip() for prompt in prompts if prompt.split == HELDOUT),
            frozenset(context.text.strip() for context in contexts if context.split == HELDOUT),
        )

    def why_not(self, ballot: Ballot) -> str | None:
        """Why a vote gives no training pair; None where it does."""
        if ballot.choice == NEITHER or ballot.tuned.strip() == ballot.base.strip():
            return "without a preference"
        if not ballot.own or ballot.request.strip() in self.requests:
            return "on held-out requests"
        if any(passage.strip() in self.passages for passage in ballot.passages):
            return "with held-out passages"
        return None if ballot.tuned.strip() and ballot.base.strip() else "with an empty answer"


def voted_pairs(folder: Path, heldout: HeldOut, loaded: LoadedModel, first_grid: int, reporter: Reporter) -> list[Pair]:
    """Training pairs of the votes, scored by the base, each in a grid of its own from `first_grid` on."""
    vocabulary, pairs, left_out, tally = Vocabulary(loaded.tokenizer), list[Pair](), Counter[str](), Tally()
    for number, ballot in read_votes(folder, tally):
        if reason := heldout.why_not(ballot):
            left_out[reason] += 1
            continue
        answers = [ballot.tuned, ballot.base] if ballot.choice == TUNED else [ballot.base, ballot.tuned]
        row: dict[str, Any] = {"id": f"vote-{number}", "split": TRAIN, "grid": first_grid + len(pairs), "prompt": ballot.prompt}
        place = f"{VOTES}:{number}"
        try:
            pair = pair_of({**row, "chosen": answers[0], "rejected": answers[1]}, place, vocabulary)
        except UserError as error:
            tally.spare(place, str(error).removeprefix(f"{place}: "))
            continue
        pairs.append(replace(pair, kinds=[VOTED], source=VOTES))
    warn_of_spared("votes", tally, reporter)
    lost = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
    reporter.say(f"  {len(pairs)} training pairs of your votes{f' (left out: {lost})' if lost else ''}")
    with adapters.disabled(loaded.model):
        return with_reference(pairs, loaded.model, reporter)
