"""Self-BLEU against sacrebleu, distinct-n by hand."""

import pytest

from mipo_mlx.text import diversity

TEXTS = [
    "You could bake a rye loaf tonight, since you like bread.",
    "You could cook a lentil soup tonight, since you like beans.",
    "Take the train to Lisbon and practise your Portuguese on the way.",
    "Take the train. Practise.",
    "You could cook a lentil soup tonight, since you like beans.",
    "Yes",
    "the the the the the the cat",
]


def test_self_bleu_equals_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu", reason="sacrebleu is the independent computation of this test")
    tokenized = [" ".join(diversity.TOKEN.findall(t)) for t in TEXTS]
    for texts in (TEXTS, TEXTS[:2], TEXTS[3:]):
        joined = tokenized[TEXTS.index(texts[0]) :][: len(texts)]
        expected = [
            sacrebleu.sentence_bleu(one, [t for j, t in enumerate(joined) if j != i], tokenize="none").score
            for i, one in enumerate(joined)
        ]
        assert diversity.self_bleu(texts) == pytest.approx(expected, abs=1e-6)


def test_self_bleu_of_equal_and_of_unrelated_texts():
    assert diversity.self_bleu(["one two three four five"] * 3) == pytest.approx([100.0] * 3)
    assert diversity.self_bleu(["one two three four", "five six seven eight"]) == [0.0, 0.0]
    assert diversity.self_bleu(["", "one"]) == [0.0, 0.0] and diversity.self_bleu(["alone"]) == []


def test_self_bleu_by_hand():
    """'a b c d' against 'a b c e': precisions 3/4, 2/3, 1/2 and a smoothed 1/2 of none: (3/4 * 2/3 * 1/2 * 1/2) ** 1/4."""
    assert diversity.self_bleu(["a b c d", "a b c e"])[0] == pytest.approx(100 * (0.75 * 2 / 3 * 0.5 * 0.5) ** 0.25)


def test_distinct_by_hand():
    """a b a b / b a: 2 of 6 words; bigrams ab, ba, ab, ba: 2 of 4."""
    assert diversity.distinct(["a b a b", "B a"], 1) == pytest.approx(2 / 6)
    assert diversity.distinct(["a b a b", "b a"], 2) == pytest.approx(2 / 4)
    assert diversity.distinct([""], 1) == 0
