"""Texts that no person wrote, which once took minutes or ended a run: what is beside them is read, and their words are kept.

Seconds are in `benchmarks/reading.py doubling`.
"""

import cProfile
import time

import pytest

from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Dataset, Sources
from mipo_mlx.sources.chunks import cut
from mipo_mlx.sources.gather import read_notes
from mipo_mlx.sources.licences import LINES, refuse_list
from mipo_mlx.sources.markdown import ENDLESS, _is_slow, _without_endless, parse
from mipo_mlx.sources.note import Block, NotANote, Note, Tally
from mipo_mlx.sources.rank import ranked
from mipo_mlx.sources.readers import logseq

from .test_cases import notes_of

SIGNS = '{{ {% [[ ![ <!-- < ` * _ [^ \\ >_ -_ | $ #_ ~~ == (( :: @ - & http:// [a]( 1._ <div> { %% " -----BEGIN_A-----'.split()


def read(folder, text: str, ending: str = ".md") -> tuple[list[Block], Tally]:
    (folder / f"a{ending}").write_text(text, encoding="utf-8")
    tally = Tally()
    notes = read_notes(Sources(notes=str(folder)), tally, Reporter(quiet=True))
    return [block for note in notes for block in note.blocks], tally


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("ending", [".md", ".txt", ".html", ".org"])
def test_what_stands_above_is_read(tmp_path, sign, ending):
    blocks, _ = read(tmp_path, f"I keep bees in my garden.\n\n{sign.replace('_', ' ') * 3000}\n", ending)
    assert blocks[0].text.startswith("I keep bees in my garden.")


def test_the_words_of_an_endless_paragraph_are_kept_without_its_marks():
    words = "I *sing* in the [choir](https://a.org/b) and " * 300
    _, blocks, _ = parse(f"- {words}\n- Tea\n\n# {words}\n\n{words}\n\nI end.\n")
    assert len(words) > ENDLESS and blocks[-1] == Block("I end.", 8)
    for block, first in zip((blocks[0], blocks[2], blocks[3]), ("- I", "I", "I"), strict=True):
        assert block.text.startswith(f"{first} sing in the choir (a.org") and block.text.count("sing") == 300
    assert [block.level for block in blocks] == [0, 0, 1, 0, 0] and [block.line for block in blocks] == [1, 2, 4, 6, 8]


def test_long_code_without_an_empty_line_stays_code():
    for fence, inner in (("```", ""), ("~~~", ""), ("````", "```\n")):
        code = "print('I am no sentence of anybody', 1)\n" * 400
        _, blocks, removed = parse(f"I wrote this:\n\n{fence}python\n{inner}{code}{fence}\n\nI end. {'word ' * 2500}\n")
        assert removed["code blocks"] == 1 and [block.text[:6] for block in blocks] == ["I end."]


def test_prose_between_two_rules_is_no_front_matter_however_long():
    prose = "I keep bees, and I sing to them.\n\n" * 2000
    matter, blocks, _ = parse(f"---\n{prose}---\n\nI end.\n")
    assert matter == {} and len(blocks) == 2001
    matter, blocks, removed = parse("---\n" + "".join(f"key{n}: value of it\n" for n in range(4000)) + "---\n\nI end.\n")
    assert [block.text for block in blocks] == ["I end."] and removed["broken front matter"] == 1


