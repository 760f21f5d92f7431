"""The sources stage: the recipe's notes and requests become contexts.jsonl, prompts.jsonl and sources.json.

The same seed gives the same files.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_json, write_json
from ..progress import Reporter
from ..recipe import Recipe, Sources
from ..records import HELDOUT, TRAIN, Context, Prompt, write_records
from .bank import load_prompts
from .canaries import plant
from .chunks import CountTokens, cut
from .decode import writable
from .dedupe import drop_duplicates
from .hub import read_contexts
from .note import Note, Passage, Skip, Tally
from .readers import ENDINGS, Reader, headings_as_notes, reader_for
from .readers.chats import is_chat, read_conversations
from .readers.rows import read_rows
from .redact import redact, redact_note
from .split import split
from .walk import walk


@dataclass(frozen=True)
class NoteFile:
    """A file of notes, its name relative to the notes folder, and the reader for its kind."""

    path: Path
    source: str
    reader: Reader


def run(folder: Path, recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Read, clean, cut and split the notes; sources.json is written last and marks the stage as done."""
    report = folder / "sources.json"
    if report.exists() and all((folder / name).exists() for name in ("contexts.jsonl", "prompts.jsonl")):
        return read_json(report)
    if recipe.pairs.file:  # a run from a file of pairs needs neither contexts nor requests
        for name in ("contexts.jsonl", "prompts.jsonl"):
            write_records(folder / name, [])
        write_json(report, {"pairs": recipe.pairs.file})
        return read_json(report)
    from ..models.load import load_tokenizer

    tokenizer = load_tokenizer(recipe.model)
    contexts, prompts, row = collect(recipe, lambda text: len(tokenizer.encode(text, add_special_tokens=False)), reporter)
    write_records(folder / "contexts.jsonl", contexts)
    write_records(folder / "prompts.jsonl", prompts)
    write_json(report, row)
    first, *others = summary(row)
    reporter.conclude(f"  {first}")
    for line in others:
        reporter.say(f"  {line}")
    return row


def collect(recipe: Recipe, count_tokens: CountTokens, reporter: Reporter) -> tuple[list[Context], list[Prompt], dict[str, Any]]:
    """(contexts, requests, the content of sources.json). Raises UserError where there are too few of either."""
    sources, tally = recipe.sources, Tally()
    count_tokens = lru_cache(4096)(count_tokens)  # a passage is measured as a section, as a piece and as a whole
    prompts = load_prompts(sources, recipe.seed, tally)
    if not _name(sources) and set(recipe.pairs.negatives) == {"random_prompt"}:
        return [], prompts, _row(recipe, tally, [], prompts)  # answers differ by request alone, so no context is needed
    notes = read_notes(sources, tally, reporter)
    passages: list[Passage] = []
    for note in notes:
        passages += cut(note, count_tokens, sources.context_tokens, sources.min_tokens, tally)
    passages = drop_duplicates(passages, sources.near_duplicate, tally)
    if not passages:
        raise UserError(f"{_name(sources)}: {_nothing(tally)}")
    if len(passages) == 1 and tally.dropped["duplicate"] + tally.dropped["near-duplicate"]:
        every = f"the {tally.passages} passages"
        raise UserError(f"{_name(sources)}: {every} are all alike, so none can be a wrong context for another; add others")
    grid = recipe.pairs.contexts_per_grid
    contexts = split(passages, recipe.seed, sources.heldout_contexts, sources.max_contexts, grid, tally)
    contexts = plant(contexts, recipe.seed, sources.canaries, count_tokens)
    return contexts, prompts, _row(recipe, tally, contexts, prompts)


def _row(recipe: Recipe, tally: Tally, contexts: list[Context], prompts: list[Prompt]) -> dict[str, Any]:
    sources = recipe.sources
    bank = sources.prompt_dataset.name if sources.prompt_dataset else sources.prompts
    row = {"notes": _name(sources), "prompts": bank} | tally.to_row()
    row["passages"]["kept"] = len(contexts)
    row["canaries"] = sources.canaries if contexts else 0
    for side in (TRAIN, HELDOUT):
        mine = [context for context in contexts if context.split == side]
        row[side] = {
            "contexts": len(mine),
            "notes": len({context.note for context in mine}),
            "tokens": sum(context.tokens for context in mine),
            "prompts": sum(prompt.split == side for prompt in prompts),
        }
    return row


def _name(sources: Sources) -> str | None:
    return sources.dataset.name if sources.dataset else sources.notes


def read_notes(sources: Sources, tally: Tally, reporter: Reporter) -> list[Note]:
    """The notes of a folder or a single file. Raises UserError where there are none."""
    if sources.dataset:
        notes = [_writable(note) for note in read_contexts(sources.dataset, tally)]
        return [redact_note(note, tally.redacted) for note in notes] if sources.redact else notes
    if not sources.notes:
        raise UserError("sources.notes: no notes named; pass --notes PATH, or write `notes: ~/notes` under sources in the recipe")
    files = note_files(sources, tally)
    if Path(sources.notes).expanduser().is_file():
        notes = read_file(files[0], tally, sources.redact)
        if not notes and tally.skipped:
            raise UserError(f"{files[0].path}: {tally.skipped[0]['why']}")
        return headings_as_notes(notes)
    notes = []
    with reporter.track("reading notes", total=len(files), unit="files") as bar:
        for file in files:
            notes += read_file(file, tally, sources.redact)
            bar.advance(1)
    return headings_as_notes(notes)


