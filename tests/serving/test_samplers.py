"""How settings cut and change the odds of tokens, against plain NumPy."""

import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx.serving.protocol import Settings
from mipo_mlx.serving.samplers import processors_of, sampler_of

ODDS = np.array([0.05, 0.4, 0.02, 0.3, 0.2, 0.03])


def drawn(**settings) -> set[int]:
    """The tokens that 300 draws give."""
    logprobs = mx.array(np.log(ODDS)[None].repeat(300, 0), mx.float32)
    return set(sampler_of(Settings(**{"temperature": 2.0, "top_p": 1.0, **settings}))(logprobs).tolist())


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize(
    "settings, kept",
    [
        ({}, {0, 1, 2, 3, 4, 5}),
        ({"top_k": 1}, {1}),
        ({"top_k": 3}, {1, 3, 4}),
        ({"top_k": 99}, {0, 1, 2, 3, 4, 5}),
        ({"min_p": 0.45}, {1, 3, 4}),  # of the likeliest token's odds, whatever the temperature
        ({"min_p": 0.11, "temperature": 1.3}, {0, 1, 3, 4}),
        ({"min_p": 1.0}, {1}),
        ({"top_p": 0.6}, {1, 3}),
        ({"top_p": 0.95, "top_k": 2}, {1, 3}),
        ({"top_p": 0.8, "min_p": 0.6}, {1, 3}),
        ({"temperature": 0.0, "top_k": 3}, {1}),
        ({"temperature": 1e-40}, {1}),
    ],
)
def test_unlikely_tokens_are_never_drawn(settings, kept, seed):
    assert drawn(**settings, seed=seed) == kept


def after(answer: list[int], prompt: list[int], **settings) -> list[float]:
    """Logits of tokens 0 to 3, of 1, -1, 2 and -2, after a prompt and an answer so far."""
    logits = mx.array([[1.0, -1.0, 2.0, -2.0]])
    for processor in processors_of(Settings(**settings), len(prompt)):
        logits = processor(mx.array(prompt + answer, mx.int32), logits)
    return logits[0].tolist()


def test_penalties_count_the_tokens_of_the_answer_alone():
    assert processors_of(Settings(), 3) == []
    long = [2] * 50
    for settings, odds in (
        ({"presence_penalty": 0.5}, [0.5, -1.5, 2, -2]),
        ({"frequency_penalty": 0.5}, [0, -1.5, 2, -2]),
        ({"repetition_penalty": 2.0}, [0.5, -2, 2, -2]),
        ({"presence_penalty": -1.0, "frequency_penalty": 0.25}, [1.5, -0.25, 2, -2]),
    ):
        assert after([0, 1, 0], long, **settings) == pytest.approx(odds)
        assert after([], long, **settings) == [1, -1, 2, -2]
    assert after([0] * 100, [], frequency_penalty=0.5)[0] == pytest.approx(-49)  # of the whole answer, not of its end
