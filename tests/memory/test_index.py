"""memory.sqlite: what it holds, that it follows the notes, and that nothing private leaks or is half written."""

import os
import sqlite3
from contextlib import suppress

import numpy as np
import pytest

from mipo_mlx.errors import Failure, UserError
from mipo_mlx.files import write_records
from mipo_mlx.memory.contexts import INDEX
from mipo_mlx.memory.index import Entry, Index, open_index, start_over
from mipo_mlx.memory.retrieve import Memory
from mipo_mlx.progress import Reporter
from mipo_mlx.records import HELDOUT, Context
from mipo_mlx.sources.changes import Changes
from mipo_mlx.sources.note import Passage
from mipo_mlx.sources.own_choice import FILE

from .helpers import QUIET, count, indexed, recipe, write_notes

NOTES = {
    "bees.md": "# Bees\n\nI keep two hives on the flat roof of the bakery.\n",
    "food/soup.md": "# Soup\n\nEvery Thursday I cook one enormous pot of soup.\n",
    "code.md": "# Backups\n\nThis is how I copy it.\n\n```bash\ncd /home\nrsync --archive --delete source target\n```\n",
}


def texts(index: Index) -> dict[str, str]:
    return {entry.source: entry.text for entry in entries(index)}


def entries(index: Index) -> list[Entry]:
    return list(index.entries(range(1, 1_000)).values())


def passages(*texts: str) -> list[Passage]:
    return [Passage(text, text, f"{text}.md", 1, 3) for text in texts]


def test_it_holds_every_passage_with_its_file_and_line(tmp_path):
    index = indexed(tmp_path, NOTES)
    assert texts(index)["food/soup.md"] == "Soup. Every Thursday I cook one enormous pot of soup."
    assert {(entry.source, entry.line) for entry in entries(index)} == {
        ("bees.md", 3), ("food/soup.md", 3), ("code.md", 3),
    }  # fmt: skip
    assert oct(os.stat(tmp_path / INDEX).st_mode & 0o777) == "0o600"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("# Mirror\n\nI ran this:\n\n```bash\ncd /srv\nrsync --archive --delete source target\n```\n", "rsync"),  # code alone
        ("# Mirror\n\n> The moon is a mirror of old silver over the harbour.\n> So it is.\n", ""),  # another's words
        ("# Mirror\n\n> The moon is old.\n\n```bash\nrsync --archive --delete source target\n```\n", "rsync"),
        ("---\ntags: secret\n---\n[rsync manual](https://example.org/rsync)\n", "rsync"),  # a link alone
        ("# Friday\n\n## Tasks\n\n- \n", ""),  # an empty form
        ("```excalidraw\nx\n```\n", ""),  # too short
        (f"# Photo\n\n![](data:image/png;base64,{'iVBORw0KGgo' * 90})\n", ""),  # encoded data
    ],
)
def test_a_note_of_which_no_passage_is_left_is_kept_whole(tmp_path, text, kept):
    index = indexed(tmp_path, {**NOTES, "whole.md": text})
    whole = texts(index).get("whole.md", "")
    assert kept in whole and bool(whole) == bool(kept) and "secret" not in whole and "moon" not in whole
    if kept:
        assert Memory(index).ranked(f"Where did I write of {kept}?", 10)[0].entry.source in ("whole.md", "code.md")


def test_a_long_program_is_kept_by_its_beginning_and_all_its_words(tmp_path):
    lines = "\n".join(f"value_{number} = compute(number={number}, seed=7)" for number in range(2000))
    index = indexed(tmp_path, {**NOTES, "whole.md": f"# Program\n\n```python\n{lines}\n```\n"})
    pieces = [entry for entry in entries(index) if entry.source == "whole.md"]
    assert len(pieces) == 8 and pieces[0].line == 4 and "value_0 " in pieces[0].text
    assert index.connection.execute("SELECT count(*) FROM file_words WHERE file_words MATCH '\"1999\"'").fetchone() == (1,)


def test_a_note_that_its_owner_dropped_is_not_kept_whole(tmp_path):
    (tmp_path / FILE).write_text('{"keep": false, "place": "whole.md"}\n{"keep": false, "place": "bees.md"}\n')
    index = indexed(tmp_path, {**NOTES, "whole.md": "# Mirror\n\n```bash\ncd /srv\nrsync --archive source target\n```\n"})
    assert set(texts(index)) == {"code.md", "food/soup.md"}


