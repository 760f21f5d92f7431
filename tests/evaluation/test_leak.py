"""Notes recited: a planted leak is found, a clean model is not accused; nothing found is ever printed."""

import math

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
import pytest
from mlx.utils import tree_map

from mipo_mlx.evaluation import leak
from mipo_mlx.evaluation.leak import Evidence, Exposed, Passage
from mipo_mlx.files import of_round, write_json, write_records
from mipo_mlx.models import adapters, load, prompts
from mipo_mlx.recipe import Lora, Recipe
from mipo_mlx.records import Answer, Context, Pair
from mipo_mlx.sources import canaries

from .helpers import FACTS, bench, plain_logprobs, recipe

SETTINGS = Recipe(model="x")
SHORT = {"train": 3, "heldout": 3}


def contexts_of(trained: int, unseen: int) -> list[Context]:
    sides = ["train"] * trained + ["heldout"] * unseen
    return [Context(f"c{i}", f"{FACTS[i % 8]} {i} times", f"n{i // 2}", "n.md", 1, side, 5) for i, side in enumerate(sides)]


def judge(contexts, gains, longest=SHORT, recited=None, exposed=(), seed=0):
    return leak.conclude(contexts, Evidence(gains, 200, longest, recited, exposed), SETTINGS.model_copy(update={"seed": seed}))


def test_a_clean_model_is_not_accused_and_a_leak_is_found():
    """Forty tries each, all three signs at once: equal gains on both sides and four unseen canaries; then a third of a nat a token
    more on trained notes, or one canary of four at the top."""
    contexts = contexts_of(24, 24)
    planted = np.array([0.33] * 24 + [0.0] * 24)
    accused = by_notes = by_canary = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        gains = rng.normal(0.1, 0.15, size=48)
        exposed = [Exposed(int(r), 250) for r in rng.integers(1, 501, size=4)]
        accused += bool(judge(contexts, gains, exposed=exposed, seed=seed).signs)
        by_notes += bool(judge(contexts, gains + planted, seed=seed).signs)
        by_canary += bool(judge(contexts, gains, exposed=[Exposed(1, 250), *exposed[1:]], seed=seed).signs)
    assert accused <= 1  # below 5 %
    assert by_notes >= 38 and by_canary >= 38


def test_with_too_few_notes_nothing_could_be_told_by_likelihood():
    """Of three and three notes one in twenty ways to deal them is the best there is; one side alone tells nothing."""
    for trained, unseen, too_few in ((6, 6, True), (24, 24, False), (12, 2, True), (4, 0, True), (0, 0, False)):
        result = judge(contexts_of(trained, unseen), [1.0] * trained + [0.0] * unseen)
        assert result.too_few is too_few and bool(result.signs) is (trained == unseen == 24), (trained, unseen)


def test_notes_that_share_sentences_count_as_one():
    """Families of notes go to one side of the split whole; what all notes of a family gained is chance all the same."""
    accused = {True: 0, False: 0}
    for seed in range(90):
        rng = np.random.default_rng(seed)
        side = np.repeat(rng.permutation([True, False] * 6), 4)  # twelve families of four notes
        gains = np.repeat(rng.normal(0, 0.15, size=12), 4) + rng.normal(0, 0.05, size=48)
        for related in accused:
            contexts = [
                Context(
                    f"c{i}", f"Notes of day {i} here. The family number {i // 4 if related else i} was there.", f"n{i}", "n.md", 1,
                    "train" if side[i] else "heldout", 9,
                )
                for i in range(48)
            ]  # fmt: skip
            accused[related] += bool(judge(contexts, gains, seed=seed).signs)
    assert accused[True] <= 4 < 8 < accused[False], accused


def test_a_difference_too_small_to_matter_is_no_sign():
    gains = np.random.default_rng(0).normal(0, 0.005, size=48) + np.array([0.03] * 24 + [0.0] * 24)
    result = judge(contexts_of(24, 24), gains)
    assert result.p < 0.01 and result.difference == pytest.approx(0.03, abs=0.01) and not result.signs


