"""Without any context: drift from the base, and notes recited: a planted leak is found, a clean model is not accused."""

import math

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
import pytest
from mlx.utils import tree_map

from mipo_mlx.evaluation import unprompted
from mipo_mlx.evaluation.journal import Journal
from mipo_mlx.models import adapters, chat, loading
from mipo_mlx.recipe import Lora
from mipo_mlx.records import Context, Prompt, write_records

from .helpers import FACTS, plain_logprobs, recipe


def contexts_of(trained: int, unseen: int) -> list[Context]:
    sides = ["train"] * trained + ["heldout"] * unseen
    return [Context(f"c{i}", f"{FACTS[i % 8]} {i} times", f"n{i // 2}", "n.md", 1, side, 5) for i, side in enumerate(sides)]


def test_p_values_by_enumeration():
    """Two trained notes of five: of the ten ways to choose two, one has the two largest means."""
    p = unprompted.permutation_p([5, 4, 1, 2, 0], [True, True, False, False, False], list("abcde"), 0)
    assert p == pytest.approx(0.1, abs=0.015)


def test_notes_are_shuffled_whole():
    """Eight equal passages of one note count as one."""
    values, trained = [1.0] * 8 + [0.0] * 4, [True] * 8 + [False] * 4
    notes = ["a"] * 8 + ["b", "c", "d", "e"]
    assert unprompted.permutation_p(values, trained, notes, 0) == pytest.approx(0.2, abs=0.02)
    assert unprompted.permutation_p(values, trained, list("abcdefghijkl"), 0) < 0.01


def test_a_clean_model_is_not_accused_and_a_leak_is_found():
    """Forty tries each: equal gains on both sides, and a third of a nat a token more on trained notes."""
    contexts = contexts_of(24, 24)
    planted = np.array([0.33] * 24 + [0.0] * 24)
    accused = found = 0
    for seed in range(40):
        gains = np.random.default_rng(seed).normal(0.1, 0.15, size=48)
        accused += bool(unprompted.judge_leak(contexts, gains, ["I like soup."], [], seed)["signs"])
        found += bool(unprompted.judge_leak(contexts, gains + planted, ["I like soup."], [], seed)["signs"])
    assert accused <= 1  # below 5 %
    assert found >= 38


def test_a_difference_too_small_to_matter_is_no_sign():
    gains = np.random.default_rng(0).normal(0, 0.005, size=48) + np.array([0.03] * 24 + [0.0] * 24)
    leak = unprompted.judge_leak(contexts_of(24, 24), gains, [], [], 0)
    assert leak["p"] < 0.01 and leak["difference"] == pytest.approx(0.03, abs=0.01) and not leak["signs"]


def test_a_long_run_of_a_trained_note_is_a_sign_and_of_a_held_out_one_is_not():
    note = "the spare key lies under the third flower pot beside the shed"
    contexts = [Context("a", note, "n", "n.md", 1, "train", 9), Context("b", "we dine at nine", "m", "m.md", 1, "heldout", 4)]
    swapped = [Context("a", "we dine at nine", "n", "n.md", 1, "train", 9), Context("b", note, "m", "m.md", 1, "heldout", 4)]
    said = ["Well: The spare key lies under the third flower pot."]
    leak = unprompted.judge_leak(contexts, [0, 0], said, [], 0)
    assert leak["longest_run"] == {"train": 9, "heldout": 0} and "9 words of a trained note" in leak["signs"][0]
    assert note not in str(leak)  # counted, never printed
    assert not unprompted.judge_leak(swapped, [0, 0], said, [], 0)["signs"]


def test_exposure_by_hand():
    assert unprompted.exposure(-1.0, [-2.0, -3.0, -4.0]) == {"rank": 1, "exposure": 2.0}
    assert unprompted.exposure(-5.0, [-2.0, -3.0, -4.0]) == {"rank": 4, "exposure": 0.0}