def test_only_changed_files_are_read_again(tmp_path):
    index, notes = indexed(tmp_path, NOTES), tmp_path / "notes"
    assert not index.refresh(recipe(notes), count, QUIET)
    (notes / "bees.md").write_text("# Bees\n\nI gave my hives away to the school last spring.\n")
    (notes / "food/soup.md").unlink()
    (notes / "tea.md").write_text("# Tea\n\nI have thirty-one kinds of tea in tins.\n")
    os.utime(notes / "code.md", (1, 1))  # another time, the same content
    assert index.refresh(recipe(notes), count, QUIET) == Changes(("tea.md",), ("bees.md",), ("food/soup.md",))
    assert set(texts(index)) == {"bees.md", "tea.md", "code.md"} and "school" in texts(index)["bees.md"]
    for word, rows in (("roof", 0), ("soup", 0), ("school", 1), ("rsync", 1)):
        matches = index.connection.execute("SELECT count(*) FROM file_words WHERE file_words MATCH ?", [word]).fetchone()[0]
        assert matches == rows, word


def test_an_index_of_other_settings_is_made_anew(tmp_path):
    index, notes = indexed(tmp_path, NOTES), tmp_path / "notes"
    assert index.refresh(recipe(notes, min_tokens=12), count, QUIET).new == ("bees.md", "code.md", "food/soup.md")
    assert "rsync" in texts(index)["code.md"]  # its prose is too short now, so that its code is kept too


def test_notes_that_are_gone_are_remembered(tmp_path, capsys):
    index, notes = indexed(tmp_path, NOTES), tmp_path / "notes"
    notes.rename(tmp_path / "elsewhere")
    assert not index.refresh(recipe(notes), count, Reporter(quiet=True)) and index.count() == 3
    assert "remembered as they were" in capsys.readouterr().err


def test_a_run_without_its_notes_remembers_its_contexts(tmp_path, capsys):
    values = recipe(tmp_path / "gone")
    with pytest.raises(UserError, match="gone: no such folder"):
        open_index(tmp_path, values, count, QUIET)
    write_records(tmp_path / "contexts.jsonl", [Context("c1", "I keep bees.", "a", "a.md", 7, HELDOUT, 4)])
    index = open_index(tmp_path, values, count, Reporter(quiet=True))
    assert [entry.line for entry in entries(index)] == [7]
    assert "only the 1 passages that this run keeps" in capsys.readouterr().err


def test_the_profile_is_in_it(tmp_path):
    (tmp_path / "profile.md").write_text("# Profile\n- The user keeps bees. <!-- bees.md:3 -->\n")
    index = open_index(tmp_path, recipe(write_notes(tmp_path / "notes", NOTES)), count, QUIET)
    assert index.fact("profile") == "The user keeps bees."


def test_secrets_never_reach_the_file(tmp_path):
    secret = "sk-proj-abcdefghijklmnop1234567890"
    notes = {"keys.md": f"# Keys\n\nThe key of the weather service is {secret} and I use it daily.\n\n```\nexport K={secret}\n" +
             "a line of code that is long enough to be left out of the passages of this note\n```\n"}  # fmt: skip
    indexed(tmp_path, notes).close()
    data = (tmp_path / INDEX).read_bytes()
    assert b"weather service" in data and secret.encode() not in data


def test_a_refresh_that_is_stopped_leaves_all_as_it_was(tmp_path, monkeypatch):
    index, notes = indexed(tmp_path, NOTES), tmp_path / "notes"
    before = texts(index)
    (notes / "bees.md").write_text("# Bees\n\nI gave my hives away to the school last spring.\n")
    (notes / "food/soup.md").write_text("# Soup\n\nNo soup any more, since nobody came to eat it.\n")
    calls = []

    def stopped(text: str) -> int:
        calls.append(text)
        if "soup" in text:
            raise KeyboardInterrupt
        return count(text)

    with pytest.raises(KeyboardInterrupt):
        index.refresh(recipe(notes), stopped, QUIET)
    assert any("school" in text for text in calls) and texts(index) == before
    assert index.refresh(recipe(notes), count, QUIET).changed == ("bees.md", "food/soup.md") and texts(index) != before


