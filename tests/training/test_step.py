"""One optimizer step's gradient: micro-batches, padding, order, out-of-memory, frozen weights, flat memory."""

import math

import mlx.core as mx
import mlx.optimizers as optimizers
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mipo_mlx.engine import logprobs
from mipo_mlx.errors import Failure
from mipo_mlx.models import adapters
from mipo_mlx.recipe import Lora, Training
from mipo_mlx.records import Pair
from mipo_mlx.training import step as gradients
from tests.conftest import build_model, tiny_config

OBJECTIVES = ["dpo", "ipo", "hinge", "dpop", "infonce", "sft", "infonce_authors", "sami", "tilt"]


def adapted(lora: Lora | None = None, spread: float = 0.1):
    """A tiny Llama under adapters that are away from zero."""
    model = build_model(tiny_config())
    adapters.attach(model, lora or Lora(rank=4, scale=2.0), 0)
    for _, module in model.named_modules():
        if "lora_b" in module:
            module.lora_b = spread * mx.random.normal(module.lora_b.shape)
    mx.eval(model.parameters())
    return model


def make_grid(model, number: int, contexts: int = 4, candidates: int = 2, shift: float = 0.0) -> list[Pair]:
    """A grid of random tokens whose reference is the model itself, moved by random `shift` nats."""
    rng = np.random.default_rng(number)
    prompts = [rng.integers(3, 380, rng.integers(2, 40)).tolist() for _ in range(contexts)]
    answers = [rng.integers(3, 380, rng.integers(1, 20)).tolist() for _ in range(contexts)]
    scores = logprobs.token_logprobs(model, prompts, [answers] * contexts)
    pairs = []
    for i, prompt in enumerate(prompts):
        order = [(i + j) % contexts for j in range(candidates)]
        reference = [float(scores[i][j].astype(np.float64).sum()) + shift * rng.normal() for j in order]
        texts = {"prompt": [], "chosen": [], "rejected": [], "negatives": [], "pmi": [], "kinds": []}
        tokens = [answers[j] for j in order]
        pairs.append(Pair(f"{number}-{i}", "train", number, prompt_tokens=prompt, tokens=tokens, reference=reference, **texts))
    return pairs


def flat(tree) -> mx.array:
    return mx.concatenate([x.reshape(-1) for _, x in tree_flatten(tree)])


def distance(a, b) -> float:
    return (mx.linalg.norm(flat(a) - flat(b)) / mx.linalg.norm(flat(b))).item()


def step(model, pairs, budget=100_000, **settings) -> gradients.Step:
    return gradients.gradient_step(model, pairs, Training(**settings), token_budget=budget, pad_id=0)


