"""One optimizer step against the plain way: each answer behind its own copy of the prompt, all logits, TRL's formulas."""

import math
import resource

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mipo_mlx.engine import logprobs
from mipo_mlx.models import adapters
from mipo_mlx.recipe import Lora, Training
from mipo_mlx.records import Pair
from mipo_mlx.training import memory_plan, step
from tests.conftest import build_model, tiny_config

MAMBA = {"state_size": 8, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": 4}
QWEN35 = tiny_config(
    "qwen3_5", head_dim=16, linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=32, linear_value_head_dim=32,
    linear_conv_kernel_dim=4, full_attention_interval=2, rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 0.5},
)  # fmt: skip

LFM2 = tiny_config(
    "lfm2", conv_L_cache=3, conv_bias=False, norm_eps=1e-5, full_attn_idxs=[1], block_dim=48, block_auto_adjust_ff_dim=False,
    block_multiple_of=1, block_ffn_dim_multiplier=1.0,
)  # fmt: skip


def adapted(config: dict, lora: Lora | None = None, quantized: bool = False) -> nn.Module:
    """A tiny model under adapters that are away from zero."""
    model = build_model(config, spread=1.0 if config["model_type"] == "mamba" else 3.0)
    if quantized:
        nn.quantize(model, group_size=32, bits=4)
    adapters.attach(model, lora or Lora(rank=4, scale=2.0), 0)
    for _, module in model.named_modules():
        if "lora_b" in module:
            module.lora_b = 0.1 * mx.random.normal(module.lora_b.shape)
    mx.eval(model.parameters())
    return model


def make_pairs(prompts: list[int], answers: list[list[int]], seed: int = 0) -> list[Pair]:
    """Pairs of random tokens with those lengths, and references a few nats around what such tokens have."""
    rng = np.random.default_rng(seed)
    texts = {"prompt": [], "chosen": [], "rejected": [], "negatives": [], "pmi": [], "kinds": []}
    pairs = []
    for i, (prompt, lengths) in enumerate(zip(prompts, answers, strict=True)):
        tokens = [rng.integers(3, 380, n).tolist() for n in lengths]
        reference = [float(-6.0 * n + rng.normal()) for n in lengths]
        questions = rng.integers(3, 380, prompt).tolist()
        pairs.append(Pair(str(i), "train", 0, prompt_tokens=questions, tokens=tokens, reference=reference, **texts))
    return pairs


def with_own_reference(model: nn.Module, pairs: list[Pair], rng: np.random.Generator) -> list[Pair]:
    """The reference within a few nats of the policy, as in training: no sigmoid saturates."""
    scores = logprobs.token_logprobs(model, [p.prompt_tokens for p in pairs], [p.tokens for p in pairs])
    return [
        Pair(**{**vars(pair), "reference": [float(s.sum()) + rng.normal(0, 3) for s in result]})
        for pair, result in zip(pairs, scores, strict=True)
    ]


def plain_logprob(model: nn.Module, prompt: list[int], answer: list[int]) -> mx.array:
    row = mx.array([prompt + answer])
    logits = model(row[:, :-1])[0].astype(mx.float32)
    logps = mx.take_along_axis(logits, row[0, 1:, None], axis=-1)[:, 0] - mx.logsumexp(logits, axis=-1)
    return logps[len(prompt) - 1 :].sum()


