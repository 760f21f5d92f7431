"""mipo_mlx as a library: the example runs and reaches what it asserts, and the import stays light."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import mipo_mlx

EXAMPLE = Path(__file__).parent.parent / "examples" / "train_in_python.py"


def test_the_example_trains_a_tiny_model(tiny_folder, capsys):
    spec = importlib.util.spec_from_file_location("train_in_python", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    small = ["pairs.grids=4", "pairs.max_tokens=8", "sources.context_tokens=32", "training.learning_rate=1e-3"]
    small += ["training.epochs=8", "training.max_kl=null", "training.min_chosen_reward=null"]
    small += ["pairs.filters={quotes_context: null, first_person: false}"]
    assert example.main(str(tiny_folder), *small) > 0.8
    assert "16 pairs, 32 steps: reward accuracy 0.50 -> " in capsys.readouterr().out


def test_the_import_is_light_and_every_name_is_there():
    heavy = ("mlx", "numpy", "pydantic", "yaml", "transformers")
    code = f"import sys, mipo_mlx; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    assert all(callable(getattr(mipo_mlx, name)) and getattr(mipo_mlx, name).__doc__ for name in mipo_mlx.__all__)
