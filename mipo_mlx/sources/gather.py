"""From the recipe's notes to cleaned notes: folders, files and archives are walked, read, redacted and chosen from."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..errors import UserError
from ..progress import Reporter
from ..recipe import Sources
from . import archive
from .choice import Choice
from .decode import as_name, writable
from .hub import read_contexts
from .limits import within_limits
from .note import Block, NotANote, Note, Skip, Tally, changed
from .note_file import NoteFile
from .readers import ENDINGS, Reader, days_as_notes, headings_as_notes, reader_for
from .readers.exports import is_export
from .readers.journals import is_journal
from .readers.rows import read_rows
from .redact import redact_name, redact_note, without_secrets
from .walk import walk

LARGE = 64 << 10  # bytes of a file that is named where nothing in it can be used
LONGEST = 8_000  # characters of a block; a longer one is cut at a space, so that later steps see pieces of a bounded size


def read_notes(sources: Sources, tally: Tally, reporter: Reporter) -> list[Note]:
    """The notes of the recipe's folders, files and archives, or of its data set. Raises UserError where there are none."""
    if sources.dataset:
        notes = [_bounded(note) for note in read_contexts(sources.dataset, tally)]
        return [redact_note(note, tally.redacted) for note in notes] if sources.redact else notes
    files = note_files(sources, tally)
    notes = []
    if away := sum(file.elsewhere for file in files):
        reporter.warn(
            f"{away} of {len(files)} files of notes are in a cloud and not on this machine, so they are left out; open their "
            "folder, choose to download it, and run this command again with --fresh"
        )
    with reporter.track("reading notes", total=len(files), unit="files") as bar:
        for file in files:
            notes += read_file(file, tally, sources)
            bar.advance(1)
    if not notes and len(files) == 1 and tally.skipped and all(place.is_file() for place in places(sources)):
        raise UserError(f"{places(sources)[0]}: {tally.skipped[0]['why']}")
    return headings_as_notes(notes)


def note_files(sources: Sources, tally: Tally) -> list[NoteFile]:
    """The files of `sources.notes` that have a reader. Raises UserError where there are none."""
    files = list(_files(sources, tally))
    if not files and not tally.skipped:
        raise UserError(f"{named(sources)}: no notes in this folder ({ENDINGS}); name another with --notes PATH")
    return files


def read_file(file: NoteFile, tally: Tally, sources: Sources) -> list[Note]:
    """The notes of a file that the recipe does not leave out, with secrets replaced, so that no later code has one.

    A file that makes its reader fail, or takes it too long (`limits`), is skipped: one odd note among hundreds does not end a run.
    """
    hide_name: Callable[[str], str] = redact_name if sources.redact else str
    recoded, broken, skipped = len(tally.recoded), tally.broken, len(tally.skipped)
    try:
        notes = within_limits(partial(_cleaned, hidden=sources.redact), file, tally)
    except NotANote as reason:
        tally.leave(hide_name(file.source), str(reason))
        return []
    except Skip as reason:
        tally.skip(file.source, str(reason))
        return []
    except (UserError, MemoryError):
        raise
    except Exception as error:
        tally.skip(file.source, f"cannot be read ({type(error).__name__})")  # the error's text may quote the note
        return []
    finally:
        tally.hashes[file.source] = file.sha256()
        for entry in tally.recoded[recoded:]:
            entry["file"] = hide_name(entry["file"])
        for entry in tally.skipped[skipped:]:
            entry |= {"file": hide_name(entry["file"]), "why": without_secrets(entry["why"], sources)}
    if not notes and tally.broken > broken:
        del tally.skipped[skipped:]  # the file stands for its parts
        tally.skip(hide_name(file.source), "no part of it can be read")
        return []
    if not any(note.blocks for note in notes) and file.beginning(LARGE + 1)[LARGE:]:  # an empty small note is no surprise
        tally.skip(hide_name(file.source), "nothing in it is a text of its owner's; leave it out, or split it into notes")
        return []
    tally.read += 1
    return _chosen(notes, Choice.of(sources), tally) if sources.include or sources.exclude else notes


def _cleaned(file: NoteFile, tally: Tally, hidden: bool) -> list[Note]:
    """The notes of a file as its reader gives them, in blocks of a bounded length. hidden: with secrets replaced."""
    whole = file.reader(file, tally) if file.reader else []
    notes = [_bounded(part) for note in whole for part in days_as_notes(note)]
    return [redact_note(note, tally.redacted) for note in notes] if hidden else notes


def places(sources: Sources) -> list[Path]:
    """The folders and files that the recipe names. Raises UserError where it names none."""
    given = [sources.notes] if isinstance(sources.notes, str) else sources.notes or []
    if not given:
        raise UserError("sources.notes: no notes named; pass --notes PATH, or write `notes: ~/notes` under sources in the recipe")
    return [Path(name).expanduser() for name in given]