def plain_loss(d: list[mx.array], pair: Pair, logp: mx.array, settings: Training) -> mx.array:
    """Two candidates: TRL's formulas; more: the softmax over rewards. d: log-ratios to the reference; logp: the chosen answer's."""
    beta, lengths = settings.beta, [len(tokens) for tokens in pair.tokens]
    if settings.length_normalized:
        d = [x / n for x, n in zip(d, lengths, strict=True)]
    if settings.objective == "ipo":
        loss = (d[0] / lengths[0] - d[1] / lengths[1] - 1 / (2 * beta)) ** 2
    elif settings.objective == "hinge":
        loss = mx.maximum(1 - beta * (d[0] - d[1]), 0)
    elif settings.objective == "sft":
        loss = -logp
    elif settings.objective == "dpop":
        loss = mx.logaddexp(0, -beta * (d[0] - d[1] - settings.dpop_weight * mx.maximum(-d[0], 0)))
    elif len(d) == 2:
        s, margin = settings.label_smoothing, beta * (d[0] - d[1])
        loss = (1 - s) * mx.logaddexp(0, -margin) + s * mx.logaddexp(0, margin)
    else:
        loss = mx.logsumexp(beta * mx.stack(d)) - beta * d[0]
    return loss - settings.nll_weight * logp / lengths[0]


def plain_step(model: nn.Module, pairs: list[Pair], settings: Training) -> tuple[float, mx.array]:
    def mean(model: nn.Module) -> mx.array:
        total = mx.array(0.0)
        for pair in pairs:
            logps = [plain_logprob(model, pair.prompt_tokens, tokens) for tokens in pair.tokens]
            d = [logp - ref for logp, ref in zip(logps, pair.reference, strict=True)]
            total = total + plain_loss(d, pair, logps[0], settings)
        return total / len(pairs)

    value, gradient = nn.value_and_grad(model, mean)(model)
    return value.item(), flat(gradient)


def flat(tree) -> mx.array:
    return mx.concatenate([x.reshape(-1) for _, x in tree_flatten(tree)])


def check(model: nn.Module, pairs: list[Pair], tolerance: float = 1e-3, **settings) -> None:
    pairs = with_own_reference(model, pairs, np.random.default_rng(1))
    loss, gradient = plain_step(model, pairs, Training(**settings))
    norm = mx.linalg.norm(gradient).item()
    assert norm > 1e-5
    for checkpoint in (False, True):
        for budget in (64, 100_000):
            chosen = Training(**settings, checkpoint_gradients=checkpoint)
            result = step.gradient_step(model, pairs, chosen, token_budget=budget, pad_id=0)
            assert result.loss == pytest.approx(loss, rel=1e-4, abs=1e-5)
            assert mx.linalg.norm(flat(result.gradients) - gradient).item() < tolerance * norm


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("quantized", [False, True], ids=["plain", "quantized"])
@pytest.mark.parametrize("candidates", [2, 4])
@pytest.mark.parametrize("padded", [False, True], ids=["unpadded", "padded"])
def test_a_step_equals_the_plain_way(tied, quantized, candidates, padded):
    model = adapted(tiny_config(hidden_size=64, head_dim=16, tie_word_embeddings=tied), quantized=quantized)
    answers = [[5, 12, 3, 9][:candidates], [16, 1, 7, 2][:candidates]] if padded else [[16] * candidates] * 2
    check(model, make_pairs([9, 30] if padded else [17, 17], answers))


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "ipo"}, {"objective": "hinge"}, {"objective": "dpop"}, {"objective": "sft"}, {"objective": "infonce"},
        {"label_smoothing": 0.2}, {"nll_weight": 0.5}, {"length_normalized": True, "beta": 2.0}, {"beta": 0.5},
    ],
    ids=str,
)  # fmt: skip
def test_every_objective_and_term_has_the_gradient_of_its_formula(settings):
    check(adapted(tiny_config()), make_pairs([9, 30], [[5, 12], [16, 1]]), **settings)


