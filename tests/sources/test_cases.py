"""Inputs that once went wrong, each with siblings of its kind: what stays of a file, and what is left out under which reason."""

import base64
import random
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from mipo_mlx import recipe_loading
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Sources
from mipo_mlx.sources import gather, read
from mipo_mlx.sources.note import Tally

CASES = Path(__file__).parents[3] / "shared" / "cases"
QUIET = Reporter(quiet=True)


def notes_of(folder: Path, **sources) -> tuple[dict[str, str], Tally]:
    """(text of each note by its name, counts) of a folder of notes."""
    tally = Tally()
    notes = gather.read_notes(Sources(notes=str(folder), **sources), tally, QUIET)
    return {note.name: "\n".join(block.text for block in note.blocks) for note in notes}, tally


def written(folder: Path, files: dict[str, str], **sources) -> tuple[dict[str, str], Tally]:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return notes_of(folder, **sources)


@pytest.fixture
def case(tmp_path, monkeypatch):
    def made(name: str) -> Path:
        if not CASES.exists():
            pytest.skip("shared/cases is not beside this checkout")
        folder = tmp_path / name
        folder.mkdir()
        if (CASES / name / "notes").exists():
            shutil.copytree(CASES / name / "notes", folder, dirs_exist_ok=True)
        if (CASES / name / "make.py").exists():
            monkeypatch.setattr(sys, "argv", ["make.py", str(folder)])
            runpy.run_path(str(CASES / name / "make.py"), run_name="__main__")
        return folder

    return made


@pytest.mark.parametrize("name", ["base64-inline", "base64-reference"])
@pytest.mark.parametrize("redact", [True, False])
def test_an_embedded_photo_is_an_image(case, name, redact):
    notes, tally = notes_of(case(name), redact=redact)
    (text,) = notes.values()
    assert text.count(".") == 2 and "base64" not in text and "image" not in text and "[" not in text
    assert tally.removed["images and embeds"] == 1 and not tally.redacted


DATA = base64.b64encode(random.Random(3).randbytes(90_000)).decode()


@pytest.mark.parametrize(
    "embedded",
    [
        f'<img alt="x" src="data:image/jpeg;base64,{DATA}">',
        f"![a](<data:image/svg+xml;charset=utf-8;base64,{DATA}>)",
        f"data:application/octet-stream;base64,{DATA}",
        f"[photo](data:image/gif;base64,{DATA})",
    ],
)
def test_other_embedded_files(tmp_path, embedded):
    notes, _ = written(tmp_path, {"a.md": f"I stir the milk by hand.\n\n{embedded}\n\nMy daughter brushes the rind.\n"})
    text = notes["a.md"].replace("photo\n", "")
    assert text.split("\n") == ["I stir the milk by hand.", "My daughter brushes the rind."]


@pytest.mark.parametrize(
    ("name", "me", "days"),
    [
        ("whatsapp-spanish", "Tomás", 8),
        ("whatsapp-chinese", "小宁", 8),
        ("whatsapp-arabic", "سامي", 8),
        ("whatsapp-marks", "Tomas", 4),
    ],
)
def test_whatsapp_cases(case, name, me, days):
    notes, tally = notes_of(case(name), me=me)
    assert len(notes) == days and not tally.skipped
    text = "\n".join(notes.values())
    for other in ("Elena", "月月", "ليلى", me, "omitido", "omitted", "2024", "2017", ":"):
        assert other not in text


CLOCKS = {
    "german": "12.03.24, 18:{:02} - {}: {}",
    "american": "3/12/24, 6:{:02} PM - {}: {}",
    "korean": "2024. 3. 12. 오후 6:{:02} - {}: {}",
    "korean phone": "[2024. 3. 12. 오후 6:{:02}:05] {}: {}",
    "japanese": "2024/03/12 18:{:02} - {}: {}",
    "hungarian": "2024. 03. 12. 18:{:02} - {}: {}",
    "finnish": "12.3.2024 klo 18.{:02} - {}: {}",
    "persian": "۱۴۰۲/۱۲/۲۲،‏ ۱۸:{:02} - {}: {}",
    "greek": "12/3/24, 6:{:02} μ.μ. - {}: {}",
    "bulgarian": "12.03.24 г., 18:{:02} ч. - {}: {}",
    "time first": "18:{:02}, 12/3/2024 - {}: {}",
    "french": "12/03/2024 à 18:{:02} - {}: {}",
    "canadian": "2024-03-12 18 h {:02} - {}: {}",
    "signal": "[2024-03-12, 18:{:02}] {}: {}",
    "telegram": "{1}, [12.03.24 18:{0:02}]\n{2}",
    "irc": "[18:{:02}] <{}> {}",
}


