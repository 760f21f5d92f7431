"""Further inputs of the kinds in test_cases.py: exports, messengers, clocks, saved chats, plug-in files, stand-ins of files."""
# ruff: noqa: E501

import io
import json
import tarfile
import zipfile

import pytest

from mipo_mlx import recipe_loading
from mipo_mlx.progress import Reporter
from mipo_mlx.sources import read

from .test_cases import notes_of, six_messages, written

HEX = "0123456789abcdef0123456789abcdef"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"


def zipped(files: dict[str, str | bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return data.getvalue()


def unzipped(folder, files):
    (folder / "export.zip").write_bytes(zipped(files))
    return notes_of(folder)


@pytest.mark.parametrize("ending", [".md", ".txt", ".org", ".html", ".docx"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_git_lfs_pointers_of_every_kind(tmp_path, ending, end):
    (tmp_path / f"a{ending}").write_bytes(POINTER.replace("\n", end).encode())
    notes, tally = written(tmp_path, {"b.md": "I sing."})
    assert list(notes) == ["b.md"] and "git lfs pull" in tally.skipped[0]["why"]


@pytest.mark.parametrize("text", ["../.git/annex/objects/aa/SHA256E-s1--ab/ab.md\n", ".git/annex/objects/x.md", "/annex/objects/x"])
def test_git_annex_links(tmp_path, text):
    notes, tally = written(tmp_path, {"a.md": text, "b.md": "I sing."})
    assert list(notes) == ["b.md"] and "git annex get" in tally.skipped[0]["why"]


def test_a_pointer_in_an_archive(tmp_path):
    notes, tally = unzipped(tmp_path, {"in/a.md": POINTER, "in/b.md": "I sing."})
    assert list(notes) == ["export.zip/in/b.md"] and "git lfs pull" in tally.skipped[0]["why"]


@pytest.mark.parametrize(
    "drawing",
    [
        "---\nexcalidraw-plugin: parsed\n---\n==⚠  Switch to EXCALIDRAW VIEW ==\n\n# Excalidraw Data\n\n## Text Elements\nI plant beans "
        "^AbCdEfGh\n\n%%\n## Drawing\n```compressed-json\nN4IgLgngDgpiBcIYA8\n```\n%%",
        "---\nexcalidraw-plugin: raw\n---\n\n# Text Elements\nI plant beans ^aaaaaaaa\n\n# Embedded files\nabc: [[a.png]]\n\n# Drawing\n"
        "```json\n{}\n```",
        "---\nexcalidraw-plugin: parsed\n---\nI plant beans\n\n# Excalidraw Data\n## Element Links\nx: [[b]]\n%%\n# Drawing\n```json\n{}\n```\n%%",
    ],
)
def test_other_drawings(tmp_path, drawing):
    notes, _ = written(tmp_path, {"a.excalidraw.md": drawing, "b.md": "---\ntldraw-file: true\n---\n{}", "c.excalidraw": "{}"})
    assert notes == {"a.excalidraw.md": "I plant beans"}


def test_notion_export_of_an_export_with_markdown_tables_and_html(tmp_path):
    page = '<html><body><h1>Home</h1><table class="properties"><tr><th>Tags</th><td>x</td></tr></table><p>I live here.</p></body></html>'
    inner = {
        f"Diary {HEX}.md": "# Diary\n\nCreated: May 1, 2024 10:00 AM\nTags: me, day\n\nI swim at six.\n\n<aside>\n💡 I call my aunt.\n</aside>\n",
        f"Diary {HEX}/Tasks {HEX}.csv": "Name,Done\nbuy,Yes\n",
        f"Home {HEX}.html": page,
        f"List {HEX}.md": "# List\n\n- [ ] I paint the lid\n",
    }
    notes, tally = unzipped(tmp_path, {"ExportBlock-Part-1.zip": zipped(inner)})
    assert sorted(notes.values()) == ["Diary\nI swim at six.\n💡 I call my aunt.", "Home\nI live here.", "List\n- I paint the lid"]
    assert tally.left_alone == {".csv files": 1} and tally.removed["properties"] == 3


def test_joplin_export(tmp_path):
    fields = f"id: {HEX}\nparent_id: {HEX}\ncreated_time: 2024-01-01T00:00:00.000Z\nis_todo: 0\n"
    files = {
        f"{'a' * 32}.md": f"Choir\n\nI sing bass.\n\n{fields}type_: 1",
        f"{'b' * 32}.md": f"Boat\n\nI want a boat.\n\n{fields}todo_due: 0\ntodo_completed: 0\ntype_: 1",
        f"{'c' * 32}.md": f"Notebook\n\n{fields}type_: 2",
        f"{'d' * 32}.md": f"pic.png\n\n{fields}mime: image/png\ntype_: 4",
        f"{'e' * 32}.md": f"\n\n{fields}encryption_cipher_text: JED01\nencryption_applied: 1\ntype_: 1",
        "resources/other.md": "Someone else's file.",
    }
    with tarfile.open(tmp_path / "a.jex", "w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    notes, tally = notes_of(tmp_path)
    assert sorted(notes.values()) == ["Boat\nI want a boat.", "Choir\nI sing bass."]
    assert "decrypt" in tally.skipped[0]["why"]
    assert tally.left_alone == {"Joplin's notebooks, tags and resources": 2, "attachments of Joplin's notes": 1}


def message(number, writer, text, **more):
    return {"id": number, "type": "message", "date": "2024-03-12T10:00:00", "from": writer, "from_id": writer, "text": text, **more}


TELEGRAM = [
    {"id": 1, "type": "service", "action": "phone_call"},
    message(2, "Ana", "Are you home yet, my dear?"),
    message(3, "Jo", ["The soup is ", {"type": "bold", "text": "hot"}, {"type": "blockquote", "text": "not mine"}]),
    message(4, "Jo", "Read this.", forwarded_from="News"),
    message(5, "Jo", "", photo="photo.jpg"),
]


@pytest.mark.parametrize(
    ("values", "me"),
    [
        ({"name": "Ana", "type": "personal_chat", "id": 1, "messages": TELEGRAM}, None),
        ({"name": "Rowing club", "type": "private_group", "id": 1, "messages": TELEGRAM}, "Jo"),
        (
            {"personal_information": {"user_id": 7}, "chats": {"list": [{"id": 1, "messages": [*TELEGRAM, message(6, "x", "y")]}]}},
            None,
        ),
    ],
)
def test_telegram_chats(tmp_path, values, me):
    for chat in [values] if "messages" in values else values["chats"]["list"]:
        chat["messages"] = [{**row, "from_id": "user7"} if row.get("from") == "Jo" else row for row in chat["messages"]]
    notes, tally = written(tmp_path, {"result.json": json.dumps(values)}, me=me)
    assert list(notes.values()) == ["The soup is hot"] and tally.removed["forwarded messages"] == 1


@pytest.mark.parametrize("word", ["Prompted", "Preguntaste:", "Eingegebener Prompt:", "送信したメッセージ："])
def test_gemini_activity_in_every_language(tmp_path, word):
    titles = ["How do I prune my old pear tree?", "I want to learn the cello at sixty.", "What can my aunt eat?"]
    rows = [{"header": "Gemini Apps", "title": f"{word} {t}", "time": f"2024-05-0{n}T10:00:00Z"} for n, t in enumerate(titles, 1)]
    notes, _ = written(tmp_path, {"My Activity.json": json.dumps(rows)})
    assert list(notes.values()) == titles


CLAUDE = {
    "sender": "human",
    "text": "",
    "content": [{"type": "text", "text": "I have a pear tree."}],
    "attachments": [{"file_name": "a"}],
}


@pytest.mark.parametrize(
    "own",
    [
        CLAUDE,
        {**CLAUDE, "text": "I have a pear tree.", "content": []},
        {"sender": "human", "text": "I have a pear tree.", "files": [{}]},
    ],
)
def test_claude_exports_of_every_age(tmp_path, own):
    answer = {
        "sender": "assistant",
        "text": "Nice!",
        "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Nice!"}],
    }
    files = {
        "conversations.json": json.dumps([{"uuid": "u", "name": "Pears", "chat_messages": [own, answer]}]),
        "users.json": '[{"uuid": "u", "full_name": "Jo"}]',
        "projects.json": '[{"uuid": "p", "docs": [{"filename": "a", "content": "words of another"}]}]',
    }
    notes, tally = written(tmp_path, files)
    assert list(notes.values()) == ["I have a pear tree."] and tally.left_alone == {".json files": 2}


CLOCKS = {
    "Hindi": "12/03/24, {0:02}:10 पूर्वाह्न - {1}: {2}",
    "Nepali": "२०२४/०३/१२, १८:{:02} - {}: {}",
    "Thai": "12/3/2567 18:{:02} - {}: {}",
    "Vietnamese": "[18:{:02}, 12/3/2024] {}: {}",
    "Indonesian": "12/03/24 18.{:02} - {}: {}",
    "Dutch": "12-03-2024 18:{:02} - {}: {}",
    "Swedish": "[2024-03-12, 18:{:02}:05] {}: {}",
    "Hebrew": "12.3.2024, 18:{:02} - {}: {}",
    "Bengali": "১২/৩/২৪, ৬:{:02} PM - {}: {}",
    "Albanian": "12.3.24, 6:{:02} e pasdites - {}: {}",
    "Malay": "12/03/2024, 6:{:02} PTG - {}: {}",
    "Croatian": "12. 03. 2024. 18:{:02} - {}: {}",
    "Amharic": "12/03/24 6:{:02} ከሰዓት - {}: {}",
    "phone": "\u200e[12/03/24, 6:{:02}:05\u202fPM] {}: {}",
}


@pytest.mark.parametrize("language", CLOCKS)
def test_further_clocks(tmp_path, language):
    notes, tally = written(tmp_path, {"WhatsApp Chat with Ana.txt": six_messages(CLOCKS[language])})
    kept = "\n".join(notes.values())
    assert (
        kept == "\n".join(f"I am, and the soup is on the stove. {n}" for n in (1, 3, 5))
        and tally.removed["messages of others"] == 3
    )


LAYOUTS = {
    "tags": "<user>\n{}\n</user>\n<assistant>\n{}\n</assistant>\n",
    "tags on one line": "<human>{}</human>\n\n<assistant>\n{}\n</assistant>\n",
    "brackets": "[User]: {}\n\n[Assistant]: {}\n\n",
    "times": "**User** (12:30):\n{}\n\n**Assistant** (12:31):\n{}\n\n",
    "names alone": "You\n{}\n\nChatGPT\n{}\n\n",
    "names between rules": "User\n\n{}\n\n---\n\nAssistant\n\n{}\n\n---\n\n",
    "table": "| User | {} |\n|---|---|\n| Assistant | {} |\n\n",
    "YAML": "- role: user\n  content: {}\n- role: assistant\n  content: {}\n",
    "list": "- **User**: {}\n- **AI**: {}\n",
    "emoji": "🧑 **You**\n\n{}\n\n🤖 **Assistant**\n\n{}\n\n",
    "DeepSeek": "**User:**\n{}\n\n**DeepSeek-R1:**\n{}\n\n",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_further_layouts_of_assistants_chats(tmp_path, layout):
    turns = ("I cannot stand cauliflower, and garlic keeps me awake.", "Happy to help! Roast parsnips with thyme.")
    notes, _ = written(tmp_path, {"a.md": LAYOUTS[layout].format(*turns) * 2})
    text = "\n".join(notes.values())
    assert text.count("cauliflower") == 2 and "Happy" not in text and "parsnips" not in text and "role" not in text


def test_a_chat_as_json_lines_in_a_note_is_skipped(tmp_path):
    line = '{{"role": "{}", "content": "I cannot stand cauliflower."}}\n'
    notes, tally = written(tmp_path, {"a.md": (line.format("user") + line.format("assistant")) * 3})
    assert not notes and "conversation" in tally.skipped[0]["why"]


def test_words_such_as_you_alone_on_a_line_make_no_chat(tmp_path):
    poem = "You\nare the sea\n\nI\nam the boat\n\nYou\nare the wind\n"
    notes, tally = written(tmp_path, {"a.md": poem})
    assert "are the wind" in notes["a.md"] and not tally.removed


@pytest.mark.parametrize(
    "block",
    [
        "{% highlight ruby %}\ndef foo\n  puts 1\nend\n{% endhighlight %}",
        "{{< highlight go >}}\nfunc main() {}\n{{< /highlight >}}",
        "{% comment %}\nnot for anybody\n{% endcomment %}",
        "{{< mermaid >}}\ngraph TD; A-->B\n{{< /mermaid >}}",
    ],
)
def test_code_between_tags_of_a_site_generator(tmp_path, block):
    notes, _ = written(tmp_path, {"a.md": f"I wrote a program.\n\n{block}\n\n{{% raw %}}I end.{{% endraw %}}\n"})
    assert notes["a.md"] == "I wrote a program.\nI end."


@pytest.mark.parametrize("declared", ["<!DOCTYPE html>", '<?xml version="1.0"?>', "<!doctype html SYSTEM 'about:legacy-compat'>"])
def test_declarations_of_an_html_page_are_no_words(tmp_path, declared):
    notes, _ = written(tmp_path, {"a.html": f"{declared}\n<html><head><title>Boat</title></head><body><p>I row.</p></body></html>"})
    assert notes == {"a.html": "I row."}


def test_front_matter_of_an_html_page(tmp_path):
    page = (
        "---\nlayout: post\ntitle: 'My boat'\nauthor:\n  login: jo\ntags: [sea]\n---\n<p>I row to the island.</p>\n<p>I sing.</p>\n"
    )
    assert written(tmp_path, {"a.html": page})[0] == {"a.html": "I row to the island.\nI sing."}
    assert not notes_of(tmp_path, exclude=["#sea"])[0]


def test_quotes_within_an_outline_of_logseq(tmp_path):
    page = "- I keep bees\n- #+BEGIN_QUOTE\n  Not mine.\n  #+END_QUOTE\n- I sing\n"
    notes, _ = written(tmp_path, {"logseq/config.edn": "{}", "pages/A.md": page})
    assert notes["pages/A.md"] == "I keep bees\nI sing"


def test_what_was_marked_in_a_pdf_is_not_its_readers(tmp_path):
    marked = "- I took the ship to Rhodes.\n  ls-type:: annotation\n  hl-page:: 9\n  and I never came back.\n\t- I want to read this again\n"
    page = f"file-path:: ../assets/a.pdf\n\n- Chapter of the sea\n\t- A storm.\n\t  ls-type:: annotation\n\t- My uncle sailed there\n{marked}- I sing\n"
    notes, _ = written(tmp_path, {"logseq/config.edn": "{}", "pages/hls__a.md": page})
    assert notes["pages/hls__a.md"] == "Chapter of the sea\nMy uncle sailed there\nI want to read this again\nI sing"


@pytest.mark.parametrize("keys", ["author:: [[Ada]]\nurl:: https://a.org/b", "title:: Ships\nauthor:: Ada\nurl:: https://a.org"])
def test_a_highlight_of_several_paragraphs_is_its_authors(tmp_path, keys):
    page = f"{keys}\n\n- > I took the ship.\n  \n  I never came back.\n  \n  We sang.\n\t- I want to read this again\n- I sing\n"
    graph = {"logseq/config.edn": "{}", "pages/A.md": page, "pages/B.md": page.removeprefix(keys)}
    notes, tally = written(tmp_path, graph)
    assert notes["pages/A.md"] == "I want to read this again\nI sing" and tally.removed["quotes"] == 2
    assert "I never came back." in notes["pages/B.md"]  # a note of one's own beneath a quote


JOURNALS = {
    "Day One": (
        "Journal.json",
        {
            "metadata": {"version": "1.0"},
            "entries": [
                {"uuid": "A", "creationDate": "2024-05-01T10:00:00Z", "text": "# Lake\n\nI swam\\. ![](dayone-moment://ABC)\n", "tags": ["sea"]},
                {"uuid": "B", "creationDate": "2024-05-02T10:00:00Z", "text": "I called my aunt."},
            ],
        },
        {"Journal.json#A": "Lake\nI swam.", "Journal.json#B": "I called my aunt."},
    ),
    "Google Keep": (
        "Keep/a.json",
        {"isTrashed": False, "title": "Buy", "textContent": "For my boat:", "listContent": [{"text": "paint"}], "labels": [{"name": "sea"}]},
        {"Keep/a.json": "For my boat:\n- paint"},
    ),
    "Simplenote": (
        "notes.json",
        {"activeNotes": [{"id": "a", "content": "Boat\nI varnish it in May.", "tags": ["sea"]}], "trashedNotes": [{"content": "gone"}]},
        {"notes.json": "I varnish it in May."},
    ),
}  # fmt: skip


@pytest.mark.parametrize("program", JOURNALS)
def test_exports_of_journals(tmp_path, program):
    name, values, expected = JOURNALS[program]
    notes, _ = written(tmp_path, {name: json.dumps(values), "package.json": '{"name": "x"}'})
    assert notes == expected
    assert len(notes_of(tmp_path, exclude=["#sea"])[0]) == len(expected) - 1
    assert notes_of(tmp_path / name)[0].keys() == {key.rpartition("/")[2] for key in expected}


def test_what_is_in_googles_trash_is_left_alone(tmp_path):
    trashed = json.dumps({"isTrashed": True, "title": "", "textContent": "I am gone."})
    notes, tally = written(tmp_path, {"a.json": trashed, "b.md": "I sing."})
    assert list(notes) == ["b.md"] and tally.left_alone == {"notes in the trash": 1}


def test_evernote(tmp_path):
    note = '<note><title>{}</title><content><![CDATA[<?xml version="1.0"?><!DOCTYPE en-note SYSTEM "enml2.dtd"><en-note><div>{}</div><en-media/></en-note>]]></content><tag>{}</tag>{}</note>'
    picture = '<resource><data encoding="base64">QUJD</data></resource>'
    text = f"<en-export>\n{note.format('Garden', 'I plant beans.', 'home', picture)}\n{note.format('Boat', 'I row.', 'sea', '')}\n</en-export>"
    notes, tally = written(tmp_path, {"a.enex": text})
    assert notes == {"a.enex#1": "I plant beans.", "a.enex#2": "I row."} and tally.removed["images and embeds"] == 1
    assert list(notes_of(tmp_path, exclude=["#sea"])[0]) == ["a.enex#1"]


FOLDERS = [
    "02 - Archive",
    "Archive",
    "04. Templates",
    "📁 Clippings",
    "_Archives_",
    "web clippings",
    "99 Архив",
    "网页剪藏",
    "Recortes",
]


@pytest.mark.parametrize("name", FOLDERS)
def test_numbered_and_decorated_folders_count_as_their_names(tmp_path, name):
    notes, tally = written(
        tmp_path, {f"{name}/a.md": "Old words.", "My Archives of Rome/b.md": "I dig.", "2021 - Archive/c.md": "I sing."}
    )
    assert set(notes) == {"My Archives of Rome/b.md", "2021 - Archive/c.md"} and tally.left_alone.total() == 1


@pytest.mark.parametrize("big", ["table", "journal", "list"])
def test_other_big_notes_do_not_crowd_out_the_others(tmp_path, big):
    rows = {
        "table": "| day | spent |\n|---|---|\n"
        + "".join(f"| the {n} of May | rope and {n} nails for my boat |\n" for n in range(600)),
        "journal": "".join(f"I spent the evening number {n} at my desk with {n * 7} pages of my book.\n\n" for n in range(600)),
        "list": "".join(f"- I owe my neighbour {n} eggs and {n * 3} pears for his help\n" for n in range(600)),
    }
    written(
        tmp_path, {"big.md": rows[big], **{f"{n}.md": f"On day {n} I rowed {n + 3} miles with my sister Ana." for n in range(10)}}
    )
    sets = [f"sources.notes={tmp_path}", "sources.min_tokens=4", "sources.heldout_contexts=0.4", "pairs.contexts_per_grid=2"]
    recipe = recipe_loading.parse("model: none", overrides=sets)
    contexts, _, _ = read.collect(recipe, lambda text: len(text) // 2, Reporter(quiet=True))
    plain = {c.note: c.split for c in contexts if c.note != "big.md"}
    assert len(plain) == 10 and sum(side == "train" for side in plain.values()) >= 5
    assert sum(c.note == "big.md" for c in contexts) <= 3
