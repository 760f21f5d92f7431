"""Each text check says yes to what it names and no to what is like it."""

import pytest

from mipo_mlx.pairs.filters import likeness, quotes, refuses, repeated_share, takes_users_part

BEES = "I keep bees in the garden. I am a handyman. My sister Ana is a nurse.\nI love baking bread on Sundays."


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


def test_quotes_counts_words_in_a_row():
    assert quotes("Since you said: I keep bees in the garden!", BEES, 6)
    assert quotes("since I KEEP, bees in the -- garden", BEES, 6)
    assert not quotes("Since I keep bees in your garden", BEES, 6)
    assert quotes("Since I keep bees in your garden", BEES, 4)


@pytest.mark.parametrize(
    "text",
    ["I'm a handyman who also fixes roofs.", "Sure! My sister Ana could help.", "I love to bake bread too.", "I also keep bees."],
)
def test_takes_users_part(text):
    assert takes_users_part(text, BEES, "What should I do on Sunday?")


@pytest.mark.parametrize(
    "text",
    [
        "I'm happy to help with your bees.",
        "As you keep bees, sell honey with your sister.",
        "I'm glad that you are a handyman.",
        "I have a few suggestions for a quiet weekend.",
        "You are a handyman, so build a hive.",
    ],
)
def test_leaves_the_user_the_users_part(text):
    assert not takes_users_part(text, BEES, "What should I do on Sunday?")


def test_writing_for_the_user_is_in_the_users_voice():
    assert not takes_users_part("I am a handyman and I keep bees.", BEES, "Write a short bio for my website.")


def test_repeated_share():
    assert repeated_share("go to the park and rest there for a while") == 0
    assert repeated_share("go on and " * 10) > 0.8
    assert repeated_share("hi") == 0


def test_likeness():
    assert likeness("Bake some bread today.", "bake some BREAD today") == 1
    assert likeness("Bake some bread today.", "Plant a tree tomorrow.") == 0
    assert likeness("yes", "yes") == 1 and likeness("yes", "no") == 0
    assert 0.3 < likeness("one two three four five six", "one two three four five seven") < 0.8
