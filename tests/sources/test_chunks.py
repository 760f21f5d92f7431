"""Notes to passages: cut by heading and length, scraps dropped under a reason."""

import random

import pytest

from mipo_mlx.sources.chunks import cut, fill, scrap
from mipo_mlx.sources.markdown import parse
from mipo_mlx.sources.note import Block, Note, Tally


def words(text: str) -> int:
    return len(text.split())


def passages(markdown: str, limit: int = 20, minimum: int = 3, title: str = ""):
    tally = Tally()
    return cut(Note("n", "n.md", title, parse(markdown)[1]), words, limit, minimum, tally), tally


def test_one_passage_for_each_heading_with_its_line():
    found, tally = passages("# Bees\n\nI keep two hives.\n\n## Honey\n\nThirty jars a year.\n")
    assert [(p.text, p.line, p.tokens) for p in found] == [("Bees. I keep two hives.", 3, 5), ("Honey. Thirty jars a year.", 7, 5)]
    assert tally.passages == 2


def test_title_and_heading_open_the_passage_dates_do_not():
    assert passages("## Honey\n\nThirty jars a year.", title="Bees")[0][0].text == "Bees: Honey. Thirty jars a year."
    assert passages("## 2024-03-01\n\nThirty jars a year.", title="Monday 3.4.")[0][0].text == "Thirty jars a year."
    assert passages("# Bees\n\nBees are mine, all of them.", title="Bees")[0][0].text == "Bees are mine, all of them."


@pytest.mark.parametrize("limit", [5, 8, 13, 40])
def test_no_passage_is_longer_than_the_limit_and_no_word_is_lost(limit):
    rng = random.Random(limit)
    sentences = [" ".join("abcdefgh"[: rng.randrange(1, 9)] for _ in range(rng.randrange(1, 30))) + "." for _ in range(40)]
    text = "\n\n".join(" ".join(sentences[at : at + 4]) for at in range(0, 40, 4))
    found, _ = passages(text, limit=limit, minimum=1)
    assert all(p.tokens <= limit for p in found)
    assert " ".join(p.text for p in found).split() == text.split()


@pytest.mark.parametrize("limit", [8, 13, 40, 100])
@pytest.mark.parametrize("length", [4, 12, 39, 40, 41, 150])
def test_paragraphs_above_a_line_are_no_headings_however_long(limit, length):
    """In Markdown `---` right beneath a paragraph makes it a heading; none of it may be lost, nor make passages too long."""
    paragraphs = [" ".join(name * (1 + i % 7) for i in range(length)) + "." for name in "abc"]
    text = "".join(f"{paragraph}\n---\n" for paragraph in paragraphs)
    found, tally = passages(text, limit=limit, minimum=1)
    assert " ".join(p.text for p in found).split() == " ".join(paragraphs).split()
    assert all(p.tokens <= limit for p in found) and not tally.dropped


def test_an_endless_title_leaves_room_for_the_text():
    text = " ".join("w" * (1 + i % 7) for i in range(30)) + "."
    found, _ = passages(text, limit=12, minimum=1, title=" ".join(["name"] * 50))
    assert all(p.tokens <= 12 for p in found)
    assert [w for p in found for w in p.text.split() if w[0] == "w"] == text.split()


def test_sentences_stay_whole_where_they_fit():
    found, _ = passages('He said "no." Then he left. It rained for days on end.', limit=6, minimum=1)
    assert [p.text for p in found] == ['He said "no." Then he left.', "It rained for days on end."]


def test_endless_words_are_cut():
    assert list(fill(["x" * 10], len, 4)) == ["xxxx", "xxxx", "xx"]


def test_short_sections_go_together():
    found, tally = passages("# A\n\nOne two.\n\n# B\n\nThree four five six.\n\n# C\n\nSeven eight nine ten.\n", minimum=5)
    assert [p.text for p in found] == ["A. One two.\nB. Three four five six.", "C. Seven eight nine ten."]
    assert not tally.dropped


@pytest.mark.parametrize(
    ("markdown", "reason"),
    [
        ("Two words", "too short"),
        ("- [one link](a)\n- [another link](b)\n- https://c.org/d\n", "link list"),
        ("`mlx.core.array` and `numpy.ndarray`\n", "mostly code"),
        ("12:30 45.99 17/3 (8) [9] {10} == 44% -- 11\n", "not prose"),
    ],
)
def test_scraps_are_dropped_under_a_reason(markdown, reason):
    found, tally = passages(markdown)
    assert [passage.scrap for passage in found] == [reason] and tally.passages == 1


