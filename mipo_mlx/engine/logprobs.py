"""The one place that turns (prompt, answers) into log-probabilities: training, scoring and evaluation all call it.

`batch_logprobs` is differentiable and takes padded arrays. `token_logprobs` takes lists of any lengths, makes batches of them
and returns NumPy arrays. Both run a prompt once for all its answers (`prefix.py`), and compute logits only where an answer token
is predicted (`head.py`). Some models keep something else than keys and values in their layers (recurrent ones). They run prompt
and answer in one row.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..errors import Failure, is_too_large
from . import head as heads
from .cpu import swapped
from .prefix import Layout, Prefix, Recorder, body_of, checkpointed, grouped_scores, sliding_windows, text_model

Recorded = list[tuple[mx.array, mx.array]]  # keys and values of each layer, (prompts, heads, tokens, head_dim)
TOKEN_BUDGET = 4096  # tokens, padding included, that a batch without gradients may hold
WORTH_A_PASS = 128  # tokens: a pass of its own reads all weights, which costs as much as about 70 tokens more
_warned: set[type] = set()  # model classes whose fallback was reported


@dataclass
class Padded:
    """Right-padded token ids of prompts with their answers, all int32; prompts have at least one token."""

    prompts: mx.array  # (pairs, prompt length)
    prompt_lengths: mx.array  # (pairs,)
    answers: mx.array  # (pairs, candidates, answer length)
    answer_lengths: mx.array  # (pairs, candidates)


def batch_logprobs(
    model: nn.Module, batch: Padded, *, checkpoint: bool = False, gradient: bool = True, recorded: Recorded | None = None
) -> mx.array:
    """Log-probability of each answer token, in nats: (pairs, candidates, answer length) float32, 0 at padding.

    Differentiable in the model's trainable parameters. `checkpoint` trades a second forward pass through each layer for the memory
    of its activations. `gradient=False` is cheaper where only values are needed. `recorded`: keys and values of the prompts but
    their last tokens, padded to prompt length - 1, where there are some already.
    """
    hidden, kept = answer_hidden(model, batch, checkpoint=checkpoint, gradient=gradient, recorded=recorded)
    places = mx.array(kept, dtype=mx.int32)
    targets = batch.answers.reshape(-1)[places]
    compute = heads.token_logprobs if gradient else heads.token_logprobs_without_gradient
    logps = compute(heads.OutputHead(model), hidden, targets)
    return mx.zeros((batch.answers.size,)).at[places].add(logps).reshape(batch.answers.shape)


def answer_hidden(
    model: nn.Module, batch: Padded, *, checkpoint: bool = False, gradient: bool = True, recorded: Recorded | None = None
) -> tuple[mx.array, np.ndarray]:
    """The body's output where each answer token is predicted, (tokens, width), one answer after the other, without padding.

    Also the places of these tokens in the flat `batch.answers`, (tokens,). The keywords are those of `batch_logprobs`.
    """
    with swapped(text_model(model), gradient):
        if shares_prompts(model):
            hidden = _shared_hidden(model, batch, checkpoint, recorded)
        else:
            hidden = _plain_hidden(model, batch, checkpoint)
    valid = mx.arange(batch.answers.shape[-1]) < batch.answer_lengths[..., None]
    # Padding is dropped before the output head: it needs neither logits nor gradients.
    kept = np.flatnonzero(np.array(valid).reshape(-1))
    return hidden.reshape(-1, hidden.shape[-1])[mx.array(kept, dtype=mx.int32)], kept


def token_logprobs(
    model: nn.Module,
    prompts: list[list[int]],
    answers: list[list[list[int]]],
    *,
    token_budget: int = TOKEN_BUDGET,
    recorded: Sequence[Recorded] | None = None,
) -> list[list[np.ndarray]]:
    """Log-probability of each token of answers[i][j] after prompts[i], in nats, float32, not differentiable.

    Prompts must not be empty (ValueError). Answers may be, and a prompt may have any number of them. Batches hold up to
    `token_budget` tokens, padding included (one prompt with its answers at least). `recorded[i]`: keys and values of prompts[i]
    but its last token, where there are some already (from sampling, say); then the prompts do not run again. A batch that does
    not fit into memory, or that the system's watchdog ends, is halved and run again.
    """
    if any(not prompt for prompt in prompts):
        raise ValueError("token_logprobs: an empty prompt; a prompt needs at least one token to predict the first one from")
    logps: list[list[np.ndarray]] = [[np.zeros(0, np.float32)] * len(some) for some in answers]
    work = [i for i, some in enumerate(answers) if any(some)]
    batches = _batches(work, prompts, answers, token_budget)[::-1]
    while batches:
        rows = batches.pop()
        batch = _padded([prompts[i] for i in rows], [answers[i] for i in rows])
        known = stacked([recorded[i] for i in rows], batch.prompts.shape[1] - 1) if recorded is not None else None
        try:
            values = _values(model, batch, known)
        except (RuntimeError, MemoryError) as error:
            if len(rows) == 1 or not is_too_large(error):
                raise
            batches += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
            mx.clear_cache()
            continue
        for r, i in enumerate(rows):
            for j, answer in enumerate(answers[i]):
                logps[i][j] = values[r, j, : len(answer)].copy()
    return logps


def _values(model: nn.Module, batch: Padded, recorded: Recorded | None) -> np.ndarray:
    """`batch_logprobs` without a gradient. Each prompt's answers run from the longest to the shortest, in passes of like length."""
    lengths = np.array(batch.answer_lengths)
    order = np.argsort(-lengths, axis=1, kind="stable")
    longest = np.take_along_axis(lengths, order, axis=1).max(axis=0)
    passes = _passes(longest.tolist(), len(lengths)) if sliding_windows(model) is not None else []
    if len(passes) < 2:
        return np.array(batch_logprobs(model, batch, gradient=False, recorded=recorded))
    if recorded is None and batch.prompts.shape[1] > 1:
        with swapped(text_model(model)):
            recorded = _record(model, batch)
        mx.eval(recorded)
    values, answers = np.zeros(batch.answers.shape, np.float32), np.array(batch.answers)
    for columns in passes:
        places, width = order[:, columns], int(longest[columns.start])
        rows = np.take_along_axis(answers, places[..., None], axis=1)[..., :width]
        counts = mx.array(np.take_along_axis(lengths, places, axis=1))
        part = Padded(batch.prompts, batch.prompt_lengths, mx.array(rows), counts)
        logps = np.array(batch_logprobs(model, part, gradient=False, recorded=recorded))
        for place, column in zip(places.T, logps.swapaxes(0, 1), strict=True):
            values[np.arange(len(rows)), place, :width] = column
    return values


