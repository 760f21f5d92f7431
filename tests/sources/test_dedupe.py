"""Near duplicates against a plain comparison of all pairs."""

import random

import pytest

from mipo_mlx.sources.dedupe import drop_duplicates, near_duplicates, shingles
from mipo_mlx.sources.note import Passage, Tally


def passage(text: str) -> Passage:
    return Passage(text, "n", "n.md", 1, 1)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.95])
def test_the_index_finds_what_comparing_all_pairs_finds(threshold):
    rng = random.Random(7)
    sets = []
    for _ in range(150):
        base = set(rng.choice(sets)) if sets and rng.random() < 0.6 else set()
        base -= set(rng.sample(sorted(base), min(len(base), rng.randrange(6))))
        sets.append(frozenset(base | {rng.randrange(60) for _ in range(rng.randrange(1, 9))}))
    expected, kept = [], []
    for number, members in enumerate(sets):
        twin = next((k for k in kept if len(members & sets[k]) >= threshold * len(members | sets[k]) - 1e-12), None)
        expected.append(twin)
        if twin is None:
            kept.append(number)
    assert near_duplicates(sets, threshold) == expected
    assert any(twin is not None for twin in expected)


def test_exact_and_near_duplicates_are_counted_apart():
    text = "I keep two hives on the roof of the bakery and take thirty jars a year"
    tally = Tally()
    kept = drop_duplicates([passage(t) for t in (text, text.upper() + "!", text + " or so", "I sing alto")], 0.7, tally)
    assert [p.text for p in kept] == [text, "I sing alto"]
    assert tally.dropped == {"duplicate": 1, "near-duplicate": 1}


def test_near_duplicates_without_spaces():
    bees = "我在面包店的屋顶上养了两箱蜜蜂，每年能收{}十罐蜂蜜。"
    texts = [bees.format("三"), bees.format("四"), "我每个星期三在合唱团里唱女低音，十二月有一场音乐会。"]
    assert [p.text for p in drop_duplicates([passage(text) for text in texts], 0.7, Tally())] == [texts[0], texts[2]]


def test_the_threshold_matters():
    pair = [passage("one two three four five six"), passage("one two three four five seven")]
    assert len(drop_duplicates(pair, 0.5, Tally())) == 1
    assert len(drop_duplicates(pair, 0.9, Tally())) == 2


def test_shingles_are_runs_of_three_words_or_the_words_of_a_shorter_text():
    texts = [text.split() for text in ("", "b a", "a b a b a", "c a b a", "a", "a b")]
    runs = [{("b",), ("a",)}, {("a", "b", "a"), ("b", "a", "b")}, {("c", "a", "b"), ("a", "b", "a")}, {("a",)}, {("a",), ("b",)}]
    every = sorted(set().union(*runs))  # they are numbered in this order
    assert shingles(texts) == [frozenset(), *({every.index(run) for run in own} for own in runs)]
    assert shingles([]) == []
    assert near_duplicates([frozenset(), frozenset()], 0.7) == [None, None]
    assert near_duplicates([], 0.7) == []


def test_shingles_are_those_of_each_text_alone():
    rng = random.Random(3)
    texts = [[rng.choice("abcde") for _ in range(rng.randrange(9))] for _ in range(300)]
    runs = [set(zip(t, t[1:], t[2:], strict=False)) if len(t) >= 3 else {(word,) for word in t} for t in texts]
    every = sorted(set().union(*runs))
    assert shingles(texts) == [{every.index(run) for run in own} for own in runs]
