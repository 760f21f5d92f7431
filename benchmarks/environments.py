"""Each peer in a virtual environment of its own, made once under benchmarks/.envs."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE / ".envs"
# Each line is one `pip install`: torch goes first, in its CPU build, or trl would bring gigabytes of CUDA packages along.
PACKAGES = {
    "mlx_lm_lora": [["mlx-lm-lora", "mlx[cpu]" if sys.platform == "linux" else "mlx"]],
    "trl": [["torch==2.13.0"], ["trl", "peft"]],
}


def python(name: str) -> Path:
    """The interpreter of an environment, which is made first if it is not there. "": the one that runs this."""
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
