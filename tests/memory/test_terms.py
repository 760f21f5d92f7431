"""The words that a search goes by."""

import random

import pytest

from mipo_mlx.memory import terms


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What could I cook tonight?", ["cook", "tonight"]),
        ("Which of my sister's recipes don't need eggs?", ["sister", "recipes", "eggs"]),
        ("Was könnte ich heute Abend kochen?", ["heute", "abend", "kochen"]),
        ("Qu'est-ce que je peux cuisiner avec l'ail ?", ["cuisiner", "ail"]),
        ("What is it?", ["what", "is", "it"]),  # nothing else is left
        ("蜂蜜の収穫", ["蜂蜜", "蜜の", "の収", "収穫"]),
        ("Is 17 a prime?", ["17", "prime"]),
    ],
)
def test_content_words(question, words):
    assert terms.content_words(question) == words


def test_pairs_of_characters_where_nothing_parts_words():
    assert terms.pairs("I like 東京タワー, and 茶.") == "東京 京タ タワ ワー 茶"
    assert terms.pairs("plain English") == ""
    assert terms.pairs("벌꿀을 먹는다") == "벌꿀 꿀을 먹는 는다"


@pytest.mark.parametrize(
    ("text", "name"),
    [("What did I write?", "English"), ("Was habe ich geschrieben?", "German"), ("Où est la clé de mon vélo ?", "French"),
     ("¿Dónde está mi bicicleta?", "Spanish"), ("honey", "English"), ("蜂蜜", "English")],
)  # fmt: skip
def test_the_language_of_a_question(text, name):
    assert terms.language(text) == name


def slow(one: str, other: str) -> int:
    """The textbook recursion of the optimal string alignment distance."""
    if not one or not other:
        return len(one) + len(other)
    best = min(slow(one[:-1], other) + 1, slow(one, other[:-1]) + 1, slow(one[:-1], other[:-1]) + (one[-1] != other[-1]))
    if len(one) > 1 and len(other) > 1 and one[-1] == other[-2] and one[-2] == other[-1]:
        best = min(best, slow(one[:-2], other[:-2]) + 1)
    return best


def test_edits_are_those_of_the_textbook():
    rng = random.Random(0)
    for _ in range(200):
        one, other = ("".join(rng.choices("abc", k=rng.randrange(6))) for _ in range(2))
        for most in (0, 1, 2):
            assert terms.edits(one, other, most) == min(slow(one, other), most + 1)


@pytest.mark.parametrize(
    ("word", "is_one"), [("whta", True), ("shoud", True), ("tonigth", False), ("sourdogh", False), ("hat", False)]
)
def test_mistyped_function_words(word, is_one):
    assert terms.misspells_a_function_word(word) is is_one
