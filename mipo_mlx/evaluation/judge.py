"""A local model as judge of fresh answers: pairwise in both orders, or the 1-to-5 rubric; what it cannot answer is counted, not
scored. It is read by likelihood: how probable "A" and "B" (or the digits) are as its whole answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import logprobs
from ..models import adapters, chat, loading
from ..progress import Bar
from ..recipe import Recipe
from .answers import Asked
from .intervals import single
from .journal import Journal
from .measures import Measures

SENSE = 0.5  # of the judge's probability must lie on the allowed answers, else it has not understood
PAIRWISE = (
    "About a user: {context}\n\nThe user asked: {prompt}\n\nAnswer A: {first}\n\nAnswer B: {second}\n\n"
    "Which answer suits this user better? Reply with the letter A or B alone."
)
RUBRIC = (
    "About a user: {context}\n\nThe user asked: {prompt}\n\nAnswer: {answer}\n\n"
    "How well does the answer address what this user prefers and needs? 1: general, it could be for anybody. 2: hardly. "
    "3: in part. 4: well. 5: fully, it fits this user alone. Reply with one digit alone."
)
DIGITS = ("1", "2", "3", "4", "5")


def work(recipe: Recipe, requests: int) -> int:
    """How much the bar moves in `evaluate`."""
    return requests if recipe.evaluation.judge else 0


def evaluate(
    model: Any, tokenizer: Any, asked: Sequence[Asked], recipe: Recipe, journal: Journal, bar: Bar | None = None
) -> dict[str, Any] | None:
    """What the judge of the recipe ("base", or a model by name) says of the base's and the tuned model's answers; None without one.

    `model` has adapters on it.
    """
    name = recipe.evaluation.judge
    if not name or not asked:
        return None
    read = _read_pairs if recipe.evaluation.judge_mode == "pairwise" else _read_scores
    if name == "base":
        with adapters.disabled(model):
            rows = _ask(model, tokenizer, asked, recipe, journal, bar, read)
    else:
        judge = loading.load(name)
        rows = _ask(judge.model, judge.tokenizer, asked, recipe, journal, bar, read)
    conclude = pairwise if recipe.evaluation.judge_mode == "pairwise" else rubric
    return {"judge": name, "mode": recipe.evaluation.judge_mode, **conclude(asked, rows, recipe.evaluation.bootstrap, recipe.seed)}


def _ask(
    model: Any, tokenizer: Any, asked: Sequence[Asked], recipe: Recipe, journal: Journal, bar: Bar | None, read: Any
) -> list[Any]:
    def compute(_: int, part: Sequence[Asked]) -> list[Any]:
        return read(model, tokenizer, part)

    return journal.map("judge", asked, max(1, recipe.pairs.batch // 2), compute, bar)


def _probabilities(model: Any, tokenizer: Any, questions: Sequence[str], allowed: Sequence[str]) -> list[list[float]]:
    """For each question the probability of each allowed answer, as it is, with the end of the turn left open."""
    prompts = [chat.encode(tokenizer, [{"role": "user", "content": question}]) for question in questions]
    said = [tokenizer.encode(text, add_special_tokens=False) for text in allowed]
    scored = logprobs.token_logprobs(model, prompts, [said] * len(prompts))
    return [[float(np.exp(one.sum(dtype="float64"))) for one in row] for row in scored]


def _read_pairs(model: Any, tokenizer: Any, part: Sequence[Asked]) -> list[Any]:
    """[P(A), P(B)] with the base's answer first, then with the tuned model's first."""
    orders = [[(a.base.text, a.tuned.text), (a.tuned.text, a.base.text)] for a in part]
    questions = [
        PAIRWISE.format(context=a.group.contexts[a.own], prompt=a.group.prompt, first=first, second=second)
        for a, order in zip(part, orders, strict=True)
        for first, second in order
    ]
    found = _probabilities(model, tokenizer, questions, ("A", "B"))
    return [found[2 * i : 2 * i + 2] for i in range(len(part))]


def _read_scores(model: Any, tokenizer: Any, part: Sequence[Asked]) -> list[Any]:
    """The probabilities of the digits for the base's answer, then for the tuned model's."""
    questions = [
        RUBRIC.format(context=a.group.contexts[a.own], prompt=a.group.prompt, answer=side.text)
        for a in part
        for side in (a.base, a.tuned)
    ]
    found = _probabilities(model, tokenizer, questions, DIGITS)
    return [found[2 * i : 2 * i + 2] for i in range(len(part))]


def pairwise(asked: Sequence[Asked], rows: Sequence[Any], draws: int, seed: int) -> dict[str, Any]:
    """Wins, ties and losses of the tuned model. It wins where the judge prefers it in both orders and loses where it does in
    neither; a verdict that turns with the order is a tie, as are equal answers. An answer of the judge that puts less than half
    of its probability on A and B is nonsense, and its request is left out.
    """
    outcomes: list[float] = []
    lengths: list[float] = []
    clusters: list[list[str]] = [[], []]
    nonsense = first_preferred = judged = 0
    for a, orders in zip(asked, rows, strict=True):
        same = a.base.text == a.tuned.text
        if not same and min(sum(order) for order in orders) < SENSE:
            nonsense += 1
            continue
        if not same:
            votes = [0.5 if b == t else float(t > b) for b, t in (orders[0], orders[1][::-1])]  # for the tuned answer
            judged += 2
            first_preferred += sum(0.5 if x == y else float(x > y) for x, y in orders)
        score = 0.5 if same or sum(votes) not in (0, 2) else votes[0]
        outcomes.append(score)
        lengths.append(len(a.tuned.tokens) - len(a.base.tokens))
        clusters[0].append(a.group.context_ids[a.own])
        clusters[1].append(a.group.prompt_id)
    counts = {name: sum(o == value for o in outcomes) for name, value in (("win", 1.0), ("tie", 0.5), ("loss", 0.0))}
    return {
        **counts,
        "nonsense": nonsense,
        "win_rate": single(outcomes, clusters, draws, seed),
        "length_controlled": length_controlled(outcomes, lengths) if outcomes else None,
        "first_preferred": first_preferred / judged if judged else None,  # 0.5: no position bias
    }


def rubric(asked: Sequence[Asked], rows: Sequence[Any], draws: int, seed: int) -> dict[str, Any]:
    """Mean scores of both models' answers, 1 to 5: the expected digit, given that the judge says one."""
    kept = [(a, pair) for a, pair in zip(asked, rows, strict=True) if min(sum(p) for p in pair) >= SENSE]
    clusters = [[a.group.context_ids[a.own] for a, _ in kept], [a.group.prompt_id for a, _ in kept]]
    measures = Measures([f"{p} {c}" for c, p in zip(*clusters, strict=True)], clusters, draws, seed)
    scores = [[float(np.dot(pair[side], range(1, 6)) / sum(pair[side])) for _, pair in kept] for side in (0, 1)]
    measures.add("rubric", *scores)
    return {"nonsense": len(asked) - len(kept), "metrics": measures.metrics}


def length_controlled(outcomes: Sequence[float], lengths: Sequence[float]) -> float:
    """The win rate that answers of equal length would have: sigmoid(a) of the logistic regression outcome ~ a + b tanh(d / sd(d))
    over the difference d in tokens (Dubois et al. 2024, length-controlled AlpacaEval), b under a light ridge."""
    d = np.asarray(lengths, dtype=np.float64)
    x = np.stack([np.ones_like(d), np.tanh(d / d.std()) if d.std() else np.zeros_like(d)], axis=1)
    y, ridge, weights = np.asarray(outcomes, dtype=np.float64), np.diag([1e-3, 1e-1]), np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-(x @ weights)))
        slope = x.T @ (p - y) + ridge @ weights
        weights -= np.linalg.solve(x.T @ (x * (p * (1 - p) + 1e-9)[:, None]) + ridge, slope)
    return float(1 / (1 + np.exp(-weights[0])))
