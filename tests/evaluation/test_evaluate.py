"""The stage on a tiny model: figures against plain forward passes, resume, and what each recipe key changes."""

import io
import json
import math
import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from mipo_mlx.engine import logprobs
from mipo_mlx.errors import UserError
from mipo_mlx.evaluation import answers, evaluate, judge, requests, workbench
from mipo_mlx.evaluation.requests import Answered
from mipo_mlx.files import read_json, read_jsonl, read_records, write_jsonl, write_records
from mipo_mlx.models import adapters, embedding, load, prompts
from mipo_mlx.models.prompts import PromptBuilder
from mipo_mlx.progress import Reporter
from mipo_mlx.records import Answer, Context, Pair

from .helpers import ASKED, bench, make_run, plain_logprobs, recipe, write_adapters

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_folder):
    """A run evaluated once; tests that change it make their own."""
    settings = recipe(tiny_folder)
    folder = make_run(tmp_path_factory.mktemp("run"), settings, spread=0.05)
    evaluate.run(folder, settings, QUIET)
    return folder, settings


def test_heldout_figures_equal_a_plain_computation(finished):
    folder, settings = finished
    model = adapters.load(load.load(settings.model).model, folder / "adapters")
    losses, right = [], []
    for pair in read_records(folder / "pairs.jsonl", Pair):
        policy = [plain_logprobs(model, pair.prompt_tokens, tokens).sum() for tokens in pair.tokens]
        chosen, rejected = (0.1 * (p - r) for p, r in zip(policy, pair.reference, strict=True))
        losses.append(math.log(1 + math.exp(rejected - chosen)))
        right.append(chosen > rejected)
    metrics = read_json(folder / "eval.json")["heldout"]["metrics"]
    assert metrics["loss"]["after"]["value"] == pytest.approx(np.mean(losses), abs=1e-4)
    assert metrics["accuracy"]["after"]["value"] == pytest.approx(np.mean(right))
    assert metrics["information"]["after"]["value"] == pytest.approx(math.log(2) - np.mean(losses), abs=1e-4)
    assert metrics["loss"]["before"] == {"value": pytest.approx(math.log(2)), "interval": pytest.approx([math.log(2)] * 2)}


def test_no_prompt_runs_for_its_scores_alone(finished, tmp_path, monkeypatch):
    """Scores of held-out pairs and of fresh answers go on from kept keys and values, which equal those of a plain pass."""
    folder, settings = finished
    recorded, original = {}, logprobs.token_logprobs

    def watched(model, prompts, answers, **more):
        recorded.update({tuple(prompt): more.get("recorded") is not None for prompt in prompts})
        return original(model, prompts, answers, **more)

    monkeypatch.setattr(logprobs, "token_logprobs", watched)
    again = make_run(tmp_path, settings, spread=0.05)
    evaluate.run(again, settings, QUIET)
    loaded = load.load(settings.model)
    groups = requests.groups_of(folder, settings, PromptBuilder(loaded.tokenizer, settings.pairs))
    expected = [pair.prompt_tokens for pair in read_records(folder / "pairs.jsonl", Pair)]
    expected += [prompt for group in groups for prompt in group.prompts]
    assert len(expected) == 16 and all(recorded[tuple(prompt)] for prompt in expected)
    monkeypatch.setattr(evaluate, "Beginnings", lambda *_: None)
    shutil.rmtree(again)
    evaluate.run(make_run(again, settings, spread=0.05), settings, QUIET)
    for mine, plain in zip(read_jsonl(folder / "eval-samples.jsonl"), read_jsonl(again / "eval-samples.jsonl"), strict=True):
        if "pairs" in mine.get("phase", "") or "score" in mine.get("phase", ""):
            assert np.allclose(np.concatenate(flat(mine["results"])), np.concatenate(flat(plain["results"])), atol=1e-4)


def flat(rows: list) -> list:
    """The innermost lists of numbers."""
    return [rows] if rows and not isinstance(rows[0], list) else [inner for row in rows for inner in flat(row)]


