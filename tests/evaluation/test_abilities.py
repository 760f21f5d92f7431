"""Numbers as people write them, and known answers judged against plain forward passes."""

import json
from fractions import Fraction

import numpy as np
import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.evaluation import abilities
from mipo_mlx.evaluation.workbench import Workbench
from mipo_mlx.files import read_json, read_jsonl
from mipo_mlx.models import adapters, load
from mipo_mlx.models import prompts as chat
from mipo_mlx.progress import Reporter
from mipo_mlx.records import Answer
from mipo_mlx.sources.note import Tally
from mipo_mlx.text.numbers import read_number

from .helpers import bench, make_run, plain_logprobs, recipe


@pytest.mark.parametrize(
    "text, value",
    [
        ("She sold 48 in April and 24 in May: 48 + 24 = 72.\n#### 72", "72"),
        ("#### 70,000", "70000"),
        ("It costs $1,234,567.50 in all.", "1234567.5"),
        ("The answer is -3.", "-3"),
        ("The temperature is \u22123 degrees", "-3"),
        ("5-3", "3"),
        ("5 - 3 = 2", "2"),
        ("so half of it, 1/2", "1/2"),
        ("They need 2 1/2 hours", "5/2"),
        ("He walks 3.5 km", "3.5"),
        ("about .25 of them", "0.25"),
        ("That is 15% of it", "15"),
        ("First 3, then 4, then 12 apples.", "12"),
        ("The answer is: **18**", "18"),
        ("\\boxed{42}", "42"),
        ("answer = 10 because 3 of 7", "10"),
        ("x = y, so it is 9", "9"),
        ("on 1/2/2020 and 7", "7"),
        ("8/0", None),
        ("48 + 24 = 72 clips (48 in April, 24 in May)", "72"),
        ("48 + 24 = 72. She gives away 10, which leaves 62.", "62"),
        ("To answer this question, we add: 3 + 4 = 7 apples.", "7"),
        ("The answer is 3 + 4 = 7.", "7"),
        ("**Answer**: 3/4 cup", "3/4"),
        ("The answer to the 2nd question is 9 kg, not 8.", "9"),
        ("The answer is:\n\n18", "18"),
        ("\\boxed{\\frac{1}{2}}", "1/2"),
        ("It is \\boxed{70{,}000}.", "70000"),
        ("that takes 2\u00bd hours", "5/2"),
        ("-\u00bd", "-1/2"),
        ("It costs 7.50 $.", "7.5"),
        ("90km/h", "90"),
        ("-20\u00b0C", "-20"),
        ("the total is -$1,200", "-1200"),
        ("#### 18\nNote: 3 of them are eggs", "18"),
        ("#### Step 1\nShe buys 4.\n#### Step 2\nSo 15 are left.", "15"),
        ("#### 1. Eggs\nHe has 16.\n\n#### 2. Sales\nHe earns 18.", "18"),
        ("#### Step 1\n2 + 3 = 5\n#### 12", "12"),
        ("#### 18.", "18"),
        ("#### $12 in all", "12"),
        ("#### - 3", "-3"),
        ("Answer: She earns 5 dollars an hour for 4 hours, so $20", "20"),
        ("**Answer:** She earns 5 an hour.\nShe works 4 hours.\nSo she has $20.\n\nAsk 1 more question!", "20"),
        ("Answer: about 20 km, not 19", "20"),
        ("The answer is that Tom has 12 apples, 5 of them red.", "12"),
        ("Answer: 20 - 5, so she has 15", "15"),
        ("20 - 5", "5"),
        ("20 \u2212 5", "5"),
        ("20 \u2013 5", "5"),
        ("(2 + 3) - 5", "5"),
        ("x = - 5", "-5"),
        ("Left over:\n- 5 apples", "5"),
        ("The temperature is \u20133 degrees", "-3"),
        ("3\u20135 apples", "5"),
        ("\\frac12", "1/2"),
        ("-\\frac{1}{2}", "-1/2"),
        ("\\boxed{2\\dfrac34}", "11/4"),
        ("\\boxed{10\\,000}", "10000"),
        ("It costs 10 000 dollars.", "10000"),
        ("It costs 1\u202f234\u202f567.5 dollars.", "2469135/2"),
        ("He needs 5 100-gram bags", "100"),
        ("She walks 3,5 km.", "3.5"),
        ("It weighs 0,125 kg.", "0.125"),
        ("Es kostet 1.234,50 Euro.", "1234.5"),
        ("The point is (3,5).", "3"),
        ("That is 1.5e3 m.", "1500"),
        ("It is 2E-2", "0.02"),
        ("It is " + "1" * 5000, None),
        ("It has 1.234.567 people.", "1234567"),
        ("#### 1.000.000", "1000000"),
        ("Es kostet 1.234.567,89 Euro.", "123456789/100"),
        ("It costs 12 345,67 euros.", "1234567/100"),
        ("The answer is 1'000", "1000"),
        ("The answer is 12\u2019345.5", "24691/2"),
        ("It costs 1,50,000 rupees.", "150000"),
        ("The primes are 2, 3, 5.", "5"),
        ("\\boxed{1.5 \\times 10^3}", "1500"),
        ("\\boxed{3 \\cdot 10^{-2}}", "3/100"),
        ("#### 10^6", "1000000"),
        ("#### 3 \u00d7 10^4", "30000"),
        ("#### 3 \u00d7 10", "10"),
        ("so 2 * 10^3 metres", "2000"),
        ("Answer: In 5 years, he will be 20.", "20"),
        ("Answer: In 5 years, not 6", "5"),
        ("Answer: in 20 minutes", "20"),
        ("none at all", None),
        ("", None),
    ],
)
def test_a_number_is_read_as_a_person_would(text, value):
    assert read_number(text) == (None if value is None else Fraction(value))


