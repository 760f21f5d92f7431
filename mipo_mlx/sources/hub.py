"""Data sets: from the Hub through the `datasets` library, or a local copy (.json, .jsonl, .parquet, .csv, a folder) without it.

The recipe's `columns` name the columns for the context, for its author and for the request. A value is a column's name or a
template: `{question}` and `{choices.text}` stand for columns, and lists become lettered lines (A. ..., B. ...).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from ..errors import UserError, first_line
from ..recipe import Dataset
from .note import Note, Skip, Tally
from .note_file import NoteFile
from .readers.plain import paragraphs
from .readers.rows import parse_json, parse_rows

FIELD = re.compile(r"\{([\w.]+)\}")
TABLES = (".parquet", ".csv")
LIMIT = 2 << 30  # bytes of a local JSON file
LOCAL = "without a network, write the path of a local copy (.json, .jsonl, .parquet, .csv or a folder) as name"


def read_contexts(given: Dataset, tally: Tally) -> list[Note]:
    """One whole note for each row that has a context; rows with the same `note` value belong to one person."""
    template = given.columns.get("context")
    if template is None:
        raise UserError("sources.dataset.columns: key context is missing; name the column that tells about the user")
    notes = []
    for number, row in rows(given):
        text = fill(template, row, given)
        if not text:
            tally.left_alone["rows without a context"] += 1
            continue
        owner = fill(given.columns["note"], row, given) if "note" in given.columns else ""
        blocks = [replace(block, line=number) for block in paragraphs(text)]
        notes.append(Note(owner or f"{given.name}:{number}", given.name, "", blocks, whole=True))
    tally.read += 1
    return notes


def read_prompts(given: Dataset, tally: Tally) -> list[tuple[str, str]]:
    """(prompt, topic) of each row that has a prompt."""
    template = given.columns.get("prompt")
    if template is None:
        raise UserError("sources.prompt_dataset.columns: key prompt is missing; name the column with the request")
    prompts = []
    for _, row in rows(given):
        text = fill(template, row, given)
        if text:
            prompts.append((text, fill(given.columns["topic"], row, given) if "topic" in given.columns else given.name))
        else:
            tally.left_alone["rows without a prompt"] += 1
    return prompts


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
            raise UserError(f"{given.name}: no column {name}; it has {', '.join(map(str, row))}: correct columns in the recipe")
        value = value[part]
    return value


def rows(given: Dataset) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, row) of the rows that meet `where`."""
    path = Path(given.name).expanduser()
    every = _json_rows(path) if path.suffix in (".json", ".jsonl") else enumerate(_load(given, path), 1)
    any_left = False
    for number, row in every:
        if all(column(row, name, given) == wanted for name, wanted in given.where.items()):
            any_left = True
            yield number, row
    if not any_left:
        where = ", ".join(f"{name}: {wanted}" for name, wanted in given.where.items())
        raise UserError(f"{given.name}: no rows{f' where {where}' if where else ''}")


def _json_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        text = NoteFile.on_disk(path).text(Tally(), LIMIT)
    except Skip as reason:
        raise UserError(f"{path}: {reason}") from None
    numbered = parse_rows(text, str(path)) if path.suffix == ".jsonl" else list(enumerate(parse_json(text, str(path)), 1))
    wrong = next((number for number, row in numbered if not isinstance(row, dict)), None)
    if wrong is not None:
        raise UserError(f"{path}:{wrong}: expected an object with named columns")
    return numbered


def _load(given: Dataset, path: Path) -> Iterable[dict[str, Any]]:
    """The rows of a local file or folder; of the Hub's data set where there is neither."""
    if path.is_file():
        if path.suffix not in TABLES:
            raise UserError(f"{path}: a data set is a .json, .jsonl, .parquet or .csv file, a folder of them, or a Hub name")
        return _table(path)
    if path.is_dir():
        return _folder(given, path)
    if path.suffix in TABLES and path.parent != Path("."):
        raise UserError(f"{path}: no such file")
    return _from_hub(given)


def _folder(given: Dataset, path: Path) -> Iterator[dict[str, Any]]:
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
        yield from _table(file) if file.suffix in TABLES else (row for _, row in _json_rows(file))


def _table(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet or CSV file. It is read here: the `datasets` library would ask a host and keep a copy in its cache."""
    import pyarrow
    from pyarrow import csv, parquet

    try:
        if path.suffix == ".parquet":
            with parquet.ParquetFile(path) as table:
                for batch in table.iter_batches(batch_size=1024):
                    yield from batch.to_pylist()
        else:
            options = {
                "parse_options": csv.ParseOptions(newlines_in_values=True),
                "convert_options": csv.ConvertOptions(timestamp_parsers=["none"]),
            }
            with csv.open_csv(path, **options) as table:
                for batch in table:
                    yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); export it again, or save it as .jsonl") from None


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