def named(sources: Sources) -> str | None:
    """The notes or the data set of a recipe, for messages."""
    if sources.dataset:
        return sources.dataset.name
    return ", ".join(sources.notes) if isinstance(sources.notes, list) else sources.notes


def _files(sources: Sources, tally: Tally) -> Iterator[NoteFile]:
    choice = Choice.of(sources)
    roots = places(sources)
    for root in roots:
        if not root.is_dir() and not root.is_file():
            raise UserError(f"{root}: no such folder or file; name your notes with --notes PATH or sources.notes in the recipe")
    if sources.columns and not any(_has_rows(root) for root in roots):
        where = ", ".join(map(str, roots))
        raise UserError(f"sources.columns: only rows of a .jsonl or .json file have columns, and {where} has none; remove columns")
    for root, prefix in zip(roots, _prefixes(roots), strict=True):
        if root.is_file() and root.suffix.lower() not in archive.ENDINGS:
            yield replace(NoteFile.on_disk(root, prefix + root.name), reader=_file_reader(root, sources))
            continue
        files = walk(root, tally, choice) if root.is_dir() else iter([NoteFile.on_disk(root)])
        for file in files:
            yield from _readable(replace(file, source=prefix + file.source), sources.me, tally, choice)


def _prefixes(roots: list[Path]) -> list[str]:
    """What stands before the names of each root's files: nothing for one root, else its name, which no other root has."""
    if len(roots) == 1:
        return [""]
    folders = [root if root.is_dir() else root.parent for root in roots]
    names = [folder.name for folder in folders]
    alone = [names.count(name) == 1 for name in names]
    return [f"{f.name}/" if only else f"{f.parent.name}/{f.name}/" for f, only in zip(folders, alone, strict=True)]


def _readable(file: NoteFile, me: str | None, tally: Tally, choice: Choice) -> Iterator[NoteFile]:
    """The file with its reader, or those of an archive; files of other kinds are counted."""
    if file.elsewhere and (archive.is_archive(file) or file.ending == ".json" or reader_for(file, me)):
        yield replace(file, reader=_waits)  # what is in it nobody knows yet
    elif archive.is_archive(file):
        try:
            inner = [one for member in archive.files_in(file, tally, choice) for one in _readable(member, me, tally, choice)]
        except NotANote as reason:
            tally.leave(file.source, str(reason))
        except Skip as reason:
            tally.skip(file.source, str(reason))
        else:
            if not inner:
                tally.leave(file.source, f"{file.ending} files")
            yield from inner
    elif reader := reader_for(file, me):
        yield replace(file, reader=reader)
    else:
        tally.leave(file.source, f"{file.ending} files" if file.ending else "files without an ending")


def _waits(file: NoteFile, tally: Tally) -> list[Note]:
    file.bytes()  # raises Skip with the reason
    return []


def _file_reader(path: Path, sources: Sources) -> Reader:
    """How to read a file that the recipe names itself: tables of rows too."""
    if _has_rows(path):
        return partial(read_rows, columns=sources.columns)
    reader = reader_for(NoteFile.on_disk(path), sources.me)
    if reader is None:
        raise UserError(
            f"{path}: no kind of note that can be read; take a folder, or a file of one of {ENDINGS}, .json, .jsonl, .zip"
        )
    return reader


def _has_rows(path: Path) -> bool:
    ending = path.suffix.lower()
    file = NoteFile.on_disk(path)
    return path.is_file() and (ending == ".jsonl" or ending == ".json" and not is_export(file) and not is_journal(file))


def _chosen(notes: list[Note], choice: Choice, tally: Tally) -> list[Note]:
    """The notes whose tags and front matter the recipe does not leave out."""
    kept = []
    for note in notes:
        if why := choice.why_not(note.source, note.labels):
            tally.leave(note.source, why)
        else:
            kept.append(note)
    return kept


def _bounded(note: Note) -> Note:
    """The note in NFC, as UTF-8 can hold it, no block longer than LONGEST."""
    blocks = [piece for block in note.blocks for piece in _pieces(_writable(block))]
    return changed(note, name=as_name(note.name), source=as_name(note.source), title=as_name(note.title), blocks=blocks)


def _writable(block: Block) -> Block:
    return block if block.text.isascii() and block.text.isprintable() else replace(block, text=writable(block.text))


def _pieces(block: Block) -> Iterator[Block]:
    at, length = 0, len(block.text)
    if length <= LONGEST:
        yield block
        return
    while length - at > LONGEST:
        end = block.text.rfind(" ", at + 1, at + LONGEST)
        end = end if end > at else at + LONGEST
        share = (end - at) / length
        text = block.text[at:end].strip()
        yield replace(block, text=text, level=0, linked=int(block.linked * share), code=int(block.code * share))
        at = end
    share = (length - at) / length
    yield replace(block, text=block.text[at:].strip(), linked=int(block.linked * share), code=int(block.code * share))