def test_a_file_that_is_no_index_is_told(tmp_path):
    (tmp_path / INDEX).write_bytes(b"no database at all, but longer than the header of one" * 9)
    with pytest.raises(Failure, match="memory.sqlite: .*remove this file"):
        Index(tmp_path / INDEX)


def test_an_older_format_is_made_anew(tmp_path):
    indexed(tmp_path, NOTES).close()
    with sqlite3.connect(tmp_path / INDEX) as connection:
        connection.execute("UPDATE facts SET value = '0' WHERE key = 'format'")
    assert Index(tmp_path / INDEX).count() == 0


class Letters:
    """An embedder: how often each letter stands in a text."""

    def __init__(self, name: str = "letters") -> None:
        self.name, self.read = name, []

    def __call__(self, texts):
        self.read += texts
        rows = np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_vectors_are_close_to_the_embedders_and_made_once(tmp_path):
    index, embedder = indexed(tmp_path, NOTES), Letters()
    index.embed(embedder, QUIET)
    index.embed(embedder, QUIET)
    assert len(embedder.read) == 3
    ids, vectors = index.vectors()
    exact = embedder([entry.text for entry in index.entries(ids).values()])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    assert (vectors * exact).sum(1) == pytest.approx(np.ones(3), abs=1e-3)
    (tmp_path / "notes/tea.md").write_text("# Tea\n\nI have thirty-one kinds of tea in tins.\n")
    index.refresh(recipe(tmp_path / "notes"), count, QUIET)
    again = Letters()
    index.embed(again, QUIET)
    assert again.read == ["Tea. I have thirty-one kinds of tea in tins."] and len(index.vectors()[0]) == 4
    other = Letters("other letters")
    index.embed(other, QUIET)
    assert len(other.read) == 4


def test_two_processes_may_hold_it(tmp_path):
    index = indexed(tmp_path, NOTES)
    other = Index(tmp_path / INDEX)
    other.add([Passage("I row on the lake.", "row.md", "row.md", 1, 5)])
    assert index.count() == 4


def test_what_another_process_writes_is_used_by_the_next_question(tmp_path):
    """Through a second connection, and through a file that takes the first one's place."""
    index, notes = indexed(tmp_path, NOTES), tmp_path / "notes"
    memory = Memory(index)
    assert memory.search("Which tea do I have in tins?") == [] and memory.search("Who cooks soup on Thursday?")
    (notes / "tea.md").write_text("# Tea\n\nI have thirty-one kinds of tea in tins.\n")
    (notes / "food/soup.md").unlink()
    other = Index(tmp_path / INDEX)
    assert other.refresh(recipe(notes), count, QUIET) == Changes(new=("tea.md",), gone=("food/soup.md",))
    assert [match.entry.source for match in memory.search("Which tea do I have in tins?")] == ["tea.md"]
    assert memory.search("Who cooks soup on Thursday?") == []
    other.close()
    (tmp_path / INDEX).unlink()
    (notes / "tea.md").write_text("# Tea\n\nI gave the tea to my aunt, who likes tins.\n")
    Index(tmp_path / INDEX).refresh(recipe(notes), count, QUIET)
    assert "aunt" in memory.search("Which tea do I have in tins?")[0].entry.text


def test_a_long_write_of_another_process_keeps_nobody_from_reading(tmp_path, monkeypatch):
    monkeypatch.setattr("mipo_mlx.memory.index.PATIENCE", 0.01)
    index = Index(tmp_path / INDEX)
    index.add(passages(*(f"{number} cups of tea" for number in range(500))))
    other = Index(tmp_path / INDEX)
    with other._writing():
        other.connection.execute("UPDATE passages SET vector = zeroblob(20000)")  # ten times what SQLite keeps in memory
        with index.reading():
            assert len(index.vectors()[0]) == 0 and index.count_files() == 500
    with index.reading():
        assert index.connection.execute("SELECT count(*) FROM passages WHERE vector IS NOT NULL").fetchone() == (500,)