def test_every_answer_of_gsm8k_and_svamp_is_read(shared_data):
    for name in ("gsm8k", "svamp"):
        for row in read_jsonl(shared_data / f"{name}.jsonl")[:500]:
            assert read_number(f"So it is done.\n#### {row['answer']}") == Fraction(str(row["answer"]).replace(",", ""))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_choices_are_judged_by_their_mean_logprob(tmp_path, tiny_folder):
    settings = recipe(tiny_folder)
    folder = make_run(tmp_path / "run", settings, spread=0.05)
    loaded = load.load(settings.model)
    model = adapters.load(loaded.model, folder / "adapters")
    rows = [{"question": f"What is {i}?", "choices": ["bread", "my garden", "a nurse"], "answer": i % 3} for i in range(7)]
    result = abilities.evaluate(bench(tmp_path, settings, loaded), rows)

    def share() -> float:
        hits = 0
        for row in rows:
            ids = chat.encode(loaded.tokenizer, [{"role": "user", "content": row["question"]}])
            tokens = [loaded.tokenizer.encode(c, add_special_tokens=False) for c in row["choices"]]
            hits += int(np.argmax([plain_logprobs(model, ids, t).mean() for t in tokens])) == row["answer"]
        return hits / len(rows)

    assert result.metrics["ability"].after.value == pytest.approx(share())
    other = [{**row, "choices": row["choices"][: 2 + (i < 3)]} for i, row in enumerate(rows) if row["answer"] < 2]
    again = abilities.evaluate(bench(tmp_path, settings, loaded).keyed_by("other"), other)
    shared = set(result.items.keys) & set(again.items.keys)
    assert len(shared) == 2  # the two of the first three: a question with other choices is another case for `compare`
    with adapters.disabled(model):
        assert result.metrics["ability"].before.value == pytest.approx(share())


