"""Embedding and output layer in the file's precision: every number is the one that float32 tables give."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.utils import dequantize_model

from mipo_mlx import backend
from mipo_mlx.engine import fast, logprobs
from mipo_mlx.engine.tables import STORED, expanded, prepare, tables
from mipo_mlx.pairs.make import sample
from mipo_mlx.recipe import Lora, Pairs, Training
from mipo_mlx.records import Pair
from mipo_mlx.training.step import gradient_step
from tests.conftest import build_model, tiny_config

pytestmark = pytest.mark.skipif(not backend.on_cpu(), reason="a GPU keeps all weights as they are stored")

KINDS = {"bf16": mx.bfloat16, "f16": mx.float16, "4 bits": 4, "8 bits": 8}
MODELS = {
    "tied": ("llama", {"hidden_size": 64, "head_dim": 16}),
    "untied": ("llama", {"hidden_size": 64, "head_dim": 16, "tie_word_embeddings": False}),
    "scaled": ("gemma", {"hidden_size": 64, "head_dim": 16}),  # embeddings times sqrt(width)
}


def tiny_model(model: str, kind: str) -> nn.Module:
    name, changes = MODELS[model]
    built = build_model(tiny_config(name, **changes))
    if isinstance(KINDS[kind], int):
        nn.quantize(built, group_size=32, bits=KINDS[kind])
    else:
        built.set_dtype(KINDS[kind])
    return built


def in_float32(model: nn.Module) -> nn.Module:
    """What the CPU computed with before any table was kept as it is stored."""
    model = dequantize_model(model)
    model.update(tree_map(lambda p: p.astype(mx.float32), model.parameters()))
    return model


@pytest.fixture(params=[(model, kind) for model in MODELS for kind in KINDS], ids="-".join)
def both(request) -> tuple[nn.Module, nn.Module]:
    """(with stored tables, all float32), of the same weights."""
    stored, plain = prepare(tiny_model(*request.param)), in_float32(tiny_model(*request.param))
    result = [name for name, module in stored.named_modules() if isinstance(module, STORED)]
    assert len(result) == (2 if request.param[0] == "untied" else 1)
    return stored, plain


def same(a: mx.array, b: mx.array) -> None:
    assert np.array_equal(np.array(a), np.array(b))


def test_logits_are_the_same(both):
    stored, plain = both
    tokens = mx.array([[5, 9, 300, 17, 3]])
    same(stored(tokens), plain(tokens))
    with expanded(stored):
        same(stored(tokens), plain(tokens))


def test_logprobs_are_the_same(both):
    jobs = [[5, 9, 300], [17, 3]], [[[8, 9], [7]], [[4, 4, 4], [2]]]
    for one, other in zip(*(logprobs.token_logprobs(model, *jobs) for model in both), strict=True):
        for a, b in zip(one, other, strict=True):
            same(a, b)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_gradients_are_the_same_and_the_tables_stay(both, checkpoint):
    from mipo_mlx.models import adapters

    texts = {"prompt": [], "chosen": [], "rejected": [], "negatives": []}
    pair = Pair("0", "train", 0, prompt_tokens=[5, 9, 300, 17], tokens=[[8, 9, 1], [7, 4]], reference=[-9.0, -8.0], pmi=[0.0],
                kinds=["random_context"], **texts)  # fmt: skip
    result = []
    for model in both:
        adapters.attach(model, Lora(rank=4), seed=0)
        before = {name: np.array(x.astype(mx.float32)) for name, x in tree_flatten(model.parameters()) if "lora" not in name}
        settings = Training(checkpoint_gradients=checkpoint)
        result.append(gradient_step(model, [pair], settings, token_budget=1000, pad_id=0))
        after = dict(tree_flatten(model.parameters()))
        assert all(np.array_equal(np.array(after[name].astype(mx.float32)), value) for name, value in before.items())
    assert result[0].loss == result[1].loss
    trees = [dict(tree_flatten(each.gradients)) for each in result]
    assert trees[0].keys() == trees[1].keys() and any(np.abs(np.array(x)).max() > 0 for x in trees[0].values())
    for name, value in trees[0].items():
        same(value, trees[1][name])


def test_the_same_answers_are_sampled(both, tiny_tokenizer):
    settings = Pairs(max_tokens=12, batch=4)
    answers = [sample(model, tiny_tokenizer, [[5, 9, 300], [17, 3]], settings, key=1) for model in both]
    assert answers[0] == answers[1]
    assert any(isinstance(module, STORED) for module in both[0].modules())  # expanded while it sampled, and no longer


def test_a_float32_model_keeps_its_layers():
    model = build_model(tiny_config())
    assert not tables(model)
    prepared = prepare(model)
    assert not any(isinstance(module, STORED) for module in prepared.modules())


def test_the_tables_take_what_the_file_takes():
    model = prepare(tiny_model("untied", "bf16"))
    sizes = {name: x.nbytes for name, x in tree_flatten(model.parameters())}
    assert sizes["model.embed_tokens.stored"] == sizes["lm_head.stored"] == 2 * 384 * 64
    assert sizes["model.layers.0.mlp.up_proj.weight"] == 4 * 64 * 96


def test_everything_is_put_back_after_an_error():
    model = prepare(tiny_model("untied", "bf16"))
    tables, official = [model.model.embed_tokens, model.lm_head], [mx.fast.scaled_dot_product_attention, nn.silu]
    with pytest.raises(RuntimeError, match="in the middle"), fast(model):
        assert model.lm_head is not tables[1] and model.lm_head.stored.dtype == mx.float32 and nn.silu is not official[1]
        raise RuntimeError("in the middle")
    assert model.model.embed_tokens is tables[0] and model.lm_head is tables[1]
    assert [mx.fast.scaled_dot_product_attention, nn.silu] == official
