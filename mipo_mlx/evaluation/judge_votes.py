"""From a judge's probabilities to its opinion: wins, ties and losses of the trained model, and how far two judges agree.

A row holds the judge's two readings of one request. Pairwise: [P(A), P(B)] with the base's answer first, then with the tuned
model's first. Rubric: the probabilities of the digits for the base's answer, then for the trained model's.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..models import embedding
from ..models.embedding import Embed
from ..recipe import Evaluation
from .answers import clusters_of, pmi
from .outcome import EMBEDDING, LIKELIHOOD, Agreement, Metrics, Opinion
from .requests import Answered
from .statistics import Estimate, Measures, Resampler
from .workbench import SIDES

SENSE = 0.5  # of the judge's probability must lie on the allowed answers, else it has not understood
SILENT = [[0.0, 0.0]] * 2  # the row of a request without a reply, or without a question

Row = list[list[float]]
Votes = Sequence[float | None]  # 1 for the trained model's answer, 0 for the base's, 0.5 for a tie; None: nonsense


class Voting:
    """Votes on these requests, with intervals over their notes and requests."""

    def __init__(self, answered: Sequence[Answered], settings: Evaluation, seed: int) -> None:
        self.answered, self.settings, self.seed = answered, settings, seed

    def over(self, answered: Sequence[Answered]) -> Resampler:
        return Resampler(clusters_of(answered), self.settings.bootstrap, self.seed)

    def votes(self, rows: Sequence[Row], mode: str) -> list[float | None]:
        each = pairwise_vote if mode == "pairwise" else rubric_vote
        return [each(a, row) for a, row in zip(self.answered, rows, strict=True)]

    def opinion(self, rows: Sequence[Row], mode: str, judge: str, model: str | None = None, unanswered: int = 0) -> Opinion:
        """What a judge's rows amount to. Requests that it could not judge are counted and left out."""
        votes = self.votes(rows, mode)
        kept = [(a, vote) for a, vote in zip(self.answered, votes, strict=True) if vote is not None]
        outcomes = [vote for _, vote in kept]
        win, tie, loss = (outcomes.count(vote) for vote in (1.0, 0.5, 0.0))
        opinion = Opinion(judge, model, mode, win, tie, loss, votes.count(None), unanswered)
        if mode == "rubric":
            return replace(opinion, metrics=self._scores(rows, votes))
        over = self.over([a for a, _ in kept])
        return replace(
            opinion,
            win_rate=over.mean(outcomes, share=True),
            length_controlled=over.at_equal_length(outcomes, [a.tuned.length - a.base.length for a, _ in kept]),
            first_preferred=self._first_preferred(rows, votes),
        )

    def _scores(self, rows: Sequence[Row], votes: Votes) -> Metrics:
        """Mean scores of both models' answers, 1 to 5."""
        kept = [(a, row) for a, row, vote in zip(self.answered, rows, votes, strict=True) if vote is not None]
        over = self.over([a for a, _ in kept])
        measures = Measures([f"{request} {note}" for note, request in zip(*over.clusters, strict=True)], over)
        before, after = ([score(row[side]) for _, row in kept] for side in (0, 1))
        measures.add("rubric", before, after)
        return measures.metrics

    def _first_preferred(self, rows: Sequence[Row], votes: Votes) -> Estimate | None:
        """How often the judge prefers the answer that comes first, of different answers that it understood."""
        kept = [
            (a, float(np.mean([0.5 if x == y else float(x > y) for x, y in row])))
            for a, row, vote in zip(self.answered, rows, votes, strict=True)
            if vote is not None and a.base.text != a.tuned.text
        ]
        return self.over([a for a, _ in kept]).mean([share for _, share in kept], share=True) if kept else None

    def agreement(self, judges: list[str], one: Votes, other: Votes) -> Agreement:
        """On the requests that both judged: the share with the same vote, and Cohen's kappa (1960).

        Kappa is 0 for two judges whose votes are independent and 1 for equal ones. It is None where each gives one vote throughout.
        """
        both = [(a, x, y) for a, x, y in zip(self.answered, one, other, strict=True) if x is not None and y is not None]
        same = [float(x == y) for _, x, y in both]
        each = (0.0, 0.5, 1.0) if both else ()
        chance = sum(float(np.mean([x == v for _, x, _ in both]) * np.mean([y == v for _, _, y in both])) for v in each)
        kappa = (float(np.mean(same)) - chance) / (1 - chance) if both and chance < 1 else None
        return Agreement(judges, len(both), self.over([a for a, _, _ in both]).mean(same, share=True), kappa)


def pairwise_vote(a: Answered, row: Row) -> float | None:
    """1 where the judge prefers the trained model's answer in both orders, 0 where it does in neither.

    A preference that turns with the order is a tie (0.5), as are equal answers. A reading that puts less than half of its
    probability on A and B is nonsense: None.
    """
    if a.base.text == a.tuned.text:
        return 0.5
    if min(sum(order) for order in row) < SENSE:
        return None
    each = [0.5 if b == t else float(t > b) for b, t in (row[0], row[1][::-1])]  # for the trained model's answer
    return 0.5 if sum(each) not in (0, 2) else each[0]


def rubric_vote(a: Answered, row: Row) -> float | None:
    """1 where the trained model's answer has the higher digit, 0 where the lower, 0.5 where both are the same; None: nonsense."""
    if min(sum(digits) for digits in row) < SENSE:
        return None
    base, tuned = (round(score(digits)) for digits in row)
    return 0.5 if base == tuned else float(tuned > base)


def score(digits: Sequence[float]) -> float:
    """The expected digit, given that the judge gives one."""
    return float(np.dot(digits, range(1, 6)) / sum(digits))


def fit(answered: Sequence[Answered], settings: Evaluation, seed: int, embedder: Embed | None) -> Opinion | None:
    """Whose answers fit their own context better, by a judge that needs no question. None without answers.

    The embedder judges; without one the base's likelihood does. Each reads one answer at a time, so it prefers no position.
    """
    if not answered:
        return None
    judge, rows = (EMBEDDING, closer(embedder, answered)) if embedder else (LIKELIHOOD, likelier(answered))
    return replace(Voting(answered, settings, seed).opinion(rows, "pairwise", judge), first_preferred=None)


def closer(embed: Embed, answered: Sequence[Answered]) -> list[Row]:
    """The embedder's pairwise rows: it prefers the answer whose closeness to its own context most exceeds that to the others."""
    margins = []
    for side in SIDES:
        rows = embedding.cosines(embed, [a.by(side).text for a in answered], [a.group.apart for a in answered])
        margins.append([_margin(row, a.own) for row, a in zip(rows, answered, strict=True)])
    return _rows(margins)


def _margin(closeness: Sequence[float], own: int) -> float:
    """How much closer an answer is to its own text than to the others on average; the closeness itself where there is no other."""
    others = np.delete(closeness, own)
    return closeness[own] - float(others.mean()) if len(others) else closeness[own]


def likelier(answered: Sequence[Answered]) -> list[Row]:
    """The base's pairwise rows: it prefers the answer whose tokens its own context makes likelier, on average (PMI per token)."""
    return _rows([[pmi(a.by(side).totals("base"), a.own) / max(1, a.by(side).length) for a in answered] for side in SIDES])


def _rows(margins: Sequence[Sequence[float]]) -> list[Row]:
    """The same preference in both orders, from how well the base's answers fit and how well the trained model's do."""
    shares = [0.5 if base == tuned else float(tuned > base) for base, tuned in zip(*margins, strict=True)]  # the trained model's
    return [[[1 - share, share], [share, 1 - share]] for share in shares]
