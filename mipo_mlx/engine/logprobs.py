"""The one place that turns (prompt, answers) into log-probabilities: training, scoring and evaluation all call it.

`batch_logprobs` is differentiable and works on padded arrays; `token_logprobs` takes lists of any lengths, makes batches of
them and gives NumPy arrays back. Both run a prompt once for all its answers (`prefix.py`), and compute logits only where an
answer token is predicted (`head.py`). Models whose layers keep something else than keys and values (recurrent ones) are run
the plain way, prompt and answer in one row.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from . import head as heads
from .cpu import swapped
from .prefix import Layout, Prefix, Recorder, body_of, checkpointed, grouped_scores, text_model, windows

Recorded = list[tuple[mx.array, mx.array]]  # keys and values of each layer, (prompts, heads, tokens, head_dim)
TOKEN_BUDGET = 4096  # tokens, padding included, that a batch without gradients may hold
_told: set[type] = set()  # model classes whose fallback was said


def shares_prompts(model: nn.Module) -> bool:
    """Whether `model` can run a prompt once for all its answers; says so, once, if it cannot."""
    if windows(model) is not None:
        return True
    if type(model) not in _told:
        _told.add(type(model))
        warnings.warn(
            f"{type(model).__module__.rsplit('.', 1)[-1]}: its layers keep more than keys and values, so the prompt cannot be "
            "shared by its answers; each answer is run with its own copy of the prompt, which is slower",
            stacklevel=2,
        )
    return False


def batch_logprobs(model: nn.Module, batch: Any, *, checkpoint: bool = False, gradient: bool = True) -> mx.array:
    """Log-probability of each answer token, in nats: (pairs, candidates, answer length) float32, 0 at padding.

    Differentiable in the model's trainable parameters. `batch` (see training/batches.py) has right-padded
    `prompts` (pairs, prompt length), `prompt_lengths` (pairs,), `answers` (pairs, candidates, answer length) and
    `answer_lengths` (pairs, candidates), all int32; prompts have at least one token. `checkpoint` trades a second forward
    pass through each layer for the memory of its activations; `gradient=False` is cheaper where only values are needed.
    """
    return _padded_logprobs(
        model, batch.prompts, batch.prompt_lengths, batch.answers, batch.answer_lengths, checkpoint=checkpoint, gradient=gradient
    )


def token_logprobs(
    model: nn.Module,
    prompts: list[list[int]],
    answers: list[list[list[int]]],
    *,
    token_budget: int = TOKEN_BUDGET,
    recorded: Sequence[Recorded] | None = None,
) -> list[list[np.ndarray]]:
    """Log-probability of each token of answers[i][j] after prompts[i], in nats, float32, not differentiable.

    Prompts must not be empty; answers may be, and are of any number a prompt. A prompt runs once for its answers. Batches hold
    up to `token_budget` tokens, padding included (one prompt with its answers at least). `recorded[i]`: keys and values of
    prompts[i] but its last token, where they are there already (from sampling, say); the prompts are not run again then.
    """
    if any(not prompt for prompt in prompts):
        raise ValueError("token_logprobs: an empty prompt; a prompt needs at least one token to predict the first one from")
    found: list[list[np.ndarray]] = [[np.zeros(0, np.float32)] * len(some) for some in answers]
    work = [i for i, some in enumerate(answers) if any(some)]
    for rows in _batches(work, prompts, answers, token_budget):
        most = max(len(answers[i]) for i in rows)
        longest = max(len(a) for i in rows for a in answers[i])
        padded = np.zeros((len(rows), most, longest), np.int32)
        lengths = np.zeros((len(rows), most), np.int32)
        for r, i in enumerate(rows):
            for j, answer in enumerate(answers[i]):
                padded[r, j, : len(answer)], lengths[r, j] = answer, len(answer)
        asked, sizes = pad([prompts[i] for i in rows])
        known = _stacked([recorded[i] for i in rows], asked.shape[1] - 1) if recorded is not None else None
        logps = _padded_logprobs(model, asked, sizes, mx.array(padded), mx.array(lengths), gradient=False, recorded=known)
        values = np.array(logps)
        for r, i in enumerate(rows):
            for j, answer in enumerate(answers[i]):
                found[i][j] = values[r, j, : len(answer)].copy()
    return found


def total(tokens: np.ndarray) -> float:
    """Log-probability of an answer in nats from those of its tokens; rounded to 1e-5, below what float32 resolves in a sum of this
    size."""
    return round(float(np.sum(tokens, dtype=np.float64)), 5)


def pad(rows: Sequence[Sequence[int]]) -> tuple[mx.array, mx.array]:
    """Right-padded (rows, longest) int32 and the rows' lengths (rows,) int32."""
    lengths = [len(row) for row in rows]
    out = np.zeros((len(rows), max(lengths)), np.int32)
    for r, row in enumerate(rows):
        out[r, : len(row)] = row
    return mx.array(out), mx.array(lengths, dtype=mx.int32)