TIMES = "08:30, 13:09 - 14:20, 17:20, - 00:21 (7) [9] {10} == 44%"


@pytest.mark.parametrize("rows", [[TIMES], [TIMES, TIMES], ["2024-05-01, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11", TIMES]])
def test_rows_of_numbers_cost_no_words_beside_them(rows):
    found, _ = passages("# Day\n\nI must trust myself more.\n\n" + "\n\n".join(rows), minimum=5, limit=200)
    assert [(p.text, p.scrap) for p in found] == [("Day. I must trust myself more.", None)]
    few, _ = passages("I must trust myself more, as I told my sister on the way home to our village.\n\n08:30, 13:09", limit=200)
    assert few[0].text.endswith("08:30, 13:09")  # numbers that do no harm stay


def test_a_row_is_one_context_shortened_at_a_sentence():
    tally = Tally()
    note = Note("r", "r.jsonl:1", "", [Block("I bake bread. I have two dogs. I sing.", 1)], whole=True)
    assert [p.text for p in cut(note, words, 7, 1, tally)] == ["I bake bread. I have two dogs."]
    assert tally.removed["ends of rows over context_tokens"] == 1


LISTED = "abacus abbey able about above abroad absent accept account ache acorn across actor adapt".split()


@pytest.mark.parametrize(
    "words", [LISTED, [word.upper() for word in LISTED], sorted("Öl Ärger Über Ähre Übel Öse Ast Bau Cid Dom Ehe Fee Gut".split())]
)
def test_words_in_the_order_of_the_alphabet_are_a_list(words):
    for text in (" ".join(words), "\n".join(words)):
        blocks = [Block(part, line) for line, part in enumerate(text.split("\n"), 1)]
        assert scrap(blocks) == "not prose"
    assert scrap([Block(" ".join(words[::-1]), 1)]) is None
    assert scrap([Block("All bees care deeply; every flower gives honey in June, so I keep them by the river.", 1)]) is None


ABOUT = (
    "a guide to repairs by the best shops",
    "a study of forty birds in storms",
    "what each harbour takes from owners",
    "a classic recipe",
)


@pytest.mark.parametrize(
    "entry",
    [
        "- [Page {n}](https://a{n}.example) - {about}",
        "- https://a{n}.example {about}",
        "{n}. [**Page {n}**](https://a{n}.example): {about}.",
    ],
)
def test_a_list_of_links_with_descriptions_is_one_of_links(entry):
    text = "\n".join(entry.format(n=n, about=about) for n, about in enumerate(ABOUT, 1))
    assert scrap(parse(text)[1]) == "link list"


@pytest.mark.parametrize(
    "entry",
    [
        "- [Page {n}](https://a{n}.example) - I read it for my boat: {about}",
        "- I want {about}, see https://a{n}.example",
        "We found {about} in [a page](https://a{n}.example).\n",
    ],
)
def test_remarks_of_the_owner_with_links_stay(entry):
    text = "\n".join(entry.format(n=n, about=about) for n, about in enumerate(ABOUT, 1))
    assert scrap(parse(text)[1]) is None


DRAWN = "MMMHHHMMMMIIII;;HHHHMMMM HHHMMMMMMIIIIHHHHMMMMMHH\n\nHHHHHHMMMIIIIIIMMMMHHHHHH MMMMMMIIIIIIHHHHHHMMM\n"
WRITTEN = [
    "Hmmmm, I was sooooo happy to see Aaron and Anna off at the pool, all in all.",
    "哈哈哈哈，我今天在学校看到了我的老朋友，我们一起去吃饭，然后回家看书，真的很开心，明天还想去看他们。",
]


@pytest.mark.parametrize("text", [DRAWN, DRAWN.replace("M", "x").lower()])
def test_a_drawing_of_letters_is_no_prose(text):
    assert scrap(parse(text)[1]) == "not prose"


@pytest.mark.parametrize("text", WRITTEN)
def test_a_few_letters_that_repeat_are_prose(text):
    assert scrap(parse(text)[1]) is None
