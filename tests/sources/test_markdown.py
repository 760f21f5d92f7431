"""Markdown to blocks: what is kept, what is cut, and the line that each block came from."""

import string
import textwrap

import pytest
from markdown_it import MarkdownIt

from mipo_mlx.sources import markdown
from mipo_mlx.sources.markdown import parse
from mipo_mlx.sources.matter import front_matter


def texts(source: str) -> list[str]:
    return [block.text for block in parse(textwrap.dedent(source))[1]]


def test_front_matter_is_cut_and_lines_still_count_from_the_file():
    matter, blocks, _ = parse("---\ntitle: Bees\ntags: [a, b]\n---\n\n# Hives\n\nI keep bees.\n")
    assert matter == {"title": "Bees", "tags": ["a", "b"]}
    assert [(block.text, block.line, block.level) for block in blocks] == [("Hives", 6, 1), ("I keep bees.", 8, 0)]


def test_broken_front_matter_is_cut_all_the_same():
    text = "---\ntitle: [unclosed\n---\nText.\n"
    assert parse(text)[0] == {} and parse(text)[2]["broken front matter"] == 1
    matter, body, lines = front_matter(text)
    assert (matter, body, lines) == (None, "Text.\n", 3)


@pytest.mark.parametrize("space", [" ", "\n", "\t", "\n \n"])
def test_front_matter_below_a_space_is_front_matter(space):
    text = f'{space}---\ntitle: Bees\nseries: []\nsummary: ""\n---\nI keep bees.\n'
    matter, body, lines = front_matter(text)
    assert (matter["title"], body, lines) == ("Bees", "I keep bees.\n", text.count("\n") - 1)
    broken = f"{space}---\nI said: it is: late\n---\nI keep bees.\n"
    assert front_matter(broken) == ({}, broken, 0)


def test_a_second_block_of_keys_is_front_matter_too():
    first, second = "---\ncreated: 2023-01-10\n---\n", "---\nlast-review: 2021-11-13\npublish: true\n---  \n"
    assert front_matter(f"{first}{second}I row.\n")[1:] == ("I row.\n", 7)
    assert front_matter(f"{first}{second}I row.\n")[0].keys() == {"created", "last-review", "publish"}
    for prose in ("Mood: tired", "Note: I went home, and my sister came along with her three dogs.\nLater: I slept."):
        assert front_matter(f"{first}---\n{prose}\n---\nI row.\n")[1] == f"---\n{prose}\n---\nI row.\n"


def test_two_rules_around_prose_are_no_front_matter():
    assert texts("---\nJust a line of prose\n---\nMore.\n")[0].startswith("Just a line")


def test_toml_front_matter():
    assert front_matter('+++\ntitle = "Soup"\n+++\nText\n')[0] == {"title": "Soup"}


def test_links_become_their_text():
    source = "See [[bees|my hives]] and [[Honey]], [the shop](https://x.org/a?b=c), <https://www.a.com/b> or https://b.net/c/d.\n"
    (block,) = parse(source)[1]
    assert block.text == "See my hives and Honey, the shop, a.com or b.net"
    assert block.linked == len("the shop") + len("a.com") + len("b.net")


def test_images_and_embeds_are_cut_and_counted():
    _, blocks, removed = parse("Before ![alt](a.png) and ![[photo.jpg]] after.\n")
    assert blocks[0].text == "Before and after."
    assert removed["images and embeds"] == 2


def test_marks_of_obsidian():
    source = """
        > [!note] Plan
        > I will ==rest== more. ^abc-1

        #garden #home

        - [ ] buy *seeds* #spring
        - [x] dig

        %% a private comment
        over two lines %%
        The [^1] end.
        """
    assert texts(source) == ["Plan I will rest more.", "- buy seeds spring", "- dig", "The end."]


def test_code_blocks():
    long = "print('a long line of code that goes on for quite a while, longer than a sentence would')"
    _, blocks, removed = parse(f"It is short. Run this:\n\n```\n{long}\n```\n\nThen `ls -l` it:\n\n```sh\nls -l\n```\n")
    assert [block.text for block in blocks] == ["It is short.", "Then ls -l it:", "ls -l"]
    assert [block.code for block in blocks] == [0, 5, 5]
    assert removed["code blocks"] == 1


def test_an_announcement_alone_before_code_goes_with_it():
    assert texts("Run this:\n\n```\na\nb\n```\n") == []


def test_lists_tables_and_html():
    source = """
        1. one
        2. two
           - deep **bold**

        | a | b |
        |---|---|
        | 1 | [x](y) |

        <div>kept <b>words</b></div>

        <script>var x = "gone";</script>

        <!-- gone -->
        """
    assert texts(source) == ["1. one", "2. two", "- deep bold", "a, b", "1, x", "kept words"]


def test_deep_nesting_ends():
    assert parse("> " * 3000 + "deep\n" + "- " * 3000 + "deeper [[[" * 500)[1] is not None


@pytest.mark.parametrize("sign", [*string.punctuation, "  ", "\t", "é", "。"])
def test_a_paragraph_without_marks_says_what_the_whole_parser_says(sign, monkeypatch):
    ends = (
        f"I keep{sign}bees",
        f"{sign}they sing ",
        f" to{sign}{sign}{sign}me{sign}",
        f"a{sign}b c{sign}d",
        f"1{sign}2 {sign} x.org/{sign}",
    )
    text = "\n\n".join(f"{first}\n{second}" for first in ends for second in ends)
    own = parse(text)
    whole = MarkdownIt("commonmark", {"html": True, "maxNesting": 12}).enable("table")
    whole.normalizeLink = lambda url: url
    monkeypatch.setattr(markdown, "PARSER", whole)
    assert parse(text) == own and own[1]


COMPONENTS = {
    "on one line": "<Gallery images={[[a, b, 'A zombie.']]} />",
    "on several": "<Gallery\n  wide\n  images={[\n    [a, 'A lady.'],\n    [b, 'I drew this for a friend.'],\n  ]}\n/>",
    "with a text": '<Video.Player title="My song" start={12} onEnd={() => stop()} />',
    "of a heading": "# {title}",
    "of another heading": "## {post.title}",
}


@pytest.mark.parametrize("kind", COMPONENTS)
def test_components_of_pages_are_no_words(kind):
    _, blocks, removed = parse(f"I drew it.\n\n{COMPONENTS[kind]}\n\nI sang, and 3 < 4 is true.\n")
    assert [block.text for block in blocks] == ["I drew it.", "I sang, and 3 < 4 is true."] and removed["template code"] == 1
    assert blocks[1].line == 5 + COMPONENTS[kind].count("\n")


def test_what_only_resembles_a_component_stays():
    for text in (
        "Set x={1} and y={2} for me.",
        "If A <B x={1} I stop.",
        "I wrote {title} here.",
        "# The {title} of it",
        "<Gallery images={[",
    ):
        assert "template code" not in parse(text)[2]
