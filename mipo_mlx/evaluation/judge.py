"""Judges of fresh answers: a local model, an endpoint, sentence embeddings; pairwise in both orders, or the 1-to-5 rubric.

A local model is read by likelihood: how probable "A" and "B" (or the digits) are as its whole answer. An endpoint is read by what
it writes. What a judge cannot answer is counted, not scored.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import logprobs
from ..errors import Failure
from ..files import append_jsonl, read_jsonl, write_jsonl
from ..models import load
from ..models.prompts import encode
from ..progress import Reporter
from ..recipe import Evaluation, Recipe
from . import endpoint
from .judge_votes import SILENT, Row, Votes, Voting, closer
from .outcome import EMBEDDING, Judged, Opinion
from .requests import Answered
from .statistics import key_of
from .workbench import Workbench

FILE = "judge-verdicts.jsonl"
PAIRWISE = (
    "{opening}Answer A: {first}\n\nAnswer B: {second}\n\nWhich answer suits this user better? Reply with the letter A or B alone."
)
RUBRIC = (
    "{opening}Answer: {answer}\n\n"
    "How well does the answer address what this user prefers and needs? 1: general, it could be for anybody. 2: hardly. "
    "3: in part. 4: well. 5: fully, it fits this user alone. Reply with one digit alone."
)
LETTERS, DIGITS = ("A", "B"), ("1", "2", "3", "4", "5")
# "A", "**B**", "Answer: A.", "Option B", "4.0", "Rating: 4/5"; "A good answer would be B", "A or B" and "3.5" are none of these.
REPLY = re.compile(
    r"[\W_]*(?:(?:the |my )?(?:final |better |best )?(?:answer|option|response|choice|verdict|rating|score)\b(?: is)?[\W_]*){0,2}"
    r"([^\W_])(?:\.0+)?(?:\s*(?:/|out of)\s*5(?:\.0+)?)?[\W_]*",
    re.IGNORECASE,
)
# Questions, allowed answers -> the probabilities of these; None for a question that got no reply.
Read = Callable[[Sequence[str], Sequence[str]], Sequence[list[float] | None]]


@dataclass(frozen=True)
class Judge:
    name: str  # "base", a model by name, or the URL of an endpoint
    model: str | None  # that an endpoint serves
    mode: str  # "pairwise" or "rubric"

    @property
    def allowed(self) -> tuple[str, ...]:
        return LETTERS if self.mode == "pairwise" else DIGITS

    def questions(self, a: Answered) -> list[str]:
        """The two questions about one request. Pairwise: with the base's answer first, then with the trained model's first.
        Rubric: about the base's answer, then about the trained model's."""
        base, tuned = a.base.text, a.tuned.text
        if self.mode == "pairwise":
            return [PAIRWISE.format(opening=opening(a), first=x, second=y) for x, y in ((base, tuned), (tuned, base))]
        return [RUBRIC.format(opening=opening(a), answer=answer) for answer in (base, tuned)]

    def key(self, a: Answered) -> str | None:
        """The request's name among the kept replies. None where no judge is needed: equal answers are a tie."""
        return None if self.mode == "pairwise" and a.base.text == a.tuned.text else key_of(*self.questions(a))


def opening(a: Answered) -> str:
    """What stands before the answers: the user, where anything is known, and the request."""
    about = f"About a user: {a.context}\n\n" if a.context else ""
    return f"{about}The user asked: {a.request}\n\n"


