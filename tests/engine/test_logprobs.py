"""Log-probabilities and their gradients against the plain way: prompt and answer in one row through the whole model."""

import warnings
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from mipo_mlx.engine import head, logprobs
from mipo_mlx.errors import UserError
from tests.conftest import build_model, tiny_config

GEMMA2 = {"query_pre_attn_scalar": 12, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
GEMMA3 = {"sliding_window": 8, "query_pre_attn_scalar": 12, "num_hidden_layers": 3, "sliding_window_pattern": 2}
ARCHITECTURES = {
    "llama": {},
    "llama-untied": {"tie_word_embeddings": False, "attention_bias": True},
    "qwen2": {},
    "qwen3": {"tie_word_embeddings": False},
    "gemma": {},
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "phi3": {"partial_rotary_factor": 1.0},
    "granite": {"logits_scaling": 4.0, "attention_multiplier": 0.3, "embedding_multiplier": 2.0, "residual_multiplier": 0.5,
                "attention_bias": False, "mlp_bias": False},
    "cohere": {"logit_scale": 0.25},
    "smollm3": {},
    "internlm2-untied": {"bias": False, "tie_word_embeddings": False},
    "llama4_text": {"intermediate_size_mlp": 96, "no_rope_layers": [1, 0], "attention_bias": False, "use_qk_norm": True,
                    "tie_word_embeddings": False},
}  # fmt: skip


def adapted(config: dict, *, quantized: bool = False, dora: bool = False, seed: int = 0) -> nn.Module:
    """A tiny model under LoRA with random B, so that gradients flow into A and B."""
    model = build_model(config, seed=seed)
    if quantized:
        nn.quantize(model, group_size=32, bits=8)
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), {"rank": 4, "scale": 2.0, "dropout": 0.0}, use_dora=dora)
    for _, module in model.named_modules():
        if "lora_b" in module:
            module.lora_b = 0.1 * mx.random.normal(module.lora_b.shape)
    return model


def random_tokens(seed: int, prompt_lengths: list[int], candidates: int, longest: int = 8) -> tuple[list, list]:
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(3, 380, n).tolist() for n in prompt_lengths]
    return prompts, [[rng.integers(3, 380, rng.integers(1, longest)).tolist() for _ in range(candidates)] for _ in prompts]


def as_batch(prompts: list, answers: list, extra: int = 0) -> SimpleNamespace:
    """Padded arrays; `extra` columns of nothing but padding on top."""
    lengths = mx.array([len(prompt) for prompt in prompts], dtype=mx.int32)
    p = np.full((len(prompts), max(map(len, prompts)) + extra), 7, np.int32)
    for i, prompt in enumerate(prompts):
        p[i, : len(prompt)] = prompt
    longest = max(len(a) for some in answers for a in some) + extra
    out = np.full((len(prompts), len(answers[0]), longest), 7, np.int32)
    for i, some in enumerate(answers):
        for j, answer in enumerate(some):
            out[i, j, : len(answer)] = answer
    counts = mx.array([[len(a) for a in some] for some in answers], dtype=mx.int32)
    return SimpleNamespace(prompts=mx.array(p), prompt_lengths=lengths, answers=mx.array(out), answer_lengths=counts)


def test_a_sum_is_rounded_and_made_in_double_precision():
    assert logprobs.total(np.full(3, -0.1234567, np.float32)) == -0.37037 and logprobs.total(np.zeros(0, np.float32)) == 0.0
    assert logprobs.total(np.array([-1e8, *[-1.0] * 10], np.float32)) == -100000010.0  # float32 would lose the ones


def plain(model: nn.Module, prompt: list[int], answer: list[int]) -> mx.array:
    row = mx.array([prompt + answer])
    logits = model(row[:, :-1])[0].astype(mx.float32)
    logps = mx.take_along_axis(logits, row[0, 1:, None], axis=-1)[:, 0] - mx.logsumexp(logits, axis=-1)
    return logps[len(prompt) - 1 :]


def value_and_gradient(model: nn.Module, function) -> tuple[float, mx.array]:
    value, gradient = nn.value_and_grad(model, function)(model)
    flat = mx.concatenate([g.astype(mx.float32).reshape(-1) for _, g in tree_flatten(gradient)])
    mx.eval(value, flat)
    return value.item(), flat