def test_a_second_process_that_finds_nothing_new_makes_no_other_read_again(tmp_path):
    index, notes = indexed(tmp_path, NOTES), tmp_path / "notes"
    index.embed(Letters(), QUIET)
    for profile, same in (("", True), ("The user keeps bees.", False)):
        with index.reading():
            before = index.vectors()
        other = Index(tmp_path / INDEX)
        assert not other.refresh(recipe(notes), count, QUIET, profile)
        other.embed(Letters(), QUIET)
        other.close()
        with index.reading():
            assert (index.vectors() is before) == same


def traced(memory: Memory) -> list[str]:
    """The SQL of a question."""
    ran: list[str] = []
    memory.index.connection.set_trace_callback(ran.append)
    memory.search("Who cooks soup on Thursday?")
    return ran


def test_a_memory_that_is_warm_reads_no_vector_and_counts_no_file(tmp_path):
    index = indexed(tmp_path, NOTES)
    index.embed(Letters(), QUIET)
    memory = Memory(index, Letters())
    memory.warm()
    ran = traced(memory)
    assert ran and [row for row in ran if "vector" in row or "DISTINCT" in row] == []
    cold = traced(Memory(Index(index.path), Letters()))
    assert sum("vector" in row for row in cold) == sum("DISTINCT" in row for row in cold) == 1


def test_notes_that_are_only_gone_leave_no_word(tmp_path):
    index, notes = indexed(tmp_path, NOTES), tmp_path / "notes"
    (notes / "food/soup.md").unlink()
    assert index.refresh(recipe(notes), count, QUIET) == Changes(gone=("food/soup.md",))
    assert index.count_files() == 2
    assert index.connection.execute("SELECT sum(passages) FROM terms WHERE term = 'soup'").fetchone()[0] == 0


@pytest.mark.parametrize("made", ("empty", "tables", "filled"))
def test_a_file_in_the_place_of_an_open_index_is_read_in_its_place(tmp_path, made):
    index = Index(tmp_path / INDEX)
    index.add(passages("bees", "soup"))
    index.path.unlink()
    if made == "empty":
        index.path.touch()  # as it stands before its tables are made
    else:
        Index(index.path).add(passages(*(["tea"] if made == "filled" else [])))
    with index.reading():
        assert index.count() == (made == "filled")
    index.add(passages("row"))
    assert Index(index.path).count() == 1 + (made == "filled")


def test_a_write_that_is_under_way_is_never_rolled_back_by_one_who_reads_the_file_before(tmp_path, monkeypatch):
    """SQLite finds the journal of a write by its name alone, so a reader of a removed file takes the next file's for its own."""
    before = Index(tmp_path / INDEX)
    before.add(passages("bees", "soup"))
    before.path.unlink()
    other = Index(tmp_path / INDEX)
    other.add(passages(*(f"{number} cups of tea" for number in range(500))))
    other.connection.executescript("PRAGMA cache_size = 2; PRAGMA cache_spill = ON; BEGIN IMMEDIATE;")
    other.connection.execute("UPDATE passages SET vector = zeroblob(400)")  # goes to the disk in part, before the write ends
    journal = tmp_path / f"{INDEX}-journal"
    assert journal.read_bytes()[:8].strip(b"\0")
    monkeypatch.setattr("mipo_mlx.memory.index.PATIENCE", 0.01)
    with suppress(Failure), before.reading():  # the write has the file
        before.count()
    assert journal.exists()
    other.connection.execute("COMMIT")
    assert other.connection.execute("SELECT count(*) FROM passages WHERE length(vector) = 400").fetchone() == (500,)


@pytest.mark.parametrize("same", (True, False))
def test_a_run_that_starts_over_keeps_the_file_of_its_memory(tmp_path, same):
    index, notes = indexed(tmp_path, NOTES), tmp_path / "notes"
    with index.reading():
        count_before = index.count()
    start_over(tmp_path, recipe(notes, min_tokens=3 if same else 12))
    with index.reading():
        assert index.count() == (count_before if same else 0)
    assert (b"soup" in index.path.read_bytes()) == same


def test_a_run_that_starts_over_removes_a_damaged_memory(tmp_path):
    (tmp_path / INDEX).write_bytes(b"no database" * 1000)
    start_over(tmp_path, recipe(tmp_path))
    assert not (tmp_path / INDEX).exists()
    start_over(tmp_path, recipe(tmp_path))
