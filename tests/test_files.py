"""Files survive a kill at any byte, and a full disk ends in one line."""

import errno
import os

import pytest

from mipo_mlx.errors import Failure
from mipo_mlx.files import append_jsonl, read_json, read_jsonl, replacing, truncate_jsonl, write_jsonl, write_text


def test_torn_last_line_is_dropped_at_every_byte(tmp_path):
    rows = [{"a": 1}, {"b": "zwölf"}, {"c": [1.5, None]}]
    whole = tmp_path / "rows.jsonl"
    write_jsonl(whole, rows)
    data = whole.read_bytes()
    torn = tmp_path / "torn.jsonl"
    for cut in range(len(data) + 1):
        torn.write_bytes(data[:cut])
        assert read_jsonl(torn) == rows[: data[:cut].count(b"\n")]


def test_append_after_a_torn_line_needs_a_truncation_first(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, [{"a": 1}, {"a": 2}])
    with open(path, "ab") as handle:
        handle.write(b'{"a": 3')
    truncate_jsonl(path, len(read_jsonl(path)))
    append_jsonl(path, [{"a": 3}])
    assert [row["a"] for row in read_jsonl(path)] == [1, 2, 3]


def test_broken_middle_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{oops\n{"a": 3}\n')
    with pytest.raises(Failure, match=r"rows.jsonl:2: broken JSON"):
        read_jsonl(path)


@pytest.mark.parametrize("data", [b"", b'{"a": ', b"\0\0\0", b"\xff{}", b"[]", b"null"])
def test_a_damaged_object_is_named(tmp_path, data):
    path = tmp_path / "one.json"
    path.write_bytes(data)
    with pytest.raises(Failure, match=r"one.json: broken.*; remove this file and run the same command"):
        read_json(path)


def test_where_there_is_a_default_it_stands_for_what_is_missing_or_damaged(tmp_path):
    path = tmp_path / "a.json"
    assert read_json(path, {"a": 1}) == {"a": 1}
    for text, found in (("{", {}), ("[]", {}), ('{"b": 2}', {"b": 2})):
        path.write_text(text)
        assert read_json(path, {}) == found


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the new")
        raise RuntimeError("killed")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_disk_full_is_one_clear_line_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(Failure, match="the disk is full"), replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_appending_to_a_full_device_is_one_clear_line():
    from pathlib import Path

    with pytest.raises(Failure, match="/dev/full: the disk is full"):
        append_jsonl(Path("/dev/full"), [{"a": 1}])
