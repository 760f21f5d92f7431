"""Each text check says yes to what it names and no to what is like it."""

import pytest

from mipo_mlx.pairs.filters import refuses
from mipo_mlx.text.words import repeated_share


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m very sorry, but I\u2019m unable to give advice.",
        "As an AI language model, I have no garden.",
        "Well, I'm just an AI, so I don't eat.",
        "I cannot assist with that request.",
        "Unfortunately, I am not able to answer this.",
        "I'm not able to do that.",
    ],
)
def test_refusals(text):
    assert refuses(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear about your knees. Try swimming.",
        "You can't go wrong with soup.",
        "Unfortunately, trains are slow there; take the bus.",
        "Bring a chair, as an aid for your back.",
        "Your bees cannot fly in the rain.",
    ],
)
def test_not_refusals(text):
    assert not refuses(text)


def test_repeated_share():
    assert repeated_share("go to the park and rest there for a while") == 0
    assert repeated_share("go on and " * 10) > 0.8
    assert repeated_share("hi") == 0
