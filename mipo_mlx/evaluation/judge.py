"""What judges said, kept by what they were asked: a verdict that was paid for outlives other settings of the evaluation.

~~~ Judges of fresh answers: a local model, an endpoint, sentence embeddings; pairwise in both orders, or the 1-to-5 rubric.

A local model is read by likelihood: how probable "A" and "B" (or the digits) are as its whole answer. An endpoint is read by what
it writes. What a judge cannot answer is counted, not scored.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import logprobs
from ..errors import Failure
from ..files import append_jsonl, read_jsonl, write_jsonl
from ..models import adapters, embedding, load
from ..models import prompts as chat
from ..progress import Bar, Reporter
from ..recipe import Evaluation, Recipe
from . import endpoint, statistics
from .answers import clusters_of
from .requests import Asked
from .statistics import Measures, case, single

FILE = "judge-verdicts.jsonl"
Judge = tuple[str, str | None, str]  # its name, the model that an endpoint serves, the mode


class Verdicts:
    """One line for each chunk of requests: the judge, and its rows by a hash of its questions; null where it replied nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[Judge, dict[str, Any]] = {}
        lines = read_jsonl(path)
        if lines:
            write_jsonl(path, lines)  # a torn last line goes
        for line in lines:
            name, model, mode = line["judge"]
            self.known.setdefault((name, model, mode), {}).update(line["rows"])

    def rows(self, judge: Judge) -> dict[str, Any]:
        """The judge's rows by the hashes of its questions."""
        return self.known.setdefault(judge, {})

    def missing(self, judge: Judge, keys: Sequence[str]) -> list[int]:
        """The places of `keys` that the judge has not replied to, each key once."""
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        return sorted(place for key, place in first.items() if self.rows(judge).get(key) is None)

    def add(self, judge: Judge, rows: dict[str, Any]) -> None:
        append_jsonl(self.path, [{"judge": judge, "rows": rows}])
        self.rows(judge).update(rows)


