"""How much a larger vocabulary adds to the peak of a training step.

    PYTHONPATH=. python benchmarks/vocabulary.py [--quick]

The model has SmolLM2-135M's body with random weights in bf16: 30 layers, 576 wide, 9 query and 3 key heads, 1536 inner, tied
embeddings. LoRA has rank 8 on all linear layers. The step is `gradient_step` of `training/step.py` over one pair: a prompt of 512
tokens and two answers of 128. Peaks are MLX's own. Each vocabulary runs in its own process. `--quick` takes 3 layers.
"""

import argparse
import json
import subprocess
import sys

SIZES = (50_000, 150_000)
PROMPT, ANSWER, NEGATIVES = 512, 128, 1


def measure(vocabulary: int, layers: int) -> dict[str, float]:
    """Bytes at the peak of a step, of the embedding table, and of all weights; seconds of the step."""
    from mipo_mlx import backend

    backend.start()
    import time

    import mlx.core as mx
    import numpy as np
    from mlx.utils import tree_flatten

    from mipo_mlx.models import adapters
    from mipo_mlx.models.skeleton import from_config
    from mipo_mlx.recipe import Lora, Training
    from mipo_mlx.records import Pair
    from mipo_mlx.training.step import gradient_step

    mx.random.seed(0)
    config = {
        "model_type": "llama", "hidden_size": 576, "num_hidden_layers": layers, "num_attention_heads": 9, "num_key_value_heads": 3,
        "intermediate_size": 1536, "vocab_size": vocabulary, "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    model, _ = from_config(config)
    table = sum(x.nbytes for _, x in tree_flatten(model.model.embed_tokens.parameters()))
    adapters.attach(model, Lora(), seed=0)
    mx.eval(model.parameters())
    weights = sum(x.nbytes for _, x in tree_flatten(model.parameters()))
    rng = np.random.default_rng(0)
    tokens = [rng.integers(0, vocabulary, ANSWER).tolist() for _ in range(1 + NEGATIVES)]
    texts = {"prompt": [], "chosen": [], "rejected": [], "negatives": []}
    pair = Pair(
        "0", "train", 0, prompt_tokens=rng.integers(0, vocabulary, PROMPT).tolist(), tokens=tokens, reference=[0.0] * len(tokens),
        pmi=[0.0] * NEGATIVES, kinds=["random_context"] * NEGATIVES, **texts,
    )  # fmt: skip
    mx.clear_cache()
    mx.reset_peak_memory()
    begin = time.perf_counter()
    found = gradient_step(model, [pair], Training(), token_budget=1 << 20, pad_id=0)
    mx.eval(found.gradients)
    return {"peak": mx.get_peak_memory(), "table": table, "weights": weights, "seconds": time.perf_counter() - begin}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 layers instead of 30")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # a single size, as JSON, in this process
    options = parser.parse_args()
    layers = 3 if options.quick else 30
    if options.one:
        print(json.dumps(measure(options.one, layers)))
        return
    command = [sys.executable, __file__, *(["--quick"] if options.quick else [])]
    outputs = [subprocess.run([*command, "--one", str(n)], check=True, stdout=subprocess.PIPE, text=True).stdout for n in SIZES]
    rows = [json.loads(output) for output in outputs]
    print(f"one step, prompt {PROMPT}, answers {1 + NEGATIVES} x {ANSWER}, {layers} layers; GB")
    print(f"| vocabulary | {' | '.join(f'{n:>9,}' for n in SIZES)} |  growth |")
    print("| --- | --- | --- | --- |")
    parts = {
        "peak of the step": lambda row: row["peak"],
        "without the embedding table": lambda row: row["peak"] - row["table"],
        "beside all weights": lambda row: row["peak"] - row["weights"],
    }
    for name, part in parts.items():
        small, large = (part(row) for row in rows)
        print(f"| {name} | {small / 1e9:9.3f} | {large / 1e9:9.3f} | {large / small - 1:+7.1%} |")
    print("seconds:", ", ".join(f"{row['seconds']:.1f}" for row in rows))


if __name__ == "__main__":
    main()