class KeptReplies:
    """The judges' replies in `path`, by the hashes of their questions: what was paid for outlives other settings.

    A line holds a judge and its rows for one chunk of requests; a row is null where it replied nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[Judge, dict[str, Row | None]] = {}
        lines = read_jsonl(path)
        if lines:
            write_jsonl(path, lines, seal=True)  # a torn last line goes
        for line in lines:
            self.rows(Judge(*line["judge"])).update(line["rows"])

    def rows(self, judge: Judge) -> dict[str, Row | None]:
        return self.known.setdefault(judge, {})

    def missing(self, judge: Judge, answered: Sequence[Answered]) -> dict[str, Answered]:
        """The requests that the judge has not replied to, each question once."""
        missing: dict[str, Answered] = {}
        for a in answered:
            key = judge.key(a)
            if key is not None and self.rows(judge).get(key) is None:
                missing.setdefault(key, a)
        return missing

    def replies(self, judge: Judge, answered: Sequence[Answered]) -> list[Row | None] | None:
        """The judge's row for each request, None for one without a reply. None alone where one request was never asked."""
        keys = [judge.key(a) for a in answered]
        known = self.rows(judge)
        if not all(key is None or key in known for key in keys):
            return None
        return [SILENT if key is None else known[key] for key in keys]

    def add(self, judge: Judge, rows: dict[str, Row | None]) -> None:
        append_jsonl(self.path, [{"judge": [judge.name, judge.model, judge.mode], "rows": rows}])
        self.rows(judge).update(rows)


def named(settings: Evaluation) -> list[Judge]:
    """The judges that the recipe names, with the model and the mode."""
    model = settings.judge_model
    return [Judge(name, model if endpoint.is_url(name) else None, settings.judge_mode) for name in settings.judges]


def bar_total(recipe: Recipe, requests: int) -> int:
    """How much the bar moves in `evaluate`."""
    return requests * len(recipe.evaluation.judges)


def complete(settings: Evaluation, judged: Judged | None) -> bool:
    """Whether `judged` holds the opinion of each judge that the recipe names, with a reply to every request."""
    opinions: list[Opinion] = [judged, *judged.others] if judged else []
    return set(named(settings)) <= {Judge(o.judge, o.model, o.mode) for o in opinions if not o.unanswered}


def evaluate(bench: Workbench, answered: Sequence[Answered]) -> Judged | None:
    """The judges' opinions of the base's and the trained model's answers, and how far they agree. None without any judge.

    Judges are those that the recipe names, those that judged all of these answers before, and the embedder where there is one.
    Raises Failure where an endpoint does not answer; what was judged is kept.
    """
    if not answered:
        return None
    recipe, kept = bench.recipe, KeptReplies(bench.folder / FILE)
    voting = Voting(answered, recipe.evaluation, recipe.seed)
    wanted = named(recipe.evaluation)
    for judge in wanted:
        Asking(bench, kept, judge).run(answered)
    opinions: list[Opinion] = []
    votes: list[Votes] = []
    for judge in [*wanted, *(one for one in kept.known if one not in wanted)]:
        rows = kept.replies(judge, answered)
        if rows is None or (judge not in wanted and not any(kept.rows(judge).values())):
            bench.reporter.say(f"  {judge.name}: left out, as it has not judged all of these answers; name it as a judge to go on")
            continue
        filled = [row or SILENT for row in rows]
        opinions.append(voting.opinion(filled, judge.mode, judge.name, judge.model, rows.count(None)))
        votes.append(voting.votes(filled, judge.mode))
    if bench.embedder is not None:
        filled = closer(bench.embedder, answered)
        opinions.append(replace(voting.opinion(filled, "pairwise", EMBEDDING), first_preferred=None))
        votes.append(voting.votes(filled, "pairwise"))
    if not opinions:
        return None
    labels = [_label(one, opinions) for one in opinions]
    pairs = [(i, j) for i in range(len(votes)) for j in range(i + 1, len(votes))]
    return Judged(
        **vars(opinions[0]),
        others=opinions[1:],
        agreement=[voting.agreement([labels[i], labels[j]], votes[i], votes[j]) for i, j in pairs],
    )


def _label(one: Opinion, among: Sequence[Opinion]) -> str:
    """A judge's name and, where others have the same, the model that it serves and the mode."""
    if sum(other.judge == one.judge for other in among) == 1:
        return one.judge
    return f"{one.judge} ({', '.join(filter(None, (one.model, one.mode)))})"