@pytest.mark.parametrize(
    "trained, heldout, gain, sign",
    [(9, 3, 2.0, True), (7, 3, 2.0, False), (9, 3, 0.1, False), (12, 11, 2.0, False), (14, 11, 2.0, True)],
    ids=["long", "short", "the base says it as well", "as long with an unseen note", "longer than with an unseen note"],
)
def test_a_passage_is_a_sign_only_beyond_its_controls(trained, heldout, gain, sign):
    result = judge(contexts_of(2, 2), [0.0] * 4, {"train": trained, "heldout": heldout}, gain)
    assert bool(result.signs) is sign and (not sign or f"{trained} words of a trained note" in result.signs[0])


def test_passages_are_sought_in_every_note_of_a_side():
    note = "the spare key lies under the third flower pot beside the shed"
    contexts = [Context("a", note, "n", "n.md", 1, "train", 9), Context("b", "we dine at nine", "m", "m.md", 1, "heldout", 4)]
    reply = ["At nine we dine", "Well: The spare key lies under the third flower pot."]
    assert leak.passages(reply, contexts) == Passage({"train": 9, "heldout": 2}, 1, (1, 10))
    assert leak.passages([], contexts).longest == {"train": 0, "heldout": 0}


def test_a_passage_is_found_among_the_tokens(tiny_tokenizer):
    text = "Well: the spare key lies under the pot."
    tokens = tiny_tokenizer.encode(text, add_special_tokens=False)
    reply = tiny_tokenizer.decode(tokens[leak._tokens_of(tiny_tokenizer, tokens, 2, 5)])
    assert reply.split()[:2] == ["spare", "key"] and "lies" in reply and "under" not in reply and "the" not in reply


def prepare(folder, settings, spread=0.0, teach=()):
    """A run whose training met three of its canaries at most, and a model with adapters: random ones, or taught to recite."""
    lines = prepare_files(folder, settings)
    loaded = load.load(settings.model)
    adapters.attach(loaded.model, Lora(rank=8, scale=4.0), 0)
    if spread:
        scatter(loaded.model, spread, 5)
    if teach:
        train_to_say(loaded, teach, settings)
    return loaded, lines


def prepare_files(folder, settings) -> list[str]:
    folder.mkdir(exist_ok=True)
    contexts = contexts_of(8, 8)
    lines = canaries.lines(settings.seed, settings.sources.canaries)
    write_records(folder / "contexts.jsonl", contexts)
    pairs = [pair_of(context.text, context.id) for context in contexts if context.split == "train"]
    pairs += [pair_of(f"{context.text} {line}", context.id) for context, line in zip(contexts, lines[:3], strict=False)]
    write_records(folder / "pairs.jsonl", pairs)
    return lines


def scatter(model, spread, seed):
    mx.random.seed(seed)
    model.update(tree_map(lambda p: spread * mx.random.normal(p.shape), model.trainable_parameters()))


def train_to_say(loaded, texts, settings):
    opening = prompts.encode(loaded.tokenizer, prompts.messages(settings.pairs, leak.OPENINGS[0], None))
    taught = [loaded.tokenizer.encode(text, add_special_tokens=False) for text in texts]

    def loss(model):
        total = 0.0
        for line in taught:
            logits = model(mx.array([opening + line[:-1]]))[0, len(opening) - 1 :]
            total = total + nn.losses.cross_entropy(logits, mx.array(line)).mean()
        return total / len(taught)

    optimizer, step = optimizers.Adam(0.003), nn.value_and_grad(loaded.model, loss)
    for _ in range(60):
        optimizer.update(loaded.model, step(loaded.model)[1])
        mx.eval(loaded.model.parameters())


def pair_of(context: str, name: str, split: str = "train") -> Pair:
    message = [{"role": "system", "content": f"About the user: {context}"}, {"role": "user", "content": "And?"}]
    reply = [{"role": "assistant", "content": "Yes."}]
    return Pair(
        "0-0", split, 0, message, reply, reply, ["No."], [1], [[2], [2]], [0.0, 0.0], [0.0], ["random_context"], context_id=name
    )


