"""Files that survive a kill.

A whole file is written to a temporary name, flushed and renamed. JSONL is appended a line at a time, and a reader drops a torn
last line.
"""

import fcntl
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from .errors import DISK_FULL, Failure

T = TypeVar("T")
FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)  # macOS alone has it
SEAL = "seal"  # key of a row's hash
AGAIN = "remove this line and those after it, and run the same command"
CONTEXTS = "contexts.jsonl"  # of a run's beginning; an update of the notes in round 2 has contexts-2.jsonl


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "disk full" and similar errors into a Failure of one line that names the file."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # MLX's own writers raise a RuntimeError without a number.
        if getattr(error, "errno", None) in DISK_FULL or "Unable to write" in str(error):
            raise Failure(
                f"{path}: the disk is full; free some space and run the same command again, it continues from here"
            ) from error
        raise


def flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk: a rename may reach the disk before its file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        sync(handle)
    finally:
        os.close(handle)


def sync(handle: int) -> None:
    """Wait until an open file is on the disk. On macOS os.fsync leaves it in the disk's own cache, which a power cut empties."""
    with suppress(OSError):  # a network disk knows no such call
        if FULL_SYNC is not None:
            fcntl.fcntl(handle, FULL_SYNC)
            return
    os.fsync(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it and rename it over `path`, on failure remove it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with disk_errors(path):
            yield temporary
            flush(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def make_private(folder: Path) -> None:
    """Make a folder that its owner alone may enter; one that was there before becomes such a folder."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)


def touch_private(path: Path) -> None:
    """Make an empty file that its owner alone may read, where there is none."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` so that a reader sees the old file or the new one, never half of either."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def dump(value: Any) -> str:
    """`value` as one line of JSON: the same value gives the same bytes."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """The object in a JSON file of a run; the `default`, where one is given, for a missing or damaged file.

    Raises Failure for a damaged file, and FileNotFoundError for a missing one.
    """
    if default is not None:
        try:
            return read_json(path) if Path(path).exists() else default
        except Failure:
            return default
    try:
        value = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise Failure(f"{path}: broken JSON ({error}); remove this file and run the same command") from None
    if not isinstance(value, dict):
        raise Failure(f"{path}: broken, no JSON object; remove this file and run the same command")
    return value


def write_jsonl(path: Path, rows: Iterable[Any], seal: bool = False) -> None:
    """Write rows; with `seal`, as `append_jsonl` does."""
    write_text(path, "".join(dump(sealed(row) if seal else row) + "\n" for row in rows))


def sealed(row: dict[str, Any]) -> dict[str, Any]:
    """The row with a hash of itself, which `read_jsonl` compares and takes off."""
    return {**row, SEAL: hashlib.sha256(json.dumps(row).encode()).hexdigest()[:16]}


def append_jsonl(path: Path, rows: Iterable[dict[str, Any]], seal: bool = True) -> None:
    """Append rows, each with its hash (`seal`), and flush them to the disk; a kill leaves at most one torn last line.

    No manifest has the hash of a file that still grows, so each row carries its own.
    """
    with disk_errors(path), open(path, "ab") as handle:
        handle.write("".join(dump(sealed(row) if seal else row) + "\n" for row in rows).encode())
        handle.flush()
        sync(handle.fileno())


def end_torn_line(path: Path) -> None:
    """Let the next row begin on a line of its own, where a kill left half a row: that one is lost, and no other."""
    with open(path, "rb+") as handle:
        if handle.seek(0, os.SEEK_END) and (handle.seek(-1, os.SEEK_END), handle.read(1))[1] != b"\n":
            handle.write(b"\n")


def read_jsonl(path: Path) -> list[Any]:
    """The rows of `path`; [] where there is no file. A torn last line (no newline, or broken JSON) is dropped.

    Raises Failure for another line that is broken, and for a row that is not as it was when it was sealed.
    """
    rows = []
    for _, row in numbered_rows(path):
        if isinstance(row, Failure):
            raise row
        rows.append(row)
    return rows


def numbered_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(line from 1, row) as `read_jsonl` reads them; in place of a row that is broken or damaged, the Failure that says so."""
    path = Path(path)
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    lines.pop()  # the text behind the last newline: nothing, or a torn line
    for number, line in enumerate(lines, 1):
        try:
            if not line:
                raise ValueError("an empty line")  # which JSON takes ten times as long to say
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number < len(lines):
                yield number, Failure(f"{path}:{number}: broken JSON ({error}); {AGAIN}")
            continue
        seal = row.pop(SEAL, None) if isinstance(row, dict) else None
        if seal is not None and sealed(row)[SEAL] != seal:
            row = Failure(f"{path}:{number}: damaged, since its hash is another one; {AGAIN}")
        yield number, row


def read_records(path: Path, kind: type[T]) -> list[T]:
    """Records of one kind; columns that we do not know are left alone, so files made elsewhere can carry more."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    make = getattr(kind, "from_row", None) or (lambda row: kind(**row))
    return [make({k: v for k, v in row.items() if k in known}) for row in read_jsonl(path)]


def write_records(path: Path, records: list[Any]) -> None:
    write_jsonl(path, [asdict(record) for record in records])


def is_whole(path: Path) -> bool:
    """Whether every line of a .jsonl file is JSON and no line is torn."""
    *lines, rest = Path(path).read_bytes().split(b"\n")
    try:
        return not rest and all(json.loads(line) is not None for line in lines)
    except (ValueError, RecursionError):
        return False


def of_round(name: str, round_number: int) -> str:
    """The name of a file or folder in one round of sampling and training: pairs.jsonl, in the second round pairs-2.jsonl."""
    stem, dot, ending = name.partition(".")
    return name if round_number == 1 else f"{stem}-{round_number}{dot}{ending}"


def rounds(folder: Path, name: str) -> list[Path]:
    """The first round's file, whether it exists or not, and the existing files of the later rounds."""
    later = (folder / of_round(name, number) for number in itertools.count(2))
    return [folder / name, *itertools.takewhile(Path.exists, later)]


def updates(folder: Path) -> list[int]:
    """The rounds that updates of the notes added to a run and that were taken, in order (manifest.json)."""
    return list(read_json(folder / "manifest.json", {}).get("updates", []))


def truncate_jsonl(path: Path, keep: int) -> None:
    """Keep the first `keep` whole lines of `path`, byte for byte, and drop the rest."""
    path = Path(path)
    if path.exists():
        lines = path.read_bytes().split(b"\n")[:-1]
        if len(lines) != keep or path.read_bytes()[-1:] != b"\n":
            with replacing(path) as temporary:
                temporary.write_bytes(b"".join(line + b"\n" for line in lines[:keep]))


def sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def size(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size


def inode(path: Path) -> tuple[int, int] | None:
    """Which file of the disk a path names; None where there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino
