"""A local judge: both orders, ties, nonsense, position bias and length control on votes worked out by hand."""

import io
from dataclasses import replace

import numpy as np
import pytest

from mipo_mlx.evaluation import evaluate as stage
from mipo_mlx.evaluation import judge, judge_votes, requests
from mipo_mlx.evaluation.judge_votes import Voting, pairwise_vote
from mipo_mlx.evaluation.requests import Answered, Group, Scored
from mipo_mlx.evaluation.statistics import Estimate, Resampler
from mipo_mlx.files import read_json
from mipo_mlx.models import embedding, load, prompts
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Evaluation
from mipo_mlx.records import Answer

from .helpers import make_run, more_prompts, plain_logprobs, recipe


def answered(number: int, base: str = "short", tuned: str = "tuned", lengths=(5, 5)) -> Answered:
    group = Group([f"p{number}"] * 2, ["What now?"] * 2, [f"c{number}", "other"], ["I keep bees.", "I run."], [[1], [1]], 1)
    sides = [Scored(Answer(text, [1] * n, "stop"), [], []) for text, n in zip((base, tuned), lengths, strict=True)]
    return Answered(group, 0, *sides)


def voting(cases) -> Voting:
    return Voting(cases, Evaluation(bootstrap=200), 0)


def pairwise(cases, rows):
    return voting(cases).opinion(rows, "pairwise", "base")


def at_equal_length(outcomes, lengths, clusters, draws):
    return Resampler(clusters, draws, 0).at_equal_length(outcomes, lengths)


def preferences(cases, rows):
    return [pairwise_vote(a, row) for a, row in zip(cases, rows, strict=True)]


# [P(A), P(B)] with the base first, then with the trained model first
WIN, LOSS = [[0.1, 0.9], [0.8, 0.2]], [[0.9, 0.1], [0.2, 0.8]]
FIRST, NONSENSE = [[0.9, 0.1], [0.9, 0.1]], [[0.1, 0.1], [0.9, 0.1]]


def test_a_win_needs_both_orders_and_nonsense_is_counted_and_left_out():
    rows = [WIN, WIN, WIN, LOSS, FIRST, FIRST, NONSENSE, NONSENSE]
    result = pairwise([answered(i) for i in range(8)], rows)
    assert (result.win, result.tie, result.loss, result.nonsense) == (3, 2, 1, 2)
    assert result.win_rate.value == pytest.approx((3 + 2 * 0.5) / 6)
    assert result.first_preferred.value == pytest.approx((4 * 1 + 2 * 2) / 12)  # once in each firm pair, always in the others


def test_a_model_compared_with_itself_has_a_win_rate_of_one_half():
    """Equal answers are ties whatever the judge says, and a judge that looks at the position alone makes ties."""
    same = pairwise([answered(i, "equal", "equal") for i in range(8)], [WIN, NONSENSE] * 4)
    assert same.win_rate == Estimate(0.5, [0.5, 0.5]) and same.tie == 8 and same.first_preferred is None
    blind = pairwise([answered(i) for i in range(8)], [FIRST] * 8)
    assert blind.win_rate.value == 0.5
    assert blind.first_preferred == Estimate(1.0, [pytest.approx(0.025 ** (1 / 8)), 1.0])


def test_only_nonsense_gives_no_win_rate():
    result = pairwise([answered(i) for i in range(7)], [NONSENSE] * 7)
    assert result.nonsense == 7 and result.win_rate.value is None and result.length_controlled is None


def test_length_control_takes_out_what_length_explains():
    """A judge that prefers the longer answer, and a trained model that is longer three times out of four."""
    rng = np.random.default_rng(0)
    lengths = np.where(np.arange(400) % 4 == 0, -10, 10) + rng.normal(0, 1, 400)
    outcomes = (rng.random(400) < np.where(lengths > 0, 0.9, 0.1)).astype(float)
    assert np.mean(outcomes) > 0.65
    result = at_equal_length(outcomes, lengths, [range(400)], 300)
    assert result.value == pytest.approx(0.5, abs=0.07)
    low, high = result.interval
    assert low < 0.5 < high and 0.05 < high - low < 0.25
    equal = at_equal_length([1.0, 1.0, 0.0, 0.5], [0, 0, 0, 0], [range(4)], 300)  # too few for an interval
    assert equal == Estimate(pytest.approx(0.625, abs=0.01), None)
    won = at_equal_length([1.0] * 30, range(-2, 28), [range(30)], 300)
    assert 0.9 < won.value <= 1 and won.interval == [pytest.approx(0.025 ** (1 / 30)), 1.0]


