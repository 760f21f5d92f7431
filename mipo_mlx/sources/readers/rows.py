"""Rows of a JSONL or JSON file, one context each: one column has the text, another may name its author."""

import json
from collections.abc import Mapping
from typing import Any

from ...errors import UserError
from ..note import Note, Skip, Tally, changed
from ..note_file import NoteFile
from ..sparing import as_text, columns_of, lines_of_notes, number_of, sound
from .plain import paragraphs

LIMIT = 512 << 20  # bytes
TEXT = ("context", "text", "profile", "persona")
OWNER = ("note", "user", "user_id", "persona_id", "id")


def read_rows(file: NoteFile, tally: Tally, columns: Mapping[Any, str] | None = None) -> list[Note]:
    """One whole note a row. `columns` maps `context` and `note` to the file's own column names.

    A row that cannot be used is named in `tally`. Raises UserError where none can be used, with the place of the first.
    """
    try:
        rows = rows_of(file, tally)
    except Skip as reason:
        raise UserError(f"{file.path}: {reason}") from None

    def note_of(place: str, row: Any) -> Note | None:
        return row_note(row, number_of(place), file, columns or {})

    every = list(sound(rows, note_of, tally, file.source))
    notes = [note for note in every if note]
    tally.left_alone["rows without a context"] += len(every) - len(notes)
    return notes


def rows_of(file: NoteFile, tally: Tally, limit: int = LIMIT) -> list[tuple[str, Any]]:
    """(file:line, value) of each filled line of JSONL, (file:number, value) of a JSON list; broken lines are named in `tally`.

    Raises Skip for a file that cannot be read, and UserError where no line is JSON.
    """
    if file.ending != ".jsonl":
        values = parse_json(file.text(tally, limit), str(file.path))
        if not isinstance(values, list):
            raise UserError(f"{file.path}: expected a JSON list")
        return [(f"{file.path}:{number}", value) for number, value in enumerate(values, 1)]
    lines, encoding = lines_of_notes(file.bytes(limit))
    if encoding != "utf-8":
        tally.recoded.append({"file": file.source, "as": encoding})
    placed = ((f"{file.path}:{number}", line) for number, line in lines)
    return list(sound(placed, lambda place, line: (place, parse_json(as_text(place, line), place)), tally, file.source))


def row_note(row: Any, number: int, file: NoteFile, columns: Mapping[Any, str]) -> Note | None:
    """The note of one row; None for a row whose text is empty or null."""
    if not isinstance(row, dict):
        raise UserError(f"{file.path}:{number}: expected an object with a column context or text, found {type(row).__name__}")
    column = columns.get("context") or next((name for name in TEXT if isinstance(row.get(name), str)), None)
    column = column or next((name for name in TEXT if name in row and row[name] is None), None)
    if column not in row:
        named = f"column {column}" if column else f"none of the columns {', '.join(TEXT)}"
        raise UserError(
            f"{file.path}:{number}: {named}{' is missing' if column else ' has text'}; found {columns_of(row)}: "
            "name the right one in sources.columns, as in `columns: {context: my_column}`"
        )
    text = row[column]
    if text is None:
        return None
    if not isinstance(text, str):
        raise UserError(f"{file.path}:{number}: column {column}: expected text, found {type(text).__name__}")
    owner = columns.get("note") or next((name for name in OWNER if row.get(name) not in (None, "")), None)
    if columns.get("note") and owner not in row:
        raise UserError(f"{file.path}:{number}: column {owner} is missing; name the right one in sources.columns.note")
    blocks = paragraphs(text, number)
    lines = [changed(block, line=number) for block in blocks]
    whose = row[owner] if owner else None
    return (
        Note(f"{file.source}:{number}" if whose in (None, "") else str(whose), file.source, "", lines, whole=True)
        if blocks
        else None
    )


def json_values(file: NoteFile, tally: Tally, limit: int = LIMIT) -> Any:
    """What a JSON file holds. Raises Skip where it is not valid."""
    try:
        return parse_json(file.text(tally, limit), file.source)
    except UserError:
        raise Skip("not valid JSON") from None


def parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({error})") from None
