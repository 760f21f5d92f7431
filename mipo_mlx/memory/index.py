"""memory.sqlite: the passages of all notes and the profile, to be found by their words and their vectors.

    notes -> passages, cut as the sources stage cuts them, of all sides and without a limit -> memory.sqlite

`Index.refresh` reads the files that changed since the last time and leaves the others alone. Words are in two FTS5 tables:
one row a passage, and one row a file with all that stands in it, code too. SQLite computes BM25 from them. A vector is one
byte a dimension. Everything is private, so only the owner may read the file.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import Failure, UserError
from ..files import inode, read_records, touch_private
from ..models.embedding import Embedder
from ..progress import Reporter
from ..recipe import Recipe
from ..records import Context
from ..sources.canaries import unplanted
from ..sources.changes import Changes, kept_name
from ..sources.chunks import CountTokens
from ..sources.gather import note_files, read_file, read_notes
from ..sources.note import Note, Passage, Tally
from ..sources.note_file import NoteFile
from ..sources.own_choice import OwnChoice, read_choice
from ..sources.readers import headings_as_notes
from .contexts import INDEX, profile_of
from .terms import SHORTEST, pairs
from .whole_notes import passages_of, remembered

FORMAT = 2
AT_ONCE = 256  # passages embedded between two writes
PATIENCE = 30.0  # seconds until another process has written
NO_STAMP = (0, 0, "")  # of a source that is no file
LONGEST = 24  # characters of a word that a mistyped one may stand for
TOKENIZER = "tokenize = 'porter unicode61 remove_diacritics 2'"
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (id INTEGER PRIMARY KEY, source TEXT NOT NULL UNIQUE, size INTEGER, modified INTEGER, sha256 TEXT);
CREATE TABLE IF NOT EXISTS passages (id INTEGER PRIMARY KEY, file INT NOT NULL, note TEXT NOT NULL, line INT NOT NULL, vector BLOB);
CREATE INDEX IF NOT EXISTS passages_of_file ON passages (file);
CREATE VIRTUAL TABLE IF NOT EXISTS passage_words USING fts5 (text, source, pairs, {TOKENIZER});
CREATE VIRTUAL TABLE IF NOT EXISTS file_words USING fts5 (text, source, pairs, {TOKENIZER});
CREATE VIRTUAL TABLE IF NOT EXISTS passage_terms USING fts5vocab (passage_words, row);
CREATE TABLE IF NOT EXISTS terms (term TEXT PRIMARY KEY, passages INTEGER NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE IF NOT EXISTS spelling USING fts5 (term, tokenize = 'trigram');
"""


@dataclass(frozen=True)
class Entry:
    """A passage in the index."""

    id: int
    text: str
    note: str
    source: str  # file, relative to the notes folder
    line: int  # its first line there, from 1


