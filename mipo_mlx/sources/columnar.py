"""Rows of local Parquet and CSV files. They are read here: the `datasets` library would ask a host and keep a copy in its cache.

A row of CSV with too many or too few cells, or with a cell that is not text, costs itself. So does a row of Parquet whose text is
damaged. Damage that Parquet's own format shows costs its group of rows.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

from ..errors import UserError, first_line
from .note import Skip, Tally
from .sparing import NOT_TEXT, lines_of_notes

TABLES = (".parquet", ".csv")
SAMPLE = 1 << 20  # bytes at the beginning of a CSV file that show its encoding
BATCH = 1024  # rows
FEW, SWOLLEN = 1_000_000, 20  # rows that a Parquet file may have, whatever its size; rows for each of its bytes


def table_rows(path: Path, tally: Tally) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet or CSV file. Raises UserError for a file that cannot be read."""
    import pyarrow

    try:
        yield from _parquet(path, tally) if path.suffix == ".parquet" else _csv(path, tally)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, Skip) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); export it again, or save it as .jsonl") from None


def _parquet(path: Path, tally: Tally) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    first: Exception | None = None
    any_sound, number = False, 0
    with parquet.ParquetFile(path) as table:
        if table.metadata.num_rows > max(FEW, SWOLLEN * path.stat().st_size):
            raise Skip(f"{table.metadata.num_rows:,} rows in {path.stat().st_size:,} bytes")
        for group in range(table.num_row_groups):
            end = number + table.metadata.row_group(group).num_rows
            try:
                for batch in table.iter_batches(batch_size=BATCH, row_groups=[group]):
                    for value in _values(batch):
                        number += 1
                        if isinstance(value, UnicodeDecodeError):
                            first = first or value
                            tally.spare(f"{path.name}:{number}", NOT_TEXT)
                            continue
                        any_sound = True
                        yield value
            except (pyarrow.ArrowException, OSError) as error:
                first = first or error
                tally.spare(f"{path.name}:{number + 1} to {end}", f"damaged ({first_line(error)})")
            number = end
    if first and not any_sound:
        raise first


def _values(batch: Any) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    """The rows of a batch; in place of one whose text is damaged, the error."""
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    columns = [_cells(column) for column in batch.columns]
    for row in zip(*columns, strict=True):
        error = next((cell for cell in row if isinstance(cell, UnicodeDecodeError)), None)
        yield error or dict(zip(batch.schema.names, row, strict=True))


def _cells(column: Any) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_python(cell) for cell in column]


def _python(cell: Any) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        return error


def _csv(path: Path, tally: Tally) -> Iterator[dict[str, Any]]:
    """All cells are read as bytes and made what the first block of the file shows their columns to be."""
    from pyarrow import binary, csv

    broken: dict[int, str] = {}  # by the number of the row; the header is the first

    def leave_out(row: csv.InvalidRow) -> str:
        broken[row.number] = f"{row.actual_columns} cells, and the header has {row.expected_columns}"
        return "skip"

    with open(path, "rb") as handle:
        beginning = handle.read(SAMPLE)
    whole_lines = beginning if len(beginning) < SAMPLE or b"\0" in beginning else beginning[: beginning.rfind(b"\n") + 1]
    encoding = lines_of_notes(whole_lines)[1] if whole_lines else "utf-8"
    encoding = "utf8" if encoding.startswith("utf-8") else encoding
    read = csv.ReadOptions(use_threads=False, encoding=encoding)
    parse = csv.ParseOptions(newlines_in_values=True, invalid_row_handler=leave_out)
    convert = csv.ConvertOptions(timestamp_parsers=["none"])
    with csv.open_csv(path, read, parse, convert) as table:
        kinds = {field.name: KINDS.get(str(field.type)) for field in table.schema}
    broken.clear()
    convert = csv.ConvertOptions(column_types=dict.fromkeys(kinds, binary()))
    any_sound, number = False, 1
    with csv.open_csv(path, read, parse, convert) as table:
        for batch in table:
            for row in batch.to_pylist():
                number = next(n for n in count(number + 1) if n not in broken)
                try:
                    value = {name: _cell(cell, kinds[name]) for name, cell in row.items()}
                except UnicodeDecodeError:
                    broken[number] = NOT_TEXT
                    continue
                any_sound = True
                yield value
    for place, why in sorted(broken.items()):
        tally.spare(f"{path.name}:{place}", why)
    if broken and not any_sound:
        raise UserError(f"{path}:{min(broken)}: {broken[min(broken)]}")


def _cell(data: bytes | None, kind: Callable[[str], Any] | None) -> Any:
    """The value of a cell; its text where it is not what its column is. Raises UnicodeDecodeError."""
    text = (data or b"").decode()
    if kind is None:
        return text
    if text in NOTHING:
        return None
    with suppress(ValueError, KeyError):
        return kind(text)
    return text


NOTHING = ("", "#N/A", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null")
TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
KINDS: dict[str, Callable[[str], Any]] = {
    "int64": int, "double": float, "bool": TRUTH.__getitem__, "date32[day]": date.fromisoformat, "null": str,
}  # fmt: skip
