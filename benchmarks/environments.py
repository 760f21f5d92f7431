"""Where benchmarks keep what they make: one virtual environment for each peer, and the cache of inputs and measurements."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE / ".envs"
CACHE = Path(os.environ.get("MIPO_BENCHMARKS", HERE / ".cache"))
# Each list is one `pip install`. torch comes first, in its CPU build: otherwise trl brings gigabytes of CUDA packages.
PACKAGES = {
    "mlx_lm_lora": [["mlx-lm-lora", "mlx[cpu]" if sys.platform == "linux" else "mlx"]],
    "trl": [["torch==2.13.0"], ["trl", "peft"]],
}


def python(name: str) -> Path:
    """The interpreter of an environment; a missing environment is made first. "": the interpreter that runs this."""
    if not name:
        return Path(sys.executable)
    folder = ENVIRONMENTS / name
    interpreter = folder / "bin" / "python"
    finished = folder / "installed"
    if not finished.exists():
        print(f"making the environment {folder.relative_to(HERE.parent)} (a few minutes, once)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        for packages in PACKAGES[name]:
            command = [interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
            subprocess.run(command, check=True)
        finished.touch()
    return interpreter