def note_files(sources: Sources, tally: Tally) -> list[NoteFile]:
    """The files of `sources.notes`, a folder or a single file. Raises UserError where there are none."""
    root = Path(sources.notes or "").expanduser()
    if sources.columns and root.exists() and not _has_rows(root):
        raise UserError(f"sources.columns: only rows of a .jsonl or .json file have columns, and {root} has none; remove columns")
    if root.is_file():
        return [NoteFile(root, writable(root.name), _file_reader(root, sources))]
    if not root.is_dir():
        raise UserError(f"{root}: no such folder or file; name your notes with --notes PATH or sources.notes in the recipe")
    files = []
    for path, source in walk(root, tally):
        if reader := reader_for(path, sources.me):
            files.append(NoteFile(path, source, reader))
        else:
            tally.left_alone[f"{path.suffix.lower()} files" if path.suffix else "files without an ending"] += 1
    if not files and not tally.skipped:
        raise UserError(f"{root}: no notes in this folder ({ENDINGS}); name another with --notes PATH")
    return files


def _file_reader(path: Path, sources: Sources) -> Reader:
    """How to read a file that the recipe names itself: tables of rows too."""
    if _has_rows(path):
        return partial(read_rows, columns=sources.columns)
    reader: Reader | None = read_conversations if path.suffix.lower() == ".json" else reader_for(path, sources.me)
    if reader is None:
        raise UserError(f"{path}: no kind of note that can be read; take a folder, or a file of one of {ENDINGS}, .json, .jsonl")
    return reader


def _has_rows(path: Path) -> bool:
    ending = path.suffix.lower()
    return path.is_file() and (ending == ".jsonl" or ending == ".json" and not is_chat(path))


def read_file(file: NoteFile, tally: Tally, redacting: bool) -> list[Note]:
    """The notes of a file, with secrets replaced, so that no later code has one.

    A file that makes its reader fail is skipped: one odd note among hundreds does not end a run.
    """
    hide: Callable[[str], str] = partial(redact, counts=Counter()) if redacting else str
    recoded = len(tally.recoded)
    try:
        notes = [_writable(note) for note in file.reader(file.path, file.source, tally)]
        notes = [redact_note(note, tally.redacted) for note in notes] if redacting else notes
    except Skip as reason:
        tally.skip(hide(file.source), hide(str(reason)))
        return []
    except (UserError, MemoryError):
        raise
    except Exception as error:
        tally.skip(hide(file.source), f"cannot be read ({type(error).__name__})")  # the error's text may quote the note
        return []
    finally:
        for entry in tally.recoded[recoded:]:
            entry["file"] = hide(entry["file"])
    tally.read += 1
    return notes


def _writable(note: Note) -> Note:
    blocks = [replace(block, text=writable(block.text)) for block in note.blocks]
    return replace(note, name=writable(note.name), source=writable(note.source), title=writable(note.title), blocks=blocks)


def _nothing(tally: Tally) -> str:
    """The reason why no passage is left, in one line."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(tally.dropped.items()) if count)
    if dropped:
        return f"none of the {tally.passages} passages can be used ({dropped}); add notes, or lower sources.min_tokens"
    if tally.skipped:
        first = tally.skipped[0]
        return f"none of the {len(tally.skipped) + tally.read} files can be read (first {first['file']}: {first['why']})"
    return f"the {tally.read} files have no text; add notes"


def summary(row: dict[str, Any]) -> list[str]:
    """The content of sources.json as lines for the terminal."""
    files, passages = row["files"], row["passages"]
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in passages["dropped"].items())
    lines = [
        f"{files['read']:,} files read, {len(files['skipped'])} skipped; {passages['all']:,} passages, "
        f"{passages['kept']:,} kept{f' (dropped: {dropped})' if dropped else ''}",
        "; ".join(
            f"{name}: {row[side]['contexts']} contexts of {row[side]['notes']} notes, {row[side]['prompts']} prompts"
            for side, name in ((TRAIN, "training and validation"), (HELDOUT, "held out"))
        ),
    ]
    return lines + left_out(row)


def left_out(row: dict[str, Any]) -> list[str]:
    """Lines on skipped files, files left alone, canaries and secrets."""
    files = row["files"]
    lines = [f"skipped {skip['file']}: {skip['why']}" for skip in files["skipped"][:5]]
    if len(files["skipped"]) > 5:
        lines.append(f"and {len(files['skipped']) - 5} more, all named in sources.json")
    alone = [f"{count:,} {what}" for what, count in sorted(files["left_alone"].items(), key=lambda item: -item[1])]
    if alone:
        lines.append(f"left alone: {', '.join(alone[:6])}{' and others, all named in sources.json' if len(alone) > 6 else ''}")
    if row["canaries"]:
        lines.append(f"{row['canaries']} canaries planted in training contexts of this run")
    if row["redacted"]:
        lines.append("redacted: " + ", ".join(f"{count} {kind}" for kind, count in row["redacted"].items()))
    return lines