def test_beginnings_are_those_of_each_model(finished):
    folder, settings = finished
    loaded = load.load(settings.model)
    model = adapters.load(loaded.model, folder / "adapters")
    pairs = read_records(folder / "pairs.jsonl", Pair)
    prompts, answers_of = [pair.prompt_tokens for pair in pairs], [pair.tokens for pair in pairs]
    shared = workbench.Beginnings(model, requests.labelled(pairs, [], []))
    by_side = {}
    for side in workbench.SIDES:
        with nullcontext() if side == "tuned" else adapters.disabled(model):
            by_side[side] = logprobs.token_logprobs(model, prompts, answers_of, recorded=shared.recorded(side, prompts))
            plain = [[plain_logprobs(model, pair.prompt_tokens, tokens) for tokens in pair.tokens] for pair in pairs]
        assert np.allclose(np.concatenate(sum(by_side[side], [])), np.concatenate(sum(plain, [])), atol=2e-3)
    assert not np.allclose(np.concatenate(sum(by_side["base"], [])), np.concatenate(sum(by_side["tuned"], [])), atol=2e-3)
    assert shared.recorded("base", [[1, 2, 3]]) is None  # not one of these prompts


def test_scores_of_fresh_answers_equal_plain_forward_passes(finished, tmp_path):
    folder, settings = finished
    loaded = load.load(settings.model)
    model = adapters.load(loaded.model, folder / "adapters")
    groups = requests.groups_of(folder, settings, PromptBuilder(loaded.tokenizer, settings.pairs))
    questions = requests.answer(bench(tmp_path, settings, loaded), groups)
    assert len(questions) == 8
    one = questions[3]
    for prompt, row in zip(one.group.prompts, one.tuned.tuned, strict=True):
        assert row == pytest.approx(plain_logprobs(model, prompt, one.tuned.answer.tokens).tolist(), abs=2e-3)
    with adapters.disabled(model):
        for side in (one.base, one.tuned):
            expected = plain_logprobs(model, one.group.prompts[one.own], side.answer.tokens)
            assert side.base[one.own] == pytest.approx(expected.tolist(), abs=2e-3)
    # The file's perplexity of the base's answers, from plain forward passes alone.
    with adapters.disabled(model):
        nats = -sum(plain_logprobs(model, a.group.prompts[a.own], a.base.answer.tokens).sum() for a in questions)
    fresh = read_json(folder / "eval.json")["fresh"]
    perplexity = fresh["metrics"]["perplexity"]["before"]["value"]
    assert perplexity == pytest.approx(math.exp(nats / sum(a.base.length for a in questions)), rel=1e-3)

    # Identification, information, PMI and log-ratio of the trained model's answers, from the same passes.
    def sums(a) -> np.ndarray:
        return np.array([plain_logprobs(model, prompt, a.tuned.answer.tokens).sum() for prompt in a.group.prompts])

    by_tuned = [sums(a) for a in questions]
    with adapters.disabled(model):
        by_base = [sums(a) for a in questions]
    own, metrics = [a.own for a in questions], fresh["metrics"]
    hits = np.mean([np.argmax(s) == i for s, i in zip(by_tuned, own, strict=True)])
    assert metrics["identified_2"]["after"]["value"] == pytest.approx(hits)
    nats = np.mean([math.log(2) + s[i] - np.logaddexp(*s) for s, i in zip(by_tuned, own, strict=True)])
    assert metrics["answer_information_2"]["after"]["value"] == pytest.approx(nats, abs=1e-3)
    pmi = sum(s[i] - s[1 - i] for s, i in zip(by_base, own, strict=True)) / sum(a.tuned.length for a in questions)
    assert metrics["pmi_per_token"]["after"]["value"] == pytest.approx(pmi, abs=1e-3)
    ratio = np.mean([t[i] - b[i] for t, b, i in zip(by_tuned, by_base, own, strict=True)])
    assert fresh["log_ratio_per_answer"]["value"] == pytest.approx(ratio, abs=1e-3) and abs(ratio) > 1e-3


