"""Every reader against a file in its real format."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from mipo_mlx import recipe
from mipo_mlx.errors import UserError
from mipo_mlx.progress import Reporter
from mipo_mlx.sources import gather, limits
from mipo_mlx.sources.note import Skip, Tally
from mipo_mlx.sources.note_file import NoteFile
from mipo_mlx.sources.readers import reader_for
from mipo_mlx.sources.readers.exports import read_export
from mipo_mlx.sources.readers.mail import own_words

FIXTURES = Path(__file__).parent / "fixtures"


def read(name: str, me: str | None = None, tally: Tally | None = None):
    return read_file(FIXTURES / name, me, tally)


def read_file(path: Path, me: str | None = None, tally: Tally | None = None):
    file = NoteFile.on_disk(path)
    return reader_for(file, me)(file, tally or Tally())


def lines(note) -> list[tuple[int, str]]:
    return [(block.line, block.text) for block in note.blocks]


def folder(path: Path, **sources):
    made = recipe.Sources(notes=str(path), **sources)
    tally = Tally()
    return gather.read_notes(made, tally, Reporter(quiet=True)), tally


def test_obsidian():
    notes, tally = folder(FIXTURES / "obsidian")
    assert [note.source for note in notes] == ["Bees.md", "Daily/2024-05-03.md"]
    assert notes[0].title == "Bees on the roof"
    assert lines(notes[0]) == [
        (7, "Bees on the roof"),
        (9, "I keep two hives above the bakery."),
        (11, "Smoke I never use too much smoke."),
        (19, "- order frames spring"),
        (20, "- paint the lid"),
    ]
    assert lines(notes[1]) == [(1, "I walked along the harbour and met Bettina, who lent me her Old cameras.")]
    assert tally.removed == {"images and embeds": 1, "code blocks": 1}
    assert tally.left_alone["hidden or trash"] == 1


def test_logseq():
    notes, tally = folder(FIXTURES / "logseq")
    journal, page = notes
    assert (page.title, journal.title) == ("Cold water", "2024 03 01")
    assert lines(page) == [
        (5, "I swim in the sea every morning with five friends."),
        (8, "buy neoprene gloves for January"),
        (13, "We drink tea on the slipway, see and the rule."),
        (15, "Ask the doctor about my fingers cold hands"),
    ]
    assert lines(journal) == [(1, "I slept badly and forgot the keys.")]
    assert tally.left_alone["hidden or trash"] == 1


def test_notion():
    (note,) = read("notion/Reading list 1f0c2b3a4d5e6f708192a3b4c5d6e7f8.md")
    assert note.title == "Reading list"
    assert lines(note) == [
        (1, "Reading list"),
        (7, "I read short novels, preferably in translation."),
        (9, "💡 My next choice has to be funny."),
        (16, "- ask Bettina"),
        (17, "- return the old ones"),
    ]


def test_apple_notes_as_html():
    tally = Tally()
    (note,) = read("apple/Packing.html", tally=tally)
    assert note.title == "Packing"
    assert lines(note) == [
        (3, "Packing"),
        (4, "I travel with one small rucksack."),
        (6, "Never without oatcakes & a flask."),
        (8, "- two jumpers"),
        (9, "- one good book"),
    ]
    assert note.blocks[2].linked == len("flask")
    assert tally.removed["images and embeds"] == 1


def test_apple_notes_as_text():
    (note,) = read("apple/Soup night.txt")
    assert note.title == "Soup night"
    assert lines(note) == [
        (3, "Every Thursday I cook one enormous pot of soup. Whoever comes, eats."),
        (6, "• two vegetarians"),
        (7, "• one child"),
    ]


def test_org():
    tally = Tally()
    (note,) = read("org/garden.org", tally=tally)
    assert note.title == "The yard"
    assert [(b.line, b.level, b.text) for b in note.blocks] == [
        (7, 0, "All the garden I have is a paved yard."),
        (9, 1, "Fig tree"),
        (14, 0, "My fig sulks in its pot, says the fig book."),
        (17, 2, "Water"),
        (18, 0, "- every second day"),
        (19, 0, "- rain butt"),
        (26, 0, "plant, light"),
        (28, 0, "fern, shade"),
        (32, 0, "Use make water in June."),
    ]
    assert tally.removed["code blocks"] == 1


def test_chatgpt():
    (note,) = read_chat("chatgpt.json")
    assert (note.name, note.title) == ("chatgpt.json#c-1", "Gluten-free bread")
    assert lines(note) == [(3, "I have coeliac disease and miss proper bread."), (5, "Mine came out flat, see above.")]


def test_claude():
    (note,) = read_chat("claude.json")
    assert note.title == "Chess club"
    assert lines(note) == [(1, "I teach chess to two children."), (3, "They are nine years old.")]


def read_chat(name: str):
    return read_export(NoteFile.on_disk(FIXTURES / "chats" / name), Tally())


def test_chats_in_a_folder_and_named_alone(tmp_path):
    shutil.copy(FIXTURES / "chats" / "claude.json", tmp_path / "conversations.json")
    (tmp_path / "package.json").write_text("{}")
    notes, tally = folder(tmp_path)
    assert [note.title for note in notes] == ["Chess club"]
    assert tally.left_alone == {".json files": 1}
    assert folder(FIXTURES / "chats" / "chatgpt.json")[0][0].title == "Gluten-free bread"
    (tmp_path / "conversations.json").write_text('{"a": 1}')
    with pytest.raises(Skip, match="no chat export"):
        read_file(tmp_path / "conversations.json")


def test_whatsapp_of_android_knows_the_other_from_the_name():
    first, second = read("chats/WhatsApp Chat with Bettina.txt")
    assert lines(first) == [(3, "Yes, but I have to walk the dog first. Biscuit hates the rain.")]
    assert lines(second) == [(6, "Four minutes in the sea today!")]
    assert (first.name, second.name) == ("WhatsApp Chat with Bettina.txt#12/03/2024", "WhatsApp Chat with Bettina.txt#13/03/2024")


def test_whatsapp_of_a_group_asks_who_the_user_is():
    with pytest.raises(Skip, match=r"sources\.me \(Damp Pages, Nell, Mo\)|sources\.me \(Nell, Mo\)"):
        read("chats/_chat.txt")
    assert lines(read("chats/_chat.txt", me="nell")[0]) == [(2, "My turn to choose a book.")]
    with pytest.raises(Skip, match="no message of Ida"):
        read("chats/_chat.txt", me="Ida")


def test_mbox():
    loft, library, lunch = read("mail/Sent.mbox")
    assert loft.title == "The net loft – an offer"
    assert loft.name == "Sent.mbox#1"
    assert lines(loft) == [
        (1, "Dear Mr Tallow,"),
        (1, "I have saved thirty-one thousand in nine years and would like the loft."),
        (1, "I can start in summer."),
    ]
    assert lines(library) == [(2, "I shall speak for three minutes, with a naïve smile.")]
    assert lines(lunch) == [(3, "Lunch at one?")]


@pytest.mark.parametrize("me", ["nell@skerry.example", "Mo"])
def test_mbox_of_all_mail_takes_the_users_own(tmp_path, me):
    path = tmp_path / "All mail"  # without an ending, as in Thunderbird
    shutil.copy(FIXTURES / "mail" / "Sent.mbox", path)
    with pytest.raises(Skip, match=r"sources\.me"):
        read_file(path)
    assert len(read_file(path, me)) == (2 if me.startswith("nell") else 1)
    with pytest.raises(Skip, match="no mail from Ida"):
        read_file(path, "Ida")


def test_eml(tmp_path):
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "a.eml").write_bytes(b"From: a@b.c\r\nSubject: Hi\r\n\r\nI am fine.\r\n\r\n-- \r\nA\r\n")
    (note,) = folder(tmp_path)[0]
    assert (note.title, [block.text for block in note.blocks]) == ("Hi", ["I am fine."])


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("Yes.\n\nAm 3. Mai schrieb Ana:\n> Kommst du?\n", "Yes."),
        ("Yes.\n\nVon: Ana\nGesendet: Montag\nAn: Nell\n\nKommst du?", "Yes."),
        ("Yes.\n________________________________\nFrom: Ana <a@b.c>\nSent: Monday\n", "Yes."),
        ("We need:\n- eggs\n\nFrom here on I walk.", "We need:\n- eggs\n\nFrom here on I walk."),
        ("De: nada\nsaid nobody", "De: nada\nsaid nobody"),
    ],
)
def test_own_words(text, own):
    assert own_words(text).strip() == own


def test_word():
    pytest.importorskip("mammoth", reason="the extra `documents` is not installed")
    (note,) = read("organ.docx")
    assert note.title == "The organ"
    assert [(b.level, b.text) for b in note.blocks] == [
        (1, "The organ"),
        (0, "I look after a small pipe organ, unpaid."),
        (2, "Money"),
        (0, "Four thousand of eighteen so far."),
        (0, "- ask the bank"),
        (0, "- bake a cake"),
        (0, "stops, eleven"),
    ]


def test_pdf():
    pytest.importorskip("pypdf", reason="the extra `documents` is not installed")
    (note,) = read("path.pdf")
    assert note.title == "The coast path"
    assert lines(note) == [
        (1, "I am walking the whole coast path in bits of two or three days, whenever my work and my wandering dog allow it."),
        (2, "I keep to nine miles a day because of my knee."),
        (3, "The next stretch has a river to wade."),
    ]


def test_the_oddities_of_a_pdf_are_no_noise(tmp_path, caplog):
    pytest.importorskip("pypdf", reason="the extra `documents` is not installed")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\nnonsense")
    with pytest.raises(Skip, match="not a PDF that can be read"):
        read_file(tmp_path / "broken.pdf", None)
    assert caplog.records == []


@pytest.mark.parametrize(("name", "told"), [("scan.pdf", "no text in it"), ("locked.pdf", "encrypted")])
def test_pdfs_without_text(name, told):
    pytest.importorskip("pypdf", reason="the extra `documents` is not installed")
    with pytest.raises(Skip, match=told):
        read(name)


@pytest.mark.parametrize(("name", "module"), [("a.pdf", "pypdf"), ("a.docx", "mammoth")])
def test_broken_documents(tmp_path, name, module):
    pytest.importorskip(module, reason="the extra `documents` is not installed")
    (tmp_path / name).write_bytes(b"%PDF-1.4 nonsense")
    with pytest.raises(Skip, match="that can be read"):
        read_file(tmp_path / name)


@pytest.mark.parametrize(("name", "module"), [("path.pdf", "pypdf"), ("organ.docx", "mammoth")])
def test_documents_without_their_extra(monkeypatch, name, module):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(Skip, match=r"pip install -e '\.\[documents\]'"):
        read(name)
    monkeypatch.setattr(limits, "PACKED", ())  # the helper would have the module
    with pytest.raises(UserError, match=r"-e '\.\[documents\]'"):
        folder(FIXTURES / name)


def test_me_changes_the_outcome(tmp_path):
    shutil.copy(FIXTURES / "chats" / "_chat.txt", tmp_path)
    notes, tally = folder(tmp_path)
    assert (notes, [skip["file"] for skip in tally.skipped]) == ([], ["_chat.txt"])
    assert folder(tmp_path, me="Mo")[0][0].blocks[0].text == "Not the lighthouse again!"


def test_empty_lines_are_read_through():
    """A pattern that tries each empty line with all that follow it takes hours for a megabyte of them."""
    from mipo_mlx.sources.quoted import cut_lines

    text = "a\n" + "\n" * 500_000 + "b\n"
    assert cut_lines(text, Counter()) == text