@pytest.mark.parametrize(("mean", "spread"), [(10, 10), (30, 10), (10, 2), (10, 0)])
def test_nothing_is_said_at_equal_length_where_one_side_is_always_longer(mean, spread):
    """The judge looks at the length alone, so the truth at equal length is 0.5."""
    rng = np.random.default_rng(1)
    lengths = np.rint(rng.normal(mean, spread, 400))
    outcomes = (rng.random(400) < 1 / (1 + np.exp(-lengths / 8))).astype(float)
    result = at_equal_length(outcomes, lengths, [range(400)], 300)
    assert result is None if mean > spread else result.value == pytest.approx(0.5, abs=0.08)


def test_the_length_coefficient_minimises_the_penalised_likelihood():
    """Against a search on a grid of the two coefficients."""
    outcomes, lengths = np.array([1, 1, 0.5, 0, 1, 0, 0.5, 1]), np.array([3, 9, -2, -7, 4, 1, 0, -1])
    x = np.tanh(lengths / np.sqrt(np.mean(lengths**2)))
    a, b = np.meshgrid(np.linspace(-3, 3, 601), np.linspace(-8, 8, 801), indexing="ij")
    z = a[..., None] + b[..., None] * x
    cost = (np.log1p(np.exp(z)) - outcomes * z).sum(-1) + 0.5 * (1e-3 * a**2 + 1e-1 * b**2)
    best = a.ravel()[cost.argmin()]
    assert at_equal_length(outcomes, lengths, [range(8)], 50).value == pytest.approx(1 / (1 + np.exp(-best)), abs=0.002)


def test_rubric_scores_are_expected_digits():
    low, high = [0.5, 0.5, 0, 0, 0], [0, 0, 0, 0, 0.8]
    result = voting([answered(i) for i in range(8)]).opinion([[low, high]] * 7 + [[low, [0.1, 0, 0, 0, 0]]], "rubric", "base")
    assert result.nonsense == 1
    assert result.metrics["rubric"].before.value == pytest.approx(1.5)
    assert result.metrics["rubric"].after.value == pytest.approx(5.0)


def test_the_judges_probabilities_are_its_likelihoods(tiny_folder):
    loaded = load.load(str(tiny_folder))
    question = judge.PAIRWISE.format(opening="The user asked: What now?\n\n", first="x", second="y")
    (result,) = judge.probabilities(loaded.model, loaded.tokenizer, [question], ("A", "B"))
    ids = prompts.encode(loaded.tokenizer, [{"role": "user", "content": question}])
    for letter, probability in zip("AB", result, strict=True):
        tokens = loaded.tokenizer.encode(letter, add_special_tokens=False)
        assert probability == pytest.approx(np.exp(plain_logprobs(loaded.model, ids, tokens).sum()), rel=1e-3)


