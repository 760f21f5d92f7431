"""Marks and data of further programs: drawings within an address, wikis, Logseq pages outside of a graph, Evernote, e-book readers."""
# ruff: noqa: E501

import pytest

from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Sources
from mipo_mlx.sources import gather
from mipo_mlx.sources.chunks import scrap
from mipo_mlx.sources.note import Tally

from .test_cases import written

A, B, X = "I planted forty cloves of garlic.", "My sister visits me on Sunday.", "Penguins huddle in circles to stay warm."
UUID = "6425512c-9e6d-47ae-b24c-a42b6992d6ed"
ENEX = (
    '<?xml version="1.0"?><en-export><note><title>Day</title>{}<content><![CDATA[<en-note>{}</en-note>]]></content></note>'
    f"<note><title>Own</title><content><![CDATA[<en-note><div>{B}</div></en-note>]]></content></note></en-export>"
)


@pytest.mark.parametrize(
    "drawing",
    [
        '![a](data:image/svg+xml;utf8,<svg xmlns="http://www.w3.org/2000/svg"><text>words of a drawing</text></svg>)',
        '<img src="data:image/svg+xml;charset=utf-8,<svg><title>words</title></svg>">',
        "[i]: data:image/svg+xml,<svg><desc>words</desc></svg>",
    ],
)
def test_a_drawing_within_an_address(tmp_path, drawing):
    notes, _ = written(tmp_path, {"a.md": f"{A}\n\n{drawing}\n\n{B}"})
    assert not {"svg", "words", "data:"} & set(notes["a.md"].replace(">", " ").replace("<", " ").split())
    assert A in notes["a.md"] and B in notes["a.md"]


@pytest.mark.parametrize("code", ["`r nrow(bees)`", "`{python} len(bees)`", "`python len(bees)`", "`julia length(bees)`"])
def test_code_that_is_run_within_a_line(tmp_path, code):
    notes, _ = written(tmp_path, {"a.md": f"I have {code} hives."})
    assert notes["a.md"] == "I have  hives." or notes["a.md"] == "I have hives."


@pytest.mark.parametrize(
    "text",
    [
        f"Content-Type: text/x-zim-wiki\nWiki-Format: zim 0.6\nCreation-Date: 2023-11-03T18:22:10+01:00\n\n====== Day ======\n{A}",
        f"= Day =\n\n== Garden ==\n{A}",
        f"==== Day ====\n\n{A}\n",
    ],
)
def test_headings_of_wikis(tmp_path, text):
    notes, _ = written(tmp_path, {"a.txt": text})
    assert "==" not in notes["a.txt"] and "Wiki" not in notes["a.txt"] and notes["a.txt"].endswith(A)


@pytest.mark.parametrize(
    "marks",
    [
        f"- {A}\n  collapsed:: true\n  id:: {UUID}\n",
        f"- TODO {A}\n  SCHEDULED: <2024-02-25 Sun>\n  :LOGBOOK:\n  CLOCK: [2024-02-25 Sun 13:15:31]\n  :END:\n",
        f"- #+BEGIN_QUERY\n  {{:title x :query [:find b]}}\n  #+END_QUERY\n- {A}\n- #+BEGIN_QUOTE\n  {X}\n  #+END_QUOTE\n",
        f'- {{{{query (and [[a]] (task TODO))}}}}\n- [:span {{:style {{:color "red"}}}} "painted"]\n- DOING {A}\n',
    ],
)
def test_a_page_of_logseq_wherever_it_lies(tmp_path, marks):
    notes, _ = written(tmp_path, {"journal/2024_02_25.md": f"{marks}- {B}"})
    assert list(notes.values()) == [f"{A}\n{B}"]


@pytest.mark.parametrize(
    ("head", "body", "right"),
    [
        ("", f'<div>{A}</div><en-crypt hint="h">AAAABBBB</en-crypt>', [A, B]),
        ("<note-attributes><source>web.clip7</source></note-attributes>", f"<div>{X}</div>", [B]),
        ("<note-attributes><source>mobile.ios</source></note-attributes>", f"<div>{A}</div>", [A, B]),
    ],
)
def test_what_evernote_keeps_that_is_not_its_owners(tmp_path, head, body, right):
    notes, _ = written(tmp_path, {"a.enex": ENEX.format(head, body)})
    assert list(notes.values()) == right


@pytest.mark.parametrize(
    "line",
    [
        "Your Highlight on page 3 | Added on Friday",
        "Ihre Markierung auf Seite 4 | Hinzugefügt am",
        "您在位置 #12 的标注 | 添加于 2023年",
    ],
)
def test_highlights_of_an_e_book_reader(tmp_path, line):
    entry = f"Book (Author)\n- {line} 3\n\n{X}\n==========\n"
    notes, tally = written(tmp_path, {"My Clippings.txt": entry * 3, "b.md": B})
    assert list(notes) == ["b.md"] and tally.left_alone["highlights of books and articles"] == 1