def check_against_plain(model: nn.Module, prompts: list, answers: list, tolerance: float = 1e-3, extra: int = 0) -> None:
    """A random weighted sum of all token log-probabilities: value, and gradient with and without checkpointing."""
    weights = mx.random.normal((len(prompts), len(answers[0])), key=mx.random.key(5))
    batch = as_batch(prompts, answers, extra)

    def whole(model):
        places = [(i, j) for i, some in enumerate(answers) for j in range(len(some))]
        return sum(weights[i, j] * plain(model, prompts[i], answers[i][j]).sum() for i, j in places)

    value, gradient = value_and_gradient(model, whole)
    for checkpoint in (False, True):

        def ours(model, checkpoint=checkpoint):
            return (weights[..., None] * logprobs.batch_logprobs(model, batch, checkpoint=checkpoint)).sum()

        result, back = value_and_gradient(model, ours)
        assert result == pytest.approx(value, rel=1e-5, abs=1e-3)
        assert mx.linalg.norm(back - gradient).item() < tolerance * mx.linalg.norm(gradient).item()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_values_and_gradients_equal_the_plain_way(name):
    model = adapted(tiny_config(name.split("-")[0], **ARCHITECTURES[name]))
    check_against_plain(model, *random_tokens(1, [9, 1, 14], 2))


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3_text", "llama4_text"])
@pytest.mark.parametrize("apart", [[9, 1, 14], [1, 1], [2, 40]])  # tokens behind the opening of each prompt; 1: all are alike
def test_what_all_prompts_begin_with_runs_once(name, apart, monkeypatch):
    monkeypatch.setattr(logprobs, "WORTH_A_PASS", 10)
    prompts, answers = random_tokens(21, apart, 2)
    opening = random_tokens(22, [12], 1)[0][0]
    prompts = [opening + (prompt if len(prompt) > 1 else [7]) for prompt in prompts]
    batch, ran = as_batch(prompts, answers), []
    shared = logprobs.shared_opening(batch)
    assert shared == {14: 12, 1: 11, 40: 12}[apart[-1]]
    original = logprobs.Recorder.update_and_fetch
    monkeypatch.setattr(
        logprobs.Recorder, "update_and_fetch", lambda self, k, v: ran.append(k.shape[0] * k.shape[2]) or original(self, k, v)
    )
    model = adapted(tiny_config(name, **ARCHITECTURES[name]))
    logprobs.batch_logprobs(model, batch)
    layers, width = len(model.layers), batch.prompts.shape[1] - 1
    assert sum(ran) == layers * (shared + len(prompts) * (width - shared))
    check_against_plain(model, prompts, answers)


@pytest.mark.parametrize("shared, prompts, worth", [(63, 3, 0), (64, 3, 64), (127, 2, 0), (300, 1, 0), (128, 2, 128)])
def test_an_opening_that_saves_few_tokens_is_no_pass_of_its_own(shared, prompts, worth):
    rows = [[5] * shared + [10 + i, 3, 4] for i in range(prompts)]
    assert logprobs.shared_opening(as_batch(rows, [[[3]]] * prompts)) == worth


def test_an_output_layer_of_another_name_is_refused():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.to_words = build_model(tiny_config()).model, nn.Linear(48, 384)

        def __call__(self, inputs, cache=None):
            return self.to_words(self.model(inputs, cache))

    with pytest.raises(UserError, match="its output layer is not found .expected lm_head or output, or the embedding"):
        head.OutputHead(Odd()).size(mx.zeros((3, 48)))


@pytest.mark.parametrize("lengths, candidates, extra", [([7, 7], 4, 0), ([1, 1], 2, 0), ([5], 1, 0), ([12, 3, 8], 4, 9)])
def test_padded_and_unpadded_rows_of_any_number(lengths, candidates, extra):
    model = adapted(tiny_config("llama"))
    check_against_plain(model, *random_tokens(2, lengths, candidates), extra=extra)


@pytest.mark.parametrize("tied", [True, False])
def test_quantized_base_and_head(tied):
    model = adapted(tiny_config("llama", hidden_size=64, head_dim=16, tie_word_embeddings=tied), quantized=True)
    check_against_plain(model, *random_tokens(3, [6, 11], 2))


def test_dora():
    check_against_plain(adapted(tiny_config("qwen2"), dora=True), *random_tokens(4, [6, 11], 2))