def test_numbers_are_generated_and_read(tmp_path, tiny_folder, monkeypatch):
    settings = recipe(tiny_folder)
    folder = make_run(tmp_path / "run", settings)
    loaded = load.load(settings.model)
    adapters.load(loaded.model, folder / "adapters")
    questions = []

    def sample_now(self, prompts, purpose, settings):
        questions.append((settings.temperature, settings.max_tokens))
        assert all("End with a line of #### and the number." in self.tokenizer.decode(prompt) for prompt in prompts)
        return [Answer(text, [], "stop") for text in ("It is 1,000 in all", "no idea", "It is 3")[: len(prompts)]]

    monkeypatch.setattr(Workbench, "sample_now", sample_now)
    rows = [{"question": "a", "answer": "1000"}, {"question": "b", "answer": 2}, {"question": "c", "answer": 4}]
    result = abilities.evaluate(bench(tmp_path, settings, loaded), rows)
    assert result.metrics["ability"].after.value == pytest.approx(1 / 3)
    assert questions == [(0.0, abilities.WORKING)] * 2  # greedy: the base, then the trained model


def test_the_recipe_names_the_questions_and_how_many(tmp_path, tiny_folder):
    path = write(tmp_path / "q.jsonl", [{"question": f"q{i}", "choices": ["a", "b"], "answer": 0} for i in range(9)])
    from mipo_mlx.evaluation import evaluate

    for count, expected in ((4, 4), (100, 9)):
        settings = recipe(tiny_folder, abilities=str(path), abilities_questions=count, answers=2)
        folder = make_run(tmp_path / str(count), settings)
        summary = evaluate.run(folder, settings, Reporter(quiet=True))
        assert read_json(folder / "eval.json")["abilities"]["questions"] == expected and "ability" in summary


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"question": "q"}', ":1: expected question, choices and answer"),
        ('{"question": "q", "choices": ["a"], "answer": 1}', ":1: expected"),
        ('{"question": "q", "answer": "many"}', ":1: expected"),
        ('{"question": "q", "choices": ["a", null], "answer": 0}', ":1: expected"),
        ('{"question": "q", "choices": [["a"], 3], "answer": 0}', ":1: expected"),
        ('{"question": "q", "ans', ":1: broken JSON"),
        ("[1]", ":1: expected"),
        ("", "no question in this file"),
    ],
)
def test_a_file_of_something_else_ends_in_one_line(tmp_path, line, message):
    path = tmp_path / "q.jsonl"
    path.write_text(line + "\n" if line else "")
    with pytest.raises(UserError, match="evaluation.abilities") as error:
        abilities.read_questions(path, 5, 0)
    assert message in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="no such file"):
        abilities.read_questions(tmp_path / "missing.jsonl", 5, 0)


def test_a_broken_question_costs_itself(tmp_path):
    path, tally = tmp_path / "q.jsonl", Tally()
    broken = b'{"quest\n[1]\n{"question": "f\xfcr"}\n'
    path.write_bytes(b'{"question": "2 + 2?", "answer": 4}\n' + broken + b'{"question": "3 + 3?", "answer": 6}\n')
    assert [row["answer"] for row in abilities.read_questions(path, 5, 0, tally)] == [4, 6]
    assert [row["file"] for row in tally.skipped] == [f"{path}:2", f"{path}:3", f"{path}:4"]
    assert tally.skipped[0]["why"].startswith("broken JSON") and tally.skipped[2]["why"] == "not text in UTF-8"


def test_a_file_as_editors_write_it_is_read_whole(tmp_path):
    path = tmp_path / "q.jsonl"
    rows = [{"question": f"{n} plus 1?", "answer": n + 1} for n in range(3)]
    path.write_text("\ufeff" + "\r\n\r\n".join(json.dumps(row) for row in rows), encoding="utf-8")  # no last newline
    assert abilities.read_questions(path, 5, 0) == rows
    path.write_text('{"question": "2 + 2?", "choices": [3, 4.5, "four"], "answer": 2}')
    assert len(abilities.read_questions(path, 5, 0)) == 1