@dataclass(frozen=True)
class Asking:
    """Gets what a judge has not replied to yet."""

    bench: Workbench
    kept: KeptReplies
    judge: Judge

    def run(self, answered: Sequence[Answered]) -> None:
        missing = self.kept.missing(self.judge, answered)
        if self.bench.bar:
            self.bench.bar.skip(len(answered) - len(missing))
        if missing and self.judge.model:
            self._endpoint(answered, missing)
        elif missing:
            self._local(missing)

    def _local(self, missing: dict[str, Answered]) -> None:
        loaded = None if self.judge.name == "base" else load.load(self.judge.name)

        def read(questions: Sequence[str], allowed: Sequence[str]) -> list[list[float]]:
            if loaded:
                return probabilities(loaded.model, loaded.tokenizer, questions, allowed)
            with self.bench.as_side("base"):
                return probabilities(self.bench.model, self.bench.tokenizer, questions, allowed)

        self._put(missing, max(1, self.bench.recipe.pairs.batch // 2), read)

    def _endpoint(self, answered: Sequence[Answered], missing: dict[str, Answered]) -> None:
        [url] = endpoint.endpoints(self.bench.recipe.evaluation)
        self.bench.reporter.warn(url.warning())
        replies: list[endpoint.Reply] = []

        def read(questions: Sequence[str], allowed: Sequence[str]) -> list[list[float] | None]:
            replies.extend(endpoint.ask(url, question) for question in questions)
            return [written(reply.text, allowed) if reply.text else None for reply in replies[-len(questions) :]]

        try:
            self._put(missing, 1, read)  # one at a time: every reply that was paid for is kept
        except Failure as error:
            total = len({self.judge.key(a) for a in answered} - {None})
            done = total - len(self.kept.missing(self.judge, answered))
            raise Failure(
                f"{error}; {done} of {total} requests are judged and kept: the same command goes on from there, and "
                f"`mipo-mlx eval {self.kept.path.parent} --set evaluation.judge=null` leaves the judge out"
            ) from None
        warn_of_nonsense(replies, self.judge.allowed, self.bench.reporter)

    def _put(self, missing: dict[str, Answered], size: int, read: Read) -> None:
        """Put the questions of `size` requests at a time, and keep the rows."""
        items = list(missing.items())
        for start in range(0, len(items), size):
            part = items[start : start + size]
            replies = read([question for _, a in part for question in self.judge.questions(a)], self.judge.allowed)
            rows: dict[str, Row | None] = {}
            for i, (key, _) in enumerate(part):
                first, second = replies[2 * i : 2 * i + 2]
                rows[key] = None if first is None or second is None else [first, second]
            self.kept.add(self.judge, rows)
            if self.bench.bar:
                self.bench.bar.advance(len(part))


def warn_of_nonsense(replies: Sequence[endpoint.Reply], allowed: Sequence[str], reporter: Reporter) -> None:
    """Warn where most replies are no verdict, with one of them: it shows why."""
    odd = [reply for reply in replies if not any(written(reply.text, allowed))]
    if 2 * len(odd) > len(replies):
        reporter.warn(f"evaluation.judge: {len(odd)} of {len(replies)} replies are no verdict, the last one {odd[-1].shown()}")


def written(reply: str, allowed: Sequence[str]) -> list[float]:
    """1 for the allowed answer that a reply consists of (its first line where there are more), 0 for all in any other case."""
    match = REPLY.fullmatch(reply) or REPLY.fullmatch(reply.partition("\n")[0])
    return [float(match is not None and match[1].upper() == text) for text in allowed]


def probabilities(model: Any, tokenizer: Any, questions: Sequence[str], allowed: Sequence[str]) -> list[list[float]]:
    """For each question the probability of each allowed answer, as it is, with the end of the turn left open."""
    prompts = [encode(tokenizer, [{"role": "user", "content": question}]) for question in questions]
    answers = [tokenizer.encode(text, add_special_tokens=False) for text in allowed]
    scored = logprobs.token_logprobs(model, prompts, [answers] * len(prompts))
    return [[float(np.exp(one.sum(dtype="float64"))) for one in row] for row in scored]