class Index:
    """An open memory.sqlite, made where there is none. Raises Failure where the file is no such index."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changes = Changes()  # what the last refresh took in
        self._open()

    def _open(self) -> None:
        if not self.path.exists():
            touch_private(self.path)  # before SQLite would create it for everybody to read
        self.connection, self._inode, self._version = self._connect(), inode(self.path), 0
        self._vectors: tuple[np.ndarray, np.ndarray] | None = None
        self._files: int | None = None
        try:
            self.connection.execute("PRAGMA synchronous = NORMAL")
            if not self.connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
                self._make()
            elif self.fact("format") != str(FORMAT):
                self.clear()
        except sqlite3.DatabaseError as error:
            locked = "locked" in str(error)
            remedy = "another process writes it" if locked else "remove this file, the next question makes it again"
            raise Failure(f"{self.path}: {error}; {remedy}") from None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
        with suppress(sqlite3.DatabaseError):  # no FTS5, or no index: what is asked next says so
            connection.execute("CREATE VIRTUAL TABLE temp.spelling_parts USING fts5vocab (main, spelling, row)")
        return connection

    def close(self) -> None:
        self.connection.close()

    def fact(self, key: str) -> str:
        """A fact about the index itself; "" where it has none of this name."""
        row = self.connection.execute("SELECT value FROM facts WHERE key = ?", [key]).fetchone()
        return row[0] if row else ""

    def clear(self) -> None:
        tables = self.connection.execute("SELECT name FROM sqlite_schema WHERE sql LIKE 'CREATE%TABLE%'").fetchall()
        virtual = ("passage_terms", "passage_words", "file_words", "spelling")  # each drops the tables that it keeps
        names = (*virtual, *(name for (name,) in tables))
        self._make("".join(f'DROP TABLE IF EXISTS "{name}"; ' for name in names))
        self._vectors = self._files = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """All that is read in here is of one state, the newest: what another process has written is noticed when it begins."""
        # Another file may have this one's place. SQLite finds journals by name: to read on here would undo the other's writes.
        if inode(self.path) not in (self._inode, None):
            self.connection.close()
            self._open()
        self.connection.execute("BEGIN")
        try:
            self.connection.execute("SELECT 1 FROM facts LIMIT 1").fetchone()  # from here on nobody writes
            version = self.connection.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:
                self._vectors = self._files = None
            self._version = version
            yield
        finally:
            self.connection.execute("COMMIT")

    def refresh(self, recipe: Recipe, count_tokens: CountTokens, reporter: Reporter, profile: str = "") -> Changes:
        """Bring the index up to date with the notes of the recipe; returns what was new, changed and gone, as `changes` does.

        A file counts as changed where its size or time and its hash differ. Where the notes cannot be found any more, the index
        keeps what it knows, with a warning. Raises UserError where it knows nothing either.
        """
        own = read_choice(self.path.parent, recipe.sources)
        settings = _settings(recipe, own)
        if self.fact("settings") not in ("", settings):
            self.clear()
        self._state({"settings": settings, "profile": profile})
        sources = recipe.sources
        self.changes, tally = Changes(), Tally()
        if not (sources.notes or sources.dataset):
            return self.changes
        try:
            files = [] if sources.dataset else note_files(sources, tally)
        except UserError as error:
            if not self.count():
                raise
            reporter.warn(f"{error}; the notes are remembered as they were")
            return self.changes
        if sources.dataset:
            self.changes = self._whole(recipe, count_tokens, reporter, own)
        else:
            self.changes = self._follow(files, recipe, count_tokens, reporter, own)
        return self.changes

    def add(self, passages: Iterable[Passage]) -> None:
        """Add passages of files that the index does not have."""
        by_source: dict[str, list[Passage]] = {}
        for passage in passages:
            by_source.setdefault(passage.source, []).append(passage)
        with self._writing():
            for source, mine in by_source.items():
                self._add(source, NO_STAMP, mine, "")
            self._count_terms()

    def count(self) -> int:
        """Passages in the index."""
        return self.connection.execute("SELECT count(*) FROM passages").fetchone()[0]

    def entries(self, ids: Iterable[int]) -> dict[int, Entry]:
        query = "SELECT id, text, note, source, line FROM passages JOIN passage_words w ON w.rowid = id WHERE id = ?"
        rows = (self.connection.execute(query, [int(number)]).fetchone() for number in ids)
        return {row[0]: Entry(*row) for row in rows if row}

    def embed(self, embedder: Embedder, reporter: Reporter) -> None:
        """Give a vector to each passage that has none of this embedder. What is done when this is stopped stays."""
        if self.fact("embedder") != embedder.name:
            with self._writing():
                self.connection.execute("UPDATE passages SET vector = NULL WHERE vector IS NOT NULL")
                self._state({"embedder": embedder.name})
        missing = [row[0] for row in self.connection.execute("SELECT id FROM passages WHERE vector IS NULL ORDER BY id")]
        if not missing:
            return
        with reporter.track("comparing notes", total=len(missing), unit="passages") as bar:
            for start in range(0, len(missing), AT_ONCE):
                batch = missing[start : start + AT_ONCE]
                texts = [entry.text for entry in self.entries(batch).values()]
                rows = zip(map(bytes, _small(embedder(texts))), batch, strict=True)
                with self._writing():
                    self.connection.executemany("UPDATE passages SET vector = ? WHERE id = ?", rows)
                bar.advance(len(batch))

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """The ids of the passages that have a vector, and these, (passages, dimensions) float32 of unit length."""
        if self._vectors is None:
            rows = self.connection.execute("SELECT id, vector FROM passages WHERE vector IS NOT NULL ORDER BY id").fetchall()
            ids = np.array([number for number, _ in rows], np.int64)
            wide = np.frombuffer(b"".join(vector for _, vector in rows), np.int8).astype(np.float32)
            wide = wide.reshape(len(rows), -1) if rows else np.zeros((0, 1), np.float32)
            wide /= np.linalg.norm(wide, axis=1, keepdims=True)
            self._vectors = ids, wide
        return self._vectors

    def count_files(self) -> int:
        """Files that have a passage."""
        if self._files is None:
            self._files = int(self.connection.execute("SELECT count(DISTINCT file) FROM passages").fetchone()[0])
        return self._files

    def files_of(self, ids: Iterable[int]) -> dict[int, int]:
        """The ids of the files of some hundred passages, by the passages' ids."""
        wanted = list(ids)
        query = f"SELECT id, file FROM passages WHERE id IN ({', '.join('?' * len(wanted))})"
        return dict(self.connection.execute(query, wanted).fetchall())

    def passages_of(self, file: int, most: int) -> list[int]:
        """The ids of the first `most` passages of a file."""
        query = "SELECT id FROM passages WHERE file = ? ORDER BY id LIMIT ?"
        return [number for (number,) in self.connection.execute(query, [file, most])]

    def _make(self, first: str = "") -> None:
        """Run `first`, then make the tables that are missing: another process may have made them since."""
        facts = f"INSERT OR IGNORE INTO facts VALUES ('format', '{FORMAT}')"
        try:
            self.connection.executescript(f"BEGIN IMMEDIATE; {first}{SCHEMA} {facts}; COMMIT;")
        except sqlite3.OperationalError as error:
            if "fts5" in str(error) or "tokenizer" in str(error):
                raise Failure(
                    f"memory: this Python's SQLite ({sqlite3.sqlite_version}) has no full-text search with trigrams; it takes "
                    "SQLite 3.34 or newer with FTS5, which python.org, Homebrew, conda and uv bring along"
                ) from None
            raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all of it, or nothing. Others read what was there before, until it ends."""
        self._vectors = self._files = None
        (filled,) = self.connection.execute("SELECT EXISTS (SELECT 1 FROM passages)").fetchone()
        # Pages that are written out early lock all readers out. A new index has none, and may outgrow the memory.
        self.connection.execute(f"PRAGMA cache_spill = {'OFF' if filled else 'ON'}")
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def _state(self, facts: dict[str, str]) -> None:
        """Keep facts about the index. Equal ones are not written: a write makes each talk that goes on read all vectors again."""
        new = [(key, value) for key, value in facts.items() if self.fact(key) != value]
        self.connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", new)

    def _follow(
        self, files: list[NoteFile], recipe: Recipe, count_tokens: CountTokens, reporter: Reporter, own: OwnChoice
    ) -> Changes:
        """Read the files whose content the index does not have, and remove those that are gone, in one transaction."""
        sources = recipe.sources
        query = "SELECT source, size, modified, sha256 FROM files"
        known = {source: (size, modified, digest) for source, size, modified, digest in self.connection.execute(query)}
        before, now = {source: digest for source, (*_, digest) in known.items()}, dict[str, str]()
        named = [
            (kept_name(file.source, sources), file, file.stamp()) for file in files
        ]  # before they are read: a write meanwhile shows
        for name, file, stamp in named:
            same = known.get(name, NO_STAMP)[:2] == stamp
            now[name] = before[name] if same and name in known else file.sha256()
        changes, tally = Changes.between(before, now), Tally()
        with self._writing():
            self._remove(changes.gone)
            anew = [row for row in named if before.get(row[0]) != now[row[0]]]
            with reporter.track("remembering notes", total=len(anew), unit="files") as bar:
                for name, file, stamp in anew:
                    notes = read_file(file, tally, sources)
                    notes = headings_as_notes(notes) if len(files) == 1 else notes
                    self._remove([name])
                    self._add(name, (*stamp, now[name]), *remembered(file, notes, sources, count_tokens, own))
                    bar.advance(1)
            touched = [(*stamp, name) for name, _, stamp in named if known.get(name, NO_STAMP)[:2] != stamp]
            self.connection.executemany("UPDATE files SET size = ?, modified = ? WHERE source = ?", touched)
            if changes:
                self._count_terms()
        return changes

    def _whole(self, recipe: Recipe, count_tokens: CountTokens, reporter: Reporter, own: OwnChoice) -> Changes:
        """Remember a data set, which is read once."""
        sources = recipe.sources
        if self.count():
            return Changes()
        with self._writing():
            by_source: dict[str, list[Note]] = {}
            for note in read_notes(sources, Tally(), reporter):
                by_source.setdefault(note.source, []).append(note)
            for source, notes in by_source.items():
                self._add(source, NO_STAMP, passages_of(notes, sources, count_tokens, own), "")
            self._count_terms()
        return Changes(new=tuple(by_source))

    def _add(self, source: str, stamp: tuple[int, int, str], passages: list[Passage], whole: str) -> None:
        insert = "INSERT INTO files (source, size, modified, sha256) VALUES (?, ?, ?, ?)"
        file = self.connection.execute(insert, [source, *stamp]).lastrowid
        last = self.connection.execute("SELECT coalesce(max(id), 0) FROM passages").fetchone()[0]
        numbered = list(enumerate(passages, last + 1))
        insert = "INSERT INTO passages (id, file, note, line) VALUES (?, ?, ?, ?)"
        self.connection.executemany(insert, [(number, file, passage.note, passage.line) for number, passage in numbered])
        insert = "INSERT INTO passage_words (rowid, text, source, pairs) VALUES (?, ?, ?, ?)"
        self.connection.executemany(insert, [(number, p.text, p.source, pairs(p.text)) for number, p in numbered])
        text = whole or "\n".join(passage.text for passage in passages)
        insert = "INSERT INTO file_words (rowid, text, source, pairs) VALUES (?, ?, ?, ?)"
        self.connection.execute(insert, [file, text, passages[0].source if passages else "", pairs(text)])

    def _remove(self, names: Iterable[str]) -> None:
        for source in names:
            row = self.connection.execute("SELECT id FROM files WHERE source = ?", [source]).fetchone()
            if row:
                gone = self.connection.execute("SELECT id FROM passages WHERE file = ?", row).fetchall()
                self.connection.executemany("DELETE FROM passage_words WHERE rowid = ?", gone)
                self.connection.execute("DELETE FROM passages WHERE file = ?", row)
                self.connection.execute("DELETE FROM file_words WHERE rowid = ?", row)
                self.connection.execute("DELETE FROM files WHERE id = ?", row)

    def _count_terms(self) -> None:
        """Enter in how many passages each word stands, and new words where mistyped ones are looked up.

        FTS5 could count them at each question, but for a common word that takes as long as the search.
        """
        new = (
            "INSERT INTO spelling SELECT term FROM passage_terms WHERE length(term) BETWEEN ? AND ? AND term NOT GLOB '*[0-9]*' "
            "AND term NOT IN (SELECT term FROM terms)"
        )
        self.connection.execute(new, [SHORTEST, LONGEST])
        self.connection.execute("UPDATE terms SET passages = 0")
        self.connection.execute("INSERT OR REPLACE INTO terms SELECT term, doc FROM passage_terms")


def open_index(folder: Path, recipe: Recipe, count_tokens: CountTokens, reporter: Reporter) -> Index:
    """The index of the run in `folder`, up to date with its notes and its profile.

    Where there is no index yet and the notes are gone, the run's own contexts are remembered, with a warning. Raises UserError
    where there are none either.
    """
    index = Index(folder / INDEX)
    try:
        index.refresh(recipe, count_tokens, reporter, profile_of(folder, recipe))
    except UserError as error:
        contexts = read_records(folder / "contexts.jsonl", Context)
        if not contexts:
            raise
        reporter.warn(f"{error}; only the {len(contexts)} passages that this run keeps are remembered")
        kept = unplanted(contexts, recipe.seed, recipe.sources.canaries)
        index.add(Passage(c.text, c.note, c.source, c.line, c.tokens) for c in kept)
    return index


def start_over(folder: Path, recipe: Recipe) -> None:
    """Forget what the run in `folder` remembers, where its notes or settings are others now.

    The file stays in its place, empty: a talk or a server may have it open. Equal settings leave all to the next refresh.
    """
    path = folder / INDEX
    if not path.exists():
        return
    try:
        index = Index(path)
    except Failure:  # damaged
        path.unlink()
        return
    if index.fact("settings") != _settings(recipe, read_choice(folder, recipe.sources)):
        index.clear()
        index.connection.execute("VACUUM")  # else the passages would stand in unused pages
    index.close()


def _settings(recipe: Recipe, own: OwnChoice) -> str:
    """What the passages depend on beside the notes; other settings, or another choice of the owner's, make another index."""
    keys = ("notes", "include", "exclude", "dataset", "me", "columns", "context_tokens", "min_tokens", "redact")
    sources = recipe.sources.model_dump(mode="json")
    chosen = [own.digest()] if own.digest() else []
    return json.dumps([recipe.model, *(sources[key] for key in keys), *chosen])


def _small(vectors: np.ndarray) -> np.ndarray:
    """Vectors as one signed byte a dimension, each scaled to its own largest value."""
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    return np.round(vectors / np.maximum(largest, 1e-9) * 127).astype(np.int8)
