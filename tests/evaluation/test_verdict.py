"""The verdict follows the fresh answers, never the reward accuracy, and tells costs that are large and beyond chance."""

from dataclasses import replace

import pytest

from mipo_mlx.evaluation import verdict
from mipo_mlx.evaluation.outcome import Canaries, Fresh, Heldout, Leak, OfKind, Opinion, Outcome, Remembered, Retrieval, Use
from mipo_mlx.evaluation.statistics import Estimate, Items, Measure

SAME = Estimate(0.5, None)
NO_ITEMS = Items([], [], {})
GOOD = (0.76, [0.66, 0.87])
BETTER = "its answers fit the user better than the base's"


def heldout(value=0.7, interval=None, candidates=2, contexts=9):
    metrics = {"accuracy": Measure(SAME, Estimate(value, interval or [0.6, 0.8]), SAME, False)}
    return Heldout(9, 9, contexts, candidates, 0.1, None, metrics, NO_ITEMS)


def fresh(apart_by="context", **changes):
    rows = {name: (0.0, [-0.1, 0.1]) for name in ("perplexity", "tokens", "parroting")} | changes
    metrics = {name: Measure(SAME, SAME, Estimate(*change), False) for name, change in rows.items()}
    reason = "too few held-out groups for an interval: 2 independent ones, at least 6 needed"
    return Fresh(9, 9, 9, apart_by, [], [], reason, metrics, NO_ITEMS, SAME, {})


def leak(*signs):
    return Leak({}, {}, None, None, False, 0, {}, None, Canaries(0, 0, 0, [], [], None), list(signs))


def verdict_of(win=GOOD, of_pairs=None, answers=None, signs=(), judge="embedding"):
    fit = Opinion(judge, None, "pairwise", 5, 2, 1, 0, 0, win_rate=Estimate(*win))
    return verdict.sentence(Outcome("x", of_pairs or heldout(), answers or fresh(), fit, leak=leak(*signs)))


@pytest.mark.parametrize(
    "win, opening",
    [
        (GOOD, "It worked: its answers fit the user better than the base's in 76% of the comparisons (95 % interval 66% to 87%; "),
        ((0.55, [0.48, 0.61]), "No effect can be shown"),
        ((0.30, [0.20, 0.41]), "It went wrong"),
        ((0.90, None), "Not shown: its answers fit the user better than the base's in 90% of the comparisons"),
    ],
)
def test_the_sentence_follows_the_interval_of_the_win_rate(win, opening):
    sentence = verdict_of(win)
    assert sentence.startswith(opening) and sentence.endswith(".") and "\n" not in sentence and "but its" not in sentence


@pytest.mark.parametrize(
    ("win", "changes", "words"),
    [
        (GOOD, {}, f"It worked: {BETTER}."),
        (GOOD, {"tokens": (0.3, [0.2, 0.4])}, f"It worked: {BETTER}, but at a cost (see all figures)."),
        (GOOD, {"perplexity": (0.9, [0.6, 1.2])}, "It went wrong: its answers got worse."),
        ((0.30, [0.20, 0.41]), {}, "It went wrong: the base gives better answers."),
        ((0.55, [0.48, 0.61]), {}, f"No effect can be shown: so far nothing shows that {BETTER}."),
        ((0.90, None), {}, f"Not shown: so far nothing shows that {BETTER}."),
    ],
)
def test_the_headline_says_the_same_without_figures(win, changes, words):
    fit = Opinion("embedding", None, "pairwise", 5, 2, 1, 0, 0, win_rate=Estimate(*win))
    outcome = Outcome("x", heldout(), fresh(**changes), fit)
    assert verdict.headline(replace(outcome, verdict=verdict.sentence(outcome))) == words


def test_without_answers_the_headline_is_the_sentence():
    for outcome in (Outcome("x", heldout()), Outcome("x")):
        known = replace(outcome, verdict=verdict.sentence(outcome))
        assert verdict.headline(known) == known.verdict