@pytest.mark.parametrize("candidates", [2, 4])
def test_the_first_loss_is_log_of_the_candidates(candidates):
    model = adapted()
    pairs = make_grid(model, 0, candidates=candidates)
    for some in (pairs, *([pair] for pair in pairs)):
        assert step(model, some).loss == pytest.approx(math.log(candidates), abs=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_micro_batches_and_checkpointing_change_nothing(objective):
    model = adapted()
    pairs = make_grid(model, 1, shift=2.0) + make_grid(model, 2, shift=2.0)
    whole = step(model, pairs, objective=objective)
    assert mx.linalg.norm(flat(whole.gradients)).item() > 1e-4
    for budget, checkpoint in ((1, False), (150, True), (100_000, True)):
        parts = step(model, pairs, budget, objective=objective, checkpoint_gradients=checkpoint)
        assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
        assert distance(parts.gradients, whole.gradients) < 1e-4
        for key in whole.metrics:
            assert parts.metrics[key] == pytest.approx(whole.metrics[key], rel=1e-3, abs=1e-4), key


@pytest.mark.parametrize("objective", ["dpo", "sami"])
def test_padding_and_order_change_no_loss(objective):
    model = adapted()
    pairs = make_grid(model, 3, shift=2.0) + make_grid(model, 4, shift=2.0)
    parts = [pairs[:4], pairs[4:]] if objective == "sami" else [[pair] for pair in pairs]
    alone = np.mean([step(model, part, objective=objective).loss for part in parts])
    for budget in (1, 200, 100_000):
        assert step(model, pairs[::-1], budget, objective=objective).loss == pytest.approx(alone, rel=1e-5, abs=1e-5)


def test_a_contrasting_objective_needs_the_whole_grid_and_each_grid_is_on_its_own():
    model = adapted()
    a, b = make_grid(model, 5), make_grid(model, 6)
    first, second = step(model, a, objective="sami").loss, step(model, b, objective="sami").loss
    assert step(model, a + b, objective="sami").loss == pytest.approx((first + second) / 2, rel=1e-5)
    # The same context twice is one context: it adds its own loss to the mean, and changes that of no other.
    own = [5 * step(model, [*a, pair], objective="sami").loss - 4 * first for pair in a]
    assert sum(own) == pytest.approx(4 * first, rel=1e-4) and max(own) > min(own) + 1e-3


def test_accumulation_is_normalised_over_the_whole_step():
    """Grids of unequal size: the step's gradient is the mean over pairs, not over micro-batches."""
    model = adapted()
    a, b = make_grid(model, 7, contexts=2, shift=2.0), make_grid(model, 8, contexts=5, shift=2.0)
    parts = [flat(step(model, [pair]).gradients) for pair in a + b]
    result, mean = flat(step(model, a + b, 100).gradients), sum(parts) / 7
    assert mx.linalg.norm(result - mean).item() < 1e-4 * mx.linalg.norm(mean).item()


def test_descending_the_gradient_lowers_the_loss():
    model = adapted()
    pairs = make_grid(model, 9, shift=2.0)
    first = step(model, pairs)
    optimizers.SGD(learning_rate=1e-3 / mx.linalg.norm(flat(first.gradients)).item()).update(model, first.gradients)
    assert step(model, pairs).loss < first.loss


def test_frozen_weights_stay_bit_identical_and_adapters_move():
    model = adapted()
    pairs = make_grid(model, 10, shift=2.0)
    before = {name: np.array(x) for name, x in tree_flatten(model.parameters())}
    trained = {name for name, _ in tree_flatten(model.trainable_parameters())}
    optimizer = optimizers.AdamW(learning_rate=1e-2)
    for checkpoint in (False, True):
        optimizer.update(model, step(model, pairs, 200, checkpoint_gradients=checkpoint).gradients)
    for name, x in tree_flatten(model.parameters()):
        assert np.array_equal(before[name], np.array(x)) == (name not in trained), name


def test_the_same_step_gives_the_same_bits():
    pairs = make_grid(adapted(), 11, shift=2.0)
    runs = []
    for _ in range(2):
        mx.random.seed(3)
        runs.append(step(adapted(Lora(rank=4, dropout=0.3)), pairs, 150))
    assert runs[0].loss == runs[1].loss
    assert mx.array_equal(flat(runs[0].gradients), flat(runs[1].gradients))


@pytest.mark.parametrize("objective", ["dpo", "sami", "infonce_authors"])
@pytest.mark.parametrize("dora", [False, True])
def test_dropout_is_the_same_in_any_micro_batches_and_under_checkpointing(objective, dora):
    model = adapted(Lora(rank=4, dropout=0.3, dora=dora))
    pairs = make_grid(model, 17, shift=2.0) + make_grid(model, 18, shift=2.0)
    result = []
    for budget, checkpoint in ((100_000, False), (100_000, True), (150, False), (1, True)):
        mx.random.seed(5)
        result.append(step(model, pairs, budget, objective=objective, checkpoint_gradients=checkpoint, lora=Lora(dropout=0.3)))
    for other in result[1:]:
        assert other.loss == pytest.approx(result[0].loss, rel=1e-5)
        assert distance(other.gradients, result[0].gradients) < 1e-4


def test_dropout_of_a_contrasting_objective_follows_its_own_loss():
    """As in the test of finite differences below, the values that weigh the gradient must come from the same masks."""
    model = adapted(Lora(rank=4, dropout=0.3))
    pairs, start = make_grid(model, 19), model.trainable_parameters()

    def at(along: float) -> gradients.Step:
        model.update(start)
        if along:
            optimizers.SGD(learning_rate=-along / norm).update(model, first.gradients)
        mx.random.seed(5)
        return step(model, pairs, objective="sami", checkpoint_gradients=True, lora=Lora(dropout=0.3))

    first = at(0.0)
    norm = mx.linalg.norm(flat(first.gradients)).item()
    assert (at(1e-4).loss - at(-1e-4).loss) / 2e-4 == pytest.approx(norm, rel=2e-2)


def test_dropout_follows_the_seed():
    model = adapted(Lora(rank=4, dropout=0.3))
    pairs = make_grid(model, 12, shift=2.0)
    result = []
    for seed in (5, 5, 6):
        mx.random.seed(seed)
        result.append(step(model, pairs, 150).loss)
    assert result[0] == result[1] != result[2]


def test_dropout_with_checkpointing_follows_its_own_loss():
    """Finite differences along the gradient: a layer that drew other numbers the second time would fail."""
    model = adapted(Lora(rank=4, dropout=0.3))
    pairs = make_grid(model, 13, shift=2.0)

    def at(distance_along: float) -> gradients.Step:
        model.update(start)
        if distance_along:
            optimizers.SGD(learning_rate=-distance_along / norm).update(model, first.gradients)
        mx.random.seed(5)
        return step(model, pairs, checkpoint_gradients=True)

    start, norm = model.trainable_parameters(), 1.0
    first = at(0.0)
    norm = mx.linalg.norm(flat(first.gradients)).item()
    slope = (at(1e-4).loss - at(-1e-4).loss) / 2e-4
    assert slope == pytest.approx(norm, rel=2e-2)


ALLOCATION = "[malloc] Unable to allocate 123456 bytes."


def out_of_memory(limit: int, monkeypatch, needs_checkpoint: bool = False, text: str = ALLOCATION) -> list[tuple[int, bool]]:
    """Makes every batch above `limit` tokens fail as MLX does; returns the list of what was tried."""
    real, tried = gradients.batch_logprobs, []

    def limited(model, batch, *, checkpoint=False, gradient=True):
        tried.append((batch.tokens, checkpoint))
        if batch.tokens > limit or (needs_checkpoint and not checkpoint):
            raise RuntimeError(text)
        return real(model, batch, checkpoint=checkpoint, gradient=gradient)

    monkeypatch.setattr(gradients, "batch_logprobs", limited)
    return tried


@pytest.mark.parametrize("objective", ["dpo", "sami"])
def test_out_of_memory_halves_the_micro_batch_and_repeats_it_with_the_same_result(objective, monkeypatch):
    model = adapted()
    pairs = make_grid(model, 14, shift=2.0)
    whole = step(model, pairs, objective=objective)
    tried = out_of_memory(180, monkeypatch)
    result = step(model, pairs, objective=objective)
    assert max(tokens for tokens, _ in tried) > 180
    assert result.token_budget < 100_000
    assert result.loss == pytest.approx(whole.loss, rel=1e-5)
    assert distance(result.gradients, whole.gradients) < 1e-4


def test_out_of_memory_with_one_pair_turns_checkpointing_on_then_says_what_to_do(monkeypatch):
    model = adapted()
    pairs = make_grid(model, 15, shift=2.0)
    whole = step(model, pairs)
    tried = out_of_memory(10_000, monkeypatch, needs_checkpoint=True)
    assert distance(step(model, pairs).gradients, whole.gradients) < 1e-4
    assert (tried[0][1], tried[-1][1]) == (False, True)
    monkeypatch.undo()
    out_of_memory(10, monkeypatch)
    with pytest.raises(Failure, match="out of memory at a single pair of .* tokens; shorten"):
        step(model, pairs)


def test_other_errors_are_not_taken_for_out_of_memory(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes do not match")

    model = adapted()
    pairs = make_grid(model, 16)
    monkeypatch.setattr(gradients, "batch_logprobs", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        step(model, pairs)


def test_memory_is_flat_over_many_steps():
    model = adapted()
    optimizer = optimizers.AdamW(learning_rate=1e-4)
    optimizer.init(model.trainable_parameters())
    grids = [make_grid(model, 20 + n, shift=1.0) for n in range(5)]
    active = []
    for n in range(60):
        optimizer.update(model, step(model, grids[n % 5], 200).gradients)
        mx.eval(model.trainable_parameters(), optimizer.state)
        active.append(mx.get_active_memory())
    assert max(active[30:]) <= max(active[5:10]) * 1.01
