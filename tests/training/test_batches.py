"""Padding, masks and micro-batches."""

import numpy as np
import pytest

from mipo_mlx.records import Pair
from mipo_mlx.training import contrasting, step


def pair(prompt: int, answers: list[int], grid: int = 0, number: int = 0) -> Pair:
    texts = {"prompt": [], "chosen": [], "rejected": [], "negatives": [], "pmi": [], "kinds": []}
    rng = np.random.default_rng(1000 * grid + number)
    tokens = [rng.integers(3, 300, n).tolist() for n in answers]
    return Pair(
        f"{grid}-{number}", "train", grid, prompt_tokens=rng.integers(3, 300, prompt).tolist(), tokens=tokens,
        reference=[-float(n) for n in answers], **texts,
    )  # fmt: skip


@pytest.mark.parametrize("on_cpu, prompt, answer", [(True, 25, 24), (False, 33, 32)])
def test_a_batch_holds_every_token_and_nothing_else(on_cpu, prompt, answer, monkeypatch):
    """The recorded part of a prompt is rounded to 8 on the CPU and to 16 on a GPU, and so are answers."""
    monkeypatch.setattr(step.backend, "on_cpu", lambda: on_cpu)
    pairs = [pair(9, [3, 5]), pair(20, [18, 1, 2], number=1)]
    batch = step.batch_of(pairs, pad_id=2)
    assert batch.prompts.shape == (2, prompt) and batch.answers.shape == (2, 3, answer)
    assert batch.mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.answer_lengths.tolist() == [[3, 5, 0], [18, 1, 2]]
    assert batch.reference.tolist() == [[-3, -5, 0], [-18, -1, -2]]
    for i, p in enumerate(pairs):
        row = batch.prompts[i].tolist()
        assert row[: len(p.prompt_tokens)] == p.prompt_tokens and set(row[len(p.prompt_tokens) :]) == {2}
        for j, tokens in enumerate(p.tokens):
            row = batch.answers[i, j].tolist()
            assert row[: len(tokens)] == tokens and set(row[len(tokens) :]) == {2}
    assert step.padded_tokens(pairs) == batch.tokens


def test_micro_batches_hold_every_pair_once_within_the_budget():
    rng = np.random.default_rng(0)
    pairs = [pair(int(rng.integers(2, 300)), rng.integers(1, 90, 2).tolist(), number=n) for n in range(40)]
    for budget in (1, 700, 3000, 10**6):
        groups = step.split(range(40), pairs, budget)
        assert sorted(i for group in groups for i in group) == list(range(40))
        for group in groups:
            assert len(group) == 1 or step.padded_tokens([pairs[i] for i in group]) <= budget
    useful = sum(len(p.prompt_tokens) + sum(map(len, p.tokens)) for p in pairs)
    padded = sum(step.padded_tokens([pairs[i] for i in group]) for group in step.split(range(40), pairs, 3000))
    assert padded < 2 * useful  # all in one batch would be 3.5 times


def test_shapes_are_few_on_a_gpu(monkeypatch):
    monkeypatch.setattr(step.backend, "on_cpu", lambda: False)
    rng = np.random.default_rng(1)
    pairs = [pair(int(rng.integers(100, 200)), rng.integers(30, 60, 2).tolist(), number=n) for n in range(60)]
    assert len({step.batch_of([p], 0).prompts.shape + step.batch_of([p], 0).answers.shape for p in pairs}) <= 24


def test_a_grid_of_contexts_has_every_answer_under_every_context():
    grid = [pair(5 + n, [4 + n, 9], number=n) for n in range(3)]
    grid[1] = Pair(**{**grid[1].__dict__, "tokens": [grid[1].tokens[0], grid[2].tokens[0]], "reference": [-1.5, -2.5]})
    result = contrasting.contrast(grid)
    chosen = [p.tokens[0] for p in grid]
    assert [p.tokens for p in result] == [[chosen[(i + j) % 3] for j in range(3)] for i in range(3)]
    np.testing.assert_equal(result[1].reference, [-1.5, -2.5, np.nan])
    assert all(a.prompt_tokens == b.prompt_tokens for a, b in zip(result, grid, strict=True))
