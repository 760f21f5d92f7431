"""Two runs on the items that they share: paired, over contexts and seeds."""

import numpy as np
import pytest

from mipo_mlx.errors import Failure, UserError
from mipo_mlx.evaluation import answers, heldout, outcome
from mipo_mlx.evaluation.compare import Comparison, compare, show
from mipo_mlx.evaluation.outcome import Heldout
from mipo_mlx.evaluation.requests import Answered, Group, Scored
from mipo_mlx.evaluation.statistics import Form, Measures, Resampler
from mipo_mlx.files import read_json, write_json
from mipo_mlx.recipe import Evaluation, Recipe
from mipo_mlx.records import Answer, Pair


def write_eval(folder, values, weights=None, keys=None, transform="mean", relative=False, groups=None):
    keys = keys or [f"k{i}" for i in range(len(values))]
    measures = Measures(keys, Resampler([groups or keys], 200, 0))
    pair = (weights, weights) if weights is not None else None
    measures.add("measure", [1.0] * len(values), values, Form(transform, relative), pair)
    heldout = Heldout(len(values), 1, 1, 2, 0.1, None, measures.metrics, measures.items())
    return write_parts(folder, heldout=heldout)


def write_parts(folder, model="x", **parts):
    folder.mkdir(parents=True, exist_ok=True)
    outcome.write(folder, outcome.Outcome(model, **parts))
    return folder


def pair(number, request, answer=5, reward=1.0):
    """A held-out pair and its candidates' log-probabilities under the trained model: rewards of 0.1 x `reward` and 0."""
    result = Pair(
        id=f"{number}-0", split="heldout", grid=number, prompt=[{"role": "user", "content": request}], chosen=[], rejected=[],
        negatives=[], prompt_tokens=[1], tokens=[[answer], [6]], reference=[-9.0, -9.0], pmi=[], kinds=[], prompt_id="p0",
        context_id=f"c{number}",
    )  # fmt: skip
    return result, [-9.0 + reward, -9.0]


def measured(pairs, beta=0.1):
    settings = Recipe.model_validate({"model": "x", "training": {"beta": beta}, "evaluation": {"bootstrap": 200}})
    return heldout.evaluate([p for p, _ in pairs], [policy for _, policy in pairs], {}, settings)


def fresh(*groups):
    """One answer of two tokens to each (request, contexts), the same from both models."""
    scored = Scored(Answer("so", [5, 2], "stop"), [[-1.0, -1.0]] * 2, [[-1.0, -1.0]] * 2)
    rows = [Group(["p0"] * 2, [request] * 2, ["c0", "c1"], contexts, [[1], [2]], 1) for request, contexts in groups]
    answered = [Answered(group, 0, scored, scored) for group in rows]
    return answers.evaluate(answered, Evaluation(choices=[2], bootstrap=200), 0)


def test_a_run_compared_with_itself_changes_by_zero(tmp_path):
    run = write_eval(tmp_path / "a", np.random.default_rng(0).normal(size=20))
    measure = compare([run], [run]).measures["measure"]
    assert measure.change == 0 and measure.interval == [0.0, 0.0] and measure.a == measure.b


def test_items_are_matched_by_name_whatever_their_order(tmp_path):
    a = write_eval(tmp_path / "a", [1, 2, 3, 4, 5, 6, 7], keys=list("abcdefg"))
    b = write_eval(tmp_path / "b", [70, 60, 50, 40, 30, 20, 1000], keys=list("gfedcbx"))
    result = compare([a], [b])
    assert result.items == 6  # a and x are not shared
    assert result.measures["measure"].a == pytest.approx(4.5) and result.measures["measure"].b == pytest.approx(45)


def test_only_equal_cases_pair_whatever_their_ids(tmp_path):
    """Ids count within a run: other notes, requests or candidates under the same ids are other cases."""
    first = [pair(i, f"note {i}", reward=i) for i in range(7)]
    second = [pair(i + 3, f"note {i}", reward=10 + i) for i in range(5)] + [pair(5, "other notes"), pair(6, "note 6", answer=7)]
    a = write_parts(
        tmp_path / "a", heldout=measured(first), fresh=fresh(("Cook?", ["bees", "bread"]), ("Read?", ["bees", "bread"]))
    )
    b = write_parts(
        tmp_path / "b", heldout=measured(second), fresh=fresh(("Cook?", ["bees", "oboes"]), ("Read?", ["bees", "bread"]))
    )
    result = compare([a], [b])
    assert result.items == 5 + 1 and result.measures["margin"].a == pytest.approx(0.1 * 2)
    assert result.measures["margin"].change == pytest.approx(0.1 * 10)
    assert [line.split(";")[0] for line in result.left_out] == [
        "held-out pairs: 5 in both",
        "fresh answers: 1 in both",
        "self_bleu holds an answer against all others of its run, which differ, so it is not compared",
    ]
    assert result.left_out[0].endswith("2 of A, 2 of B") and show(result)[-3:] == result.left_out


def test_self_bleu_is_compared_only_where_both_runs_have_the_same_answers(tmp_path):
    """It holds each answer against all others of its run: with more of them the same answer gets another figure."""
    cases = [(question, ["bees", "bread"]) for question in ("Cook?", "Read?", "Travel?")]
    a = write_parts(tmp_path / "a", fresh=fresh(*cases))
    same, fewer = write_parts(tmp_path / "b", fresh=fresh(*cases)), write_parts(tmp_path / "c", fresh=fresh(*cases[:2]))
    assert "self_bleu" in compare([a], [same]).measures
    result = compare([a], [fewer])
    assert "self_bleu" not in result.measures and "perplexity" in result.measures
    assert any(line.startswith("self_bleu holds an answer against all others") for line in result.left_out)


