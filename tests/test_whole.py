"""benchmarks/whole.py: stages of two sides in turns, pieces that add up, the table, and a real start with a tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import whole  # noqa: E402

from mipo_mlx.files import read_jsonl, write_jsonl  # noqa: E402


def row(side, stage, seconds, ended=True, memory=2e9):
    return {
        "side": side, "stage": stage, "seconds": seconds, "user": 1.5 * seconds, "system": 0.5 * seconds, "memory": memory,
        "ended": ended,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    rows = [row("before", "pairs", 30, False), row("before", "pairs", 70), row("now", "pairs", 50, memory=1e9)]
    rows += [row("now", "sources", 4), row("before", "sources", 4), row("before", "training", 80), row("now", "training", 3, False)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return tmp_path


def test_pieces_of_an_interrupted_stage_add_up_and_unfinished_ones_do_not_count(folder):
    result = whole.measured(read_jsonl(folder / "rows.jsonl"))
    assert result["before", "pairs"] == {"seconds": 100, "user": 150, "system": 50, "memory": 2e9, "ended": True}
    lines = whole.table(folder).splitlines()
    assert "| pairs | before | 100 | 200 | 50 | 2.00 |  |" in lines and "| pairs | now | 50 | 100 | 25 | 1.00 | 2.00x |" in lines
    assert not any(line.startswith("| training | now") for line in lines)
    # Only what both sides have ended is in the sums.
    assert lines[-2:] == ["| **all** | before | 104 | 208 | | |  |", "| **all** | now | 54 | 108 | | | 1.93x |"]


def test_sides_take_turns_and_finished_stages_are_left_alone(folder, monkeypatch):
    begun = []
    monkeypatch.setattr(whole, "work", lambda folder, tree, settings, side, stage: begun.append((stage, side)))
    (folder / "tree").mkdir()
    whole.compute(folder, {"before": "c0ffee", "recipe": "demo", "set": []})
    expected = [("training", "now"), *((stage, side) for stage in ("evaluation", "export", "report") for side in ("before", "now"))]
    assert sorted(begun) == sorted(expected)
    assert begun.index(("evaluation", "before")) < begun.index(("evaluation", "now"))
    assert begun.index(("export", "now")) < begun.index(("export", "before"))


def test_answers_and_scores_of_both_sides_are_compared(folder):
    def grid(number, text, score):
        return {"id": number, "prompt_hash": "p", "contexts": ["a", None], "answers": [{"text": text}], "scores": [[score]]}

    for side, texts, off in (("before", "xyz", 0.0), ("now", "xyw", 2e-5)):
        (folder / "runs" / side).mkdir(parents=True)
        write_jsonl(folder / "runs" / side / "samples.jsonl", [grid(n, text, off - n) for n, text in enumerate(texts)])
    assert whole.same_answers(folder / "runs") == ["2 of 3 grids have the same answers; their scores are at most 2e-05 nats apart."]


def test_another_comparison_is_refused(tmp_path):
    settings = {"before": None, "recipe": "demo", "set": []}
    whole.check_settings(tmp_path / "settings.json", settings)
    whole.check_settings(tmp_path / "settings.json", settings)
    with pytest.raises(SystemExit, match="measured with other settings"):
        whole.check_settings(tmp_path / "settings.json", {**settings, "set": ["seed=1"]})


@pytest.mark.process
def test_the_whole_run_benchmark_runs_and_repeats_nothing(tmp_path, tiny_folder):
    keys = {
        "model": tiny_folder, "pairs.grids": 1, "pairs.validation_grids": 1, "pairs.heldout_grids": 1, "pairs.max_tokens": 4,
        "evaluation.answers": 2, "evaluation.use": 0, "evaluation.unprompted": 1, "evaluation.leak_contexts": 1,
        "evaluation.everyday": 1, "export.gguf": "[]", "memory.embedder": "base",
    }  # fmt: skip
    sets = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]

    def start():
        command = [sys.executable, "benchmarks/whole.py", *sets]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "MIPO_BENCHMARKS": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    lines = [line for line in start().splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0].strip("| ") for line in lines[1:]] == [*whole.STAGES, "**all**"]
    rows = (tmp_path / "whole" / "rows.jsonl").read_bytes()
    assert all(json.loads(line)["ended"] and json.loads(line)["user"] > 0.1 for line in rows.splitlines())
    start()
    assert (tmp_path / "whole" / "rows.jsonl").read_bytes() == rows
