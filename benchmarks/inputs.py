"""What all sides read: the model as a float32 Hugging Face folder, the first adapter matrices, token ids. Written once."""

import json
from pathlib import Path

RANK = 8
SPREAD = 4e-3  # of the perturbed B: far enough from 0 that A has gradients, near enough that no sigmoid saturates


NOTES = Path(__file__).parent.parent / "recipes" / "demo-notes"


def tokens(row, text: list[int]) -> tuple[list[int], list[list[int]]]:
    """A row's token ids, cut from `text` one after the other: the prompt's, and each answer's, the chosen one first.

    Real text rather than random ids: the log-probability of 128 random tokens is so far below 0 that float32 rounds away what
    DPO compares.
    """
    ends = [row.prompt + i * row.answer for i in range(2 + row.negatives)]
    if ends[-1] > len(text):
        raise SystemExit(f"{row}: needs {ends[-1]} tokens, and {NOTES} has {len(text)}; take a smaller row")
    return text[: row.prompt], [text[a:b] for a, b in zip(ends, ends[1:], strict=False)]


def prepare(model: str, cache: Path) -> tuple[Path, Path, list[int]]:
    """The model's folder, the adapters' file and the token ids of the demo's notes. `model`: any name that a recipe takes."""
    folder, matrices, text = cache / "model", cache / "adapters.safetensors", cache / "text.json"
    note = folder / "made_from.json"
    if note.exists() and matrices.exists() and text.exists() and json.loads(note.read_text()) == model:
        return folder, matrices, json.loads(text.read_text())
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from mipo_mlx.models import adapters, load
    from mipo_mlx.recipe import Lora

    print(f"writing {model} as a float32 folder that every side can load", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    loaded = load.load(model)
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
    written = "\n".join(path.read_text(encoding="utf-8") for path in sorted(NOTES.rglob("*.md")))
    ids = loaded.tokenizer.encode(written, add_special_tokens=False)
    text.write_text(json.dumps(ids))
    note.write_text(json.dumps(model))
    return folder, matrices, ids
