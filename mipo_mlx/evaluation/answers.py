"""Measures of fresh answers of the base and the trained model to the same held-out requests, side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..models import embedding
from ..models.embedding import Embed
from ..recipe import Evaluation
from ..text import diversity
from ..text.parroting import RUN, parrots, takes_users_part
from ..text.words import ALONE, quotes
from .outcome import Fresh
from .requests import Answered, Scored
from .statistics import MEAN, RELATIVE, SHARE, Estimate, Form, Measure, Measures, Resampler, key_of, too_few
from .workbench import SIDES


def evaluate(answered: Sequence[Answered], settings: Evaluation, seed: int, embedder: Embed | None = None) -> Fresh:
    """All measures, each before (the base's answers) and after (the trained model's), with paired intervals.

    embedder: a judge of another family than the model; None: none is installed.
    """
    resampler = Resampler(clusters_of(answered), settings.bootstrap, seed)
    has_contexts = any(a.context for a in answered)
    choices = sorted(set(settings.choices))
    among = [k for k in choices if k <= min(len(a.group.contexts) for a in answered)]
    measures = Measures([_key(a) for a in answered], resampler)

    for k in among:
        _identification(measures, answered, k, embedder)
    _by_base(measures, answered)
    _add(measures, answered, "cut_off", lambda a, s: s.answer.finish == "length", SHARE)
    if has_contexts:
        _add(measures, answered, "quotes_context", lambda a, s: quotes(s.text, a.context, RUN), SHARE)
        _add(measures, answered, "role_confusion", lambda a, s: takes_users_part(s.text, a.context, a.request), SHARE)
        _parroting(measures, answered)
    texts = [[a.by(side).text for a in answered] for side in SIDES]
    if len(answered) > 1:
        before, after = (diversity.self_bleu(t) for t in texts)
        measures.add("self_bleu", before, after)
    distinct = {f"distinct_{n}": _of_all_answers(*(diversity.distinct(t, n) for t in texts)) for n in (1, 2)}
    likelier = [a.tuned.total("tuned", a.own) - a.tuned.total("base", a.own) for a in answered]
    return Fresh(
        answers=len(answered),
        notes=len(set(resampler.clusters[0])),
        requests=len(set(resampler.clusters[1])),
        apart_by="context" if has_contexts else "request",
        choices=among,
        choices_left_out=[k for k in choices if k not in among],
        no_interval=too_few(resampler.clusters),
        metrics={**measures.metrics, **distinct},
        items=measures.items(),
        log_ratio_per_answer=resampler.mean(likelier),
        pmi={side: [round(pmi(a.by(side).totals("base"), a.own), 4) for a in answered] for side in SIDES},
    )


def gain_and_cost(answered: Sequence[Answered], settings: Evaluation, seed: int) -> Measures:
    """pmi_per_token, tokens, perplexity and parroting alone: the base's likelihood is enough for these."""
    measures = Measures([_key(a) for a in answered], Resampler(clusters_of(answered), settings.bootstrap, seed))
    _by_base(measures, answered)
    _parroting(measures, answered)
    return measures


def _by_base(measures: Measures, answered: Sequence[Answered]) -> None:
    _add(measures, answered, "pmi_per_token", lambda a, s: pmi(s.totals("base"), a.own), by_token=True)
    _add(measures, answered, "tokens", lambda a, s: s.length, RELATIVE)
    perplexity = Form("exp", relative=True)
    _add(measures, answered, "perplexity", lambda a, s: -s.total("base", a.own), perplexity, by_token=True)


def _parroting(measures: Measures, answered: Sequence[Answered]) -> None:
    _add(measures, answered, "parroting", lambda a, s: parrots(s.text, a.context, a.request), SHARE)


def _add(
    measures: Measures,
    answered: Sequence[Answered],
    name: str,
    measure: Callable[[Answered, Scored], float],
    form: Form = MEAN,
    by_token: bool = False,
) -> None:
    """A measure of each answer of both models."""
    before, after = ([float(measure(a, a.by(side))) for a in answered] for side in SIDES)
    lengths = tuple([float(a.by(side).length) for a in answered] for side in SIDES)
    measures.add(name, before, after, form, (lengths[0], lengths[1]) if by_token else None)


def _identification(measures: Measures, answered: Sequence[Answered], k: int, embedder: Embed | None) -> None:
    """Whether an answer's own context is identified among k: by each model's likelihood, by the base's, by the embedder."""
    own = [[a.by(side).totals(side) for a in answered] for side in SIDES]
    by_base = [[a.by(side).totals("base") for a in answered] for side in SIDES]  # one yardstick for both models

    def add(name: str, measure: Callable[[Sequence[float], int, int], float], scores: list[list[list[float]]], form: Form) -> None:
        before, after = ([measure(row, a.own, k) for row, a in zip(rows, answered, strict=True)] for rows in scores)
        measures.add(f"{name}_{k}", before, after, form)

    add("identified", identified, own, SHARE)
    add("identified_by_base", identified, by_base, SHARE)
    add("answer_information", information, own, MEAN)
    if embedder is not None:
        rows = [a.group.apart for a in answered]
        closeness = [embedding.cosines(embedder, [a.by(side).text for a in answered], rows) for side in SIDES]
        add("identified_by_embedding", identified, closeness, SHARE)