def _passes(longest: list[int], rows: int) -> list[slice]:
    """Columns of answers that run together. longest: tokens of the longest answer of each column, falling; rows: answers of each.

    Another pass begins where it saves WORTH_A_PASS tokens of padding. Columns of empty answers are left out.
    """
    columns = sum(length > 0 for length in longest)
    passes, first = [], 0
    for column in range(1, columns):
        if (longest[first] - longest[column]) * rows * (columns - column) >= WORTH_A_PASS:
            passes.append(slice(first, column))
            first = column
    return [*passes, slice(first, columns)]


def shares_prompts(model: nn.Module) -> bool:
    """Whether `model` can run a prompt once for all its answers; warns, once, if it cannot."""
    if sliding_windows(model) is not None:
        return True
    if type(model) not in _warned:
        _warned.add(type(model))
        warnings.warn(
            f"{type(model).__module__.rsplit('.', 1)[-1]}: its layers keep more than keys and values, so the prompt cannot be "
            "shared by its answers; each answer is run with its own copy of the prompt, which is slower",
            stacklevel=2,
        )
    return False


def total(tokens: np.ndarray) -> float:
    """Log-probability of an answer in nats, rounded to 1e-5: float32 resolves no less in a sum of this size.

    Raises Failure where it is no number: a sum of inf or nan could be neither written nor compared.
    """
    if not np.isfinite(tokens).all():
        raise Failure(
            "the model's log-probabilities are not finite, so some of its numbers left the range of 16 bits, or its weights are "
            "damaged; take a bfloat16 version of the base, or another base"
        )
    return round(float(np.sum(tokens, dtype=np.float64)), 5)


def pad(rows: Sequence[Sequence[int]]) -> tuple[mx.array, mx.array]:
    """Right-padded (rows, longest) int32 and the rows' lengths (rows,) int32."""
    lengths = [len(row) for row in rows]
    out = np.zeros((len(rows), max(lengths)), np.int32)
    for r, row in enumerate(rows):
        out[r, : len(row)] = row
    return mx.array(out), mx.array(lengths, dtype=mx.int32)


def _padded(prompts: list[list[int]], answers: list[list[list[int]]]) -> Padded:
    """Prompts with their answers as one batch; a prompt with fewer answers than another has empty ones."""
    shape = (len(prompts), max(map(len, answers)), max(len(a) for some in answers for a in some))
    padded, lengths = np.zeros(shape, np.int32), np.zeros(shape[:2], np.int32)
    for r, some in enumerate(answers):
        for j, answer in enumerate(some):
            padded[r, j, : len(answer)], lengths[r, j] = answer, len(answer)
    return Padded(*pad(prompts), mx.array(padded), mx.array(lengths))