def test_pairs_told_apart_beside_nonsense_answers_are_no_success():
    """83 % of the held-out pairs, while the answers are odd text that fits nobody, or seems to fit because it is odd."""
    pairs, odd = heldout(0.83, [0.75, 0.9]), fresh(perplexity=(0.9, [0.6, 1.2]))
    assert verdict_of((0.5, [0.4, 0.6]), pairs).startswith("No effect can be shown")
    for win in ((0.5, [0.4, 0.6]), (0.7, [0.6, 0.8]), (0.3, [0.2, 0.4])):
        assert verdict_of(win, pairs, odd).startswith("It went wrong: its answers read 90% less naturally")


def test_answers_that_win_beside_pairs_near_chance_are_a_success():
    """Reward accuracy 0.59 [0.40, 0.76] on a run whose fresh answers win 76 % of the comparisons."""
    assert verdict_of(GOOD, heldout(0.59, [0.40, 0.76])).startswith("It worked: ")


def test_the_reward_accuracy_changes_nothing():
    sentences = {verdict_of(win, heldout(value)) for value in (0.1, 0.5, 0.9) for win in (GOOD, (0.5, [0.4, 0.6]))}
    assert len(sentences) == 2


def test_answers_that_hand_the_context_back_are_no_success_however_well_they_fit():
    sure = (0.95, [0.9, 1.0])
    assert verdict_of(sure, answers=fresh(parroting=(0.3, [0.2, 0.4]))).startswith("It went wrong: 30 points more")
    assert verdict_of(sure, answers=fresh(parroting=(0.3, None))).startswith("It worked: ")  # too few to tell


def test_without_fresh_answers_nothing_is_shown():
    """The pairs are told for what they are: two candidates, more of them, and pairs without contexts."""

    def of(**pairs):
        return verdict.sentence(Outcome("x", heldout(0.67, **pairs)))

    assert of() == (
        "Not shown: there are no fresh answers to compare; on held-out contexts it ranks the right answer first in 67% of the "
        "pairs (50 % before)."
    )
    assert "on held-out contexts it ranks the right answer above 67% of the wrong ones (50 % before)" in of(candidates=4)
    assert "on held-out prompts it ranks" in of(contexts=0)


def test_the_judge_and_what_answers_fit_are_named():
    assert "compared by sentence embeddings" in verdict_of()
    assert "compared by the base model's own likelihood" in verdict_of(judge="likelihood")
    assert "fit the request better" in verdict_of(answers=fresh("request"))


def test_an_end_of_the_interval_never_seems_to_lie_on_the_chance_line():
    assert "It worked: " in (sentence := verdict_of((0.56, [0.5004, 0.62]))) and "50.0% to 62.0%" in sentence
    assert "No effect" in (sentence := verdict_of((0.56, [0.4956, 0.62]))) and "49.6% to 62.0%" in sentence


def test_costs_are_told_where_they_are_large_and_beyond_chance():
    large = fresh(perplexity=(0.31, [0.1, 0.5]), tokens=(-0.25, [-0.4, -0.1]), parroting=(0.12, [0.02, 0.3]))
    sentence = verdict_of(answers=large)
    assert sentence.startswith("It worked: ")
    assert "31% less naturally" in sentence and "25% shorter" in sentence and "12 points more" in sentence
    chance = fresh(perplexity=(0.31, [-0.1, 0.7]), tokens=(0.25, [-0.1, 0.6]), parroting=(0.12, [0.0, 0.3]))
    small = fresh(perplexity=(0.14, [0.1, 0.3]), tokens=(0.1, [0.05, 0.15]), parroting=(0.02, [0.01, 0.07]))
    assert verdict_of(answers=chance) == verdict_of(answers=small) == verdict_of()


def test_a_large_cost_without_an_interval_is_told_with_its_doubt():
    sentence = verdict_of(answers=fresh(tokens=(0.4, None), perplexity=(0.31, [0.1, 0.5]), parroting=(0.01, None)))
    assert sentence.endswith("(perplexity) and its answers are 40% longer (too few to tell that from chance).")
    assert "31% less" in sentence and sentence.count("too few") == 1