@pytest.mark.parametrize(
    "model, beta, reason, gone",
    [
        ("x", 0.2, "training.beta differs", {"loss", "margin", "information", "chosen_reward", "rejected_reward"}),
        ("y", 0.1, "the base models differ", {"accuracy", "loss", "margin", "information", "chosen_reward", "rejected_reward",
         "identified_by_base_2", "pmi_per_token", "perplexity", "tokens"}),
    ],
)  # fmt: skip
def test_measures_that_mean_something_else_are_left_out_and_named(tmp_path, model, beta, reason, gone):
    pairs, shown = [pair(i, f"note {i}") for i in range(7)], fresh(("Cook?", ["bees", "bread"]), ("Read?", ["bees", "bread"]))
    a = write_parts(tmp_path / "a", heldout=measured(pairs), fresh=shown)
    b = write_parts(tmp_path / "b", model, heldout=measured(pairs, beta), fresh=shown)
    both, one = (compare([a], [other]) for other in (b, a))
    assert set(one.measures) - set(both.measures) == gone and one.left_out == []
    assert both.left_out[0].startswith(reason) and "margin" in both.left_out[0]


def test_a_key_that_occurs_twice_is_matched_in_turn(tmp_path):
    a = write_eval(tmp_path / "a", [1, 2, 3], keys=["x", "x", "y"])
    b = write_eval(tmp_path / "b", [10, 30, 20], keys=["x", "y", "x"])
    measure = compare([a], [b]).measures["measure"]
    assert measure.change == pytest.approx(20 - 2) and measure.interval is None


def test_a_paired_difference_has_a_narrower_interval_than_the_values(tmp_path):
    rng = np.random.default_rng(1)
    base = rng.normal(0, 5, size=60)
    a, b = write_eval(tmp_path / "a", base), write_eval(tmp_path / "b", base + 1 + rng.normal(0, 0.1, size=60))
    low, high = compare([a], [b]).measures["measure"].interval
    assert 0.95 < low < 1 < high < 1.05


def test_ratios_and_relative_changes_are_computed_from_sums(tmp_path):
    tokens = [10, 20, 30, 40, 50, 60]
    a = write_eval(tmp_path / "a", [10.0] * 6, weights=tokens, transform="exp", relative=True)
    b = write_eval(tmp_path / "b", [20.0] * 6, weights=tokens, transform="exp", relative=True)
    measure = compare([a], [b]).measures["measure"]
    assert measure.a == pytest.approx(np.exp(60 / 210)) and measure.b == pytest.approx(np.exp(120 / 210))
    assert measure.change == pytest.approx(np.exp(60 / 210) - 1)
    line = show(Comparison(6, [], {"perplexity": measure}))[1]
    assert "+" in line and "%" in line


def test_seeds_are_a_second_level(tmp_path):
    """Three seeds that disagree by much more than their items do: the interval follows the seeds."""
    rng = np.random.default_rng(2)
    a, b = [], []
    for seed, gain in enumerate((0.0, 1.0, 2.0)):
        base = rng.normal(size=40)
        a.append(write_eval(tmp_path / f"a{seed}", base))
        b.append(write_eval(tmp_path / f"b{seed}", base + gain + rng.normal(0, 0.05, size=40)))
    low, high = compare(a, b).measures["measure"].interval
    assert low < 0.1 and high > 1.9
    one_low, one_high = compare(a[1:2], b[1:2]).measures["measure"].interval
    assert one_high - one_low < 0.1


def test_what_cannot_be_compared_ends_in_one_line(tmp_path):
    a = write_eval(tmp_path / "a", [1, 2], keys=["a", "b"])
    with pytest.raises(UserError, match="no held-out item in common .*2 of A, 2 of B"):
        compare([a], [write_eval(tmp_path / "b", [1, 2], keys=["c", "d"])])
    with pytest.raises(UserError, match="has no evaluation yet"):
        compare([a], [tmp_path / "nothing"])
    (tmp_path / "old").mkdir()
    write_json(tmp_path / "old" / "eval.json", {"heldout": None})
    with pytest.raises(UserError, match="another version of mipo-mlx; `mipo-mlx eval .* makes it anew"):
        compare([a], [tmp_path / "old"])
    write_json(tmp_path / "old" / "eval.json", {**read_json(a / "eval.json"), "heldout": {"pairs": 3}})
    with pytest.raises(Failure, match=r"old/eval.json: broken at heldout.grids; remove this file"):
        compare([a], [tmp_path / "old"])
    with pytest.raises(UserError, match="2 runs against 1"):
        compare([a, a], [a])


def test_a_single_answer_has_no_likeness_to_others(tmp_path):
    run = write_parts(tmp_path / "a", fresh=fresh(("Cook?", ["bees", "bread"])))
    assert "self_bleu" not in compare([run], [run]).measures


def test_what_is_written_is_read_back(tmp_path):
    """Every measure, interval and piece of text, through JSON."""
    pairs = [pair(i, f"note {i}", reward=i) for i in range(7)]
    before = outcome.Outcome("x", measured(pairs), fresh(("Cook?", ["bees", "bread"])), key="k", settings={"answers": 2})
    outcome.write(tmp_path, before)
    assert outcome.read(tmp_path) == before and outcome.is_current(tmp_path)
