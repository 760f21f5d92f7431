"""A file that hangs, grows or ends its reader is skipped and named, and the others are read; limits change no note."""

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Sources
from mipo_mlx.sources import gather, limits
from mipo_mlx.sources.decode import nfc
from mipo_mlx.sources.note import Skip, Tally
from mipo_mlx.sources.note_file import NoteFile

# Readers of a module that the helper imports by its name.
READERS = """
import os, re
def loop(file, tally):
    while True: pass
def pattern(file, tally):
    return re.match("(a|aa)+$", "a" * 60 + "b")
def swallow(file, tally):
    while True:
        try:
            while True: pass
        except Exception: pass
def grow(file, tally):
    held = []
    while True: held.append(b"x" * 1_000_000)
def end(file, tally): os._exit(7)
def refuse(file, tally):
    tally.removed["quotes"] += 2
    raise ValueError("broken")
def read(file, tally):
    tally.removed["quotes"] += 2
    return [file.source, len(file.bytes())]
"""


@pytest.fixture
def readers(tmp_path, monkeypatch):
    (tmp_path / "readers_of_this_test.py").write_text(READERS)
    monkeypatch.syspath_prepend(tmp_path)
    helper = limits._Helper()
    monkeypatch.setattr(limits, "_helper", helper)
    monkeypatch.setattr(limits, "LEAST", 0.3)
    monkeypatch.setattr(limits, "A_MEGABYTE", 0.0)
    import readers_of_this_test

    yield readers_of_this_test
    if helper.process:
        helper.process.kill()
        helper._end()