def test_groups_ask_about_every_context_equally_often_and_never_mix_one_note(finished, tiny_tokenizer):
    folder, settings = finished
    groups = requests.groups_of(folder, settings, PromptBuilder(tiny_tokenizer, settings.pairs))
    assert [g.wanted for g in groups] == [2, 2, 2, 2] and len({g.requests[0] for g in groups}) == 4
    assert sorted(n for g in groups for n in g.notes) == [f"n{i}" for i in range(8)]
    most = recipe(settings.model, choices=[8], answers=24)
    all_notes = requests.groups_of(folder, most, PromptBuilder(tiny_tokenizer, most.pairs))
    assert all(len(set(g.notes)) == 8 for g in all_notes)  # answers are told apart among all notes, and each is asked three times
    assert sorted(note for g in all_notes for note in g.notes[: g.wanted]) == sorted([f"n{i}" for i in range(8)] * 3)
    more = recipe(settings.model, choices=[4], answers=5)
    four = requests.groups_of(folder, more, PromptBuilder(tiny_tokenizer, more.pairs))
    assert [g.wanted for g in four] == [2, 2, 1] and all(len(set(g.notes)) == 4 for g in four)


def test_contexts_beyond_the_window_lose_their_end_and_never_the_request(tmp_path, tiny_folder):
    """The model's window is 72 tokens and answers take 6: half of the contexts do not fit."""
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 72}))
    settings = recipe(model)
    folder = make_run(tmp_path / "run", settings, spread=0.05)
    contexts = read_records(folder / "contexts.jsonl", Context)
    long = [replace(c, text=c.text + " I mend clocks." * 20 * (i % 2)) for i, c in enumerate(contexts)]
    write_records(folder / "contexts.jsonl", long)
    output = io.StringIO()
    evaluate.run(folder, settings, Reporter(stream=output))
    assert "4 contexts were cut to fit the model's window of 66 prompt tokens" in output.getvalue()
    loaded = load.load(str(model))
    ask = PromptBuilder(loaded.tokenizer, settings.pairs, 66)
    for group in requests.groups_of(folder, settings, ask):
        for context, tokens in zip(group.contexts, group.prompts, strict=True):
            message, request = loaded.tokenizer.decode(tokens).split("<|im_end|>")[:2]
            message = message.partition("About the user: ")[2]
            assert len(tokens) <= 66 and request.endswith(group.requests[0])
            assert message == context if "clocks. I" not in context else message and context.startswith(message)


def test_adapters_without_effect_change_nothing(tmp_path, tiny_folder):
    """A model compared with itself: equal answers, a win rate of one half, intervals that cover 0."""
    settings = recipe(tiny_folder, answers=16)
    folder = make_run(tmp_path, settings)
    summary = evaluate.run(folder, settings, QUIET)
    result = read_json(folder / "eval.json")
    assert result["heldout"]["metrics"]["accuracy"]["after"] == {"value": 0.5, "interval": [0.5, 0.5]}
    assert summary["accuracy"] == {"before": 0.5, "after": 0.5, "interval": [0.5, 0.5]}
    assert summary["verdict"].startswith("No effect can be shown") and summary["comparisons_won"]["after"] == 0.5
    for part in ("heldout", "fresh"):
        for name, measure in result[part]["metrics"].items():
            assert measure["change"]["value"] == pytest.approx(0, abs=1e-4), name
            if measure["change"]["interval"]:
                low, high = measure["change"]["interval"]
                assert low <= 1e-4 and high >= -1e-4, name
    assert result["fresh"]["log_ratio_per_answer"]["value"] == pytest.approx(0, abs=1e-4)
    assert all(e["base"]["text"] == e["tuned"]["text"] for e in result["gallery"])