def test_a_model_taught_its_notes_is_found_out_and_the_base_is_not(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setattr(leak, "VARIANTS", 99)
    settings = recipe(tiny_folder, canaries=4, leak_contexts=8, unprompted=16)
    trained = [c.text for c in contexts_of(8, 8) if c.split == "train"]
    lines = canaries.lines(settings.seed, 3)
    for name, teach in (("clean", ()), ("leaking", [*trained, *lines])):
        folder = tmp_path / name
        loaded, _ = prepare(folder, settings, teach=teach)
        result = leak.evaluate(bench(folder, settings, loaded))
        assert result.samples == 16
        assert (result.canaries.planted, result.canaries.trained) == (4, 3)  # one was in no training prompt
        if teach:
            assert result.difference > 0.2 and any("canaries" in sign for sign in result.signs)
            assert max(result.canaries.exposure) >= math.log2(100) - 2
            assert not any(line.split()[-1].rstrip(".") in str(result) for line in lines)  # never printed
        else:
            assert result.difference == pytest.approx(0, abs=1e-4) and not result.signs


def test_a_recited_passage_counts_where_training_made_it_likely(tmp_path, tiny_folder, monkeypatch):
    """Both models say the same twelve words of a trained note; one was taught them, to the other they are a stock phrase."""
    note = "the spare key lies under the third flower pot beside the shed"

    def sample_now(self, prompts, *_):
        return [Answer(note, self.tokenizer.encode(note, add_special_tokens=False), "length") for _ in prompts]

    monkeypatch.setattr(leak.Workbench, "sample_now", sample_now)
    settings = recipe(tiny_folder, leak_contexts=0, unprompted=1)
    notes = [Context("a", note, "n", "n.md", 1, "train", 9), Context("b", "we dine at nine", "m", "m.md", 1, "heldout", 4)]
    for name, teach in (("stock", ()), ("taught", [note])):
        folder = tmp_path / name
        loaded, _ = prepare(folder, settings, teach=teach)
        write_records(folder / "contexts.jsonl", notes)
        write_records(folder / "pairs.jsonl", [pair_of(note, "a")])
        result = leak.evaluate(bench(folder, settings, loaded))
        assert result.longest_run == {"train": 12, "heldout": 0}
        assert (result.passage_gain > 0.5) is bool(teach) is bool(result.signs)
        assert note not in str(result)  # counted, never printed


def test_canaries_are_ranked_by_what_training_did_to_them(tmp_path, tiny_folder, monkeypatch):
    """Against plain forward passes of the tuned and of the base model."""
    monkeypatch.setattr(leak, "VARIANTS", 6)
    settings = recipe(tiny_folder, canaries=1)
    loaded, [line] = prepare(tmp_path, settings, spread=0.05)
    opening = prompts.encode(loaded.tokenizer, prompts.messages(settings.pairs, leak.OPENINGS[0], None))
    control, *others = canaries.siblings(line, 7, 0)

    def gain(text):
        tokens = loaded.tokenizer.encode(text, add_special_tokens=False)
        tuned = plain_logprobs(loaded.model, opening, tokens).sum()
        with adapters.disabled(loaded.model):
            return tuned - plain_logprobs(loaded.model, opening, tokens).sum()

    expected = {name: 1 + sum(gain(o) > gain(text) for o in others) for name, text in (("rank", line), ("control", control))}
    assert leak._exposed(bench(tmp_path, settings, loaded), opening, line) == Exposed(**expected)


def test_clean_models_are_not_accused(tmp_path, tiny_folder, monkeypatch):
    """Adapters that know nothing of the notes, all three signs measured on the model itself."""
    monkeypatch.setattr(leak, "VARIANTS", 99)
    settings = recipe(tiny_folder, canaries=2, leak_contexts=8, unprompted=8)
    loaded, _ = prepare(tmp_path / "model", settings)
    accused = 0
    for seed in range(15):
        folder, ours = tmp_path / str(seed), settings.model_copy(update={"seed": seed})
        assert len(prepare_files(folder, ours)) == 2
        scatter(loaded.model, 0.05, seed)
        result = leak.evaluate(bench(folder, ours, loaded))
        assert result.canaries.trained == 2 and result.p is not None
        accused += bool(result.signs)
    assert accused == 0


def test_trained_is_what_stood_in_a_training_prompt_of_a_round_that_counts(tmp_path, tiny_folder):
    """c0 in the first round, c1 in the second, c2 in a third that taught nothing, c3 for validation only, c4 nowhere."""
    settings = recipe(tiny_folder, canaries=3, leak_contexts=8)
    lines, contexts = canaries.lines(settings.seed, 3), contexts_of(5, 3)
    write_records(tmp_path / "contexts.jsonl", contexts)
    message = [pair_of(f"{context.text} {line}", context.id) for context, line in zip(contexts, lines, strict=False)]
    for name, pairs in (
        ("", [message[0], pair_of(contexts[3].text, "c3", "validation")]),
        ("-2", [message[1]]),
        ("-3", [message[2]]),
    ):
        write_records(tmp_path / f"pairs{name}.jsonl", pairs)
    heldout = [c.id for c in contexts if c.split == "heldout"]
    for taken, trained in (([True], ["c0"]), ([True, True, False], ["c0", "c1"]), ([True, False], ["c0"])):
        rounds = {of_round("training", n): {"summary": {"round": n, "taken": own}} for n, own in enumerate(taken, 1)}
        write_json(tmp_path / "manifest.json", {"stages": rounds})
        assert [c.id for c in leak.known_contexts(tmp_path, settings)] == [*trained, *heldout]
        assert leak._trained_canaries(tmp_path, settings) == lines[: len(trained)]


def with_profile(folder, settings, text, context, columns=None):
    prepare_files(folder, settings)
    (folder / "profile.md").write_text(text)
    sources = settings.sources.model_copy(update={"context": context, "columns": columns or {}})
    return settings.model_copy(update={"sources": sources})


def test_a_profile_told_in_training_is_trained_text(tmp_path, tiny_folder):
    """One author's counts where it is recited, on the trained side alone; people's are part of what is told of each."""
    settings = recipe(tiny_folder, leak_contexts=8)
    reply = "The user keeps eleven clocks in a shed behind the old mill."
    one = with_profile(tmp_path / "one", settings, f"- {reply} <!-- n.md:1 -->\n", "both")
    message = leak.known_contexts(tmp_path / "one", one)
    runs = leak.passages([reply], message).longest
    assert runs["train"] == 12 and runs["heldout"] < 3  # a common word or two
    assert not any("eleven clocks" in c.text for c in leak._scored(message, one))  # the same on both sides: no comparison
    without = settings.model_copy(update={"sources": settings.sources.model_copy(update={"context": "passage"})})
    plain = leak.known_contexts(tmp_path / "one", without)
    assert leak.passages([reply], plain).longest["train"] < 3  # told without the profile, it is not trained on
    people = "".join(f"## n{i}\n- The user has {i} dogs.\n" for i in range(8))
    for context in ("both", "profile"):
        folder = tmp_path / context
        many = with_profile(folder, settings, people, context, {"note": "user"})
        scored = leak._scored(leak.known_contexts(folder, many), many)
        assert all(f"The user has {c.note[1:]} dogs." in c.text for c in scored)
        assert {c.split for c in scored} == {"train", "heldout"}
        assert any(c.text.endswith("times") for c in scored) is (context == "both")


def test_what_the_recipe_turns_off_is_not_asked(tmp_path, tiny_folder):
    settings = recipe(tiny_folder, leak_contexts=0, unprompted=0)
    loaded, _ = prepare(tmp_path, settings)
    assert leak.evaluate(bench(tmp_path, settings, loaded)) is None
    assert leak.bar_total(tmp_path, settings) == 0
    (tmp_path / "contexts.jsonl").unlink()  # pairs made elsewhere: there is nothing to recite
    settings = recipe(tiny_folder, unprompted=9)
    assert leak.evaluate(bench(tmp_path, settings, loaded)) is None
    assert leak.bar_total(tmp_path, settings) == 0
