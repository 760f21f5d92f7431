"""What all sides read, written once: the model as a float32 Hugging Face folder, the first adapter matrices, token ids."""

import json
from pathlib import Path

from shapes import Row

RANK = 8
SPREAD = 4e-3  # standard deviation of the perturbed B: large enough for gradients of A, small enough for every sigmoid
NOTES = Path(__file__).parent.parent / "recipes" / "demo-notes"


def tokens(row: Row, text: list[int]) -> tuple[list[int], list[list[int]]]:
    """Token ids of a row, cut from `text` one after the other: the prompt, then each answer, the chosen one first.

    The text is real. The log-probability of 128 random tokens is so low that float32 rounds away what DPO compares.
    """
    ends = [row.prompt + i * row.answer for i in range(2 + row.negatives)]
    if ends[-1] > len(text):
        raise SystemExit(f"{row}: needs {ends[-1]} tokens, {NOTES} has {len(text)}; choose a smaller row")
    return text[: row.prompt], [text[a:b] for a, b in zip(ends, ends[1:], strict=False)]


def prepare(model: str, cache: Path) -> tuple[Path, Path, list[int]]:
    """The model's folder, the adapters' file and the token ids of the demo's notes. `model`: any name that a recipe takes."""
    folder, matrices, text = cache / "model", cache / "adapters.safetensors", cache / "text.json"
    note = folder / "made_from.json"
    if note.exists() and matrices.exists() and text.exists() and json.loads(note.read_text()) == model:
        return folder, matrices, json.loads(text.read_text())
    import mlx.core as mx

    from mipo_mlx.models import adapters, load
    from mipo_mlx.recipe import Lora

    print(f"writing {model} as a float32 folder that every side can load", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)  # what is being written is not finished
    loaded = load.load(model)
    write_model(folder, loaded.path, loaded.config)
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


def write_model(folder: Path, base: Path, config: dict) -> None:
    """Write a base as float32 weights under the names of Hugging Face, with a config.json that says so.

    The weights come from the base's own file: a loaded model keeps its embedding table as the file has it (engine/tables.py).
    """
    import mlx.core as mx

    from mipo_mlx.export.weights import Weights, load_adapters

    weights = {piece.name: piece.values() for piece in Weights(base, config, load_adapters(None)).base}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    config = {key: value for key, value in config.items() if not key.startswith("quantization")}
    config.update(torch_dtype="float32", architectures=config.get("architectures") or ["LlamaForCausalLM"])
    (folder / "config.json").write_text(json.dumps(config, indent=2))