def stacked(recorded: list[Recorded], width: int) -> Recorded:
    """Keys and values of several prompts, right-padded to `width`: (prompts, heads, width, head_dim) of each layer."""

    def stack(parts: Sequence[mx.array]) -> mx.array:
        return mx.concatenate([mx.pad(x, [(0, 0), (0, 0), (0, width - x.shape[2]), (0, 0)]) for x in parts])

    return [(stack(keys), stack(values)) for keys, values in (zip(*layer, strict=True) for layer in zip(*recorded, strict=True))]


def _batches(work: list[int], prompts: list[list[int]], answers: list[list[list[int]]], budget: int) -> list[list[int]]:
    """Longest first, as many prompts a batch as fit with their padding."""
    size = {i: (len(answers[i]), max(len(a) for a in answers[i]), len(prompts[i])) for i in work}
    batches: list[list[int]] = []
    shape: tuple[int, ...] = (0, 0, 0)
    for i in sorted(work, key=lambda i: (size[i][0] * size[i][1] + size[i][2], i), reverse=True):
        grown = tuple(map(max, shape, size[i]))
        if batches and (len(batches[-1]) + 1) * (grown[0] * grown[1] + grown[2]) <= budget:
            batches[-1].append(i)
            shape = grown
        else:
            batches.append([i])
            shape = size[i]
    return batches


def _shared_hidden(model: nn.Module, batch: Padded, checkpoint: bool, recorded: Recorded | None) -> mx.array:
    """The body's output where answer tokens are predicted, (pairs, candidates, answer length, width).

    Prompts run once, and not at all where their keys and values are `recorded`.
    """
    body, sliding = body_of(model), sliding_windows(model) or []
    (pairs, width), (_, candidates, length) = batch.prompts.shape, batch.answers.shape
    last = mx.take_along_axis(batch.prompts, batch.prompt_lengths[:, None] - 1, axis=1)
    inputs = mx.concatenate([mx.broadcast_to(last[:, None], (pairs, candidates, 1)), batch.answers[..., :-1]], axis=-1)
    layout = Layout(batch.prompt_lengths - 1, width - 1, candidates, grouped_scores(model))
    with checkpointed(body, checkpoint):
        if recorded is None and width > 1:
            recorded = _record(model, batch)
        known = recorded or [(None, None)] * len(sliding)
        caches = [Prefix(*kv, layout, window) for kv, window in zip(known, sliding, strict=True)]
        hidden = body(inputs.reshape(pairs * candidates, length), cache=caches)
    return hidden.reshape(pairs, candidates, length, -1)


def _record(model: nn.Module, batch: Padded) -> Recorded:
    """Keys and values of the prompts but their last tokens."""
    recorders = [Recorder(window) for window in sliding_windows(model) or []]
    if opening := shared_opening(batch):
        body_of(model)(batch.prompts[:1, :opening], cache=recorders)
        recorders = [Recorder(r.sliding, (r.keys, r.values)) for r in recorders]
    body_of(model)(batch.prompts[:, opening:-1], cache=recorders)
    return [(r.keys, r.values) for r in recorders]


def shared_opening(batch: Padded) -> int:
    """How many tokens all prompts of a batch begin with; 0 where that saves too few to be worth a pass of its own.

    One token at least remains for the pass of the prompts, besides the last one, which is the first query of the answers.
    """
    prompts, shortest = np.array(batch.prompts), int(np.array(batch.prompt_lengths).min())
    width, apart = prompts.shape[1], np.flatnonzero((prompts != prompts[0]).any(axis=0))
    shared = min(int(apart[0]) if len(apart) else width, shortest - 1, width - 2)
    return shared if (len(prompts) - 1) * shared >= WORTH_A_PASS else 0


def _plain_hidden(model: nn.Module, batch: Padded, checkpoint: bool) -> mx.array:
    """As `_shared_hidden`, each answer in a row with its own copy of the prompt: for models that cannot share it."""
    body, lengths = body_of(model), batch.prompt_lengths
    (pairs, width), (_, candidates, length) = batch.prompts.shape, batch.answers.shape
    # A row is the prompt, its answer right behind it, and padding. It is gathered from [prompt | answer] side by side.
    side = mx.concatenate([mx.broadcast_to(batch.prompts[:, None], (pairs, candidates, width)), batch.answers], axis=-1)
    place = mx.arange(width + length - 1)
    source = mx.where(place < lengths[:, None], place, place - lengths[:, None] + width)
    source = mx.minimum(source, width + length - 1)
    rows = mx.take_along_axis(side, mx.broadcast_to(source[:, None], (pairs, candidates, place.size)), axis=-1)
    with checkpointed(body, checkpoint):
        hidden = body(rows.reshape(pairs * candidates, -1), None).reshape(pairs, candidates, place.size, -1)
    predicts = (lengths[:, None] - 1 + mx.arange(length))[:, None, :, None]
    return mx.take_along_axis(hidden, mx.broadcast_to(predicts, (pairs, candidates, length, 1)), axis=2)
