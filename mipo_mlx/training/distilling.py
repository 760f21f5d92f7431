"""Training towards whole distributions: the goals of answers, and the loss of a micro-batch. The objective `tilt` is made of it.

`tilt` sharpens what a context changes, token by token. For answer y under its own context c and the other contexts c' of its grid:

    q(v) ~ p(v | c) * (p(v | c) / mean over c' of p(v | c')) ** strength        v: an entry of the vocabulary; p: the base

That is context-aware decoding (Shi et al. 2023) with the grid's contexts as the contrast. DPO has such an optimum for whole
answers, with strength 1 / beta. Only the likeliest entries under c are told apart; all others share the tail, which is tilted as
one. An entry that continues a run of tokens copied from the prompt is not tilted: the surest sign of a context is its own text.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..engine.distributions import FLOOR, Goal, divergence, likeliest, logprobs_at
from ..engine.head import OutputHead
from ..engine.logprobs import Padded, answer_hidden
from ..models import adapters
from ..records import Pair

KEPT = 32  # entries of the vocabulary that a token's goal tells apart
RUN = 3  # tokens in a row that are the prompt's: the next one would continue a copy


@dataclass(frozen=True, kw_only=True)
class Distilled(Pair):
    """A pair of one answer that is trained towards a goal, whatever the objective. The goal has the answer's tokens in each row."""

    goal: Goal

    @staticmethod
    def of(pair: Pair, goal: Goal) -> "Distilled":
        """The pair's chosen answer with its goal."""
        return Distilled(**{**vars(pair), "tokens": pair.tokens[:1], "reference": pair.reference[:1]}, goal=goal)


Rows = list[list[mx.array]]  # [i][j]: hidden states of answer j after prompt i, (tokens, width)


@contextmanager
def as_base(model: nn.Module) -> Iterator[None]:
    """Within this, `model` is the base, without adapters and dropout."""
    mode = model.training
    model.eval()
    try:
        with adapters.disabled(model):
            yield
    finally:
        model.train(mode)


def hidden_rows(model: nn.Module, batch: Padded) -> Rows:
    """The hidden states of each pair's candidates in a batch. Values only."""
    hidden, _ = answer_hidden(model, batch, gradient=False)
    mx.eval(hidden)
    lengths = np.array(batch.answer_lengths)
    ends = np.cumsum(lengths.reshape(-1)).reshape(lengths.shape)
    return [[hidden[end - n : end] for end, n in zip(*row, strict=True)] for row in zip(ends, lengths, strict=True)]


def tilted(model: nn.Module, pairs: Sequence[Pair], rows: Rows, strength: float) -> list[Pair]:
    """A grid's chosen answers with their goals. rows: as `contrasting.contrast` orders them, by the base.

    Answer i stands under its own context in rows[i][0], and under the context of pair (i - j) mod K in rows[i - j][j].
    """
    head, taught = OutputHead(model), []
    for i, pair in enumerate(pairs):
        answer = pair.tokens[0]
        ids, right = likeliest(head, rows[i][0], mx.array(answer, dtype=mx.int32), KEPT)
        wrong = [logprobs_at(head, rows[i - j][j], ids) for j in range(1, len(pairs))]
        kept, tail = tilt(right, wrong, strength, copies(pair.prompt_tokens, answer, ids))
        taught.append(Distilled.of(pair, Goal(ids, kept, tail)))
    return list(taught)


def tilt(right: np.ndarray, wrong: Sequence[np.ndarray], strength: float, untilted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tilted probabilities of the kept entries, (tokens, kept), and of the tail, (tokens,), float32.

    right, wrong: (tokens, kept) log-probabilities under the right context and under each wrong one, nats. untilted: (tokens, kept)
    true where an entry keeps its weight. Without a wrong context the goal is the base's own distribution.
    """
    under = np.exp(right.astype(np.float64))
    other = np.mean([np.exp(w.astype(np.float64)) for w in wrong], axis=0) if wrong else under
    under, other = (np.concatenate([p, np.maximum(1 - p.sum(axis=1, keepdims=True), FLOOR)], axis=1) for p in (under, other))
    ratio = np.log(under) - np.log(np.maximum(other, 1e-30))
    ratio[:, :-1][untilted] = 0
    scores = np.log(under) + strength * ratio
    goal = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).astype(np.float32)
    return goal[:, :-1], goal[:, -1]


def copies(prompt: Sequence[int], answer: Sequence[int], ids: np.ndarray) -> np.ndarray:
    """Which entries `ids` (tokens, kept) of each answer token would continue a run of RUN tokens that the prompt has too."""
    follows: dict[tuple[int, ...], set[int]] = {}
    for i in range(len(prompt) - RUN):
        follows.setdefault(tuple(prompt[i : i + RUN]), set()).add(prompt[i + RUN])
    continuing = np.zeros(ids.shape, bool)
    for t in range(RUN, len(answer)):
        if more := follows.get(tuple(answer[t - RUN : t])):
            continuing[t] = np.isin(ids[t], list(more))
    return continuing


def losses(model: nn.Module, batch: Padded, pairs: Sequence[Pair], checkpoint: bool) -> tuple[mx.array, mx.array]:
    """(pairs,) mean divergence of a token from its goal, nats, differentiable; and the answers' log-probabilities (pairs,), values.

    pairs: those of the batch, all of them `Distilled`.
    """
    hidden, places = answer_hidden(model, batch, checkpoint=checkpoint)
    whole = Goal.joined([pair.goal for pair in pairs if isinstance(pair, Distilled)])
    nats, logps = divergence(OutputHead(model), hidden, whole)
    pairs, _, length = batch.answers.shape
    owner = mx.array(places // length, dtype=mx.int32)
    own = mx.array(whole.ids) == batch.answers.reshape(-1)[mx.array(places, dtype=mx.int32)][:, None]
    total = mx.zeros((pairs,)).at[owner].add(nats)
    return total / batch.answer_lengths[:, 0], mx.zeros((pairs,)).at[owner].add(mx.where(own, logps, 0).sum(axis=-1))


def figures(nats: mx.array, logps: mx.array, reference: mx.array, lengths: mx.array, beta: float) -> dict[str, Any]:
    """What is logged of each pair, (pairs,): as `objectives.metrics`, without the figures of rejected answers."""
    d = logps - reference
    return {"loss": nats, "chosen_reward": beta * d, "kl": -d / lengths, "nll": -logps / lengths, "chosen_logp": logps}
