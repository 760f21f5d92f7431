"""The first thing to run: the package imports, MLX computes, and the command line answers fast."""

import subprocess
import sys
import time

import mlx.core as mx


def test_mlx_computes():
    assert (mx.ones((2, 3)) @ mx.ones((3, 2))).tolist() == [[3, 3], [3, 3]]


def test_help_is_fast_and_lists_the_commands():
    command = [sys.executable, "-m", "mipo_mlx.cli", "--help"]
    subprocess.run(command, capture_output=True, check=True)  # warm the file cache
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        out = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        seconds.append(time.perf_counter() - begin)
    assert {"train", "pairs", "eval", "fuse", "export", "report", "chat", "doctor"} <= set(out.split())
    # The bar is 0.3 s on a quiet machine; twice that here, so that a busy one does not fail the suite.
    assert min(seconds) < 0.6


def test_help_imports_nothing_heavy():
    heavy = ("mlx", "numpy", "pydantic", "transformers", "datasets", "rich")
    code = f"import sys, mipo_mlx.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
