"""Facts about the author: which sentences are taken, which the note does not support, what counts as one, and their order."""

from collections import Counter

import pytest

from mipo_mlx.memory.facts import Fact, condensed, merge, newest, ranked, sentences, supported, unfit

NOTE = "Bees. I keep four hives behind the shed in Bristol and sell the honey at the market on Sundays, since 2019."


@pytest.mark.parametrize(
    ("text", "finished", "expected"),
    [
        ("The user keeps bees.\nThe user sells honey", True, ["The user keeps bees.", "The user sells honey."]),
        ("The user keeps bees. The user sells", False, ["The user keeps bees."]),
        ("The user keeps bees. The user sells honey.", False, ["The user keeps bees.", "The user sells honey."]),
        ("1. The author keeps bees.\n- **The writer's home is new.**", True, ["The user keeps bees.", "The user's home is new."]),
        ("\n \n", True, []),
    ],
)
def test_sentences(text, finished, expected):
    assert sentences(text, finished) == expected


@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        ("The user keeps hives behind the shed.", None),
        ("The user sells honey at a market.", None),
        ("The user has lived in Bristol with four hives since 2019.", None),
        ("The user enjoys keeping hives.", None),  # every profile's verb asks for no support
        ("Bees live in hives.", "not_about_user"),
        ("The user keeps hives, and where?", "not_about_user"),
        ("The user says I keep four hives.", "other_voice"),
        ("The user keeps hives as you do.", "other_voice"),
        ("The user sings.", "length"),
        ("The user keeps hives " + "behind the shed " * 12 + "now.", "length"),
        ("The user keeps hives, call [phone number].", "redacted"),
        ("The user has four hives and sells honey, and has four hives.", "repeats_itself"),
        ('The user: "Bees. I keep four hives."', "not_about_user"),
        ("The user is a person who likes things.", "says_nothing"),
        ("The user works as a nurse on a ward.", "unsupported"),
        ("The user keeps hives behind the shed in London.", "unsupported"),  # a name that the note has not
        ("The user keeps hives behind the shed since 2018.", "unsupported"),  # nor this number
    ],
)
def test_unfit(fact, reason):
    assert unfit(fact, NOTE) == reason


def test_support_is_the_share_of_telling_words():
    assert supported("The user bakes bread and plays chess.", NOTE) == pytest.approx(0)
    assert supported("The user sells honey and chess sets.", NOTE) == pytest.approx(2 / 4)
    assert supported("The user likes many things.", NOTE) == 0


def fact(text, *sources, place=0, support=1.0):
    return Fact(text, sources or ("a.md:1",), support, place)


def test_merged_facts_carry_all_sources():
    keeps, alike, more, other = (
        fact("The user keeps bees.", "a.md:1", place=0),
        fact("The user plays chess on Sundays.", "b.md:2", place=1),
        fact("The user keeps bees and sells honey.", "c.md:3", place=2),
        fact("The user keeps bees, and sells some honey.", "d.md:4", "a.md:1", place=3),
    )
    merged = merge([keeps, alike, more, other])
    assert [f.text for f in merged] == ["The user plays chess on Sundays.", "The user keeps bees and sells honey."]
    assert set(merged[1].sources) == {"a.md:1", "c.md:3", "d.md:4"} and merged[1].place == 0
    assert merge(merged) == merged


def test_facts_that_share_a_word_stay_two():
    two = [fact("The user bakes rye bread on Sundays."), fact("The user buys bread and cheese for a nephew.", place=1)]
    assert merge(two) == two


def test_what_more_notes_say_comes_first():
    once, twice, weak = (
        fact("The user sings.", "a.md:1", "a.md:9", place=0),  # two passages of one note
        fact("The user swims.", "b.md:1", "c.md:1", place=1),
        fact("The user runs.", "d.md:1", place=2, support=0.7),
    )
    late = fact("The user rows.", "e.md:1", place=3)
    assert ranked([late, weak, once, twice]) == [twice, once, late, weak]


def test_condensed_facts_keep_the_sources_of_what_they_stand_for():
    group = [
        fact("The user keeps bees behind the shed.", "a.md:1", place=4),
        fact("The user sells honey at the market.", "b.md:2", place=5),
        fact("The user plays the cello.", "c.md:3", place=6),
    ]
    dropped = Counter()
    message = "The user keeps bees behind the shed and sells honey at the market.\nThe user owns a boat in Norway."
    one, left = condensed(message, True, group, dropped)
    assert one.sources == ("a.md:1", "b.md:2") and one.place == 4
    assert left == group[2]  # what was not said is not lost
    assert dropped == {"unsupported": 1}
    assert condensed("Nothing.", True, group, dropped) == group


def fact_in(text: str, source: str) -> Fact:
    return Fact(text, (source,), 1.0, 0)


@pytest.mark.parametrize(
    "older, newer",
    [
        ("The user keeps two hives.", "The user keeps five hives."),
        ("The user is 40 years old.", "The user is 41 years old."),
        ("The user eats meat.", "The user does not eat meat."),
        ("The user eats meat on Sundays.", "The user no longer eats meat on Sundays."),
        ("The user lives in Oslo.", "The user lives in a loft in Bergen."),
        ("The user works for Acme as a clerk.", "The user works for Globex."),
    ],
)
def test_of_two_facts_that_contradict_each_other_the_later_stays(older, newer):
    old, new = fact_in(older, "diary/2019-05-01.md:3"), fact_in(newer, "journal/2023_01_02.md:1")
    assert newest([old, new]) == [new] and newest([new, old]) == [new]
    same_day, undated = fact_in(older, "x 20230102.md:9"), fact_in(older, "notes.md:20190501")
    assert newest([same_day, new]) == [same_day, new] and newest([undated, new]) == [undated, new]


@pytest.mark.parametrize(
    "one, other",
    [
        ("The user lives in Oslo.", "The user lives in a small flat."),
        ("The user lives in Oslo.", "The user lives in Oslo near the harbour."),
        ("The user has a niece named Ida.", "The user has a niece named Mia."),
        ("The user keeps bees.", "The user does not keep goats."),
        ("The user keeps bees.", "The user keeps bees."),
        ("The user works for Acme.", "The user lives in Bergen."),
    ],
)
def test_facts_that_can_both_hold_stay(one, other):
    both = [fact_in(one, "2019-05-01.md:3"), fact_in(other, "2023-01-02.md:3")]
    assert newest(both) == both
