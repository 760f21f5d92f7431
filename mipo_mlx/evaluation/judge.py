"""Judges of fresh answers: a local model, an endpoint, sentence embeddings; pairwise in both orders, or the 1-to-5 rubric.

A local model is read by likelihood: how probable "A" and "B" (or the digits) are as its whole answer. An endpoint is read by what
it writes. What a judge cannot answer is counted, not scored.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import logprobs
from ..errors import Failure
from ..models import adapters, chat, loading
from ..progress import Bar, Reporter
from ..recipe import Evaluation, Recipe
from . import embedding, endpoint, length
from .answers import Asked, clusters_of
from .intervals import single
from .journal import Journal
from .measures import Measures

SENSE = 0.5  # of the judge's probability must lie on the allowed answers, else it has not understood
PAIRWISE = (
    "{asked}Answer A: {first}\n\nAnswer B: {second}\n\n"
    "Which answer suits this user better? Reply with the letter A or B alone."
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

Read = Callable[[Sequence[str], Sequence[str]], list[list[float]]]  # questions, allowed answers -> their probabilities


def names(settings: Evaluation) -> list[str]:
    """The judges that the recipe names, in order."""
    return [settings.judge] if isinstance(settings.judge, str) else list(settings.judge or [])


def work(recipe: Recipe, requests: int) -> int:
    """How much the bar moves in `evaluate`."""
    return requests * len(names(recipe.evaluation))


def signature(settings: Evaluation) -> list[list[str | None]]:
    """What tells these judges' verdicts from others'."""
    model = settings.judge_model
    return [[name, model if endpoint.is_url(name) else None, settings.judge_mode] for name in names(settings)]


def signature_of(judged: dict[str, Any] | None) -> list[list[str | None]]:
    """The same of verdicts in eval.json."""
    verdicts = [judged, *judged["others"]] if judged else []
    return [[v["judge"], v["model"], v["mode"]] for v in verdicts if v["judge"] != "embedding"]


def evaluate(
    model: Any,
    tokenizer: Any,
    asked: Sequence[Asked],
    recipe: Recipe,
    journal: Journal,
    embedder: Any,
    reporter: Reporter,
    bar: Bar | None = None,
) -> dict[str, Any] | None:
    """What the judges say of the base's and the tuned model's answers: the first one's verdict, the other ones' under "others", and
    how far they agree. Judges are "base", a model by name, the URL of an endpoint, and the embedder where there is one. None
    without any judge.

    `model` has adapters on it. Raises Failure where an endpoint does not answer; what was judged stays in the journal.
    """
    if not asked:
        return None
    settings = recipe.evaluation
    verdicts, votes = [], []
    for name, served, mode in signature(settings):
        if served:
            [url] = endpoint.endpoints(settings)
            rows = _ask_endpoint(url, asked, mode, journal, reporter, bar)
        elif name == "base":
            with adapters.disabled(model):
                rows = _ask_model(name, model, tokenizer, asked, recipe, journal, bar)
        else:
            loaded = loading.load(name)
            rows = _ask_model(name, loaded.model, loaded.tokenizer, asked, recipe, journal, bar)
        conclude, votes_of = (pairwise, pairwise_votes) if mode == "pairwise" else (rubric, rubric_votes)
        verdict = conclude(asked, rows, settings.bootstrap, recipe.seed)
        verdicts.append({"judge": name, "model": served, "mode": mode, **verdict})
        votes.append(votes_of(asked, rows))
    if embedder is not None:
        rows = closer(embedder, asked)
        verdict = pairwise(asked, rows, settings.bootstrap, recipe.seed)
        # It reads one answer at a time, so it has no position to lean to.
        verdicts.append({"judge": "embedding", "model": None, "mode": "pairwise", **verdict, "first_preferred": None})
        votes.append(pairwise_votes(asked, rows))
    if not verdicts:
        return None
    return {
        **verdicts[0],
        "others": verdicts[1:],
        "agreement": [
            {
                "judges": [verdicts[i]["judge"], verdicts[j]["judge"]],
                **agreement(asked, votes[i], votes[j], settings.bootstrap, recipe.seed),
            }
            for i in range(len(votes))
            for j in range(i + 1, len(votes))
        ],
    }


def _ask_model(
    name: str, model: Any, tokenizer: Any, asked: Sequence[Asked], recipe: Recipe, journal: Journal, bar: Bar | None
) -> list[Any]:
    mode = recipe.evaluation.judge_mode

    def read(questions: Sequence[str], allowed: Sequence[str]) -> list[list[float]]:
        return _probabilities(model, tokenizer, questions, allowed)

    def compute(_: int, part: Sequence[Asked]) -> list[Any]:
        return _judge(part, mode, read)

    return journal.map(f"judge {name}, {mode}", asked, max(1, recipe.pairs.batch // 2), compute, bar)


def _ask_endpoint(
    judge: endpoint.Endpoint, asked: Sequence[Asked], mode: str, journal: Journal, reporter: Reporter, bar: Bar | None
) -> list[Any]:
    """One request a chunk: every verdict that was paid for is kept."""
    phase = f"judge {judge.url}, {judge.model}, {mode}"
    known = journal.finished(phase)
    if known < len(asked):
        reporter.warn(judge.warning())

    def read(questions: Sequence[str], allowed: Sequence[str]) -> list[list[float]]:
        return [written(endpoint.ask(judge, question), allowed) for question in questions]

    def compute(_: int, part: Sequence[Asked]) -> list[Any]:
        if mode == "pairwise" and part[0].base.text == part[0].tuned.text:
            return [[[0.0, 0.0]] * 2]  # a tie, whatever would be said
        return _judge(part, mode, read)

    try:
        return journal.map(phase, asked, 1, compute, bar)
    except Failure as error:
        raise Failure(
            f"{error}; {journal.finished(phase)} of {len(asked)} requests are judged and kept: the same command goes on from "
            "there, and --set evaluation.judge=null leaves the judge out"
        ) from None


def written(reply: str, allowed: Sequence[str]) -> list[float]:
    """1 for the allowed answer that a reply consists of (its first line where there are more), 0 for all in any other case."""
    found = REPLY.fullmatch(reply) or REPLY.fullmatch(reply.partition("\n")[0])
    return [float(bool(found) and found[1].upper() == text) for text in allowed]  # type: ignore[index]


def _judge(part: Sequence[Asked], mode: str, read: Read) -> list[Any]:
    """For each request two rows of probabilities. Pairwise: [P(A), P(B)] with the base's answer first, then with the tuned model's
    first. Rubric: those of the digits for the base's answer, then for the tuned model's."""
    if mode == "pairwise":
        orders = [(a, sides) for a in part for sides in ((a.base.text, a.tuned.text), (a.tuned.text, a.base.text))]
        questions = [PAIRWISE.format(asked=_opening(a), first=first, second=second) for a, (first, second) in orders]
    else:
        questions = [RUBRIC.format(asked=_opening(a), answer=side.text) for a in part for side in (a.base, a.tuned)]
    found = read(questions, LETTERS if mode == "pairwise" else DIGITS)
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
        rows = embedding.judge(embedder, [getattr(a, side).text for a in asked], [a.group.apart for a in asked])
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
        "length_controlled": length.controlled(outcomes, lengths, clusters, draws, seed),
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