def test_a_sliding_window_shorter_than_the_prompt_is_respected():
    model = adapted(tiny_config("gemma3_text", **GEMMA3))
    assert logprobs.shares_prompts(model)
    check_against_plain(model, *random_tokens(5, [30, 17], 3, longest=14))


@pytest.mark.parametrize("tied", [True, False])
def test_a_trained_output_layer_gets_its_gradient(tied):
    model = build_model(tiny_config("llama", tie_word_embeddings=tied))  # nothing frozen
    assert not head.OutputHead(model).frozen
    check_against_plain(model, *random_tokens(6, [6, 4], 2))


def test_many_blocks_of_vocabulary_and_chunks_of_tokens_change_nothing(monkeypatch):
    monkeypatch.setattr(head, "CHUNK_TOKENS", 5)
    monkeypatch.setattr(head, "BLOCK", 100)
    for name in ("llama", "gemma2"):
        check_against_plain(adapted(tiny_config(name, **ARCHITECTURES[name])), *random_tokens(7, [6, 9], 2))


@pytest.mark.parametrize("quantized", [False, True])
def test_logits_of_a_16_bit_model_are_float32(quantized):
    model = adapted(tiny_config("llama", hidden_size=64, head_dim=16), quantized=quantized)
    model.set_dtype(mx.bfloat16)
    (prompt,), ((answer,),) = random_tokens(14, [9], 1, longest=30)
    row = mx.array([prompt + answer])
    hidden = model.model(row[:, :-1])[0, len(prompt) - 1 :].astype(mx.float32)
    layer = model.model.embed_tokens
    weight = (
        layer.weight.astype(mx.float32)
        if not quantized
        else mx.dequantize(layer.weight, *(x.astype(mx.float32) for x in (layer.scales, layer.biases)), group_size=32, bits=8)
    )
    logits = hidden @ weight.T
    exact = mx.take_along_axis(logits, mx.array(answer)[:, None], axis=-1)[:, 0] - mx.logsumexp(logits, axis=-1)
    head_only = head.token_logprobs(head.OutputHead(model), hidden.astype(mx.bfloat16), mx.array(answer))
    assert mx.abs(head_only - exact).max().item() < 1e-3
    value, gradient = value_and_gradient(model, lambda m: logprobs.batch_logprobs(m, as_batch([prompt], [[answer]])).sum())
    assert np.isfinite(value) and mx.linalg.norm(gradient).item() > 0


def test_finite_differences():
    model = adapted(tiny_config("llama"))
    batch = as_batch(*random_tokens(8, [9, 5], 2))
    _, gradient = value_and_gradient(model, lambda m: logprobs.batch_logprobs(m, batch).mean())
    names = [name for name, _ in tree_flatten(model.trainable_parameters())]
    step, at = 1e-2, 0
    parameters = dict(tree_flatten(model.trainable_parameters()))
    slopes = dict(zip(names, mx.split(gradient, np.cumsum([parameters[n].size for n in names])[:-1].tolist()), strict=True))
    for name in ("model.layers.0.self_attn.q_proj.lora_b", "model.layers.1.mlp.down_proj.lora_a"):
        direction = mx.random.normal(parameters[name].shape, key=mx.random.key(at))
        direction = direction / mx.linalg.norm(direction)
        values = []
        for sign in (1, -1):
            model.load_weights([(name, parameters[name] + sign * step * direction)], strict=False)
            values.append(np.array(logprobs.batch_logprobs(model, batch, gradient=False)).astype(np.float64).mean())
        model.load_weights([(name, parameters[name])], strict=False)
        expected = (slopes[name] * direction.reshape(-1)).sum().item()
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=2e-2)


