"""Words, shared runs and likeness, by hand; the longest run also against a plain table of all shared passages."""

import random
import re

import pytest

from mipo_mlx.text.words import (
    MIN_WORDS,
    PART,
    SENTENCE_END,
    WORD,
    how_many,
    jaccard,
    joined,
    likeness,
    longest_passage,
    parts,
    plain,
    quotes,
    sentences,
    split_sentences,
    whole_sentences,
    words,
)

HOUSE = "I'm a handyman who works in old houses by the sea. I have two kids, and my sister Ana is a nurse."
BEES = "I keep bees in the garden."


def longest_run(text: str, source: str) -> int:
    begin, end = longest_passage(text, source)
    return end - begin


def test_words():
    assert words("Don\u2019t say \u201cRock 'n' roll\u201d, mum_s 2 O'Neill's!") == [
        *("don't", "say", "rock", "n", "roll", "mum", "s", "2", "o'neill's"),
    ]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("我在北京养蜜蜂。", list("我在北京养蜜蜂")),
        ("猫を2匹、飼っています!", [*"猫を", "2", *"匹飼っています"]),
        ("I live in 東京, isn't it?", ["i", "live", "in", "東", "京", "isn't", "it"]),
        ("ผมเลี้ยงแมว 2 ตัว", [*"ผมเลยงแมว", "2", *"ตว"]),  # marks above and below belong to no word
        ("저는 벌을 키워요", ["저는", "벌을", "키워요"]),  # Korean has spaces
        ("・、。", []),
    ],
)
def test_scripts_without_spaces_have_words_too(text, result):
    assert words(text) == result


def test_texts_without_spaces_are_compared():
    assert likeness("我在北京养了三箱蜜蜂", "我在北京养了四箱蜜蜂") > 0.4 > likeness("我在北京养了三箱蜜蜂", "今天晚上吃什么好呢")
    assert quotes("你在北京养了三箱蜜蜂，真好！", "我在北京养了三箱蜜蜂。", 4)  # nine characters are about four words
    assert not quotes("你在北京养了三箱蜜蜂，真好！", "我在北京养了三箱蜜蜂。", 5)
    assert longest_run("你在北京养了三箱蜜蜂，真好！", joined("我在北京养了三箱蜜蜂。")) == 9


def test_words_of_scripts_with_spaces_are_what_they_were():
    """Against the plain expressions, over every character of those scripts."""
    rng = random.Random(5)
    letters = [chr(code) for code in range(0x0E00)] + [chr(code) for code in range(0xAC00, 0xAC80)] + list("'_ -.") * 200
    for _ in range(300):
        text = "".join(rng.choices(letters, k=80)).lower()
        assert WORD.findall(text) == re.findall(r"[^\W_]+(?:'[^\W_]+)*", text)
        assert PART.findall(text) == re.findall(r"\w+", text)


def test_short_ways_find_what_the_patterns_find():
    rng = random.Random(6)
    ascii_signs, signs = list("abZ09_'.!?\" \n\t-,)") * 3, list("éß日本。！？…”’ \u00a0ĳΣ½²٣かท")
    for number in range(600):
        text = "".join(rng.choices(ascii_signs if number % 2 else ascii_signs + signs, k=60))
        assert words(text) == WORD.findall(plain(text)) and parts(text) == PART.findall(text.lower())
        assert split_sentences(text) == SENTENCE_END.split(text)
        slowly = (" ".join(parts(part)) for line in text.split("\n") for part in SENTENCE_END.split(line))
        assert sentences(text) == {sentence for sentence in slowly if sentence.count(" ") >= MIN_WORDS - 1}
        assert how_many(text, str.isalpha) == sum(map(str.isalpha, text))


def test_likeness():
    assert likeness("Bake some bread today.", "bake some BREAD today") == 1
    assert likeness("Bake some bread today.", "Plant a tree tomorrow.") == 0
    assert likeness("yes", "yes") == 1 and likeness("yes", "no") == 0 and likeness("", "") == 1
    assert 0.3 < likeness("one two three four five six", "one two three four five seven") < 0.8


@pytest.mark.parametrize("a, b, expected", [("abcd", "cdef", 1 / 3), ("ab", "ab", 1), ("ab", "cd", 0), ("", "a", 0), ("", "", 1)])
def test_jaccard(a, b, expected):
    assert jaccard(set(a), set(b)) == expected


def test_quotes_counts_words_in_a_row():
    assert quotes("Since you said: I keep bees in the garden!", BEES, 6)
    assert quotes("since I KEEP, bees in the -- garden", BEES, 6)
    assert not quotes("Since I keep bees in your garden", BEES, 6)
    assert quotes("Since I keep bees in your garden", BEES, 4)


@pytest.mark.parametrize(
    "answer, run",
    [
        ("As someone who works in old houses by the sea, take a torch.", 8),
        ("Since you have two kids, start early.", 3),
        ("Who works in OLD houses near rivers?", 5),
        ("bees in the garden I'm a handyman", 4),  # in one source each: no run crosses from one to the next
        ("", 0),
    ],
)
def test_longest_run_by_hand(answer, run):
    assert longest_run(answer, joined(BEES, HOUSE)) == run
    assert longest_run(answer, joined(HOUSE, BEES)) == run


def test_the_longest_passage_says_where_it_is():
    assert longest_passage("Yes: we KEEP bees in the barn.", joined(HOUSE, BEES)) == (2, 6)


def test_longest_run_equals_the_table_of_all_passages():
    """The textbook dynamic programme over both texts."""

    def table(a, b):
        ends = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                ends[i + 1][j + 1] = ends[i][j] + 1 if x == y else 0
        return max(map(max, ends))

    rng = random.Random(0)
    for _ in range(60):
        a, b = (rng.choices("ab abc c ca".split(), k=rng.randrange(1, 40)) for _ in range(2))
        assert longest_run(" ".join(a), joined(" ".join(b))) == table(a, b)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Cook the beans you like. Then call your sis", "Cook the beans you like."),
        ('She said "stay at home today!" and then', 'She said "stay at home today!"'),
        ("Walk the dog first? It is", "Walk the dog first?"),
        ("Try these two things:\n1. Bake bread.\n2. Go", "Try these two things:\n1. Bake bread."),
        ("It costs you about 3.", "It costs you about 3."),  # may be half a number, and nothing ended before it
        ("Bake it until it is brown. It costs 3.", "Bake it until it is brown."),
        ("No end anywhere in this", "No end anywhere in this"),
        ("Yes. I would go to the", "Yes. I would go to the"),  # fewer than three words
        ("今日は豆を煮ます。それから", "今日は豆を煮ます。"),
        ("A whole answer to you.", "A whole answer to you."),
        ("", ""),
    ],
)
def test_a_text_that_was_cut_ends_with_its_last_whole_sentence(text, kept):
    assert whole_sentences(text) == kept
