"""Adapters: dropout belongs to the training step alone, so whatever else looks at a model sees the same model twice."""

import mlx.core as mx
import numpy as np

from mipo_mlx.engine.logprobs import token_logprobs
from mipo_mlx.models import adapters
from mipo_mlx.recipe import Lora
from tests.conftest import build_model, tiny_config

LORA = Lora(rank=4, scale=20.0, dropout=0.5)


def scores(model):
    prompts, answers = [[5, 6, 7], [8, 9]], [[[10, 11, 12], [13]], [[14, 15, 16]]]
    return np.concatenate([row for rows in token_logprobs(model, prompts, answers) for row in rows])


def test_dropout_is_off_outside_the_training_step(tmp_path):
    model = build_model(tiny_config())
    config = adapters.attach(model, LORA, seed=0)
    mx.random.seed(1)
    for name, value in adapters.weights(model).items():
        model.load_weights([(name, value + 0.1 * mx.random.normal(value.shape))], strict=False)
    model.train()
    assert not np.array_equal(scores(model), scores(model))  # strong enough to be seen where it is on
    adapters.save(model, tmp_path, config)
    loaded = adapters.load(build_model(tiny_config()), tmp_path)
    first = scores(loaded)
    assert np.array_equal(first, scores(loaded))
    with adapters.disabled(loaded):
        np.testing.assert_allclose(scores(loaded), scores(build_model(tiny_config())), atol=1e-5)


def test_fresh_adapters_are_the_base(tmp_path):
    model = build_model(tiny_config())
    adapters.attach(model, LORA, seed=0)
    assert not any(module.training for _, module in model.named_modules())