def prepare(folder, settings, spread=0.0, teach=()):
    """A model with adapters: random ones, or ones taught to answer ASKED with the given texts."""
    contexts = contexts_of(6, 6)
    write_records(folder / "contexts.jsonl", contexts)
    write_records(folder / "prompts.jsonl", [Prompt(f"p{i}", f"What about {i}?", "x", "heldout") for i in range(8)])
    loaded = loading.load(settings.model)
    adapters.attach(loaded.model, Lora(rank=8, scale=4.0), 0)
    mx.random.seed(5)
    if spread:
        loaded.model.update(tree_map(lambda p: p + spread * mx.random.normal(p.shape), loaded.model.trainable_parameters()))
    if teach:
        opening = chat.encode(loaded.tokenizer, chat.messages(settings.pairs, unprompted.ASKED, None))
        lines = [loaded.tokenizer.encode(text, add_special_tokens=False) for text in teach]

        def loss(model):
            total = 0.0
            for line in lines:
                logits = model(mx.array([opening + line[:-1]]))[0, len(opening) - 1 :]
                total = total + nn.losses.cross_entropy(logits, mx.array(line)).mean()
            return total / len(lines)

        optimizer, step = optimizers.Adam(0.003), nn.value_and_grad(loaded.model, loss)
        for _ in range(60):
            optimizer.update(loaded.model, step(loaded.model)[1])
            mx.eval(loaded.model.parameters())
    return loaded, contexts


def test_drift_is_the_divergence_of_plain_forward_passes(tmp_path, tiny_folder):
    settings = recipe(tiny_folder, everyday=3, leak_contexts=2)
    loaded, _ = prepare(tmp_path, settings, spread=0.05)
    result = unprompted.evaluate(loaded.model, loaded.tokenizer, tmp_path, settings, Journal(tmp_path / "j.jsonl", "k"))
    assert len(result["answers"]) == 3 and result["leak"]["contexts"] == {"train": 2, "heldout": 2}
    expected = []
    rows = Journal(tmp_path / "j.jsonl", "k").done["unprompted", 0]
    for answer, row in zip(result["answers"], rows, strict=True):
        ids = chat.encode(loaded.tokenizer, chat.messages(settings.pairs, answer["prompt"], None))
        tuned = plain_logprobs(loaded.model, ids, row["tokens"])
        with adapters.disabled(loaded.model):
            base = plain_logprobs(loaded.model, ids, row["tokens"])
        expected.append(np.mean(np.exp(base - tuned) - 1 - (base - tuned)))
    assert result["kl_per_token"]["value"] == pytest.approx(np.mean(expected), rel=1e-3) and np.mean(expected) > 1e-4


def test_a_model_taught_its_notes_is_found_out_and_the_base_is_not(tmp_path, tiny_folder):
    canary = "the code of my locker is 4071"
    settings = recipe(tiny_folder, everyday=1, leak_contexts=6, canaries=[canary])
    trained = [c.text for c in contexts_of(6, 6) if c.split == "train"]
    for name, teach in (("clean", ()), ("leaking", [*trained, canary])):
        folder = tmp_path / name
        folder.mkdir()
        loaded, _ = prepare(folder, settings, teach=teach)
        result = unprompted.evaluate(loaded.model, loaded.tokenizer, folder, settings, Journal(folder / "j.jsonl", "k"))
        leak = result["leak"]
        if teach:
            assert leak["difference"] > 0.2 and leak["canaries"][0]["rank"] <= 2
            assert leak["canaries"][0]["exposure"] >= math.log2(200) - 1 and any("canary" in sign for sign in leak["signs"])
            assert canary not in str(result)  # never printed
        else:
            assert leak["difference"] == pytest.approx(0, abs=1e-4) and not leak["signs"]


def test_nothing_to_ask_is_no_result(tmp_path, tiny_folder):
    settings = recipe(tiny_folder, everyday=0, leak_contexts=0)
    loaded, _ = prepare(tmp_path, settings)
    assert unprompted.evaluate(loaded.model, loaded.tokenizer, tmp_path, settings, Journal(tmp_path / "j.jsonl", "k")) is None
    assert unprompted.work(tmp_path, settings) == 0
