"""Rows of a JSONL or JSON file, one context each: one column has the text, another may name its author."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import UserError
from ..note import Note, Skip, Tally
from ..note_file import NoteFile
from .plain import paragraphs

LIMIT = 512 << 20  # bytes
TEXT = ("context", "text", "profile", "persona")
OWNER = ("note", "user", "user_id", "persona_id", "id")


def read_rows(file: NoteFile, tally: Tally, columns: Mapping[Any, str] | None = None) -> list[Note]:
    """One whole note a row. `columns` maps `context` and `note` to the file's own column names.

    Raises UserError with file and line for broken JSON and for rows without the column.
    """
    try:
        text = file.text(tally, LIMIT)
    except Skip as reason:
        raise UserError(f"{file.path}: {reason}") from None
    if file.ending == ".jsonl":
        rows = parse_rows(text, str(file.path))
    else:
        values = parse_json(text, str(file.path))
        if not isinstance(values, list):
            raise UserError(f"{file.path}: expected a JSON list of objects, or a chat export")
        rows = list(enumerate(values, 1))
    notes = [note for number, row in rows if (note := row_note(row, number, file, columns or {}))]
    tally.left_alone["rows without a context"] += len(rows) - len(notes)
    return notes


def row_note(row: Any, number: int, file: NoteFile, columns: Mapping[Any, str]) -> Note | None:
    """The note of one row; None for a row whose text is empty or null."""
    if not isinstance(row, dict):
        raise UserError(f"{file.path}:{number}: expected an object with a column context or text, found {type(row).__name__}")
    column = columns.get("context") or next((name for name in TEXT if isinstance(row.get(name), str)), None)
    column = column or next((name for name in TEXT if name in row and row[name] is None), None)
    if column not in row:
        named = f"column {column}" if column else f"none of the columns {', '.join(TEXT)}"
        raise UserError(
            f"{file.path}:{number}: {named}{' is missing' if column else ' has text'}; found {', '.join(map(str, row)) or 'none'}: "
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
    lines = [replace(block, line=number) for block in blocks]
    whose = row[owner] if owner else None
    return (
        Note(f"{file.source}:{number}" if whose in (None, "") else str(whose), file.source, "", lines, whole=True)
        if blocks
        else None
    )


def parse_rows(text: str, where: str) -> list[tuple[int, Any]]:
    """(line, value) of each filled line of a JSONL file."""
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [(number, parse_json(line, f"{where}:{number}")) for number, line in numbered]


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