def clusters_of(answered: Sequence[Answered]) -> list[list[str]]:
    """The notes and the requests that intervals are drawn over."""
    return [[a.group.notes[a.own] for a in answered], [a.group.request_ids[a.own] for a in answered]]


def _key(answered: Answered) -> str:
    """The item's name in any run that has it. Answers are told apart among all rows of their group, their own first."""

    def own_first(texts: list[str]) -> list[str]:
        return texts[answered.own :] + texts[: answered.own]

    requests = own_first(answered.group.requests)
    return key_of(requests if len(set(requests)) > 1 else requests[0], own_first(answered.group.contexts))


def _of_all_answers(before: float, after: float) -> Measure:
    """One figure for all answers together: there is nothing to resample."""
    return Measure(Estimate(before, None), Estimate(after, None), Estimate(after - before, None), relative=False)


def identified(scores: Sequence[float], own: int, choices: int) -> float:
    """1 where the answer is likeliest under its own context among `choices` of them, else 0; m tied ones share the point.

    scores: (contexts,) log-probability of one answer under each context, nats. The choices are its own context and the next ones
    in order, wrapping around.
    """
    values = _among(scores, own, choices)
    best = values >= values.max() - 1e-6
    return float(best[0] / best.sum())


def information(scores: Sequence[float], own: int, choices: int) -> float:
    """log K - cross-entropy of the posterior over K equally likely contexts, nats, at most log K.

    Its mean over answers is a lower bound on I(answer; context | request).
    """
    values = _among(scores, own, choices)
    return float(np.log(choices) + values[0] - _logsumexp(values))


def pmi(scores: Sequence[float], own: int) -> float:
    """log p(y|x,c) - log mean of p(y|x,c') over the other contexts, nats."""
    values = np.asarray(scores, dtype=np.float64)
    others = np.delete(values, own)
    return float(values[own] - _logsumexp(others) + np.log(len(others)))


def token_pmi(logprobs: Sequence[Sequence[float]], own: int) -> np.ndarray:
    """(tokens,) how much likelier the own context makes each token than the other contexts do on average, nats.

    logprobs: (contexts, tokens) log-probability of each token of one answer, given the tokens before it.
    """
    table = np.asarray(logprobs, dtype=np.float64)
    others = np.delete(table, own, axis=0)
    top = others.max(axis=0)
    return table[own] - top - np.log(np.exp(others - top).mean(axis=0))


def _among(scores: Sequence[float], own: int, choices: int) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float64)
    if not 2 <= choices <= len(values):
        raise ValueError(f"{choices} contexts to tell apart, {len(values)} scored")
    return values[[(own + i) % len(values) for i in range(choices)]]


def _logsumexp(values: np.ndarray) -> float:
    top = values.max()
    return float(top + np.log(np.exp(values - top).sum()))


def shaded(tokenizer: Any, scored: Scored, own: int) -> list[tuple[str, float]]:
    """(piece of text, PMI in nats) of one answer, cut where words begin: what the context made likelier, by the base's likelihood.

    The pieces join to the answer's text.
    """
    tokens = scored.answer.tokens[:-1] if scored.answer.finish == "stop" else scored.answer.tokens
    gains = token_pmi(scored.base, own)
    pieces: list[str] = []
    nats: list[float] = []
    done = ""
    for count in range(1, len(tokens) + 1):
        decoded = tokenizer.decode(tokens[:count], skip_special_tokens=True)  # as the text of the answer is
        if decoded.endswith("\ufffd") and count < len(tokens):
            piece = ""  # half of a character: its bytes go on in the next token
        else:
            piece, done = decoded[len(done) :], decoded
        if pieces and not (piece and _begins_word(piece, pieces[-1])):
            pieces[-1] += piece
            nats[-1] += float(gains[count - 1])
        else:
            pieces.append(piece)
            nats.append(float(gains[count - 1]))
    return [(piece, round(gain, 3)) for piece, gain in zip(pieces, nats, strict=True)]


def _begins_word(piece: str, before: str) -> bool:
    """Whether a piece of text begins a word: a space does, and a character of a script without spaces is one.

    What follows such a character begins one too. A mark that is drawn over the character before it (a Thai vowel) begins none.
    """
    first, last = piece[0], before[-1:]
    alone = [bool(ALONE.match(character)) and character.isalnum() for character in (first, last)]
    return first.isspace() or alone[0] or (alone[1] and first.isalnum())