def six_messages(layout: str) -> str:
    """A chat, each message in this layout of (minute, writer, words)."""
    turns = [("Ana", "Are you home yet, my dear?"), ("Jo", "I am, and the soup is on the stove.")] * 3
    return "\n".join(layout.format(10 + n, writer, f"{words} {n}") for n, (writer, words) in enumerate(turns))


@pytest.mark.parametrize("clock", CLOCKS)
def test_clocks_of_other_countries_and_messengers(tmp_path, clock):
    notes, tally = written(tmp_path, {"chat.txt": six_messages(CLOCKS[clock])}, me="Jo")
    kept = "\n".join(notes.values())
    assert kept.count("soup") == 3 and "dear" not in kept and "18" not in kept and "Jo" not in kept
    assert tally.removed["messages of others"] == 3


def test_a_chat_without_an_owner_is_skipped(tmp_path):
    line = "[12.03.24, 18:22:0{}] {}: This is what I say to you all day long."
    text = "\n".join(line.format(n, "Ana" if n % 2 else "Bo") for n in range(8))
    _, tally = written(tmp_path, {"_chat.txt": text, "WhatsApp Chat - Ana/_chat.txt": text})
    assert [skip["file"] for skip in tally.skipped] == ["_chat.txt"] and "sources.me" in tally.skipped[0]["why"]


def test_an_assistants_chat_in_a_vault(case):
    notes, tally = notes_of(case("obsidian-ai-chat"))
    ((name, text),) = notes.items()
    assert name.endswith("Meals_of_the_week@20250301_101500.md") and "cauliflower" in text and "half an hour" in text
    assert not any(word in text for word in ("assistant", "parsnips", "Timestamp", "Shorten", "user"))
    assert tally.removed["turns of an assistant"] == 2


@pytest.mark.parametrize(
    "layout",
    [
        "## User\n\n{}\n\n## ChatGPT\n\n{}\n\n",
        "#### You:\n{}\n\n#### ChatGPT:\n{}\n\n",
        "**You said:**\n\n{}\n\n**ChatGPT said:**\n\n{}\n\n",
        "Human: {}\n\nAssistant: {}\n\n",
        "## Prompt:\n{}\n\n## Response:\n{}\n\n",
        "# role::user\n\n{}\n\n# role::assistant\n\n{}\n\n",
        "> [!nexus_user] **User**\n> {}\n\n> [!nexus_agent] **Assistant**\n> {}\n\n",
        "### 👤 User\n{}\n\n### 🤖 Claude 3.5 Sonnet\n{}\n\n",
        "_**User**_\n\n{}\n\n_**Assistant**_\n\n{}\n\n",
        "**Benutzer:** {}\n\n**Assistent:** {}\n\n",
        "用户：{}\n\n助手：{}\n\n",
    ],
)
@pytest.mark.parametrize("ending", [".md", ".txt"])
def test_other_layouts_of_assistants_chats(tmp_path, layout, ending):
    if ending == ".txt" and layout.startswith(("> [!", "_**")):
        pytest.skip("Markdown alone has this layout")
    turns = ("I cannot stand cauliflower, and garlic keeps me awake.", "Happy to help! Roast parsnips with thyme.")
    notes, _ = written(tmp_path, {f"a{ending}": layout.format(*turns) * 2})
    (text,) = notes.values()
    assert text.count("cauliflower") == 2 and "Happy" not in text and "parsnips" not in text


def test_vault_settings(case):
    folder = case("obsidian-templates")
    notes, tally = notes_of(folder)
    assert list(notes) == ["Kept.md"] and tally.left_alone["excluded by the vault's settings"] == 2
    assert set(notes_of(folder, exclude=["!Other people/"])[0]) == {"Kept.md", "Other people/Minutes.md"}


def test_other_settings_and_names(tmp_path):
    files = {
        "logseq/config.edn": '{:hidden ["/archived" "/pages/Test.md"]\n ;; :hidden ["/pages"]\n}',
        "pages/Test.md": "- I am hidden.",
        "pages/Bees.md": "- I keep bees.",
        "archived/Old.md": "I was hidden.",
        "Vorlagen/Tag.md": "Put three words here.",
        "work/Clippings/Article.md": "Someone else wrote this.",
        "vault/.obsidian/plugins/templater-obsidian/data.json": '{"templates_folder": "meta/tpl"}',
        "vault/meta/tpl/Day.md": "What went well?",
        "vault/Mine.md": "I sing.",
    }
    assert set(written(tmp_path, files)[0]) == {"pages/Bees.md", "vault/Mine.md"}


