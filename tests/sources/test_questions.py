"""Questions of data sets as they are published: GSM8K's worked answers, SVAMP's two columns, ARC's letters, MMLU's indices."""

import json

import pytest

from mipo_mlx import recipe_loading, run
from mipo_mlx.errors import UserError
from mipo_mlx.evaluation import abilities
from mipo_mlx.files import read_jsonl
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Dataset
from mipo_mlx.recipe_loading import load_recipe
from mipo_mlx.sources import questions
from mipo_mlx.text.numbers import read_number

QUIET = Reporter(quiet=True)
SETS = {
    "gsm8k": (
        [{"question": "48 and half as many?", "answer": "48 / 2 = <<48/2=24>>24\n48 + 24 = <<48+24=72>>72\n#### 72"}],
        {"question": "48 and half as many?", "answer": "72"},
    ),
    "svamp": (
        [{"Body": "Dan had $ 4 and has $ 3.", "Question": "What was the bar?", "Answer": "1.0", "Type": "Subtraction"}],
        {"question": "Dan had $ 4 and has $ 3. What was the bar?", "answer": "1"},
    ),
    "arc": (
        [{"question": "What gives a fever?", "choices": {"text": ["rest", "bacteria"], "label": ["A", "B"]}, "answerKey": "B"}],
        {"question": "What gives a fever?", "choices": ["rest", "bacteria"], "answer": 1},
    ),
    "mmlu": (
        [{"question": "2 + 2?", "subject": "x", "choices": ["3", "4", "5", "6"], "answer": 1}],
        {"question": "2 + 2?", "choices": ["3", "4", "5", "6"], "answer": 1},
    ),
}


def local(path, rows, **columns):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Dataset(name=str(path), columns=columns)


@pytest.mark.parametrize("name", SETS)
def test_the_columns_of_the_shipped_recipes_read_the_published_rows(tmp_path, name):
    rows, expected = SETS[name]
    given = recipe_loading.load(f"recipes/{name}.yaml").evaluation.abilities
    assert given.split == "test"
    copy = local(tmp_path / "copy.jsonl", rows, **given.columns)
    questions.prepare(tmp_path, copy, QUIET)
    [found] = abilities.read_questions(questions.path_in(tmp_path, copy), 5, 0)
    if "choices" in expected:
        assert found == expected
    else:
        assert found["question"] == expected["question"] and read_number(found["answer"]) == read_number(expected["answer"])


def test_numbers_from_one_name_choices_too(tmp_path):
    """A few rows of ARC are labelled 1 to 4."""
    row = {"question": "q", "choices": {"text": list("wxyz"), "label": list("1234")}, "answerKey": "3"}
    given = local(tmp_path / "c.jsonl", [row], choices="choices.text", answer="answerKey")
    questions.prepare(tmp_path, given, QUIET)
    assert read_jsonl(questions.path_in(tmp_path, given))[0]["answer"] == 2


def test_they_are_read_once_and_other_columns_are_another_file(tmp_path):
    given = local(tmp_path / "c.jsonl", [{"question": "a", "other": "b", "answer": 1}])
    questions.prepare(tmp_path, given, QUIET)
    (tmp_path / "c.jsonl").unlink()
    questions.prepare(tmp_path, given, QUIET)  # the network may be gone by now
    assert read_jsonl(questions.path_in(tmp_path, given)) == [{"question": "a", "answer": "1"}]
    other = given.model_copy(update={"columns": {"question": "other"}})
    assert questions.path_in(tmp_path, other) != questions.path_in(tmp_path, given)
    run.erase(tmp_path)
    assert not questions.path_in(tmp_path, given).exists()


@pytest.mark.parametrize(
    "row, columns, told",
    [
        ({"question": "q", "answer": "B"}, {}, "row 1: no number in 'B'; multiple choice needs columns.choices"),
        ({"question": "q", "answer": "E", "c": ["a", "b"]}, {"choices": "c"}, "row 1: the answer 'E' names none of 2 choices"),
        ({"question": "q", "answer": 2, "c": ["a", "b"]}, {"choices": "c"}, "the answer 2 names none"),
        ({"question": "q", "answer": "a b", "c": ["a", "b"]}, {"choices": "c"}, "the answer 'a b' names none"),
        ({"question": "q", "answer": 0, "c": "a, b"}, {"choices": "c"}, "columns.choices: c is no list"),
        ({"question": "q"}, {}, "no column answer"),
    ],
)
def test_rows_that_are_no_questions_end_in_one_line(tmp_path, row, columns, told):
    given = local(tmp_path / "c.jsonl", [row], **columns)
    with pytest.raises(UserError) as error:
        questions.prepare(tmp_path, given, QUIET)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_run_reads_them_when_it_begins(tmp_path, monkeypatch):
    """A data set that is not there ends the run before its notes are read."""
    path = tmp_path / "r.yaml"
    path.write_text("model: x\nsources: {notes: notes}\nevaluation: {abilities: {name: missing.jsonl}}\n")
    values = load_recipe(path, [], None)
    assert values.evaluation.abilities.name == str(tmp_path / "missing.jsonl")
    opened = run.open_run(values, "one", tmp_path / "runs", fresh=False)
    run.prepare(opened, fresh=False)
    with pytest.raises(UserError, match="missing.jsonl"):
        run.execute(opened, "report", QUIET)
    assert not (opened.folder / "contexts.jsonl").exists()


def test_a_local_copy_that_was_edited_is_read_again(tmp_path, monkeypatch):
    given = local(tmp_path / "c.jsonl", [{"question": "2 + 2?", "answer": "4"}])
    questions.prepare(tmp_path, given, QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(questions.hub, "rows", None)
        questions.prepare(tmp_path, given, QUIET)  # as it was: not read again
    local(tmp_path / "c.jsonl", [{"question": "2 + 3?", "answer": "5"}])
    questions.prepare(tmp_path, given, QUIET)
    assert read_jsonl(questions.path_in(tmp_path, given)) == [{"question": "2 + 3?", "answer": "5"}]


@pytest.mark.parametrize(
    "labels, answer, place", [(["0", "1"], "1", 1), (["1", "2"], "1", 0), (["A", "B"], "b", 1), (["1", "2"], 1, 0)]
)
def test_an_answer_is_found_by_the_label_of_its_choice(tmp_path, labels, answer, place):
    row = {"question": "?", "choices": {"text": ["x", "y"], "label": labels}, "answerKey": answer}
    given = local(tmp_path / "c.jsonl", [row], choices="choices.text", answer="answerKey")
    questions.prepare(tmp_path, given, QUIET)
    assert read_jsonl(questions.path_in(tmp_path, given))[0]["answer"] == place


def test_a_truth_value_is_no_index(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"question": "?", "choices": ["x", "y"], "answer": True}))
    with pytest.raises(UserError, match="expected question, choices and answer"):
        abilities.read_questions(path, 1, 0)
    given = local(tmp_path / "c.jsonl", [{"question": "?", "choices": ["x", "y"], "answer": True}], choices="choices")
    with pytest.raises(UserError, match="the answer True names none of 2 choices"):
        questions.prepare(tmp_path, given, QUIET)


def test_a_data_set_is_read_without_a_bar(tmp_path, capfd):
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds" / "test.jsonl").write_text(json.dumps({"question": "2 + 2?", "answer": "4"}) + "\n")
    questions.prepare(tmp_path, Dataset(name=str(tmp_path / "ds"), split="test"), QUIET)
    assert capfd.readouterr() == ("", "")
