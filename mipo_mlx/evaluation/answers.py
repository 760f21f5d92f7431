"""Measures of fresh answers of the base and the tuned model to the same held-out requests, side by side.

~~~ What an answer tells about its context, by a model's own likelihood: identification, information in nats, PMI.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..models import embedding
from ..text import diversity
from ..text.parroting import RUN, parrots, takes_users_part
from ..text.words import ALONE, quotes
from .requests import Asked, Scored
from .statistics import Measures, case, enough, single


def clusters_of(asked: Sequence[Asked]) -> list[list[str]]:
    """The notes and the prompts that the intervals are drawn over."""
    return [[a.group.notes[a.own] for a in asked], [a.group.prompt_ids[a.own] for a in asked]]


def _case(asked: Asked) -> str:
    """The request in any run that has it. Answers are told apart among all rows of their group, their own first."""

    def own_first(texts: list[str]) -> list[str]:
        return texts[asked.own :] + texts[: asked.own]

    prompts = own_first(asked.group.prompts)
    return case(prompts if len(set(prompts)) > 1 else prompts[0], own_first(asked.group.contexts))


def evaluate(asked: Sequence[Asked], choices: Sequence[int], draws: int, seed: int, embedder: Any = None) -> dict[str, Any]:
    """All measures, each before (the base's answers) and after (the tuned model's), with paired intervals.

    log_ratio_per_answer: how much likelier the tuned model finds its own answers than the base does, nats; a KL divergence only
    where they were sampled at temperature 1 without top_p.
    embedder: texts -> (texts, dimensions) unit vectors, a judge of another family; None: none installed.
    """
    clusters, told = clusters_of(asked), any(a.context for a in asked)
    both = ("base", "tuned")
    measures = Measures([_case(a) for a in asked], clusters, draws, seed)

    def add(name: str, measure: Callable[[Asked, Scored], float], **options: Any) -> None:
        measures.add(name, *([float(measure(a, getattr(a, side))) for a in asked] for side in both), **options)

    length = tuple([len(getattr(a, side).tokens) for a in asked] for side in both)
    among = [k for k in sorted(set(choices)) if k <= min(len(a.group.contexts) for a in asked)]
    for k in among:
        # Each model's own answers by its own likelihood; then both models' answers by the base's, one yardstick for both.
        own = [[identified(getattr(a, side).sums(side), a.own, k) for a in asked] for side in both]
        nats = [[information(getattr(a, side).sums(side), a.own, k) for a in asked] for side in both]
        measures.add(f"identified_{k}", *own, share=True)
        add(f"identified_by_base_{k}", lambda a, s, k=k: identified(s.sums("base"), a.own, k), share=True)
        measures.add(f"answer_information_{k}", *nats)
    if embedder is not None:
        rows = [a.group.apart for a in asked]
        closeness = [embedding.cosines(embedder, [getattr(a, side).text for a in asked], rows) for side in both]
        for k in among:
            found = [[identified(row, a.own, k) for row, a in zip(rows, asked, strict=True)] for rows in closeness]
            measures.add(f"identified_by_embedding_{k}", *found, share=True)
    add("pmi_per_token", lambda a, s: pmi(s.sums("base"), a.own), weights=length)
    add("tokens", lambda a, s: len(s.tokens), relative=True)
    add("perplexity", lambda a, s: -s.own("base", a.own).sum(), weights=length, transform="exp", relative=True)
    add("cut_off", lambda a, s: s.finish == "length", share=True)
    if told:
        add("quotes_context", lambda a, s: quotes(s.text, a.context, RUN), share=True)
        add("role_confusion", lambda a, s: takes_users_part(s.text, a.context, a.prompt), share=True)
        add("parroting", lambda a, s: parrots(s.text, a.context, a.prompt), share=True)
    texts = [[getattr(a, side).text for a in asked] for side in both]
    if len(asked) > 1:
        measures.add("self_bleu", *(diversity.self_bleu(t) for t in texts))
    metrics = measures.metrics
    distinct = {f"distinct_{n}": [diversity.distinct(t, n) for t in texts] for n in (1, 2)}
    for name, (before, after) in distinct.items():  # one figure for the whole set: nothing to resample
        metrics[name] = {
            "before": {"value": before, "interval": None},
            "after": {"value": after, "interval": None},
            "change": {"value": after - before, "interval": None},
            "relative": False,
        }
    likelier = [float((a.tuned.own("tuned", a.own) - a.tuned.own("base", a.own)).sum()) for a in asked]
    return {
        "answers": len(asked),
        "notes": len(set(clusters[0])),
        "prompts": len(set(clusters[1])),
        "told_apart_by": "context" if told else "request",
        "choices": among,
        "choices_left_out": sorted(set(choices) - set(among)),
        "no_interval": enough(clusters),
        "metrics": metrics,
        "items": measures.items(),
        "log_ratio_per_answer": single(likelier, clusters, draws, seed),
        "pmi": {side: [round(pmi(getattr(a, side).sums("base"), a.own), 4) for a in asked] for side in both},
    }


def _begins_word(piece: str, before: str) -> bool:
    """Whether a piece of text begins a word: a space does, and a character of a script without spaces is one; so is what follows
    such a character. A mark that is drawn over the character before it (a Thai vowel) begins none."""
    first, last = piece[0], before[-1:]
    alone = [bool(ALONE.match(character)) and character.isalnum() for character in (first, last)]
    return first.isspace() or alone[0] or (alone[1] and first.isalnum())


def shaded(tokenizer: Any, scored: Scored, own: int) -> list[list[Any]]:
    """[piece of text, PMI in nats] of one answer, cut where words begin: what the context made likelier, by the base's
    likelihood. The pieces joined are the answer's text."""
    tokens = scored.tokens[:-1] if scored.finish == "stop" else scored.tokens
    gains = token_pmi(scored.base, own)
    pieces: list[list[Any]] = []
    done = ""
    for count in range(1, len(tokens) + 1):
        decoded = tokenizer.decode(tokens[:count])
        if decoded.endswith("\ufffd") and count < len(tokens):
            piece = ""  # half of a character: its bytes go on in the next token
        else:
            piece, done = decoded[len(done) :], decoded
        if pieces and not (piece and _begins_word(piece, pieces[-1][0])):
            pieces[-1][0] += piece
            pieces[-1][1] += float(gains[count - 1])
        else:
            pieces.append([piece, float(gains[count - 1])])
    return [[piece, round(gain, 3)] for piece, gain in pieces]