@pytest.mark.parametrize("quote", [f"„{X}“ – Goethe", f"„{X}“ (Rilke)", f"»{X}« – Goethe", f"„{X} {X}“"])
def test_german_quotations(tmp_path, quote):
    notes, tally = written(tmp_path, {"a.md": f"{quote}\n\n{A}"})
    assert notes["a.md"] == A and tally.removed["quotations"] == 1


def test_japanese_in_seven_bits(tmp_path):
    text = "今日は納屋の裏ににんにくを四十個植えたので膝が痛い。"
    (tmp_path / "a.txt").write_bytes(text.encode("iso2022_jp"))
    notes, tally = written(tmp_path, {"b.md": B})
    assert notes["a.txt"] == text and "iso-2022-jp" in tally.recoded[0].values()


@pytest.mark.parametrize(
    "heading",
    [
        "## AI Summary",
        "## 🤖 AI-generated summary",
        "## Zusammenfassung von ChatGPT",
        "## Résumé (IA)",
        "## Written by Claude",
        "## AI 总结",
    ],
)
def test_what_an_assistant_wrote_under_a_heading_that_says_so(tmp_path, heading):
    text = f"# Day\n\n{A}\n\n{heading}\n\n{X}\n\n### Next steps\n\n- {X}\n\n## Mine\n\n{B}\n"
    notes, tally = written(tmp_path, {"a.md": text, "b.md": B})
    assert notes["a.md"] == f"Day\n{A}\nMine\n{B}" and tally.removed["texts of an assistant"] == 1


@pytest.mark.parametrize(
    "heading",
    [
        "## Summary",
        "## My AI course",
        "## Claude and I",
        "## ChatGPT ideas",
        "## Llama farm",
        "## Gemini season",
        "## Written by hand",
        "## Generated power of my panels",
    ],
)
def test_other_headings_stay(tmp_path, heading):
    notes, _ = written(tmp_path, {"a.md": f"# Day\n\n{A}\n\n{heading}\n\n{B}\n", "b.md": B})
    assert notes["a.md"].endswith(B)


@pytest.mark.parametrize(
    "marked",
    [
        f"> [!PDF|yellow] [[a.pdf#page=1&selection=1,2,3,4|a, p.1]]\n> {X}",
        f"> [!summary] AI generated\n> {X}",
        f"“{X}” ([Doe, 2020, p. 3](zotero://open-pdf/library/items/ABC?page=3))",
        f"- {X} ([Location 12](https://readwise.io/to_kindle?action=open&asin=B))",
        f"- {X} [hl](https://hyp.is/abc)",
        f"- {X} ([View Highlight](https://read.readwise.io/read/01gx))",
        f"- {X}\n\n  我一直想要山。\n\n  {X} ([View Tweet](https://twitter.com/a/status/1))",
        "我一直想要山。 ([View Highlight](https://read.readwise.io/read/01gx))",
    ],
)
def test_what_was_marked_in_a_book(tmp_path, marked):
    notes, tally = written(tmp_path, {"a.md": f"{A}\n\n{marked}\n\n{B}"})
    assert notes["a.md"] == f"{A}\n{B}" and tally.removed["quotes"] == 1


@pytest.mark.parametrize(
    "mark", ["=== end-column ===", "--- start-multi-column: x", "=== end-multi-column", "--- column-break ---"]
)
def test_marks_of_columns(tmp_path, mark):
    notes, _ = written(tmp_path, {"a.md": f"{A}\n\n{mark}\n\n{B}"})
    assert notes["a.md"] == f"{A}\n{B}"


@pytest.mark.parametrize("folder", ["04_Archive", "Web Clips", "web_clips", "Papierkorb", "Corbeille", "ゴミ箱", "回收站"])
def test_folders_of_other_names(tmp_path, folder):
    notes, tally = written(tmp_path, {f"{folder}/a.md": X, "My templates for soup/b.md": B})
    assert list(notes.values()) == [B] and sum(tally.left_alone.values()) == 1


@pytest.mark.parametrize("key", ["isbn: 1250886090 9781250886095", "imdbId: tt0111161", "isbn13: 9781250886095", "goodreads: 1"])
@pytest.mark.parametrize("heading", ["## Description", "# Klappentext", "### 📖 Synopsis", "## 内容简介"])
def test_what_a_catalogue_says_of_a_book(tmp_path, key, heading):
    notes, _ = written(tmp_path, {"a.md": f"---\n{key}\n---\n{heading}\n\n{X}\n\n# Mine\n\n{A}\n", "b.md": B})
    assert notes["a.md"] == f"Mine\n{A}"


@pytest.mark.parametrize(
    "line", ["Source: https://www.example.com/gyudon/", "**Quelle:** https://example.com/x", "出典：https://example.com/y"]
)
def test_a_page_that_was_copied_below_its_address(tmp_path, line):
    notes, tally = written(tmp_path, {"a.md": f"#recipe\n{line}\n\n## Steps\n\n{X}", "b.md": f"{line}\n\n{X} {A}"})
    assert list(notes) == ["b.md"] and tally.left_alone["articles clipped from the web"] == 1


