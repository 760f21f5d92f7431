"""What all sides read: the model as a float32 Hugging Face folder, the first adapter matrices, token ids. Written once."""

import json
from pathlib import Path

import numpy as np

RANK = 8
SPREAD = 4e-3  # of the perturbed B: far enough from 0 that A has gradients, near enough that no sigmoid saturates


def tokens(row, vocabulary: int, seed: int = 0) -> tuple[list[int], list[list[int]]]:
    """A row's token ids, drawn at random: the prompt's and each answer's, the chosen one first. What they say costs nothing."""
    draw = np.random.default_rng([seed, row.prompt, row.answer, row.negatives])
    prompt = draw.integers(3, vocabulary, row.prompt).tolist()
    return prompt, draw.integers(3, vocabulary, (1 + row.negatives, row.answer)).tolist()


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