def _stacked(recorded: list[Recorded], width: int) -> Recorded:
    """Keys and values of several prompts, right-padded to `width`: (prompts, heads, width, head_dim) of each layer."""

    def stack(parts: Sequence[mx.array]) -> mx.array:
        return mx.concatenate([mx.pad(x, [(0, 0), (0, 0), (0, width - x.shape[2]), (0, 0)]) for x in parts])

    return [(stack(keys), stack(values)) for keys, values in (zip(*layer, strict=True) for layer in zip(*recorded, strict=True))]


def _batches(work: list[int], prompts: list[list[int]], answers: list[list[list[int]]], budget: int) -> list[list[int]]:
    """Longest first, as many prompts a batch as fit with their padding."""
    size = {i: (len(answers[i]), max(len(a) for a in answers[i]), len(prompts[i])) for i in work}
    batches: list[list[int]] = []
    shape = (0, 0, 0)
    for i in sorted(work, key=lambda i: (size[i][0] * size[i][1] + size[i][2], i), reverse=True):
        grown = tuple(map(max, shape, size[i]))
        if batches and (len(batches[-1]) + 1) * (grown[0] * grown[1] + grown[2]) <= budget:
            batches[-1].append(i)
            shape = grown
        else:
            batches.append([i])
            shape = size[i]
    return batches


def _padded_logprobs(
    model: nn.Module,
    prompts: mx.array,
    prompt_lengths: mx.array,
    answers: mx.array,
    answer_lengths: mx.array,
    *,
    checkpoint: bool = False,
    gradient: bool,
    recorded: Recorded | None = None,
) -> mx.array:
    with swapped(text_model(model)):
        if shares_prompts(model):
            hidden = _shared_hidden(model, prompts, prompt_lengths, answers, checkpoint, recorded)
        else:
            hidden = _plain_hidden(model, prompts, prompt_lengths, answers, checkpoint)
    valid = mx.arange(answers.shape[-1]) < answer_lengths[..., None]
    # Padding is dropped before the output head: it needs neither logits nor gradients.
    kept = np.flatnonzero(np.array(valid).reshape(-1))
    places = mx.array(kept, dtype=mx.int32)
    targets = answers.reshape(-1)[places]
    hidden = hidden.reshape(-1, hidden.shape[-1])[places]
    compute = heads.token_logprobs if gradient else heads.token_logprobs_without_gradient
    logps = compute(heads.OutputHead(model), hidden, targets)
    return mx.zeros((answers.size,)).at[places].add(logps).reshape(answers.shape)


def _shared_hidden(
    model: nn.Module, prompts: mx.array, lengths: mx.array, answers: mx.array, checkpoint: bool, recorded: Recorded | None
) -> mx.array:
    """The body's output where answer tokens are predicted, (pairs, candidates, answer length, width); prompts run once, and
    not at all where their keys and values are `recorded`."""
    body, seen = body_of(model), windows(model)
    (pairs, width), (_, candidates, length) = prompts.shape, answers.shape
    last = mx.take_along_axis(prompts, lengths[:, None] - 1, axis=1)
    inputs = mx.concatenate([mx.broadcast_to(last[:, None], (pairs, candidates, 1)), answers[..., :-1]], axis=-1)
    layout = Layout(lengths - 1, width - 1, candidates, grouped_scores(model))
    with checkpointed(body, checkpoint):
        if recorded is None and width > 1:
            recorders = [Recorder(window) for window in seen]
            body(prompts[:, :-1], cache=recorders)
            recorded = [(r.keys, r.values) for r in recorders]
        known = recorded or [(None, None)] * len(seen)
        caches = [Prefix(*kv, layout, window) for kv, window in zip(known, seen, strict=True)]
        hidden = body(inputs.reshape(pairs * candidates, length), cache=caches)
    return hidden.reshape(pairs, candidates, length, -1)


def _plain_hidden(model: nn.Module, prompts: mx.array, lengths: mx.array, answers: mx.array, checkpoint: bool) -> mx.array:
    """As `_shared_hidden`, each answer in a row with its own copy of the prompt: for models that cannot share it."""
    body = body_of(model)
    (pairs, width), (_, candidates, length) = prompts.shape, answers.shape
    # Row: the prompt, its answer right behind it, padding. Gathered from [prompt | answer] side by side.
    side = mx.concatenate([mx.broadcast_to(prompts[:, None], (pairs, candidates, width)), answers], axis=-1)
    place = mx.arange(width + length - 1)
    source = mx.where(place < lengths[:, None], place, place - lengths[:, None] + width)
    source = mx.minimum(source, width + length - 1)
    rows = mx.take_along_axis(side, mx.broadcast_to(source[:, None], (pairs, candidates, place.size)), axis=-1)
    with checkpointed(body, checkpoint):
        hidden = body(rows.reshape(pairs * candidates, -1), None).reshape(pairs, candidates, place.size, -1)
    predicts = (lengths[:, None] - 1 + mx.arange(length))[:, None, :, None]
    return mx.take_along_axis(hidden, mx.broadcast_to(predicts, (pairs, candidates, length, 1)), axis=2)
