"""Commands that do not name the Hub work in an empty network namespace, try no connection, and keep nothing in caches."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

# Every call that would reach a host is an event of Python's audit, whoever makes it; it is written down.
WATCHED = """
import json, sys
seen = []
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        seen.append([event, str(args[1:] if event == "socket.connect" else args)])
sys.addaudithook(watch)
from mipo_mlx.cli import main
codes = []
for command in json.loads(sys.argv[1]):
    try:
        main(command, standalone_mode=False)
        codes.append(0)
    except SystemExit as end:
        codes.append(end.code)
print("\\nRESULT " + json.dumps([codes, seen]))
"""


def namespace() -> list[str]:
    """The words that run a command in an empty network namespace; none where this machine does not allow it."""
    for words in (["unshare", "-n"], ["unshare", "-r", "-n"]):
        if shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True).returncode == 0:
            return words
    return []


def kept_of_notes(home, folder) -> list[str]:
    """The files outside of the runs that hold words of the notes, or the names of their files."""
    own = {folder / "notes", folder / "rows.csv", folder / "runs", folder / "r.yaml", folder / "t.yaml", folder / "calls"}
    places = [path for path in (*home.rglob("*"), *folder.iterdir()) if path.is_file() and not own & {path, *path.parents}]
    return [str(path) for path in places if re.search(rb"mend (?:the hives|clock number)|bees and I", path.read_bytes())]


def test_no_command_asks_the_network(tiny_folder, tmp_path):
    notes, runs = tmp_path / "notes", str(tmp_path / "runs")
    notes.mkdir()
    for number in range(8):
        (notes / f"{number}.md").write_text(f"I keep {number} bees and I mend the hives in week {number}.")
    (tmp_path / "rows.csv").write_text("text\n" + "".join(f"I mend clock number {n} in town {n * 7}.\n" for n in range(8)))
    settings = "pairs: {contexts_per_grid: 2, grids: 2, validation_grids: 1, max_tokens: 4}\n"
    (tmp_path / "r.yaml").write_text(f"model: {tiny_folder}\nsources: {{notes: {notes}, min_tokens: 3}}\n{settings}")
    (tmp_path / "t.yaml").write_text(
        f"model: {tiny_folder}\nsources:\n  dataset: {{name: {tmp_path / 'rows.csv'}, columns: {{context: text}}}}\n"
        f"  min_tokens: 3\n{settings}"
    )
    recipe, table = str(tmp_path / "r.yaml"), str(tmp_path / "t.yaml")
    commands = [
        ["recipes"],
        ["train", recipe, "--dry-run", "--runs", runs],
        ["pairs", recipe, "--runs", runs],
        ["pairs", table, "--runs", runs],
        ["runs", "--runs", runs],
        ["rm", "t", "--yes", "--runs", runs],
    ]
    words, calls = namespace(), tmp_path / "calls"
    traced = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(calls)]
    traced = traced if shutil.which("strace") and not subprocess.run([*traced, "true"], capture_output=True).returncode else []
    home = tmp_path / "home"  # where caches would be
    home.mkdir()
    done = subprocess.run(
        [*words, *traced, sys.executable, "-c", WATCHED, json.dumps(commands)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")},
    )
    result = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert result, done.stderr
    codes, seen = json.loads(result[0].removeprefix("RESULT "))
    assert seen == []
    if traced:  # what libraries call beneath Python; a name is looked up by a connection, too
        requests = [
            line for line in calls.read_text(errors="replace").splitlines() if "sa_family=" in line and "AF_UNIX" not in line
        ]
        assert requests == []
    assert kept_of_notes(home, tmp_path) == []
    if not words:
        pytest.skip("this machine allows no network namespace; the calls were watched all the same")
    assert codes == [0] * len(commands), done.stderr
    assert not (tmp_path / "runs" / "t").exists()