def test_a_killed_evaluation_ends_with_the_same_bytes(finished, tmp_path, monkeypatch):
    """Killed after each number of finished chunks, with a torn last line."""
    folder, settings = finished
    whole = (folder / "eval.json").read_bytes()
    lines = (folder / "eval-samples.jsonl").read_bytes().splitlines(keepends=True)
    again = make_run(tmp_path, settings, spread=0.05)
    computed = []
    original = requests.score_group
    monkeypatch.setattr(requests, "score_group", lambda *args: computed.append(1) or original(*args))
    for kept in (0, 5, 9, len(lines) - 1):
        (again / "eval.json").unlink(missing_ok=True)
        (again / "eval-samples.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        computed.clear()
        evaluate.run(again, settings, QUIET)
        assert (again / "eval.json").read_bytes() == whole
        assert (again / "eval-samples.jsonl").read_bytes() == b"".join(lines)
        # 1 line of key, 1 of pairs, 2 + 2 of samples, then 8 groups of scores, then what is asked without a context
        assert len(computed) == min(8, max(0, 14 - kept))
    computed.clear()
    evaluate.run(again, settings, QUIET)
    assert not computed  # complete: nothing is computed again


def test_other_adapters_start_the_evaluation_over(finished, tmp_path, tiny_folder):
    settings = recipe(tiny_folder)
    folder = make_run(tmp_path, settings, spread=0.05)
    evaluate.run(folder, settings, QUIET)
    first = read_json(folder / "eval.json")
    write_adapters(folder, settings, 0.1)
    evaluate.run(folder, settings, QUIET)
    second = read_json(folder / "eval.json")
    assert first["key"] != second["key"]
    assert first["heldout"]["metrics"]["loss"]["after"] != second["heldout"]["metrics"]["loss"]["after"]


@pytest.mark.parametrize(
    "changes, kept",
    [
        ({"examples": 1, "gallery": 2, "bootstrap": 300}, True),
        ({"embedding_judge": False}, True),
        ({"everyday": 0}, True),
        ({"answers": 6}, False),
    ],
)
def test_samples_stay_where_only_what_is_computed_from_them_changes(finished, tmp_path, monkeypatch, changes, kept):
    folder, settings = finished
    again = shutil.copytree(folder, tmp_path / "run")
    if kept:
        monkeypatch.setattr(workbench.Workbench, "sample_now", None)  # nothing is sampled again
    evaluate.run(again, recipe(settings.model, **changes), QUIET)
    journals = [(place / "eval-samples.jsonl").read_bytes() for place in (folder, again)]
    assert (journals[0] == journals[1]) == kept
    results = [read_json(place / "eval.json") for place in (folder, again)]
    assert results[0]["key"] != results[1]["key"]


def test_another_beta_is_another_evaluation_of_the_same_samples(finished):
    folder, settings = finished
    other = settings.model_copy(update={"training": settings.training.model_copy(update={"beta": 0.3})})
    assert evaluate.samples_key(folder, other) == evaluate.samples_key(folder, settings)
    assert evaluate.fingerprint(folder, other) != evaluate.fingerprint(folder, settings)


def test_a_wrong_path_costs_no_samples(finished, tmp_path):
    folder, settings = finished
    again = shutil.copytree(folder, tmp_path / "run")
    with pytest.raises(UserError, match="no such file"):
        evaluate.run(again, recipe(settings.model, abilities=str(tmp_path / "typo.jsonl")), QUIET)
    for name in ("eval.json", "eval-samples.jsonl"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_an_unfinished_run_ends_in_one_line(tmp_path, tiny_folder):
    with pytest.raises(UserError, match="training has not finished") as error:
        evaluate.run(tmp_path, recipe(tiny_folder), QUIET)
    assert "\n" not in str(error.value) and "mipo-mlx train" in str(error.value)


def test_a_run_without_heldout_pairs_ends_in_one_line(tmp_path, tiny_folder):
    settings = recipe(tiny_folder)
    folder = make_run(tmp_path, settings)
    rows = [{**row, "split": "train"} for row in read_jsonl(folder / "pairs.jsonl")]
    write_jsonl(folder / "pairs.jsonl", rows)
    with pytest.raises(UserError, match="no held-out pairs"):
        evaluate.run(folder, settings, QUIET)


def test_a_small_heldout_set_says_so_in_place_of_an_interval(tmp_path, tiny_folder):
    settings = recipe(tiny_folder)
    folder = make_run(tmp_path, settings, spread=0.05)
    write_jsonl(folder / "pairs.jsonl", read_jsonl(folder / "pairs.jsonl")[:3])
    write_jsonl(folder / "contexts.jsonl", read_jsonl(folder / "contexts.jsonl")[:1])
    stream = io.StringIO()
    summary = evaluate.run(folder, settings, Reporter(stream=stream))
    assert summary["accuracy"]["interval"] is None
    assert summary["verdict"].startswith("Not shown: there are no fresh answers")
    assert "no interval for pairs: too few held-out groups" in stream.getvalue()
    assert "no fresh answers" in stream.getvalue() and read_json(folder / "eval.json")["fresh"] is None


def test_pairs_made_elsewhere_are_enough(tmp_path, tiny_folder):
    """No contexts.jsonl and no prompts.jsonl: the groups come from the pairs."""
    settings = recipe(tiny_folder)
    folder = make_run(tmp_path, settings, spread=0.05)
    rows = [{**row, "grid": row["grid"] // 2} for row in read_jsonl(folder / "pairs.jsonl")]
    write_jsonl(folder / "pairs.jsonl", rows)
    for name in ("contexts.jsonl", "prompts.jsonl"):
        (folder / name).unlink()
    evaluate.run(folder, settings, QUIET)
    result = read_json(folder / "eval.json")
    assert result["fresh"]["answers"] == 8 and result["gallery"][0]["context"] == "About the user: I keep bees."


def test_every_key_of_the_recipe_changes_the_outcome(tmp_path, tiny_folder):
    def outcome(**changes) -> tuple[dict, str]:
        settings = recipe(tiny_folder, **changes)
        folder = make_run(tmp_path / "-".join(changes), settings, spread=0.05)
        stream = io.StringIO()
        evaluate.run(folder, settings, Reporter(stream=stream))
        return read_json(folder / "eval.json"), stream.getvalue()

    result, message = outcome(examples=1)
    assert message.count("Asked:") == 1 and len(result["gallery"]) == 8
    assert outcome(examples=2)[1].count("Asked:") == 2
    assert len(outcome(gallery=3)[0]["gallery"]) == 3
    assert outcome(answers=4)[0]["fresh"]["answers"] == 4
    assert len(result["unprompted"]["answers"]) == 1
    assert result["leak"]["contexts"] == {"train": 0, "heldout": 1} and result["leak"]["samples"] == 2
    alone = outcome(everyday=2, leak_contexts=3, unprompted=5)[0]
    assert len(alone["unprompted"]["answers"]) == 2
    assert alone["leak"]["contexts"] == {"train": 0, "heldout": 3} and alone["leak"]["samples"] == 5
    assert result["preferences"]["questions"] == 2 and result["preferences"]["metrics"]["preferences"]["after"]["value"] is not None
    assert outcome(preferences=3)[0]["preferences"]["questions"] == 3 and outcome(preferences=0)[0]["preferences"] is None
    among, reply = outcome(choices=[32, 2, 4, 16])
    assert among["fresh"]["choices"] == [2, 4] and "identified_4" in among["fresh"]["metrics"]  # eight notes cannot be sixteen
    assert among["fresh"]["choices_left_out"] == [16, 32] and reply.count("evaluation.choices: 16, 32 left out") == 1
    assert result["fresh"]["choices_left_out"] == [] and "evaluation.choices" not in message
    more = outcome(bootstrap=900)[0]
    assert more["heldout"]["metrics"]["loss"]["after"]["interval"] != result["heldout"]["metrics"]["loss"]["after"]["interval"]


def test_the_embedding_judge_is_used_where_it_is_installed_and_asked_for(tmp_path, tiny_folder, monkeypatch):
    """A stand-in for the package: an embedder that knows an answer by its length alone."""

    class Lengths:
        def __init__(self, folder) -> None:
            assert folder == tmp_path

        def __call__(self, texts):
            return np.array([[math.cos(len(t)), math.sin(len(t))] for t in texts])

    monkeypatch.setattr(embedding, "MiniLM", Lengths)
    result = {}
    for wanted, there in ((True, tmp_path), (False, tmp_path), (True, None)):
        monkeypatch.setattr(embedding, "installed", lambda there=there: there)
        settings = recipe(tiny_folder, embedding_judge=wanted)
        folder = make_run(tmp_path / f"{wanted}-{there is None}", settings, spread=0.05)
        evaluate.run(folder, settings, QUIET)
        result[wanted, there] = "identified_by_embedding_2" in read_json(folder / "eval.json")["fresh"]["metrics"]
    assert result == {(True, tmp_path): True, (False, tmp_path): False, (True, None): False}


def test_shaded_words_join_to_the_answer(finished):
    folder, _ = finished
    for example in read_json(folder / "eval.json")["gallery"]:
        for side in ("base", "tuned"):
            assert "".join(piece for piece, _ in example[side]["words"]).strip() == example[side]["text"]


def test_without_contexts_every_answer_is_read_against_its_own_question(tmp_path, tiny_folder):
    """A run of random_prompt alone: rows of a grid ask different questions, and nothing is told about a user."""
    settings = recipe(tiny_folder)
    folder = make_run(tmp_path, settings, spread=0.05)
    loaded = load.load(settings.model)
    changed = []
    for number, pair in enumerate(read_records(folder / "pairs.jsonl", Pair)):
        messages = prompts.messages(settings.pairs, f"{ASKED[number % 4]} {number}", None)
        questions = {"prompt": messages, "prompt_tokens": prompts.encode(loaded.tokenizer, messages)}
        named = {"prompt_id": f"p{number}", "context_id": None, "wrong_context_ids": [None], "kinds": ["random_prompt"]}
        changed.append(replace(pair, grid=number // 2, **questions, **named))
    write_records(folder / "pairs.jsonl", changed)
    (folder / "contexts.jsonl").unlink()
    groups = requests.groups_of(folder, settings, PromptBuilder(loaded.tokenizer, settings.pairs))
    rows = [(id_, prompt, tokens) for g in groups for id_, prompt, tokens in zip(g.request_ids, g.requests, g.prompts, strict=True)]
    assert rows == [(p.prompt_id, p.prompt[-1]["content"], p.prompt_tokens) for p in changed]
    assert {context for g in groups for context in g.contexts} == {""} and all(g.apart == g.requests for g in groups)
    evaluate.run(folder, settings, QUIET)
    result = read_json(folder / "eval.json")
    assert "fit the request better" in result["verdict"] and result["heldout"]["contexts"] == 0
    assert result["fresh"]["requests"] == 8 and result["fresh"]["apart_by"] == "request"
    assert not {"parroting", "quotes_context", "role_confusion"} & set(result["fresh"]["metrics"])
    assert [(e["request"], e["context"]) for e in result["gallery"]][:2] == [(f"{ASKED[0]} 0", ""), (f"{ASKED[2]} 2", "")]
    assert judge.opening(Answered(groups[1], 1, None, None)) == f"The user asked: {ASKED[3]} 3\n\n"


class Spelled:
    """A tokenizer of whole pieces of text."""

    def __init__(self, *pieces):
        self.pieces = pieces

    def decode(self, tokens, skip_special_tokens=False):
        return "".join(self.pieces[token] for token in tokens)


@pytest.mark.parametrize(
    "pieces, cut",
    [
        (["I", " ke", "ep", " bees."], ["I", " keep", " bees."]),
        (["\u6211", "\u517b", "\u871c\u8702", "\u3002", "\u597d"], ["\u6211", "\u517b", "\u871c\u8702\u3002", "\u597d"]),
        (["\u6211", "use", " MLX", "\u5427"], ["\u6211", "use", " MLX", "\u5427"]),
        (["\u0e17", "\u0e35", "\u0e48", "\u0e19"], ["\u0e17\u0e35\u0e48", "\u0e19"]),  # vowel and tone stand over their consonant
    ],
)
def test_scripts_without_spaces_are_cut_too(pieces, cut):
    row = [0.0] * len(pieces)
    scored = requests.Scored(Answer("".join(pieces), list(range(len(pieces))), "length"), [row, row], [])
    assert [piece for piece, _ in answers.shaded(Spelled(*pieces), scored, 0)] == cut
