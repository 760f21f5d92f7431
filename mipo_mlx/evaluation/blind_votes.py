"""What the owner's blind votes come to: how often they preferred the trained model's answer, with its interval.

Votes on other adapters than the run's own do not count: they were about another result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files import sha256
from ..recipe import Recipe
from ..records import BASE, NEITHER, TUNED, Ballot
from ..sources.sparing import read_votes
from .statistics import Estimate, Resampler, show

ENOUGH = 20  # votes from which the result is shown: who sees it earlier votes to keep or to change it
ADAPTERS = "adapters/adapters.safetensors"
VALUE = {TUNED: 1.0, NEITHER: 0.5, BASE: 0.0}


@dataclass(frozen=True)
class Tally:
    """Counts of votes, and the share of the trained model's preferred answers; neither counts half."""

    votes: int
    tuned: int
    base: int
    neither: int
    preferred: Estimate

    @property
    def enough(self) -> bool:
        return self.votes >= ENOUGH


def adapters_of(folder: Path) -> str:
    """A short hash of the run's adapters."""
    return sha256(folder / ADAPTERS)[:16]


def votes_on(folder: Path, adapters: str) -> list[Ballot]:
    """The votes of a run on the adapters with this hash."""
    return [vote for _, vote in read_votes(folder) if vote.adapters == adapters]


def count(votes: Sequence[Ballot], recipe: Recipe) -> Tally:
    """The tally of these votes. Requests are resampled, so that a request that was asked twice counts as one."""
    values = [VALUE[vote.choice] for vote in votes]
    over = Resampler([[vote.request for vote in votes]], recipe.evaluation.bootstrap, recipe.seed)
    preferred = over.mean(values, share=True) if votes else Estimate(None, None)
    return Tally(len(votes), values.count(1.0), values.count(0.0), values.count(0.5), preferred)


def tally(folder: Path, recipe: Recipe) -> Tally:
    """The tally of a run's votes on its own adapters."""
    return count(votes_on(folder, adapters_of(folder)) if (folder / ADAPTERS).exists() else [], recipe)


def sentence(result: Tally) -> str:
    """The result in one sentence; "" without votes."""
    if not result.votes:
        return ""
    if not result.enough:
        return f"{result.votes} of {ENOUGH} blind votes so far; the result is shown when all are there."
    counts = f"{result.tuned} trained, {result.base} base, {result.neither} neither, which counts half"
    share = f"with a share of {show(result.preferred)} ({counts})"
    return f"In {result.votes} blind votes you preferred the trained model's answer {share}."
