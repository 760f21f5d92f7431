"""benchmarks/faults.py: a small campaign of each kind of fault on the tiny model, and that it sees what went wrong."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import faults  # noqa: E402


def test_what_is_missing_is_lost_and_what_differs_is_changed(tmp_path):
    for name in ("a.json", "b/c.json", "manifest.json", ".lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    whole = faults.digests(tmp_path)
    assert whole.keys() == {"a.json", "b/c.json"} and faults.compared(whole, whole) == "held"
    assert faults.compared({**whole, "more": ""}, whole) == "held"
    assert faults.compared({**whole, "a.json": ""}, whole) == "changed"
    assert faults.compared({"a.json": whole["a.json"]}, whole) == "lost"


def test_the_table_counts_each_outcome():
    rows = faults.table({"kill": Counter(held=3, lost=1), "flip": Counter(changed=2)}).splitlines()
    assert [row.split() for row in rows] == [
        ["fault", "tried", "held", "lost", "changed", "hung"],
        ["kill", "4", "3", "1", "0", "0"],
        ["flip", "2", "0", "0", "2", "0"],
        ["all", "6", "3", "1", "2", "0"],
    ]


def test_a_process_that_is_over_may_be_asked_again(tmp_path):
    child = faults.Child([["no-such-command"]], tmp_path / "log")
    assert child.wait(60) == 2 and child.wait(1) == 2 and child.end(1) == 2


@pytest.mark.process
def test_a_short_campaign_holds(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "faults.py"), "--trials", "3", "--only", "kill,full,flip"]
    done = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].split() == ["all", "3", "3", "0", "0", "0"]
    assert subprocess.run([*command, "--only", "storm"], capture_output=True, text=True).stderr.startswith("--only: no fault storm")