def test_recurrent_models_run_the_plain_way_and_say_so_once():
    config = tiny_config("mamba", state_size=8, conv_kernel=4, use_bias=False, use_conv_bias=True, time_step_rank=4)
    model = build_model(config, spread=1.0)
    logprobs._warned.clear()
    with pytest.warns(UserWarning, match="mamba.*the prompt cannot be shared"):
        assert not logprobs.shares_prompts(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_against_plain(model, *random_tokens(9, [6, 9], 2))


def test_lists_of_any_lengths_in_any_order_and_budget():
    model = adapted(tiny_config("llama"))
    prompts, answers = random_tokens(10, [3, 21, 1, 8, 13], 3, longest=12)
    answers[1] = answers[1][:1]
    answers[3] = [[], answers[3][0]]
    answers[4] = []
    rows = zip(prompts, answers, strict=True)
    expected = [[np.array(plain(model, p, a)) if a else np.zeros(0) for a in some] for p, some in rows]
    for budget in (1, 60, 10_000):
        result = logprobs.token_logprobs(model, prompts, answers, token_budget=budget)
        assert [[x.dtype for x in some] for some in result] == [[np.float32] * len(some) for some in answers]
        for mine, theirs in zip(result, expected, strict=True):
            assert len(mine) == len(theirs)
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-4)
    again = logprobs.token_logprobs(model, prompts[::-1], answers[::-1], token_budget=60)[::-1]
    for mine, theirs in zip(again, result, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("with_keys", [False, True])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3_text"])
def test_answers_of_like_length_run_together(name, with_keys, monkeypatch):
    """Passes for answers of 31, 9 and 1 tokens at most. The prompts run once, or not at all where their keys are there."""
    monkeypatch.setattr(logprobs, "WORTH_A_PASS", 10)
    model, rng = adapted(tiny_config(name, **ARCHITECTURES[name])), np.random.default_rng(4)
    prompts = [rng.integers(3, 380, n).tolist() for n in (9, 14)]
    answers = [[rng.integers(3, 380, n).tolist() for n in some] for some in ([2, 31, 0, 30], [9, 1, 28, 25])]
    recorded = None
    if with_keys:
        batches = [as_batch([prompt], [[[5]]]) for prompt in prompts]
        recorded = [logprobs._record(model, batch) for batch in batches]
    ran, original = [], logprobs._shared_hidden
    monkeypatch.setattr(
        logprobs,
        "_shared_hidden",
        lambda model, batch, *rest: ran.append((batch.answers.shape, rest[-1] is None)) or original(model, batch, *rest),
    )
    result = logprobs.token_logprobs(model, prompts, answers, recorded=recorded)
    assert ran == [((2, 2, 31), False), ((2, 1, 9), False), ((2, 1, 1), False)]
    for prompt, some, mine in zip(prompts, answers, result, strict=True):
        for answer, logps in zip(some, mine, strict=True):
            expected = np.array(plain(model, prompt, answer)) if answer else np.zeros(0)
            np.testing.assert_allclose(logps, expected, atol=1e-4)


@pytest.mark.parametrize(
    "longest, rows, passes",
    [
        ([48, 45, 40, 30], 16, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ([48, 45, 40, 30], 8, [(0, 2), (2, 4)]),
        ([48, 45, 40, 30], 1, [(0, 4)]),
        ([40, 40, 8, 0], 4, [(0, 2), (2, 3)]),
        ([40], 100, [(0, 1)]),
    ],
)
def test_another_pass_begins_where_it_saves_padding(longest, rows, passes):
    assert [(some.start, some.stop) for some in logprobs._passes(longest, rows)] == passes


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="empty prompt"):
        logprobs.token_logprobs(build_model(tiny_config()), [[]], [[[1]]])


def test_the_same_inputs_give_the_same_bits():
    model = adapted(tiny_config("llama"))
    batch = as_batch(*random_tokens(11, [19, 5], 2))
    runs = [value_and_gradient(model, lambda m: logprobs.batch_logprobs(m, batch).sum()) for _ in range(2)]
    assert runs[0][0] == runs[1][0]
    assert mx.array_equal(runs[0][1], runs[1][1])


def test_the_model_is_left_as_it_was():
    model = adapted(tiny_config("llama"))
    layers, parts = list(model.model.layers), dict(model)
    logprobs.batch_logprobs(model, as_batch(*random_tokens(12, [4], 2)), checkpoint=True)
    assert all(a is b for a, b in zip(model.model.layers, layers, strict=True))
    assert all(model[name] is part for name, part in parts.items())


def test_the_vocabulary_does_not_make_a_step_larger():
    """Beside the weights, a step with 8 times the vocabulary takes less than 15 % more."""
    peaks = []
    for vocabulary in (8192, 65536):
        model = adapted(tiny_config("llama", vocab_size=vocabulary))
        batch = as_batch(*random_tokens(13, [60, 60], 4, longest=100))
        mx.eval(model.parameters())
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        value_and_gradient(model, lambda m, batch=batch: logprobs.batch_logprobs(m, batch).sum())
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[1] < 1.15 * peaks[0]