def test_include_and_exclude(tmp_path):
    files = {
        "Diary/a.md": "I row.",
        "Work/b.md": "---\nstatus: draft\n---\nI plan.",
        "Work/c.md": "I count. #private/money",
        "d.excalidraw.md": "I draw.",
    }
    assert len(written(tmp_path, files)[0]) == 4
    for exclude, gone in {
        "Work/": 2,
        "#private": 1,
        "status: draft": 1,
        "status:": 1,
        "*.excalidraw.md": 1,
        "Diary/a.md": 1,
    }.items():
        assert len(notes_of(tmp_path, exclude=[exclude])[0]) == 4 - gone, exclude
        assert len(notes_of(tmp_path, include=[exclude])[0]) == gone, exclude
    assert len(notes_of(tmp_path, exclude=["Work/", "!Work/b.md"])[0]) == 3


def test_letters_in_two_forms(case):
    folder = case("unicode-forms")
    made = recipe_loading.parse("model: none", overrides=[f"sources.notes={folder}", "sources.me=Jürgen", "sources.min_tokens=3"])
    made = made.model_copy(update={"pairs": made.pairs.model_copy(update={"contexts_per_grid": 2})})
    contexts, _, row = read.collect(made, lambda text: len(text.split()), QUIET)
    assert row["passages"]["dropped"] == {"duplicate": 1} and len(contexts) == 5


def test_files_that_are_not_here(case, tmp_path):
    _, tally = notes_of(case("icloud-placeholders"))
    assert {skip["file"] for skip in tally.skipped} == {"Diary/2024-05-01.md", "Recipes.md", "Garden 2023.md", "Letter to Vera.md"}
    assert all("iCloud" in skip["why"] for skip in tally.skipped)
    _, tally = notes_of(case("lfs-pointer"))
    assert "git lfs pull" in tally.skipped[0]["why"]
    _, tally = written(tmp_path / "annex", {"a.md": "/annex/objects/SHA256E-s1--ab.md\n", "b.md.nextcloud": "", "c.md": "I sing."})
    assert {skip["file"] for skip in tally.skipped} == {"a.md", "b.md"}


def test_encodings(case):
    notes, tally = notes_of(case("encodings"))
    assert "größte Vergnügen" in notes["german-mac-roman.md"] and "żona wróci z nocnego dyżuru" in notes["polish-windows-1250.md"]
    assert [skip["file"] for skip in tally.skipped] == ["english-shift-jis.md"] and "UTF-8" in tally.skipped[0]["why"]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("koi8_r", "Каждое утро я бегаю вдоль реки, потом варю кофе и читаю газету на балконе."),
        ("cp1251", "Вечером играю в шахматы с соседом, который громко смеётся над моими ошибками, и я не обижаюсь."),
        ("cp1250", "Každý večer hraju na kytaru a potom čtu knihu, než přijde moje žena z práce domů."),
        ("cp1254", "Her sabah nehir boyunca koşuyorum, sonra kahve yapıp balkonda gazete okuyorum, ve bu çok iyi."),
        ("cp850", "Für das Frühstück kaufe ich Brötchen beim Bäcker, weil sie außen und innen so gut sind."),
        ("cp932", "毎朝、川沿いを走ってから、コーヒーを淹れて新聞を読みます。夜は隣の人と将棋を指します。"),
        ("gb18030", "我每天早上沿着河边跑步，然后煮咖啡，在阳台上看报纸。晚上和邻居下棋，他总是笑我的错误。"),
        ("utf-16-le", "I row on the lake at six, and my brother steers."),
        ("utf-16-be", "Каждое утро я бегаю вдоль реки."),
    ],
)
def test_other_encodings_are_read_right_or_skipped(tmp_path, encoding, text):
    (tmp_path / "a.md").write_bytes(text.encode(encoding))
    notes, tally = notes_of(tmp_path)
    assert list(notes.values()) == [text] or "save it as UTF-8" in tally.skipped[0]["why"]


def test_utf8_that_was_encoded_twice_is_mended(tmp_path):
    notes, _ = written(tmp_path, {"a.md": "Für meine Mutter, don’t.".encode().decode("cp1252")})
    assert notes["a.md"] == "Für meine Mutter, don’t."


def test_drawings_keep_their_words(case):
    notes, _ = notes_of(case("excalidraw"))
    assert (
        notes["Shed.excalidraw.md"].startswith("My bench goes under the north window")
        and notes["Shed.excalidraw.md"].count("\n") == 1
    )
    assert notes["Old form.excalidraw.md"].endswith("a path of bricks")


