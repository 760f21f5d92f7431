"""A run directory with a tiny random model, as the stages before the evaluation leave it."""

from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from mipo_mlx.evaluation.workbench import Workbench
from mipo_mlx.files import write_records
from mipo_mlx.models import adapters, load
from mipo_mlx.models import prompts as chat
from mipo_mlx.models.journal import Journal
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Lora, Recipe
from mipo_mlx.records import Context, Pair, Prompt

FACTS = ["keep bees", "bake bread", "learn Portuguese", "run at dawn", "paint boats", "grow beans", "mend clocks", "play the oboe"]
SMALL = {
    "answers": 8,
    "choices": [2],
    "bootstrap": 200,
    "everyday": 1,
    "leak_contexts": 1,
    "unprompted": 2,
    "kinds": 2,
    "preferences": 2,
}
ASKED = ["What should I cook tonight?", "How do I plan my week?", "What can I read?", "Where should I travel?"]
ASKED += [f"{question} And why?" for question in ASKED]


class Steps:
    """A bar that only counts."""

    def __init__(self):
        self.done = 0

    def advance(self, amount=1):
        self.done += amount

    skip = advance


def recipe(model: Path | str, canaries: int = 0, **evaluation) -> Recipe:
    return Recipe.model_validate(
        {
            "model": str(model),
            "sources": {"canaries": canaries},
            "pairs": {
                "contexts_per_grid": 2,
                "max_tokens": 6,
                "batch": 4,
                "system": "About the user: {context}",
                "plain_system": "Answer.",
            },  # fmt: skip
            "training": {"lora": {"rank": 2, "scale": 4.0}},
            "evaluation": {**SMALL, **evaluation},
        }
    )


def bench(folder: Path, settings: Recipe, loaded, bar=None, embedder=None) -> Workbench:
    """A workbench with a journal of its own in `folder`."""
    journal = Journal(folder / "journal.jsonl", "k")
    return Workbench(loaded.model, loaded.tokenizer, folder, settings, journal, Reporter(quiet=True), bar, embedder)


def plain_logprobs(model, prompt: list[int], answer: list[int]) -> np.ndarray:
    """(tokens,) by one plain forward pass, NumPy log-softmax in float64: independent of mipo_mlx.engine.logprobs."""
    logits = np.array(model(mx.array([prompt + answer]))[0].astype(mx.float32), dtype=np.float64)
    logits -= logits.max(-1, keepdims=True)
    logps = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.array([logps[len(prompt) - 1 + i, token] for i, token in enumerate(answer)])


def make_run(folder: Path, settings: Recipe, *, spread: float = 0.0, seed: int = 1) -> Path:
    """contexts, prompts, held-out pairs scored under the base, and adapters; `spread` 0 leaves them without effect (B = 0)."""
    folder.mkdir(parents=True, exist_ok=True)
    loaded = load.load(settings.model)
    contexts = [Context(f"c{i}", f"I {fact}.", f"n{i}", f"n{i}.md", 1, "heldout", 5) for i, fact in enumerate(FACTS)]
    prompts = [Prompt(f"p{i}", text, "planning", "heldout") for i, text in enumerate(ASKED)]
    write_records(folder / "contexts.jsonl", contexts)
    write_records(folder / "prompts.jsonl", prompts)
    rng = np.random.default_rng(seed)
    pairs = []
    for grid in range(8):
        prompt, context = prompts[grid % len(prompts)], contexts[grid % len(contexts)]
        messages = chat.messages(settings.pairs, prompt.text, context.text)
        ids = chat.encode(loaded.tokenizer, messages)
        tokens = [[int(t) for t in rng.integers(3, 300, size=5)] + [2] for _ in range(2)]
        texts = [loaded.tokenizer.decode(t[:-1]) for t in tokens]
        reference = [float(plain_logprobs(loaded.model, ids, t).sum()) for t in tokens]
        says = [[{"role": "assistant", "content": text}] for text in texts]
        pairs.append(
            Pair(
                id=f"{grid}-0", split="heldout", grid=grid, prompt=messages, chosen=says[0], rejected=says[1], negatives=[texts[1]],
                prompt_tokens=ids, tokens=tokens, reference=reference, pmi=[0.5], kinds=["random_context"],
                prompt_id=prompt.id, context_id=context.id, wrong_context_ids=["c7"],
            )
        )  # fmt: skip
    write_records(folder / "pairs.jsonl", pairs)
    write_adapters(folder, settings, spread)
    return folder


def more_prompts(folder: Path, count: int = 8) -> None:
    """Enough different held-out prompts for an interval over prompts."""
    write_records(folder / "prompts.jsonl", [Prompt(f"p{i}", f"{ASKED[i % 4]} {i}", "planning", "heldout") for i in range(count)])


def write_adapters(folder: Path, settings: Recipe, spread: float) -> None:
    model = load.load(settings.model).model
    config = adapters.attach(model, Lora.model_validate(settings.training.lora.model_dump()), 0)
    if spread:
        mx.random.seed(3)
        changed = tree_map(lambda p: p + spread * mx.random.normal(p.shape), model.trainable_parameters())
        model.update(changed)
    adapters.save(model, folder / "adapters", config)