def test_counts_that_do_not_add_up_end():
    """A tokenizer may count less for two words apart than for both together."""
    blocks = [Block("word and " * 400, 1), Block("x" * 500, 2), Block("a bb " * 90, 3)]
    passages = cut(Note("n", "n.md", "", blocks), lambda text: len(text) // 4, 12, 1, Tally())
    assert sum(passage.text.count("word") for passage in passages) == 400 and all(passage.tokens <= 12 for passage in passages)


@pytest.mark.parametrize("size", [1000, 3900, 20_000])
@pytest.mark.parametrize("sign", ["[", "{a: ", "- ", "!!x ", "&a ", "\t"])
def test_front_matter_of_values_within_values_is_broken_or_read(sign, size):
    _, blocks, _ = parse(f"---\nkey: {sign * (size // len(sign))}\n---\n\nI end.\n")
    assert blocks[-1].text == "I end."


def test_a_text_of_many_short_lines_is_read_by_its_lines():
    """markdown-it would take half a minute for a megabyte of them."""
    begin = f"# Bees\n\nI keep *bees*,\nand I like them.\n\n- one\n- two\n\n1. three\n\n```\n{'code ' * 20}\n```\n\n"
    text = begin + "- I bake bread\n" * 20_000
    assert (
        _is_slow(text)
        and not _is_slow(text[:30_000])
        and not _is_slow("I bake bread on Sundays, and I like it a lot.\n\n" * 20_000)
    )
    short, long = parse(begin)[1], parse(text)[1]
    assert [(b.text, b.line, b.level) for b in long[: len(short)]] == [(b.text, b.line, b.level) for b in short]
    assert len(long) == len(short) + 20_000 and long[-1] == Block("- I bake bread", 20_014)


@pytest.mark.parametrize("line", ["*a", "#a", "-a", "|-->", "+a [b", "| a"])
def test_lines_that_begin_like_items_and_are_none_are_one_endless_paragraph(line):
    text, held = _without_endless(f"{line}\n" * ENDLESS)
    assert len(held) == 1 and len(text.strip()) < 20


def test_a_long_table_and_a_long_list_stay_what_they_are():
    table = "| Day | Deed |\n|---|:--:|\n" + "| Sunday | I bake bread |\n" * 600
    assert _without_endless(table + "\n" + "- I bake bread\n" * 900)[1] == []
    assert parse(table)[1][-1].text == "Sunday, I bake bread"


def test_a_list_of_words_is_no_note():
    for text in ("- a\n" * LINES, "a\n\n" * LINES, "17\n" * LINES):
        with pytest.raises(NotANote, match="lists"):
            refuse_list(text)
    for text in ("- a\n" * 5_000, "I keep bees.\n" * LINES):
        refuse_list(text)


@pytest.mark.parametrize("ending", ["md", "txt", "org"])
@pytest.mark.parametrize("sign", ["- ", "* ", "1. ", "+ "])
def test_lists_within_lists_on_one_line_leave_their_words(tmp_path, sign, ending):
    (tmp_path / f"a.{ending}").write_text(f"{sign * 100_000}I keep bees.")
    (tmp_path / "b.md").write_text("I bake.")
    begin = time.process_time()
    notes, tally = notes_of(tmp_path)
    text = notes.pop(f"a.{ending}", "")
    assert text.endswith("I keep bees.") and len(text) < 20 or ending == "org" and len(text) < 300_000
    assert "".join(notes.values()) == "I bake." and time.process_time() - begin < 10


@pytest.mark.parametrize("ending", ["md", "txt"])
@pytest.mark.parametrize("sign", ["> ", ">", "> - ", "- > "])
def test_quotes_within_quotes_are_one_quote_and_their_file_is_named(tmp_path, sign, ending):
    (tmp_path / f"a.{ending}").write_text(f"{sign * 100_000}Words of others.")
    (tmp_path / "b.md").write_text("I bake.")
    notes, tally = notes_of(tmp_path)
    assert list(notes) == ["b.md"] and "nothing in it is a text of its owner's" in tally.skipped[0]["why"]


@pytest.mark.parametrize(
    "data", [b"words and words " * 7_000, b"\0" * 100_000, b"<?xml version='1.0'?><x/>", b"", b"<html><note>x</note></html>"]
)
def test_a_file_that_only_has_evernotes_ending(tmp_path, data):
    (tmp_path / "a.enex").write_bytes(data)
    (tmp_path / "b.md").write_text("I bake.")
    notes, tally = notes_of(tmp_path)
    assert list(notes) == ["b.md"] and tally.skipped == [{"file": "a.enex", "why": "no export of Evernote; export the notes again"}]


@pytest.mark.parametrize("ending, most", [("csv", 170), ("jsonl", 400)])
def test_a_row_of_a_letter_costs_few_calls(tmp_path, ending, most):
    """A table of a megabyte has a hundred thousand. Calls are counted, since a machine that does much else spoils seconds."""

    def calls(count):
        path, profile = tmp_path / f"a{count}.{ending}", cProfile.Profile()
        path.write_text("text,b\n" + "d,\n" * count if ending == "csv" else '{"text": "d"}\n' * count)
        table = {"dataset": Dataset(name=str(path), columns={"context": "text"}), "redact": False}
        sources = Sources(**(table if ending == "csv" else {"notes": str(path)}))
        notes = profile.runcall(read_notes, sources, Tally(), Reporter(quiet=True))
        for note in notes if ending == "jsonl" else ():
            profile.runcall(lambda note=note: ranked(note, cut(note, len, 100, 9, Tally())))
        assert len(notes) == count
        return sum(entry.callcount for entry in profile.getstats())

    calls(1)  # what is loaded once
    assert (calls(200) - calls(100)) / 100 < most


@pytest.mark.parametrize("sign", [" ", "\t", " \t", "#", "[", "'"])
def test_a_page_of_logseq_with_an_endless_line(sign):
    """Twenty thousand blanks took two seconds, and twice as many four times as long."""
    begin = time.process_time()
    assert logseq._plain(f"- Bees #card\n- a{sign * 100_000}b [[card]]").startswith("- Bees\n- a")
    assert time.process_time() - begin < 2