PLUGINS = {
    "kanban": "---\nkanban-plugin: basic\n---\n\n## To do\n\n- [ ] I paint the lid @{{2024-05-01}}\n\n"
    "%% kanban:settings\n```\n{{}}\n```\n%%",
    "tasks": "- [x] I paint the lid 📅 2024-05-01 ✅ 2024-05-02 🔁 every week\n\n```tasks\nnot done\n```\n",
    "dataview": "mood:: fine\n\nI paint the lid [due:: 2024-05-01] `= this.file.name`.\n\n```dataview\nLIST\n```\n",
    "templater": "<%* const x = 1 %>\nI paint the lid <% tp.date.now() %>.\n",
    "liquid": "{{% if a %}}I paint the lid {{{{ page.title }}}}.{{% endif %}}\n",
    "hugo": 'I paint the lid. {{{{< figure src="a.png" >}}}} {{{{% note %}}}}\n',
    "joplin": "The lid\n\nI paint the lid.\n\nid: 0123456789abcdef0123456789abcdef\nparent_id: \ncreated_time: 2024\ntype_: 1",
    "bear": "I paint the lid. #my garden# [image:AB-12/photo.png] ::soon::\n",
    "diagram": "I paint the lid.\n\n```mermaid\ngraph TD; A-->B\n```\n",
}


@pytest.mark.parametrize("name", PLUGINS)
def test_marks_of_plugins_and_templates_are_cut(tmp_path, name):
    notes, _ = written(tmp_path, {"a.md": PLUGINS[name].replace("{{", "{").replace("}}", "}")})
    (text,) = notes.values()
    assert "I paint the lid" in text
    left = text.replace("I paint the lid", "").replace("The lid", "").replace("To do", "").replace("soon", "")
    assert not any(char.isalnum() for char in left), left


@pytest.mark.parametrize(
    "quoted",
    [
        "> We must cultivate our garden,\n> said Candide.\n>\n> — Voltaire",
        "“Not all those who wander are lost, and the old that is strong does not wither.”\n— J. R. R. Tolkien",
        "As Thoreau wrote:\n\n> I went to the woods because I wished to live deliberately.\n\n— Thoreau, Walden",
        "-----Original Message-----\nFrom: Ana <ana@b.org>\nSent: Monday\nTo: Jo\nSubject: Boat\n\nThe boat is mine, she says.",
        "> [!quote] Seneca\n> It is not that we have a short time to live.",
        "<blockquote>Hell is other people, and so on.</blockquote>",
    ],
)
def test_words_of_others_are_cut(tmp_path, quoted):
    notes, _ = written(tmp_path, {"a.md": f"I keep bees.\n\n{quoted}\n"})
    assert notes["a.md"] == "I keep bees."


def test_an_own_callout_stays(tmp_path):
    notes, _ = written(tmp_path, {"a.md": "> [!tip] Mine\n> I prune in March.\n> > He said no.\n\nI sing.\n"})
    assert notes["a.md"] == "Mine I prune in March.\nI sing."


def test_what_is_no_note(tmp_path):
    files = {
        "LICENSE.md": "MIT", "README.md": "# A program", "mine.md": "I sing.",
        "terms.txt": "Permission is hereby granted, free of charge, to any person. The software is provided \"as is\".",
        "clip.md": "---\nsource: https://a.org/b\nauthor: Ana\n---\nSomeone else's text.",
        "talk.txt": "\n".join(f"00:00:{n:02} so we went on and on" for n in range(10, 40, 3)),
        "interview.txt": "\n".join(f"{'Ana' if n % 3 else 'Bob'}: I think that this is how it was number {n}" for n in range(12)),
    }  # fmt: skip
    notes, tally = written(tmp_path, files)
    assert list(notes) == ["mine.md"]
    assert tally.left_alone["licences and read-me files"] == 3 and tally.left_alone["articles clipped from the web"] == 1
    assert {skip["file"] for skip in tally.skipped} == {"talk.txt", "interview.txt"}


def test_a_big_note_does_not_crowd_out_the_others(case):
    folder = case("one-big-note")
    shutil.copytree(CASES / "plain", folder, dirs_exist_ok=True)
    sets = [f"sources.notes={folder}", "sources.min_tokens=8", "sources.heldout_contexts=0.4", "pairs.contexts_per_grid=2"]
    contexts, _, row = read.collect(recipe_loading.parse("model: none", overrides=sets), lambda text: len(text) // 2, QUIET)
    plain = {c.note: c.split for c in contexts if c.note != "ledger.md"}
    assert len(plain) == 10 and sum(side == "train" for side in plain.values()) >= 5
    assert sum(c.note == "ledger.md" for c in contexts) <= 3 and row["passages"]["dropped"]["more than one note's share"] > 20
