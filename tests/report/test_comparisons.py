"""The trained model against others: baselines in one table, every judge's votes in words."""

from mipo_mlx.evaluation.outcome import Agreement, Judged, Opinion, read
from mipo_mlx.evaluation.statistics import Estimate, Measure
from mipo_mlx.report.comparisons import baselines, in_use, kinds, second_opinions, votes

from .helpers import make_finished


def test_baselines_stand_beside_the_base_and_the_trained_model(tmp_path):
    result = read(make_finished(tmp_path))
    rows = baselines(result.baselines, result.fresh)
    assert [name for name, _ in rows] == ["no context", "context in the prompt (base)", "context-aware decoding 0.5", "trained"]
    assert [dict(cells)["Right context identified"].value for _, cells in rows] == ["0.27", "0.78", "0.88", "0.90"]
    against = [dict(cells)["Trained identifies more"] for _, cells in rows]
    assert [cell.value for cell in against] == ["+0.63", "+0.12", "+0.02", ""]
    assert against[2].interval == "-0.04 to +0.08" and against[3].interval == ""
    assert baselines(None, result.fresh) == []


def test_kinds_of_request_stand_below_one_another(tmp_path):
    rows = kinds(read(make_finished(tmp_path)).kinds)
    assert [name.split(" (")[0] for name, _ in rows] == ["personal", "general"]
    columns = [
        "Requests",
        "Fit better",
        "KL with a note",
        "KL with nothing",
        "PMI, nats a token",
        "Length",
        "Perplexity",
        "Parroting",
    ]
    assert [label for label, _ in rows[1][1]] == columns
    assert [cell.value for _, cell in rows[1][1]] == ["12", "48%", "0.040", "0.020", "+0.050", "+3%", "+9%", "+0.04"]
    assert dict(rows[0][1])["KL with a note"].interval == "0.290 to 0.310"
    assert kinds({}) == []


def opinion(mode="pairwise", **changes):
    fields = {"judge": "embedding", "model": None, "win": 5, "tie": 1, "loss": 2, "nonsense": 0, "unanswered": 0}
    return Opinion(**{**fields, "mode": mode, **changes})


def test_further_judges_and_the_agreement_of_all_are_shown():
    other = opinion(win_rate=Estimate(0.6875, None), length_controlled=Estimate(0.61, [0.5, 0.7]))
    agreement = [Agreement(["base", "embedding"], 8, Estimate(0.75, [0.5, 0.9]), 0.4)]
    first = {**vars(other), "judge": "base"}
    assert second_opinions(Judged(**first, others=[other], agreement=agreement)) == [
        "embedding: 5 wins, 1 ties, 2 losses of the trained model in both orders: win rate 0.69, "
        "0.61 (0.50 to 0.70) at equal length.",
        "base and embedding agree on 75% (50% to 90%) of 8 requests, kappa 0.40.",
    ]
    nothing = [Agreement(["base", "embedding"], 0, Estimate(None, None), None)]
    assert second_opinions(Judged(**first, agreement=nothing)) == [] == second_opinions(None)


def test_the_votes_of_a_judge_in_every_case():
    score = Measure(Estimate(2.0, None), Estimate(3.1, [2.9, 3.4]), Estimate(1.1, [0.8, 1.3]), relative=False)
    rubric = opinion("rubric", metrics={"rubric": score})
    assert votes(rubric) == "On a scale of 1 to 5: base 2.00, trained 3.10, a change of +1.10 (+0.80 to +1.30)."
    longer = opinion(win=8, tie=0, loss=0, win_rate=Estimate(1.0, [0.63, 1.0]))
    assert "win rate 1.00 (0.63 to 1.00), at equal length unknown: one side's answers are the longer ones." in votes(longer)
    leaning = opinion(win_rate=Estimate(0.5, None), first_preferred=Estimate(0.8, None))
    assert votes(leaning).endswith("It prefers the first answer of a pair in 80% of its votes (50% is fair).")
    silent = opinion(nonsense=9, unanswered=4, win_rate=Estimate(None, None))
    again = "4 of them without any reply, which the same command asks for again."
    assert votes(silent) == f"No verdict; 9 requests it could not judge, {again}" and votes(None) == ""


def test_the_ways_of_use_in_words(tmp_path):
    lines = in_use(read(make_finished(tmp_path)).use)
    assert [line.split(" in ")[1].split(";")[0] for line in lines[1:4]] == [
        "90% (84% to 96%) of 20 comparisons", "45% (39% to 51%) of 20 comparisons", "80% (74% to 86%) of 20 comparisons",
    ]  # fmt: skip
    assert "60% (54% to 66%) among the first 1, 80% (74% to 86%) among the first 3" in lines[5] and "48 passages" in lines[5]
    assert "Of 24 questions of general knowledge" in lines[6] and "88% (82% to 94%)" in lines[6]
    assert len(lines) == 7 and in_use(None) == []