@pytest.mark.parametrize(
    "lora",
    [Lora(rank=4, dora=True), Lora(rank=4, layers=1), Lora(rank=4, keys=["mlp.up_proj"]), Lora(rank=4, rank_stabilized=True)],
    ids=["dora", "layers", "keys", "rank_stabilized"],
)
def test_every_kind_of_adapter_has_its_gradient(lora):
    model = adapted(tiny_config(), lora)
    check(model, make_pairs([9, 30], [[5, 12], [16, 1]]))
    names = {name for name, _ in tree_flatten(model.trainable_parameters())}
    if lora.layers == 1:
        assert names and all(name.startswith("model.layers.1.") for name in names)
    if lora.keys != "all":
        assert {name.split(".", 3)[3] for name in names} == {"mlp.up_proj.lora_a", "mlp.up_proj.lora_b"}
    assert any(name.endswith(".m") for name in names) == lora.dora


def test_rank_stabilized_is_the_scale_over_the_root_of_the_rank():
    tokens = mx.array([[5, 6, 7, 8]])
    stabilized = adapted(tiny_config(), Lora(rank=4, scale=3.0, rank_stabilized=True))
    by_hand = adapted(tiny_config(), Lora(rank=4, scale=3.0 / math.sqrt(4)))
    assert mx.array_equal(stabilized(tokens), by_hand(tokens))


@pytest.mark.parametrize("config", [tiny_config("mamba", **MAMBA), QWEN35, LFM2], ids=lambda config: config["model_type"])
def test_recurrent_layers_train_the_plain_way_and_can_be_planned(config):
    model = adapted(config)
    with pytest.warns(UserWarning, match="the prompt cannot be shared"):
        logprobs._warned.clear()
        check(model, make_pairs([3, 5], [[4, 2], [3, 1]]))
    plan = memory_plan.choose(model, Training(), memory_plan.Shape.of_pair(64, 2, 32), 10 << 30)
    assert plan.fits and plan.peak_bytes > plan.activation_bytes


def test_finite_differences_of_a_step():
    model = adapted(tiny_config())
    pairs = with_own_reference(model, make_pairs([9, 30], [[5, 12], [16, 1]]), np.random.default_rng(1))
    settings = Training(beta=0.5)
    start = dict(tree_flatten(model.trainable_parameters()))
    slopes = dict(tree_flatten(step.gradient_step(model, pairs, settings, token_budget=4096, pad_id=0).gradients))
    for number, name in enumerate(("model.layers.0.self_attn.v_proj.lora_b", "model.layers.1.mlp.gate_proj.lora_a")):
        direction = mx.random.normal(start[name].shape, key=mx.random.key(number)) + slopes[name] / mx.abs(slopes[name]).max()
        direction = direction / mx.linalg.norm(direction)
        losses = []
        for sign in (1, -1):
            model.load_weights([(name, start[name] + sign * 3e-3 * direction)], strict=False)
            losses.append(step.gradient_step(model, pairs, settings, token_budget=4096, pad_id=0).loss)
        model.load_weights([(name, start[name])], strict=False)
        assert (losses[0] - losses[1]) / 6e-3 == pytest.approx((slopes[name] * direction).sum().item(), rel=3e-2)


def resident() -> int:
    """Bytes of this process in memory now (Linux); elsewhere its largest so far."""
    try:
        with open("/proc/self/statm") as handle:
            return int(handle.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_memory_is_flat_over_three_hundred_steps():
    """Lengths differ from step to step, as they do in training."""
    model = adapted(tiny_config(num_hidden_layers=1))
    optimizer = optimizers.AdamW(learning_rate=1e-4)
    optimizer.init(model.trainable_parameters())
    rng = np.random.default_rng(3)
    steps = [make_pairs([int(rng.integers(2, 60))], [rng.integers(1, 40, 2).tolist()], seed) for seed in range(25)]
    active, whole = [], []
    for n in range(300):
        result = step.gradient_step(model, steps[n % 25], Training(), token_budget=4096, pad_id=0)
        optimizer.update(model, result.gradients)
        mx.eval(model.trainable_parameters(), optimizer.state)
        active.append(mx.get_active_memory())
        whole.append(resident())
    assert max(active[50:]) <= max(active[:50]) * 1.01
    assert max(whole[100:]) < max(whole[:100]) + (8 << 20)