@pytest.mark.parametrize("opening", ['<h3 id="tech">', "<H3>", '<h3 class="a" id=b>'])
def test_headings_in_html_are_headings(tmp_path, opening):
    (tmp_path / "a.md").write_text(f"# Week\n\n## Health\n\n{A}\n\n{opening}Tech <b>stuff</b></h3>\n{B}\n\n{A}\n")
    blocks = gather.read_notes(Sources(notes=str(tmp_path / "a.md")), Tally(), Reporter(quiet=True))
    found = [(block.text, block.level, block.line) for note in blocks for block in note.blocks]
    assert ("Tech stuff", 3, 7) in found and (B, 0, 8) in found and (A, 0, 10) in found


@pytest.mark.parametrize("item", ["- [[Rust/Q/{0}]]", "* [[a {0}|Pump {0}]], #[[b]]", "[[Pump {0}]] · [[Valve]]\n"])
def test_a_list_of_links_to_own_notes_is_a_link_list(tmp_path, item):
    text = "\n".join(item.format(number) for number in range(9))
    (tmp_path / "a.md").write_text(f"{text}\n")
    (note,) = gather.read_notes(Sources(notes=str(tmp_path / "a.md")), Tally(), Reporter(quiet=True))
    assert scrap(note.blocks) == "link list"
    (tmp_path / "a.md").write_text(f"- [[Pump]]\n\t- {A} {B} [[Valve]] and [[Mill]] were there.\n")
    (note,) = gather.read_notes(Sources(notes=str(tmp_path / "a.md")), Tally(), Reporter(quiet=True))
    assert scrap(note.blocks) is None and "[" not in note.blocks[0].text + note.blocks[1].text and note.blocks[0].text == "- Pump"


@pytest.mark.parametrize("mark", [" #card", " [[card]]", " #[[Card]]"])
def test_marks_of_flashcards(tmp_path, mark):
    notes, _ = written(
        tmp_path, {"pages/a.md": f"- {A}{mark}\n  id:: {UUID}\n- {B} My #cardinal rule.\n", "logseq/config.edn": "{}"}
    )
    assert list(notes.values()) == [f"{A}\n{B} My cardinal rule."]


@pytest.mark.parametrize(
    "name",
    [
        "impressum.md",
        "Datenschutzerklärung.md",
        "privacy-policy.html",
        "Terms of Service.txt",
        "mentions-légales.md",
        "CLAUDE.md",
        "SKILL.md",
        "AGENTS.md",
    ],
)
def test_legal_notices_and_instructions_to_programs_are_no_notes(tmp_path, name):
    notes, tally = written(
        tmp_path, {name: f"{A} I am responsible for my own pages.", "Privacy.md": B, "Terms.md": A, "Agents.md": A}
    )
    assert sorted(notes) == ["Agents.md", "Privacy.md", "Terms.md"] and tally.left_alone["licences and read-me files"] == 1


@pytest.mark.parametrize(
    "layout",
    [
        '{{{{ define "main" }}}}\n<h1>{{{{ .Title }}}}</h1>\n<p>{0}</p>\n{{{{ range .Pages }}}}\n<a href="{{{{ .Permalink }}}}">x</a>\n{{{{ end }}}}',
        "{{% extends 'base.html' %}}\n{{% block content %}}\n<p>{0}</p>\n{{% endblock %}}\n",
        '<div>\n<% posts.each do |post| %>\n<a href="<%= post.url %>">x</a>\n<% end %>\n<p>{0}</p></div>',
    ],
)
def test_layouts_of_a_site_are_no_notes(tmp_path, layout):
    page = "---\ntitle: Me\n---\n" + layout.format(B)
    notes, tally = written(
        tmp_path, {"layouts/list.html": layout.format(A), "index.html": page, "b.html": f"<p>{A} I write {{{{x}}}}.</p>"}
    )
    assert sorted(notes) == ["b.html", "index.html"] and B in notes["index.html"] and tally.left_alone["layouts of a site"] == 1


@pytest.mark.parametrize(
    "by", ["WDR 5 Politikum / Caroline Courts / 02.08.2021", "Ursula K. Le Guin, The Dispossessed", "Marcus Aurelius | Book 5"]
)
@pytest.mark.parametrize("marks", ["»{}«", "“{}”", '"{}"'])
def test_a_quotation_with_its_source_behind_it(tmp_path, by, marks):
    quote = marks.format("We learn to speak in the net, and we are not yet at its end")
    notes, tally = written(tmp_path, {"a.md": f"{A}\n\n{quote} {by}\n\n{quote} said Ada to me.\n"})
    assert notes["a.md"] == f"{A}\n{quote} said Ada to me." and tally.removed["quotations"] == 1
