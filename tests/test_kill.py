"""kill -9 in the middle of sampling and of training, then the same command: the same bytes as a run that was left alone."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from mipo_mlx.cli import main

pytestmark = pytest.mark.process

NOTES = [
    ("bees", "I keep four hives of bees behind the shed, and I sell the honey at the market on the first Sunday of every month."),
    ("bread", "I bake rye bread twice a week with a starter that my aunt gave me, and the crust is never quite as dark as hers."),
    ("knees", "My knees hurt when I run, so I swim three times a week in the old pool by the harbour, always before breakfast."),
    ("lisbon", "I am learning Portuguese for a month in Lisbon next spring, where I want to draw tiles and eat grilled sardines."),
    ("night", "I work night shifts as a nurse in a children's ward, and I sleep until two in the afternoon with a mask on."),
    ("cello", "I play the cello in an amateur orchestra on Wednesdays, and we are rehearsing Elgar for a concert in December."),
    ("garden", "My garden is full of slugs, and I refuse to poison anything, so I go out at night with a torch and a bucket."),
    ("budget", "I am saving for a small boat, so I write down every purchase in a green notebook and eat lunch at home."),
    ("nephew", "My nephew visits on Saturdays, he is seven and mad about volcanoes, and we build one in the kitchen each time."),
    ("train", "I commute by train for fifty minutes each way, and I spend that time with crosswords and long Russian novels."),
]
RECIPE = """
model: {model}
name: r
sources: {{notes: {notes}, min_tokens: 8, heldout_contexts: 0.4}}
pairs:
  grids: 12
  validation_grids: 2
  heldout_grids: 4
  contexts_per_grid: 3
  max_tokens: 8
  batch: 6
  filters: {{min_pmi: null, repeated_ngrams: null, quotes_context: null, first_person: false, near_duplicates: null}}
training:
  checkpoint_every: 3
  evaluate_every: 7
  epochs: 2.0
  max_kl: null
  min_chosen_reward: null
  lora: {{rank: 2}}
evaluation: {{bootstrap: 100, answers: 4, use: 2, everyday: 2, kinds: 1, preferences: 2, leak_contexts: 2, unprompted: 4}}
export: {{mlx: false, gguf: [f16]}}
"""
KEPT = (
    "contexts.jsonl",
    "prompts.jsonl",
    "samples.jsonl",
    "pairs.jsonl",
    "adapters/adapters.safetensors",
    "adapters/adapter_config.json",
    "eval.json",
    "r-f16.gguf",
)


def write_notes(folder: Path, notes=NOTES) -> None:
    """A file with a heading for each (name, text)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in notes:
        (folder / f"{name}.md").write_text(f"# {name}\n\n{text}\n")


@pytest.fixture(scope="module")
def start(tiny_folder, tmp_path_factory):
    """Starts `mipo-mlx train` on a tiny model under a run name; returns the process and the run's folder."""
    home = tmp_path_factory.mktemp("kill")
    write_notes(home / "notes")
    (home / "r.yaml").write_text(RECIPE.format(model=tiny_folder, notes=home / "notes"))

    def start(name):
        command = [
            sys.executable,
            "-m",
            "mipo_mlx.cli",
            "--debug",
            "train",
            home / "r.yaml",
            "--name",
            name,
            "--runs",
            home / "runs",
            "--quiet",
        ]
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return process, home / "runs" / name

    return start


def finish(process):
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    return out


@pytest.fixture(scope="module")
def whole(start):
    process, folder = start("whole")
    finish(process)
    return folder


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


# A file, and how many lines it has when the run is killed: in sampling, in training, in evaluation, in export.
MOMENTS = (
    ("samples.jsonl", 1), ("samples.jsonl", 9), ("metrics.jsonl", 2), ("metrics.jsonl", 21), ("eval-samples.jsonl", 1),
    ("eval.json", 1),
)  # fmt: skip


def test_killed_and_continued_is_byte_identical(start, whole):
    """One run, killed at each moment in turn."""
    for file, moment in MOMENTS:
        process, folder = start("killed")
        deadline = time.monotonic() + 120
        while lines(folder / file) < moment and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, f"the run was over before {file} had {moment} lines"
    finish(start("killed")[0])
    for kept in KEPT:
        assert (folder / kept).read_bytes() == (whole / kept).read_bytes(), kept


def test_a_finished_run_does_nothing_again_and_prints_its_result(start, whole):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file() and not p.name.startswith(".")}
    again = ["train", str(whole.parent.parent / "r.yaml"), "--name", "whole", "--runs", str(whole.parent), "--quiet"]
    result = CliRunner().invoke(main, again)
    assert result.exit_code == 0 and "use it" in result.output, result.output
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_fast_blas_is_loaded_before_mlx(whole):
    """Whatever is imported on the way: with MLX first, its reference BLAS stays, 30 times slower."""
    from mipo_mlx import backend
    from mipo_mlx.files import read_json

    backend.start()
    if sys.platform == "linux" and not backend.has_fast_blas():
        pytest.skip("no OpenBLAS is installed")
    assert "slow" not in read_json(whole / "manifest.json")["blas"]