def identified(scores: Sequence[float], own: int, choices: int) -> float:
    """1 where the answer is likeliest under its own context among `choices` of them (its own and the next ones, in order,
    wrapping around), 0 where it is not; m tied contexts share the point.

    scores: (contexts,) log-probability of one answer under each context, nats.
    """
    values = _among(scores, own, choices)
    best = values >= values.max() - 1e-6
    return float(best[0] / best.sum())


def information(scores: Sequence[float], own: int, choices: int) -> float:
    """log K - cross-entropy of the posterior over K equally likely contexts, nats; averaged over answers it is a lower
    bound on I(answer; context | prompt), at most log K."""
    values = _among(scores, own, choices)
    return float(np.log(choices) + values[0] - _logsumexp(values))


def pmi(scores: Sequence[float], own: int) -> float:
    """log p(y|x,c) - log mean of p(y|x,c') over the other contexts, nats."""
    values = np.asarray(scores, dtype=np.float64)
    others = np.delete(values, own)
    return float(values[own] - _logsumexp(others) + np.log(len(others)))


def token_pmi(logprobs: Sequence[Sequence[float]], own: int) -> np.ndarray:
    """(tokens,) how much likelier the own context makes each token than the other contexts do on average, nats.

    logprobs: (contexts, tokens) per-token log-probabilities of one answer, each given the tokens before it.
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