SENSE = 0.5  # of the judge's probability must lie on the allowed answers, else it has not understood
PAIRWISE = (
    "{asked}Answer A: {first}\n\nAnswer B: {second}\n\nWhich answer suits this user better? Reply with the letter A or B alone."
)
RUBRIC = (
    "{asked}Answer: {answer}\n\n"
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

SILENT = [[0.0, 0.0]] * 2  # the row of a request without a reply, or without a question
# Questions, allowed answers -> their probabilities; None for a question that was not replied to.
Read = Callable[[Sequence[str], Sequence[str]], Sequence[list[float] | None]]


def names(settings: Evaluation) -> list[str]:
    """The judges that the recipe names, in order."""
    return [settings.judge] if isinstance(settings.judge, str) else list(settings.judge or [])


def work(recipe: Recipe, requests: int) -> int:
    """How much the bar moves in `evaluate`."""
    return requests * len(names(recipe.evaluation))


def signature(settings: Evaluation) -> list[Judge]:
    """What tells these judges' verdicts from others'."""
    model = settings.judge_model
    return [(name, model if endpoint.is_url(name) else None, settings.judge_mode) for name in names(settings)]


def all_said(settings: Evaluation, judged: dict[str, Any] | None) -> bool:
    """Whether the verdicts in eval.json hold those of each judge that the recipe names, and none replied nothing anywhere."""
    verdicts = [judged, *judged["others"]] if judged else []
    said = [(v["judge"], v["model"], v["mode"]) for v in verdicts if not v.get("unanswered")]
    return set(signature(settings)) <= set(said)


def evaluate(
    model: Any,
    tokenizer: Any,
    asked: Sequence[Asked],
    recipe: Recipe,
    verdicts: Verdicts,
    embedder: Any,
    reporter: Reporter,
    bar: Bar | None = None,
) -> dict[str, Any] | None:
    """What the judges say of the base's and the tuned model's answers: the first one's verdict, the other ones' under "others", and
    how far they agree. Judges are "base", a model by name, the URL of an endpoint, those that judged all of these answers before,
    and the embedder where there is one. None without any judge.

    `model` has adapters on it. Raises Failure where an endpoint does not answer; what was judged is kept.
    """
    if not asked:
        return None
    settings = recipe.evaluation
    named = signature(settings)
    for one in named:
        _complete(one, model, tokenizer, asked, recipe, verdicts, reporter, bar)
    found, votes = [], []
    for name, served, mode in [*named, *(one for one in verdicts.known if one not in named)]:
        known = verdicts.rows((name, served, mode))
        rows = _rows(known, asked, mode)
        if rows is None or ((name, served, mode) not in named and not any(known.values())):
            reporter.say(f"  {name}: not all of these answers are judged, so what it said is left out; name it as a judge to go on")
            continue
        conclude, votes_of = (pairwise, pairwise_votes) if mode == "pairwise" else (rubric, rubric_votes)
        verdict = conclude(asked, [row or SILENT for row in rows], settings.bootstrap, recipe.seed)
        found.append({"judge": name, "model": served, "mode": mode, **verdict, "unanswered": rows.count(None)})
        votes.append(votes_of(asked, [row or SILENT for row in rows]))
    if embedder is not None:
        rows = closer(embedder, asked)
        verdict = pairwise(asked, rows, settings.bootstrap, recipe.seed)
        # It reads one answer at a time, so it has no position to lean to.
        found.append({"judge": "embedding", "model": None, "mode": "pairwise", **verdict, "first_preferred": None, "unanswered": 0})
        votes.append(pairwise_votes(asked, rows))
    if not found:
        return None
    labels = [_label(one, found) for one in found]
    return {
        **found[0],
        "others": found[1:],
        "agreement": [
            {
                "judges": [labels[i], labels[j]],
                **agreement(asked, votes[i], votes[j], settings.bootstrap, recipe.seed),
            }
            for i in range(len(votes))
            for j in range(i + 1, len(votes))
        ],
    }


def _label(one: dict[str, Any], among: Sequence[dict[str, Any]]) -> str:
    """A judge's name and, where others have the same, the model that it serves and the mode."""
    if sum(other["judge"] == one["judge"] for other in among) == 1:
        return one["judge"]
    return f"{one['judge']} ({', '.join(filter(None, (one['model'], one['mode'])))})"


def _rows(known: dict[str, Any], asked: Sequence[Asked], mode: str) -> list[Any] | None:
    """The judge's row for each request, None where it replied nothing; None in all if it was never asked about one of them."""
    keys = [None if _tie(a, mode) else _key(a, mode) for a in asked]
    if not all(key is None or key in known for key in keys):
        return None
    return [SILENT if key is None else known[key] for key in keys]


def _tie(a: Asked, mode: str) -> bool:
    """Equal answers are a tie, whatever would be said: no judge is asked."""
    return mode == "pairwise" and a.base.text == a.tuned.text


def _key(a: Asked, mode: str) -> str:
    return case(*_questions(a, mode))


def _complete(
    judge: Judge,
    model: Any,
    tokenizer: Any,
    asked: Sequence[Asked],
    recipe: Recipe,
    verdicts: Verdicts,
    reporter: Reporter,
    bar: Bar | None,
) -> None:
    """Ask a judge what it has not replied to yet."""
    name, served, mode = judge
    different = [a for a in asked if not _tie(a, mode)]
    keys = [_key(a, mode) for a in different]
    places = verdicts.missing(judge, keys)
    if bar:
        bar.skip(len(asked) - len(places))
    if not places:
        return
    if served:
        [url] = endpoint.endpoints(recipe.evaluation)
        reporter.warn(url.warning())
        replies: list[endpoint.Reply] = []

        def read(questions: Sequence[str], allowed: Sequence[str]) -> list[list[float] | None]:
            replies.extend(endpoint.ask(url, question) for question in questions)
            return [written(reply.text, allowed) if reply.text else None for reply in replies[-len(questions) :]]

        try:
            _ask(judge, different, keys, places, 1, read, verdicts, bar)  # one at a time: every verdict that was paid for is kept
        except Failure as error:
            done = len(set(keys)) - len(verdicts.missing(judge, keys))
            raise Failure(
                f"{error}; {done} of {len(set(keys))} requests are judged and kept: the same command goes on from there, and "
                f"`mipo-mlx eval {verdicts.path.parent} --set evaluation.judge=null` leaves the judge out"
            ) from None
        _tell_nonsense(replies, LETTERS if mode == "pairwise" else DIGITS, reporter)
        return
    loaded = None if name == "base" else load.load(name)

    def likelihoods(questions: Sequence[str], allowed: Sequence[str]) -> list[list[float]]:
        if loaded:
            return _probabilities(loaded.model, loaded.tokenizer, questions, allowed)
        with adapters.disabled(model):
            return _probabilities(model, tokenizer, questions, allowed)

    _ask(judge, different, keys, places, max(1, recipe.pairs.batch // 2), likelihoods, verdicts, bar)


def _ask(
    judge: Judge,
    asked: Sequence[Asked],
    keys: Sequence[str],
    places: Sequence[int],
    size: int,
    read: Read,
    verdicts: Verdicts,
    bar: Bar | None,
) -> None:
    mode = judge[2]
    for start in range(0, len(places), size):
        part = places[start : start + size]
        found = _judge([asked[i] for i in part], mode, read)
        verdicts.add(judge, {keys[i]: None if None in row else row for i, row in zip(part, found, strict=True)})
        if bar:
            bar.advance(len(part))


def _tell_nonsense(replies: Sequence[endpoint.Reply], allowed: Sequence[str], reporter: Reporter) -> None:
    """Warn where most replies are no verdict, with one of them: it says why."""
    odd = [reply for reply in replies if not any(written(reply.text, allowed))]
    if 2 * len(odd) > len(replies):
        reporter.warn(f"evaluation.judge: {len(odd)} of {len(replies)} replies are no verdict, the last one {odd[-1].shown()}")


def written(reply: str, allowed: Sequence[str]) -> list[float]:
    """1 for the allowed answer that a reply consists of (its first line where there are more), 0 for all in any other case."""
    found = REPLY.fullmatch(reply) or REPLY.fullmatch(reply.partition("\n")[0])
    return [float(bool(found) and found[1].upper() == text) for text in allowed]  # type: ignore[index]


def _questions(a: Asked, mode: str) -> list[str]:
    """What a judge is asked of one request. Pairwise: with the base's answer first, then with the tuned model's first. Rubric: of
    the base's answer, then of the tuned model's."""
    base, tuned = a.base.text, a.tuned.text
    if mode == "pairwise":
        return [PAIRWISE.format(asked=_opening(a), first=x, second=y) for x, y in ((base, tuned), (tuned, base))]
    return [RUBRIC.format(asked=_opening(a), answer=answer) for answer in (base, tuned)]


def _judge(part: Sequence[Asked], mode: str, read: Read) -> list[Any]:
    """For each request two rows of probabilities, one a question of `_questions`: [P(A), P(B)], or those of the digits."""
    found = read([question for a in part for question in _questions(a, mode)], LETTERS if mode == "pairwise" else DIGITS)
    return [found[2 * i : 2 * i + 2] for i in range(len(part))]


def _opening(a: Asked) -> str:
    """What a judge is told before the answers: of the user, where anything is known, and the request."""
    about = f"About a user: {a.context}\n\n" if a.context else ""
    return f"{about}The user asked: {a.prompt}\n\n"


def _probabilities(model: Any, tokenizer: Any, questions: Sequence[str], allowed: Sequence[str]) -> list[list[float]]:
    """For each question the probability of each allowed answer, as it is, with the end of the turn left open."""
    prompts = [chat.encode(tokenizer, [{"role": "user", "content": question}]) for question in questions]
    said = [tokenizer.encode(text, add_special_tokens=False) for text in allowed]
    scored = logprobs.token_logprobs(model, prompts, [said] * len(prompts))
    return [[float(np.exp(one.sum(dtype="float64"))) for one in row] for row in scored]


def closer(embedder: Any, asked: Sequence[Asked]) -> list[Any]:
    """The embedder's verdicts in the form of `_judge`: the answer that is closer to its own context than to the others."""
    margins = []
    for side in ("base", "tuned"):
        rows = embedding.cosines(embedder, [getattr(a, side).text for a in asked], [a.group.apart for a in asked])
        margins.append([row[a.own] - float(np.mean(np.delete(row, a.own))) for row, a in zip(rows, asked, strict=True)])
    found = []
    for base, tuned in zip(*margins, strict=True):
        share = 0.5 if base == tuned else float(tuned > base)  # the tuned answer's
        found.append([[1 - share, share], [share, 1 - share]])
    return found


def pairwise_votes(asked: Sequence[Asked], rows: Sequence[Any]) -> list[float | None]:
    """1 where the judge prefers the tuned answer in both orders, 0 where it does in neither; a verdict that turns with the order is
    a tie (0.5), as are equal answers. An answer of the judge that puts less than half of its probability on A and B is nonsense:
    None."""
    votes: list[float | None] = []
    for a, orders in zip(asked, rows, strict=True):
        if a.base.text == a.tuned.text:
            votes.append(0.5)
        elif min(sum(order) for order in orders) < SENSE:
            votes.append(None)
        else:
            each = [0.5 if b == t else float(t > b) for b, t in (orders[0], orders[1][::-1])]  # for the tuned answer
            votes.append(0.5 if sum(each) not in (0, 2) else each[0])
    return votes


def pairwise(asked: Sequence[Asked], rows: Sequence[Any], draws: int, seed: int) -> dict[str, Any]:
    """Wins, ties and losses of the tuned model (`pairwise_votes`); requests that the judge could not judge are left out."""
    votes = pairwise_votes(asked, rows)
    kept = [(a, vote) for a, vote in zip(asked, votes, strict=True) if vote is not None]
    outcomes = [vote for _, vote in kept]
    lengths = [len(a.tuned.tokens) - len(a.base.tokens) for a, _ in kept]
    clusters = clusters_of([a for a, _ in kept])
    looked = [  # at different answers, by a judge that understood
        (a, float(np.mean([0.5 if x == y else float(x > y) for x, y in orders])))
        for a, orders, vote in zip(asked, rows, votes, strict=True)
        if vote is not None and a.base.text != a.tuned.text
    ]
    first = [share for _, share in looked]
    counts = {name: sum(o == value for o in outcomes) for name, value in (("win", 1.0), ("tie", 0.5), ("loss", 0.0))}
    return {
        **counts,
        "nonsense": votes.count(None),
        "win_rate": single(outcomes, clusters, draws, seed, share=True),
        "length_controlled": statistics.controlled(outcomes, lengths, clusters, draws, seed),
        # 0.5: no position bias
        "first_preferred": single(first, clusters_of([a for a, _ in looked]), draws, seed, share=True) if first else None,
    }


def rubric_votes(asked: Sequence[Asked], rows: Sequence[Any]) -> list[float | None]:
    """1 where the tuned answer has the higher digit, 0 where it has the lower, 0.5 where both are the same; None: nonsense."""
    votes: list[float | None] = []
    for pair in rows:
        if min(sum(p) for p in pair) < SENSE:
            votes.append(None)
        else:
            base, tuned = (round(_score(p)) for p in pair)
            votes.append(0.5 if base == tuned else float(tuned > base))
    return votes


def rubric(asked: Sequence[Asked], rows: Sequence[Any], draws: int, seed: int) -> dict[str, Any]:
    """Mean scores of both models' answers, 1 to 5, and wins, ties and losses by the rounded scores."""
    votes = rubric_votes(asked, rows)
    kept = [(a, pair) for a, pair, vote in zip(asked, rows, votes, strict=True) if vote is not None]
    clusters = clusters_of([a for a, _ in kept])
    measures = Measures([f"{p} {c}" for c, p in zip(*clusters, strict=True)], clusters, draws, seed)
    measures.add("rubric", *([_score(pair[side]) for _, pair in kept] for side in (0, 1)))
    counts = {name: votes.count(value) for name, value in (("win", 1.0), ("tie", 0.5), ("loss", 0.0))}
    return {**counts, "nonsense": votes.count(None), "metrics": measures.metrics}


def _score(digits: Sequence[float]) -> float:
    """The expected digit, given that the judge says one."""
    return float(np.dot(digits, range(1, 6)) / sum(digits))


def agreement(
    asked: Sequence[Asked], a: Sequence[float | None], b: Sequence[float | None], draws: int, seed: int
) -> dict[str, Any]:
    """On the requests that both judged: the share with the same verdict, and Cohen's kappa (1960), which is 0 for two judges whose
    verdicts are independent and 1 for equal ones; None where each gives one and the same verdict throughout."""
    both = [(one, x, y) for one, x, y in zip(asked, a, b, strict=True) if x is not None and y is not None]
    same = [float(x == y) for _, x, y in both]
    chance = sum(float(np.mean([x == v for _, x, _ in both]) * np.mean([y == v for _, _, y in both])) for v in (0, 0.5, 1) if both)
    kappa = (float(np.mean(same)) - chance) / (1 - chance) if both and chance < 1 else None
    share = single(same, clusters_of([one for one, _, _ in both]), draws, seed, share=True)
    return {"requests": len(both), "same": share, "kappa": kappa}
