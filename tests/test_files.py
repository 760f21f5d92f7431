"""Files survive a kill at any byte, and a full disk ends in one line."""

import errno
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mipo_mlx import files
from mipo_mlx.cli import main
from mipo_mlx.errors import Failure, UserError
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


def test_an_empty_line_is_named_without_being_read_as_json(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text('\n{"a": 1}\n\n\n')
    read, loads = [], files.json.loads
    monkeypatch.setattr(files.json, "loads", lambda line: read.append(line) or loads(line))
    rows = list(files.numbered_rows(tmp_path / "rows.jsonl"))
    assert [number for number, _ in rows] == [1, 2, 3] and rows[1][1] == {"a": 1} and read == [b'{"a": 1}']
    assert all("rows.jsonl" in str(row) and "an empty line" in str(row) for _, row in rows[::2])


@pytest.mark.parametrize("data", [b"", b'{"a": ', b"\0\0\0", b"\xff{}", b"[]", b"null"])
def test_a_damaged_object_is_named(tmp_path, data):
    path = tmp_path / "one.json"
    path.write_bytes(data)
    with pytest.raises(Failure, match=r"one.json: broken.*; remove this file and run the same command"):
        read_json(path)


def test_where_there_is_a_default_it_stands_for_what_is_missing_or_damaged(tmp_path):
    path = tmp_path / "a.json"
    assert read_json(path, {"a": 1}) == {"a": 1}
    for text, result in (("{", {}), ("[]", {}), ('{"b": 2}', {"b": 2})):
        path.write_text(text)
        assert read_json(path, {}) == result


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the new")
        raise RuntimeError("killed")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("known", [True, False])
def test_macos_is_asked_to_empty_the_disks_own_cache(tmp_path, monkeypatch, known):
    questions, plain = [], []

    def fcntl(handle, call):
        questions.append(call)
        if not known:
            raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")  # a network disk

    monkeypatch.setattr(files, "FULL_SYNC", 51)
    monkeypatch.setattr(files.fcntl, "fcntl", fcntl)
    monkeypatch.setattr(files.os, "fsync", plain.append)
    write_text(tmp_path / "whole.txt", "text")
    append_jsonl(tmp_path / "rows.jsonl", [{"a": 1}])
    assert questions == [51, 51] and len(plain) == (0 if known else 2)
    assert (tmp_path / "whole.txt").read_text() == "text" and read_jsonl(tmp_path / "rows.jsonl") == [{"a": 1}]


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


def test_a_run_is_its_owners_alone(tiny_folder, tmp_path):
    """Also where others may read what this user makes, and where the folders were there before, open to all."""
    (tmp_path / "notes").mkdir()
    for number in range(6):
        (tmp_path / "notes" / f"{number}.md").write_text(f"I keep {number} bees and I mend the hives in week {number}.")
    (tmp_path / "runs" / "r").mkdir(parents=True, mode=0o755)
    (tmp_path / "r.yaml").write_text(
        f"model: {tiny_folder}\nsources: {{notes: {tmp_path / 'notes'}, min_tokens: 3}}\n"
        "pairs: {contexts_per_grid: 2, grids: 2, validation_grids: 1, max_tokens: 4}\n"
    )
    before = os.umask(0o022)
    try:
        done = CliRunner().invoke(main, ["pairs", str(tmp_path / "r.yaml"), "--runs", str(tmp_path / "runs")])
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "runs" / "r").rglob("*")]
    assert any(path.name == "contexts.jsonl" for path in files), done.output
    assert (tmp_path / "runs" / "r").stat().st_mode & 0o077 == 0
    assert not [path for path in files if path.stat().st_mode & 0o077]


def test_compiled_kernels_lie_in_a_private_folder(tmp_path):
    """MLX loads what lies in a folder of a fixed name in the temporary folder, where any user of the machine may write."""
    script = (
        "import os, tempfile; from mipo_mlx import backend; backend.start(); import mlx.core as mx; "
        "mx.eval(mx.compile(lambda x: mx.exp(x) * 2 + x)(mx.ones(8))); print(os.environ['TMPDIR'], tempfile.gettempdir())"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": "", "TMPDIR": str(tmp_path / "shared")}
    (tmp_path / "shared").mkdir()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    kernels, temporary = done.stdout.split()
    assert Path(kernels).stat().st_mode & 0o077 == 0 and Path(kernels).is_relative_to(tmp_path / ".cache"), done.stderr
    assert temporary == str(tmp_path / "shared") and not any((tmp_path / "shared").iterdir())


@pytest.mark.parametrize("place", ["pairs", "judge", "run", "rows", "weights", "answer"])
def test_json_of_endless_nesting_is_broken_json(tmp_path, place):
    """Python raises no ValueError for it."""
    from mipo_mlx.evaluation import checkable, endpoint
    from mipo_mlx.models import weight_files
    from mipo_mlx.pairs import exchange
    from mipo_mlx.sources.note import Tally

    deep, path = "[" * 100_000, tmp_path / "a.jsonl"
    path.write_text(f"{deep}\n{{}}\n")
    (tmp_path / "deep.jsonl").write_text(deep)
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(deep)) + deep.encode())
    reads = {
        "pairs": lambda: exchange._rows(tmp_path / "deep.jsonl", Tally()),
        "judge": lambda: endpoint._content(deep.encode(), endpoint.Endpoint("http://127.0.0.1:9/v1", "m", 1.0)),
        "run": lambda: read_json(path),
        "rows": lambda: read_jsonl(path),
        "weights": lambda: weight_files.check_whole(tmp_path / "a.safetensors"),
    }
    if place == "answer":
        assert not checkable._json(deep)
        return
    with pytest.raises((UserError, Failure)) as error:
        reads[place]()
    assert "\n" not in str(error.value)
