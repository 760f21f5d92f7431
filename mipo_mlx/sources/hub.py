"""Data sets: from the Hub through the `datasets` library, or a local copy (.json, .jsonl, .parquet, .csv, a folder) without it.

The recipe's `columns` name the columns for the context, for its author and for the request. A value is a column's name or a
template: `{question}` and `{choices.text}` stand for columns, and lists become lettered lines (A. ..., B. ...).
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from ..errors import UserError, first_line
from ..recipe import Dataset
from .columnar import TABLES, table_rows
from .note import Note, Skip, Tally, changed
from .note_file import NoteFile
from .readers.plain import paragraphs
from .readers.rows import rows_of
from .sparing import columns_of, number_of, sound

FIELD = re.compile(r"\{([\w.]+)\}")
LIMIT = 2 << 30  # bytes of a local JSON file
LOCAL = "without a network, write the path of a local copy (.json, .jsonl, .parquet, .csv or a folder) as name"


def read_contexts(given: Dataset, tally: Tally) -> list[Note]:
    """One whole note for each row that has a context; rows with the same `note` value belong to one person."""
    template = given.columns.get("context")
    if template is None:
        raise UserError("sources.dataset.columns: key context is missing; name the column that tells about the user")

    def note_of(place: str, row: dict[str, Any]) -> Note | None:
        text = fill(template, row, given)
        if not text:
            tally.left_alone["rows without a context"] += 1
            return None
        number = number_of(place)
        owner = fill(given.columns["note"], row, given) if "note" in given.columns else ""
        blocks = [changed(block, line=number) for block in paragraphs(text, number)]
        return Note(owner or f"{given.name}:{number}", given.name, "", blocks, whole=True)

    notes = [note for note in sound(rows(given, tally), note_of, tally) if note]
    tally.read += 1
    return notes


def read_prompts(given: Dataset, tally: Tally) -> list[tuple[str, str]]:
    """(prompt, topic) of each row that has a prompt."""
    template = given.columns.get("prompt")
    if template is None:
        raise UserError("sources.prompt_dataset.columns: key prompt is missing; name the column with the request")

    def prompt_of(_: str, row: dict[str, Any]) -> tuple[str, str] | None:
        if text := fill(template, row, given):
            return text, fill(given.columns["topic"], row, given) if "topic" in given.columns else given.name
        tally.left_alone["rows without a prompt"] += 1
        return None

    return [row for row in sound(rows(given, tally), prompt_of, tally) if row]


def fill(template: str, row: dict[str, Any], given: Dataset) -> str:
    """The text of a column, or of a template over columns; '' where one of its columns is empty in this row."""
    names = FIELD.findall(template)
    if not names:
        return as_text(column(row, template, given))
    values = {name: as_text(column(row, name, given)) for name in names}
    return FIELD.sub(lambda match: values[match[1]], template).strip() if all(values.values()) else ""


def as_text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(f"{letter}. {as_text(item)}" for letter, item in zip(ascii_uppercase, value, strict=False))
    return "" if value is None else str(value).strip()


def column(row: dict[str, Any], name: str, given: Dataset) -> Any:
    """The value under `a` or `a.b`. Raises UserError where there is no such column."""
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"{given.name}: no column {name}; it has {columns_of(row)}: correct columns in the recipe")
        value = value[part]
    return value


def rows(given: Dataset, tally: Tally) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name:number from 1, row) of the rows that meet `where`; `tally` names those that cannot be read."""
    path = Path(given.name).expanduser()
    every = _json_rows(path, tally) if path.suffix in (".json", ".jsonl") else enumerate(_load(given, path, tally), 1)
    any_left = False

    def wanted(place: str, row: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        fits = all(column(row, name, given) == value for name, value in given.where.items())
        return (place, row) if fits else None

    placed = ((f"{given.name}:{number}", row) for number, row in every)
    for one in sound(placed, wanted, tally) if given.where else placed:
        if one:
            any_left = True
            yield one
    if not any_left:
        where = ", ".join(f"{name}: {value}" for name, value in given.where.items())
        raise UserError(f"{given.name}: no rows{f' where {where}' if where else ''}")


def _json_rows(path: Path, tally: Tally) -> Iterator[tuple[int, dict[str, Any]]]:
    def object_of(place: str, row: Any) -> tuple[int, dict[str, Any]]:
        if not isinstance(row, dict):
            raise UserError(f"{place}: expected an object with named columns")
        return number_of(place), row

    try:
        yield from sound(rows_of(NoteFile.on_disk(path), tally, LIMIT), object_of, tally, path.name)
    except Skip as reason:
        raise UserError(f"{path}: {reason}") from None


def _load(given: Dataset, path: Path, tally: Tally) -> Iterable[dict[str, Any]]:
    """The rows of a local file or folder; of the Hub's data set where there is neither."""
    if path.is_file():
        if path.suffix not in TABLES:
            raise UserError(f"{path}: a data set is a .json, .jsonl, .parquet or .csv file, a folder of them, or a Hub name")
        return table_rows(path, tally)
    if path.is_dir():
        return _folder(given, path, tally)
    if path.suffix in TABLES and path.parent != Path("."):
        raise UserError(f"{path}: no such file")
    return _from_hub(given)


def _folder(given: Dataset, path: Path, tally: Tally) -> Iterator[dict[str, Any]]:
    """The rows of every file beneath a folder, in the order of their names: those named after the split, else all."""
    files = sorted(file for file in path.rglob("*") if file.suffix in (*TABLES, ".json", ".jsonl") and file.is_file())
    beneath = path / (given.subset or "")
    files = [file for file in files if not given.subset or beneath in file.parents or given.subset in file.stem]
    named = [file for file in files if given.split and given.split in file.relative_to(path).as_posix()]
    if not files:
        raise UserError(
            f"{path}: no .json, .jsonl, .parquet or .csv file in this folder{f' for {given.subset}' if given.subset else ''}"
        )
    for file in named or files:
        yield from table_rows(file, tally) if file.suffix in TABLES else (row for _, row in _json_rows(file, tally))


def _from_hub(given: Dataset) -> Any:
    """The rows as the `datasets` library gives them."""
    import datasets

    datasets.disable_progress_bars()  # they ignore --quiet, and the stage reports what it read
    try:
        return datasets.load_dataset(given.name, given.subset, split=given.split)
    except datasets.exceptions.DatasetNotFoundError:
        raise UserError(f"{given.name}: the Hub has no such data set, or cannot be reached; {LOCAL}") from None
    except (ConnectionError, OSError) as error:
        raise UserError(f"{given.name}: cannot be loaded ({first_line(error)}); {LOCAL}") from None
    except (ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"{given.name}: cannot be loaded ({first_line(error)}); check subset and split, or, {LOCAL}") from None
