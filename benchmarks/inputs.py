"""What all sides read: the model as a float32 Hugging Face folder, the first adapter matrices, token ids. Written once."""

import json
from pathlib import Path

import numpy as np

RANK = 8
SPREAD = 4e-3  # of the perturbed B: far enough from 0 that A has gradients, near enough that no sigmoid saturates


def tokens(row, folder: Path, cache: Path) -> tuple[list[int], list[list[int]]]:
    """A row's token ids: the prompt's, and each answer's, the chosen one first.

    The prompt is drawn at random; what it says costs nothing. Answers are sampled from the model, so that they are as likely as
    answers are: the log-probability of 128 random tokens is so far below 0 that float32 rounds away what DPO compares.
    """
    kept = cache / f"{row}.tokens.json"
    if kept.exists():
        return tuple(json.loads(kept.read_text()))
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.sample_utils import make_sampler
    from mlx_lm.utils import load_model

    print(f"{row}: sampling its answers", flush=True)
    model, config = load_model(folder)
    draw = np.random.default_rng([row.prompt, row.answer, row.negatives])
    prompt = draw.integers(3, config["vocab_size"], row.prompt).tolist()
    mx.random.seed(int(draw.integers(1 << 30)))
    sampler = make_sampler(temp=0.8, top_p=0.95)
    answers = [
        [int(token) for token, _ in generate_step(mx.array(prompt), model, max_tokens=row.answer, sampler=sampler)]
        for _ in range(1 + row.negatives)
    ]
    kept.write_text(json.dumps([prompt, answers]))
    return prompt, answers


def prepare(model: str, cache: Path) -> tuple[Path, Path]:
    """The model's folder and the adapters' file. `model`: any name that a recipe takes."""
    folder, matrices = cache / "model", cache / "adapters.safetensors"
    note = folder / "made_from.json"
    if note.exists() and matrices.exists() and json.loads(note.read_text()) == model:
        return folder, matrices
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from mipo_mlx.models import adapters, loading
    from mipo_mlx.recipe import Lora

    for stale in cache.glob("*.tokens.json"):
        stale.unlink()
    print(f"writing {model} as a float32 folder that every side can load", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    loaded = loading.load(model)
    weights = {k: v.astype(mx.float32) for k, v in tree_flatten(loaded.model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    config = {k: v for k, v in loaded.config.items() if not k.startswith("quantization")}
    config.update(torch_dtype="float32", architectures=config.get("architectures") or ["LlamaForCausalLM"])
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    loaded.tokenizer._tokenizer.save_pretrained(folder)
    adapters.attach(loaded.model, Lora(rank=RANK), seed=0)
    mx.random.seed(1)
    first = adapters.weights(loaded.model)
    for name, value in first.items():
        if name.endswith("lora_b"):
            first[name] = SPREAD * mx.random.normal(value.shape)
    mx.save_safetensors(str(matrices), first)
    note.write_text(json.dumps(model))
    return folder, matrices