@pytest.fixture
def large(tmp_path) -> NoteFile:
    (tmp_path / "large.md").write_bytes(b"I bake.\n" * (limits.SMALL // 8 + 1))
    return NoteFile.on_disk(tmp_path / "large.md")


@pytest.mark.parametrize("name", ["loop", "pattern", "swallow"])
def test_a_small_file_that_hangs_is_left(readers, tmp_path, name):
    (tmp_path / "a.md").write_text("a")
    with pytest.raises(Skip, match="more than 0 seconds of computing"):
        limits.within_limits(getattr(readers, name), NoteFile.on_disk(tmp_path / "a.md"), Tally())


def test_a_large_file_is_read_by_a_helper_that_may_end(readers, large, monkeypatch):
    monkeypatch.setattr(limits, "MEMORY", 200 << 20)
    for name, why in (("loop", "more than 1 seconds"), ("grow", "MB of memory"), ("end", "(7)")):
        with pytest.raises(Skip) as error:
            limits.within_limits(getattr(readers, name), large, Tally())
        assert why in str(error.value), name
    tally = Tally()
    assert limits.within_limits(readers.read, large, tally) == ["large.md", limits.SMALL + 8]
    assert tally.removed == {"quotes": 2}
    assert large.read == [hashlib.sha256(large.path.read_bytes()).hexdigest()]  # of what the helper has read
    tally = Tally()
    with pytest.raises(ValueError, match="broken"):
        limits.within_limits(readers.refuse, large, tally)
    assert tally.removed == {"quotes": 2}


def test_a_helper_that_has_ended_itself_is_followed_by_another(readers, large):
    assert limits.within_limits(readers.read, large, Tally())
    first = limits._helper.process
    first.stdin.close()
    first.wait(10)
    first.stdin = first.stdout  # as where it ends between the question and the check that it lives
    first.returncode = None
    assert limits.within_limits(readers.read, large, Tally()) and limits._helper.process is not first


def test_a_file_that_hangs_costs_itself_alone(readers, tmp_path, monkeypatch):
    notes = tmp_path / "notes"
    notes.mkdir()
    for name in ("a.md", "b.md", "c.md"):
        (notes / name).write_text("I keep bees behind the shed.")
    files = gather.note_files
    spoilt = lambda *given: [replace(f, reader=readers.loop) if f.source == "b.md" else f for f in files(*given)]  # noqa: E731
    monkeypatch.setattr(gather, "note_files", spoilt)
    tally = Tally()
    read = gather.read_notes(Sources(notes=str(notes)), tally, Reporter(quiet=True))
    assert [note.source for note in read] == ["a.md", "c.md"] and [skip["file"] for skip in tally.skipped] == ["b.md"]


def test_the_helper_reads_what_this_process_reads(tmp_path, monkeypatch):
    fixtures = Path(__file__).parent / "fixtures"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(fixtures / "org" / "garden.org", "garden.org")
        archive.writestr("b.md", "A key: AKIAABCDEFGHIJKLMNOP.\n\n" + "I bake bread on Sundays.\n\n" * 30)
        archive.writestr("broken.docx", "no Word file")
    outcomes = []
    for small in (1 << 30, -1):
        monkeypatch.setattr(limits, "SMALL", small)
        monkeypatch.setattr(limits, "PACKED", ())
        tally = Tally()
        sources = Sources(notes=[str(fixtures / "obsidian"), str(fixtures / "organ.docx"), str(tmp_path / "a.zip")])
        outcomes.append((gather.read_notes(sources, tally, Reporter(quiet=True)), tally.to_row()))
    assert outcomes[0] == outcomes[1] and len(outcomes[0][0]) > 4


DAYS = [{"sender": "human", "text": "I keep bees behind the shed."}, {"sender": "human", "text": "I bake bread on Sundays."}]
TELEGRAM = {"type": "message", "from": "Ana", "from_id": "user1", "date": "2024-05-01T10:00:00", "text": "I keep bees."}
PARTS = {  # (good, bad, good): the bad one raises another kind of error in each
    "Sent.mbox": [
        "From a\nFrom: Ana\n\nI keep bees.\n\n",
        "From a\nFrom: " + "(" * 50_000 + "\n\nI sail.\n\n",
        "From a\nFrom: Ana\n\nI bake.\n\n",
    ],
    "conversations.json": [
        {"chat_messages": [DAYS[0]]},
        {"chat_messages": [{**DAYS[0], "metadata": 3}]},
        {"chat_messages": [DAYS[1]]},
    ],
    "conversations-2.json": [{"mapping": {"a": 3}, "current_node": "a"}, {"chat_messages": DAYS}],
}


def read(path: Path) -> tuple[list[str], Tally]:
    tally = Tally()
    notes = gather.read_notes(Sources(notes=str(path), me="Ana"), tally, Reporter(quiet=True))
    return [block.text for note in notes for block in note.blocks], tally


@pytest.mark.parametrize("name", PARTS)
def test_a_bad_mail_or_chat_costs_itself(tmp_path, name):
    parts = PARTS[name]
    (tmp_path / name).write_text("".join(parts) if name.endswith("mbox") else json.dumps(parts))
    texts, tally = read(tmp_path / name)
    assert any("bees" in text for text in texts)
    if name.endswith("mbox") and not tally.broken:  # some Pythons do read that header
        assert texts == ["I keep bees.", "I bake."] and tally.left_alone == {"mails of others": 1}
        return
    assert tally.broken == 1 and [skip["file"].startswith(f"{name}#") for skip in tally.skipped] == [True]


def test_a_bad_chat_of_telegram_costs_itself(tmp_path):
    chats = [{"id": 1, "messages": [TELEGRAM]}, {"id": 2, "messages": [{**TELEGRAM, "text": [3]}]}]
    account = {"personal_information": {"user_id": 1}, "chats": {"list": chats}}
    (tmp_path / "result.json").write_text(json.dumps(account))
    texts, tally = read(tmp_path / "result.json")
    assert texts == ["I keep bees."] and tally.removed["pictures, recordings and deleted messages"] == 1


def test_a_header_that_cannot_be_decoded_stays_as_it_is(tmp_path):
    (tmp_path / "Sent.mbox").write_text("From a\nFrom: Ana\nSubject: =?utf-8?b?a?=\n\nI keep bees.\n")
    assert read(tmp_path / "Sent.mbox")[0] == ["I keep bees."]


def test_a_letter_has_at_most_thirty_marks():
    """Python sorts the marks of a letter in a time that grows with the square of their number: 20 minutes for a megabyte."""
    text = nfc("a" + "\u0300\u0316" * 500_000 + "b\u0301 \u4f60\u597d\U0001f600" + "\u0345" * 20)
    assert len(text) < 70 and text[0] == "\u00e0" and "b\u0301 \u4f60\u597d\U0001f600" in text and text.count("\u0345") == 20
    heart = "\u2764\ufe0f" * 40  # signs that are no marks
    assert nfc(heart) == heart


@pytest.mark.parametrize(
    "unit", ["<note>", "<note><content>", "<note><content><![CDATA[", "<note></note><content>", "<note>x</note>"]
)
def test_notes_of_evernote_that_do_not_end(tmp_path, unit):
    """Each of them once took a time with the square of its length: hours for a megabyte."""
    whole = "<note><title>A</title><content> <![CDATA[<div>I keep bees.</div>]]></content></note>"
    (tmp_path / "a.enex").write_text("<en-export>" + whole + unit * (400_000 // len(unit)))
    assert read(tmp_path / "a.enex")[0] == ["I keep bees."]


@pytest.mark.parametrize("name", ["a.md", "conversations.json", "a", "Sent.mbox"])
def test_a_broken_file_in_an_archive_costs_itself(tmp_path, name):
    """Its name and its kind are asked for before it is read, and a broken archive raises errors of its own."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.md", "I keep bees behind the shed.")
        archive.writestr(name, '{"messages": "From bees"}' * 20)
    data = path.read_bytes()
    at = data.index(name.encode()) + len(name)
    path.write_bytes(data[:at] + b"\xff" * 12 + data[at + 12 :])
    texts, tally = read(path)
    assert texts == ["I keep bees behind the shed."]
    assert tally.left_alone["files without an ending"] == 1 if name == "a" else [skip["file"] for skip in tally.skipped]


def test_settings_of_a_vault_that_are_too_deep_are_none(tmp_path):
    (tmp_path / ".obsidian").mkdir()
    (tmp_path / ".obsidian" / "app.json").write_text('{"userIgnoreFilters": ' + "[" * 100_000)
    (tmp_path / "a.md").write_text("I keep bees behind the shed.")
    assert read(tmp_path)[0] == ["I keep bees behind the shed."]


def test_what_this_process_holds_is_not_counted_against_a_file(readers, large, monkeypatch):
    """A helper that a large process starts begins with a small peak."""
    held = bytearray(400 << 20)
    held[:: 4 << 10] = bytes([1]) * len(held[:: 4 << 10])
    monkeypatch.setattr(limits, "_helper", limits._Helper())
    monkeypatch.setattr(limits, "MEMORY", 200 << 20)
    assert limits.within_limits(readers.read, large, Tally()) == ["large.md", limits.SMALL + 8]
    assert len(held) == 400 << 20