def test_the_recipe_names_the_judge_and_its_mode(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setattr(judge_votes, "SENSE", 0.0)
    monkeypatch.setattr(embedding, "installed", lambda: None)
    result = {}
    for name, settings in {
        "none": recipe(tiny_folder, answers=2),
        "base": recipe(tiny_folder, answers=2, judge="base"),
        "named": recipe(tiny_folder, answers=2, judge=str(tiny_folder)),
        "rubric": recipe(tiny_folder, answers=2, judge="base", judge_mode="rubric"),
        "two": recipe(tiny_folder, answers=2, judge=["base", str(tiny_folder)]),
    }.items():
        folder = make_run(tmp_path / name, settings, spread=0.05)
        stage.run(folder, settings, Reporter(stream=io.StringIO()))
        result[name] = read_json(folder / "eval.json")["judged"]
    assert result["none"] is None
    assert result["base"]["win"] + result["base"]["tie"] + result["base"]["loss"] == 2
    assert {k: v for k, v in result["named"].items() if k != "judge"} == {k: v for k, v in result["base"].items() if k != "judge"}
    assert 1 <= result["rubric"]["metrics"]["rubric"]["after"]["value"] <= 5
    assert [v["judge"] for v in (result["two"], *result["two"]["others"])] == ["base", str(tiny_folder)]
    [agreed] = result["two"]["agreement"]  # one model under two names
    assert agreed["judges"] == ["base", str(tiny_folder)] and agreed["requests"] == 2 and agreed["same"]["value"] == 1.0


def test_agreement_by_hand():
    """Votes 1 1 1 1 0 0 0 . of one judge and 1 1 1 0 0 0 1 1 of the other: 5 of 7 the same; by chance (4 x 4 + 3 x 3) / 49."""
    one, two = [1.0, 1, 1, 1, 0, 0, 0, None], [1.0, 1, 1, 0, 0, 0, 1, 1]
    agreed = voting([answered(i) for i in range(8)]).agreement(["x", "y"], one, two)
    assert agreed.judges == ["x", "y"] and agreed.requests == 7
    assert agreed.same.value == pytest.approx(5 / 7) and agreed.same.interval
    assert agreed.kappa == pytest.approx((5 / 7 - 25 / 49) / (1 - 25 / 49))
    assert voting([answered(i) for i in range(3)]).agreement([], [1.0] * 3, [1.0] * 3).kappa is None
    nothing = voting([answered(0)]).agreement([], [None], [1.0])
    assert (nothing.requests, nothing.same, nothing.kappa) == (0, Estimate(None, None), None)


def test_the_embedder_prefers_the_answer_that_is_closer_to_its_own_context():
    """Vectors in the plane: the user's context is north, the other one east."""
    vectors = {"I keep bees.": (0, 1), "I run.": (1, 0), "short": (1, 0), "tuned": (0, 1), "between": (0.6, 0.8)}

    def embedder(texts):
        return np.array([vectors[t] for t in texts], dtype=float)

    pairs = [answered(0), answered(1, "tuned", "between"), answered(2, "between", "between"), answered(3, "between", "tuned")]
    assert preferences(pairs, judge_votes.closer(embedder, pairs)) == [1.0, 0.0, 0.5, 1.0]


def test_the_embedder_leaves_aside_a_profile_that_contexts_share():
    """The profile is east and drowns the notes: with it the contexts are one vector, so whatever is said would be a tie."""
    vectors = {"profile, bees": (1, 0), "profile, runs": (1, 0), "bees": (0, 1), "runs": (0, -1), "b": (0.6, 0.8), "r": (0.6, -0.8)}
    group = Group(
        ["p"] * 2, ["What now?"] * 2, ["c0", "c1"], ["profile, bees", "profile, runs"], [[1], [1]], 2, passages=["bees", "runs"]
    )
    base, tuned = (Scored(Answer(text, [1], "stop"), [], []) for text in ("r", "b"))

    def embedder(texts):
        return np.array([vectors[t] for t in texts], dtype=float)

    pairs = [Answered(group, own, base, tuned) for own in (0, 1)]
    assert preferences(pairs, judge_votes.closer(embedder, pairs)) == [1.0, 0.0]


def test_without_an_embedder_the_bases_likelihood_says_whose_answer_fits():
    """Nats under [own context, another]: 6 nats over 3 tokens beat 6 over 6, and lose to 9 over 3."""

    def of(number, base, tuned):
        one = answered(number, "b", "t")
        scored = [replace(getattr(one, s), base=[[own / n] * n, [0.0] * n], answer=Answer(s, [1] * n, "stop"))
                  for s, (own, n) in (("base", base), ("tuned", tuned))]  # fmt: skip
        return replace(one, base=scored[0], tuned=scored[1])

    cases = [of(0, (6, 6), (6, 3)), of(1, (9, 3), (6, 3)), of(2, (6, 3), (6, 3))]
    assert preferences(cases, judge_votes.likelier(cases)) == [1.0, 0.0, 0.5]
    opinion = judge_votes.fit(cases, Evaluation(bootstrap=200), 0, None)
    assert (opinion.judge, opinion.win, opinion.tie, opinion.loss, opinion.first_preferred) == ("likelihood", 1, 1, 1, None)
    assert judge_votes.fit(cases, Evaluation(bootstrap=200), 0, lambda texts: np.ones((len(texts), 2))).judge == "embedding"
    assert judge_votes.fit([], Evaluation(), 0, None) is None


def test_the_embedder_is_one_judge_among_others(tmp_path, tiny_folder, monkeypatch):
    def embedder(folder):
        return lambda texts: np.array([[np.cos(len(t)), np.sin(len(t))] for t in texts])

    monkeypatch.setattr(judge_votes, "SENSE", 0.0)
    monkeypatch.setattr(embedding, "MiniLM", embedder)
    monkeypatch.setattr(embedding, "installed", lambda: tmp_path)
    alone = recipe(tiny_folder)
    folder = make_run(tmp_path / "run", alone, spread=0.05)
    stage.run(folder, alone, Reporter(quiet=True))
    first = read_json(folder / "eval.json")["judged"]
    assert first["judge"] == "embedding" and first["win"] + first["tie"] + first["loss"] == 8 and first["agreement"] == []
    monkeypatch.setattr(requests, "score_group", None)  # what is known is not computed again
    both = recipe(tiny_folder, judge="base", judge_mode="rubric")
    stage.run(folder, both, Reporter(quiet=True))
    second = read_json(folder / "eval.json")["judged"]
    assert second["judge"] == "base" and second["others"] == [{k: first[k] for k in second["others"][0]}]
    assert second["agreement"][0]["judges"] == ["base", "embedding"] and second["win"] + second["tie"] + second["loss"] == 8
    stage.run(folder, alone, Reporter(quiet=True))
    assert read_json(folder / "eval.json")["judged"] == second  # a later evaluation without a judge keeps its verdict


def test_a_model_judged_against_itself_wins_half_the_time(tmp_path, tiny_folder, monkeypatch):
    """Adapters without effect: the same answers, so ties, and scores that differ by nothing."""
    monkeypatch.setattr(judge_votes, "SENSE", 0.0)
    for mode in ("pairwise", "rubric"):
        settings = recipe(tiny_folder, answers=16, judge="base", judge_mode=mode)
        folder = make_run(tmp_path / mode, settings)
        more_prompts(folder)
        stage.run(folder, settings, Reporter(quiet=True))
        judged = read_json(folder / "eval.json")["judged"]
        assert (judged["win"], judged["tie"], judged["loss"]) == (0, 16, 0)
        if mode == "pairwise":
            low, high = judged["win_rate"]["interval"]
            assert judged["win_rate"]["value"] == 0.5 and low <= 0.5 <= high
            assert judged["length_controlled"]["value"] == pytest.approx(0.5)
        else:
            low, high = judged["metrics"]["rubric"]["change"]["interval"]
            assert low <= 1e-6 and high >= -1e-6


def test_a_killed_local_judge_ends_with_the_same_bytes(tmp_path, tiny_folder, monkeypatch):
    """Killed in its second chunk of two requests, with a torn last line."""
    monkeypatch.setattr(judge_votes, "SENSE", 0.0)
    settings = recipe(tiny_folder, judge="base", judge_mode="rubric")
    folder = make_run(tmp_path / "run", settings, spread=0.05)
    stage.run(folder, settings, Reporter(quiet=True))
    kept = [folder / "eval.json", folder / judge.FILE]
    whole = [path.read_bytes() for path in kept]
    lines = whole[1].splitlines(keepends=True)
    assert len(lines) == 4
    kept[0].unlink()
    kept[1].write_bytes(lines[0] + lines[1][:30])
    questions = []
    original = judge.probabilities
    monkeypatch.setattr(judge, "probabilities", lambda *args: questions.append(len(args[2])) or original(*args))
    stage.run(folder, settings, Reporter(quiet=True))
    assert [path.read_bytes() for path in kept] == whole and questions == [4, 4, 4]
    kept[0].unlink()
    stage.run(folder, recipe(tiny_folder), Reporter(quiet=True))  # not named again: read back
    assert read_json(kept[0])["judged"]["judge"] == "base" and len(questions) == 3