def with_kinds(with_note=(0.01, [0.0, 0.02]), bare=(0.01, [0.0, 0.02]), kind="general", **changes):
    """A run that worked, with general requests whose answers are so far from the base's."""
    rows = {"tokens": (0.0, [-0.1, 0.1]), **changes}
    metrics = {name: Measure(SAME, SAME, Estimate(*change), False) for name, change in rows.items()}
    fit = Opinion("embedding", None, "pairwise", 5, 2, 1, 0, 0, win_rate=Estimate(*GOOD))
    of_kind = OfKind(9, None, fit, metrics, Estimate(*with_note), Estimate(*bare), NO_ITEMS)
    return verdict.sentence(Outcome("x", heldout(), fresh(), fit, leak=leak(), kinds={kind: of_kind}))


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"with_note": (0.12, [0.06, 0.2])},
            "do not stay the same with a note that does not matter (0.12 nats a token from the base's)",
        ),
        ({"bare": (0.3, [0.1, 0.5])}, "do not stay the same with nothing in the prompt (0.30 nats a token from the base's)"),
        ({"bare": (0.06, None)}, "(0.06 nats a token from the base's) (too few to tell that from chance)"),
        ({"tokens": (-0.3, [-0.4, -0.2])}, "its answers to general questions are 30% shorter"),
        ({"parroting": (0.4, [0.2, 0.6])}, "40 points more of its answers to general questions hand the user's words back"),
        ({"perplexity": (0.9, [0.6, 1.2])}, "its answers to general questions read 90% less naturally"),
    ],
)
def test_general_questions_whose_answers_change_are_told_in_plain_words_and_ruin_nothing(changes, words):
    sentence = with_kinds(**changes)
    assert sentence.startswith("It worked: ") and sentence.endswith(f"{words}." if "less" not in words else "(perplexity).")
    assert words in sentence and with_kinds() == verdict_of() == with_kinds(kind="chores", **changes)
    assert with_kinds(with_note=(0.07, [0.04, 0.1]), bare=(0.04, None)) == verdict_of()  # may be chance, or is little


@pytest.mark.parametrize(
    "win, ending",
    [(GOOD, "embeddings), but it shows"), ((0.6, [0.4, 0.9]), "embeddings), but it shows"), ((0.9, None), "needed; it shows")],
)
def test_signs_of_reciting_are_told_whatever_else_is_known(win, ending):
    assert verdict_of(win, signs=["a canary"]).endswith(f"{ending} signs of reciting the notes.")
    assert "reciting" not in verdict_of(win)


def with_memory(win, fit=GOOD, answers=None):
    """An outcome whose answers with memory win `win` of the comparisons, and those under the right context `fit`."""
    opinions = [Opinion("embedding", None, "pairwise", 5, 2, 1, 0, 0, win_rate=Estimate(*rate)) for rate in (win, fit)]
    few = "too few held-out groups for an interval: 4 independent ones, at least 6 needed"
    memory = Remembered(8, few, {"memory": opinions[0]}, Retrieval(9, {}, SAME, 24, SAME), [])
    return Outcome("x", heldout(), answers or fresh(), opinions[1], use=Use(8, None, {}, {}, memory))


@pytest.mark.parametrize(
    ("win", "opening"),
    [
        (GOOD, "It worked: its answers with your notes fit better than the base's with the same notes in 76% of"),
        ((0.55, [0.4, 0.7]), "No effect can be shown: its answers with your notes"),
        ((0.3, [0.2, 0.4]), "It went wrong: its answers with your notes"),
        ((0.9, None), "Not shown: its answers with your notes"),
    ],
)
def test_with_memory_the_verdict_stands_on_it(win, opening):
    """However well the answers fit where the right passage is given by hand."""
    sentences = {verdict.sentence(with_memory(win, (0.9, [0.8, 1.0]))), verdict.sentence(with_memory(win, (0.3, [0.2, 0.4])))}
    assert all(sentence.startswith(opening) and sentence.endswith(".") and "\n" not in sentence for sentence in sentences)
    by_hand = [sentence for sentence in sentences if "told the right passage alone, it does in 90%" in sentence]
    assert len(by_hand) == opening.startswith("No effect")
    assert all("4 independent ones" in sentence for sentence in sentences) == (win[1] is None)


def test_with_memory_too_a_large_cost_counts():
    parrots = fresh(parroting=(0.3, [0.2, 0.4]))
    assert verdict.sentence(with_memory(GOOD, answers=parrots)).startswith("It went wrong: 30 points more")
