"""From grids to pairs: the right scores, negatives, and every filter drops what it says and nothing else."""

import random
from dataclasses import asdict, replace

import pytest

from mipo_mlx.pairs.build import build
from mipo_mlx.pairs.filters import REJECTED_ONLY
from mipo_mlx.pairs.overview import summarize
from mipo_mlx.records import HELDOUT, TRAIN, Answer, Grid

from .helpers import make_contexts, make_prompts, make_recipe

OFF = {
    "min_pmi": None,
    "repeated_ngrams": None,
    "refusals": False,
    "quotes_context": None,
    "first_person": False,
    "near_duplicates": None,
}
ORDINARY = [
    "Walk by the river before breakfast and take a flask of tea along with you.",
    "Cook lentils tonight; they keep well and taste better on the second day.",
    "Sort the letters first, then answer the three that cannot wait any longer.",
    "A small notebook beside the bed will catch what the evening brings up.",
    "Ring the station early, since the cheaper tickets go within the hour.",
]


def ask(prompt, context):
    text = context.text if context else "nobody"
    return [{"role": "system", "content": text}, {"role": "user", "content": prompt.text}], [1, len(text), 2]


def make_grid(number=0, split=TRAIN, plain=False, texts=ORDINARY, finishes=None, lengths=None, size=5):
    """A grid of `size` contexts, each of its own note; scores are distinct, the right context ahead by 1 to 2 nats."""
    contexts = make_contexts(size, 1, split)
    names = [c.id for c in contexts] + ([None] if plain else [])
    texts = [*texts[:size], *(["Whatever suits the day is fine, and rest is part of it."] if plain else [])]
    rng = random.Random(number)
    answers = [Answer(text, list(range((lengths or [9] * 6)[j])), (finishes or ["stop"] * 6)[j]) for j, text in enumerate(texts)]
    scores = [[-30 + (1 if i == j else 0) + rng.random() for j in range(len(names))] for i in range(len(names))]
    return Grid(number, split, make_prompts(1, split)[0].id, names, answers, scores)


def build_grids(grids, **pairs):
    contexts = {c.id: c for split in (TRAIN, HELDOUT) for c in make_contexts(5, 1, split)}
    prompts = {p.id: p for split in (TRAIN, HELDOUT) for p in make_prompts(1, split)}
    pairs.setdefault("filters", OFF)
    recipe = make_recipe(**{"contexts_per_grid": 5, **pairs})
    return build(grids, contexts, prompts, recipe, ask)


@pytest.mark.parametrize("candidates", [2, 3, 5])
def test_scores_come_from_the_matrix(candidates):
    grid = make_grid()
    built = build_grids([grid], candidates=candidates)
    assert [pair.id for pair in built.pairs] == ["0-0", "0-1", "0-2", "0-3", "0-4"]
    for row, pair in enumerate(built.pairs):
        columns = [row, *(grid.contexts.index(name) for name in pair.wrong_context_ids)]
        assert len(set(columns)) == candidates
        assert pair.grid == 0 and pair.context_id == grid.contexts[row]
        assert pair.reference == [grid.scores[row][j] for j in columns]
        assert pair.pmi == pytest.approx([grid.scores[row][row] - grid.scores[j][row] for j in columns[1:]], abs=1e-5)
        assert pair.tokens == [grid.answers[j].tokens for j in columns]
        assert [pair.chosen[0]["content"], *pair.negatives] == [grid.answers[j].text for j in columns]
        assert pair.rejected[0]["content"] == pair.negatives[0]
        assert (pair.source, pair.line) == (f"train/{row}.md", 1)


def test_each_answer_is_rejected_as_often_as_it_is_chosen():
    built = build_grids([make_grid(n) for n in range(20)], candidates=4)
    for grid in range(20):
        rejected = [name for pair in built.pairs if pair.grid == grid for name in pair.wrong_context_ids]
        assert {rejected.count(name) for name in rejected} == {3}


@pytest.mark.parametrize("kind", ["random_context", "hard_context"])
@pytest.mark.parametrize("size", range(2, 65))
def test_a_grid_of_any_size_is_deranged(size, kind):
    contexts = make_contexts(size, 1)
    answers = [Answer(f"Answer {n}.", [5 + n, 2], "stop") for n in range(size)]
    rng = random.Random(size)
    scores = [[-30 + rng.random() for _ in contexts] for _ in contexts]
    grid = Grid(0, TRAIN, make_prompts(1)[0].id, [c.id for c in contexts], answers, scores)
    recipe = make_recipe(contexts_per_grid=size, negatives={kind: 1.0}, filters=OFF)
    pairs = build([grid], {c.id: c for c in contexts}, {p.id: p for p in make_prompts(1)}, recipe, ask).pairs
    assert [pair.context_id for pair in pairs] == grid.contexts
    assert sorted(pair.wrong_context_ids[0] for pair in pairs) == sorted(grid.contexts)
    assert all(pair.wrong_context_ids[0] != pair.context_id and pair.tokens[0] != pair.tokens[1] for pair in pairs)


def test_no_context_stands_against_every_answer():
    grid = make_grid(plain=True)
    built = build_grids([grid], negatives={"no_context": 1.0})
    assert len(built.pairs) == 5
    for row, pair in enumerate(built.pairs):
        assert pair.kinds == ["no_context"] and pair.wrong_context_ids == [None]
        assert pair.reference == [grid.scores[row][row], grid.scores[row][5]]
        assert pair.pmi == pytest.approx([grid.scores[row][row] - grid.scores[5][row]], abs=1e-5)


def test_weights_mix_kinds():
    built = build_grids([make_grid(n, plain=True) for n in range(200)], negatives={"no_context": 1.0, "random_context": 3.0})
    share = sum(pair.kinds == ["no_context"] for pair in built.pairs) / len(built.pairs)
    assert 0.15 < share < 0.35


def test_negatives_follow_the_seed():
    grids = [make_grid(n) for n in range(5)]
    one, two, other = (build_grids(grids, seed=seed).pairs for seed in (1, 1, 2))
    assert one == two and one != other


def mean_pmi(built):
    return sum(pmi for pair in built.pairs for pmi in pair.pmi) / sum(len(pair.pmi) for pair in built.pairs)


def test_hard_negatives_are_closer_than_random_ones():
    grids = [make_grid(n) for n in range(40)]
    hard, random_ones = build_grids(grids, negatives={"hard_context": 1.0}), build_grids(grids)
    assert all(pair.kinds == ["hard_context"] for pair in hard.pairs)
    assert mean_pmi(hard) < mean_pmi(random_ones) - 0.1
    for grid in range(40):  # still a derangement
        pairs = [pair for pair in hard.pairs if pair.grid == grid]
        assert sorted(pair.wrong_context_ids[0] for pair in pairs) == sorted(pair.context_id for pair in pairs)
        assert all(pair.wrong_context_ids[0] != pair.context_id for pair in pairs)


def test_hard_negatives_are_no_near_duplicates():
    """Contexts 0 and 1 say nearly the same, and the model cannot tell them apart: they are not each other's wrong ones."""
    grid = make_grid()
    scores = [[-30.0 if {i, j} <= {0, 1} or i == j else -32.0 - (i + j) / 10 for j in range(5)] for i in range(5)]
    grid = replace(grid, scores=scores)
    contexts = {c.id: c for c in make_contexts(5, 1)}
    twin = "I like bees and bread, since year 1, and I sing each evening."
    names = grid.contexts
    contexts[names[0]] = replace(contexts[names[0]], text=twin)
    prompts = {p.id: p for p in make_prompts(1)}
    recipe = make_recipe(contexts_per_grid=5, negatives={"hard_context": 1.0}, filters=OFF)
    before = build([grid], contexts, prompts, recipe, ask)
    assert before.pairs[0].wrong_context_ids == [names[1]] and before.pairs[0].pmi == [0.0]
    contexts[names[1]] = replace(contexts[names[1]], text=twin + " Yes.")
    after = build([grid], contexts, prompts, recipe, ask)
    assert after.pairs[0].wrong_context_ids != [names[1]] and after.pairs[1].wrong_context_ids != [names[0]]
    assert len(after.pairs) == 5


def test_hard_and_random_in_one_pair_are_different_answers():
    built = build_grids([make_grid(n) for n in range(60)], candidates=4, negatives={"hard_context": 1.0, "random_context": 1.0})
    assert {tuple(sorted(pair.kinds)) for pair in built.pairs} >= {
        ("hard_context", "hard_context", "random_context"),
        ("hard_context", "random_context", "random_context"),
    }
    assert all(len(set(pair.wrong_context_ids)) == 3 for pair in built.pairs)


def test_answers_to_other_questions():
    prompts = {p.id: p for p in make_prompts(5)}
    grid = replace(make_grid(), contexts=[make_contexts(5, 1)[2].id] * 5, prompts=list(prompts))
    contexts = {c.id: c for c in make_contexts(5, 1)}
    recipe = make_recipe(contexts_per_grid=5, negatives={"random_prompt": 1.0}, filters=OFF, candidates=3)
    built = build([grid], contexts, prompts, recipe, ask)
    assert [pair.prompt_id for pair in built.pairs] == list(prompts)
    for row, pair in enumerate(built.pairs):
        assert pair.kinds == ["random_prompt"] * 2 and pair.context_id == "train-2-0"
        assert pair.prompt[1]["content"] == prompts[pair.prompt_id].text
        columns = [[a.text for a in grid.answers].index(text) for text in pair.negatives]
        assert len({row, *columns}) == 3
        assert pair.reference == [grid.scores[row][j] for j in (row, *columns)]
        assert pair.pmi == pytest.approx([grid.scores[row][row] - grid.scores[j][row] for j in columns], abs=1e-5)


def reasons(built):
    return dict(built.dropped[TRAIN])


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_answers_always_go(text):
    built = build_grids([make_grid(texts=[*ORDINARY[:2], text, *ORDINARY[3:]])])
    assert reasons(built) == {"empty": 1}
    assert [pair.id for pair in built.pairs] == ["0-0", "0-1", "0-3", "0-4"]
    assert all(text not in pair.negatives for pair in built.pairs)


def test_identical_answers_always_go():
    built = build_grids([make_grid(texts=[*ORDINARY[:3], ORDINARY[0] + " ", ORDINARY[4]])])
    assert reasons(built) == {"identical": 1}
    assert [pair.id for pair in built.pairs] == ["0-0", "0-1", "0-2", "0-4"]


def test_an_answer_that_ignores_its_context_goes_not_the_one_without_context():
    grid = make_grid(plain=True, texts=["Whatever suits the day is fine, and rest is part of it.", *ORDINARY[1:]])
    built = build_grids([grid], negatives={"no_context": 1.0})
    assert reasons(built) == {"identical": 1}
    assert [pair.id for pair in built.pairs] == ["0-1", "0-2", "0-3", "0-4"]


FAULTY = {  # filter: (its setting, an answer or finish that it drops)
    "truncated": (True, None),
    "repeated_ngrams": (0.5, "and then you rest " * 12),
    "refusals": (True, "I'm sorry, but I can't help with that."),
    "quotes_context": (4, "You told me: I like foxes and gardens, so go outside."),
    "first_person": (True, "I like foxes and my gardens."),
    "near_duplicates": (0.7, "Walk by the river before breakfast and take a flask of tea along with them."),
}


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize("split", [TRAIN, HELDOUT])
def test_filter_drops_its_answer_and_no_other(name, split):
    setting, text = FAULTY[name]
    texts = [*ORDINARY[:3], text or ORDINARY[3], ORDINARY[4]]
    grid = make_grid(split=split, texts=texts, finishes=["stop", "stop", "stop", "length" if text is None else "stop", "stop"])
    if name in ("quotes_context", "first_person"):
        assert "foxes and gardens" in make_contexts(5, 1)[3].text
    before, after = build_grids([grid]), build_grids([grid], filters={**OFF, name: setting})
    assert len(before.pairs) == 5
    if split == HELDOUT:  # a measure stays as it was
        assert after.pairs == before.pairs and not after.dropped[HELDOUT]
    else:
        assert reasons(after) == {name: 1}
        assert [pair.id for pair in after.pairs] == ["0-0", "0-1", "0-2", "0-4"]
        if name not in REJECTED_ONLY:
            assert all(texts[3] not in pair.negatives for pair in after.pairs)


@pytest.mark.parametrize("name", REJECTED_ONLY)
@pytest.mark.parametrize("plain", [False, True])
def test_an_answer_that_parrots_is_rejected_and_never_chosen(name, plain):
    """It counts as one dropped pair; with one candidate for each other answer it is rejected by one of them, at most."""
    setting, text = FAULTY[name]
    grids = [make_grid(n, texts=[*ORDINARY[:3], text, ORDINARY[4]], plain=plain) for n in range(20)]
    built = build_grids(grids, filters={**OFF, name: setting}, candidates=2)
    assert len(built.pairs) == 80 and reasons(built) == {name: 20}
    assert all(pair.chosen[0]["content"] != text for pair in built.pairs)
    times = [sum(text in pair.negatives for pair in built.pairs if pair.grid == n) for n in range(20)]
    assert times == [1] * 20  # a derangement: everybody's is rejected once
    every = build_grids(grids, filters={**OFF, name: setting}, candidates=5)
    assert all(text in pair.negatives for pair in every.pairs)


def test_a_grid_of_parrots_alone_gives_no_pair():
    built = build_grids(
        [make_grid(texts=[FAULTY["first_person"][1] + " " * n for n in range(5)])], filters={**OFF, "first_person": True}
    )
    assert not built.pairs


@pytest.mark.parametrize("name", FAULTY)
def test_filter_leaves_ordinary_answers(name):
    built = build_grids([make_grid(plain=True)], filters={**OFF, name: FAULTY[name][0]})
    assert len(built.pairs) == 5 and not reasons(built)


def balanced(built):
    """Every chosen answer of a grid is rejected once, and no other answer is."""
    grids = {}
    for pair in built.pairs:
        grids.setdefault(pair.grid, []).append(pair)
    return all(sorted(p.tokens[0] for p in some) == sorted(p.tokens[1] for p in some) for some in grids.values())


def test_pmi_floor():
    grids = [make_grid(n) for n in range(10)]
    everything = build_grids(grids).pairs
    built = build_grids(grids, filters={**OFF, "min_pmi": 1.0})
    assert 0 < len(built.pairs) < len(everything) and balanced(built)
    assert all(min(pair.pmi) > 1.0 for pair in built.pairs)
    lost = reasons(built)
    assert set(lost) <= {"min_pmi", "too_few_left"} and sum(lost.values()) == len(everything) - len(built.pairs)
    untouched = [g.id for g in grids if all(min(p.pmi) > 1.0 for p in everything if p.grid == g.id)]
    assert [p for p in built.pairs if p.grid in untouched] == [p for p in everything if p.grid in untouched]
    assert sum(map(len, built.measured.values())) == 50  # the histogram shows what the floor took, too


def test_length_ratio():
    grids = [make_grid(n, lengths=[4, 6, 9, 12, 20]) for n in range(6)]
    everything = build_grids(grids).pairs
    built = build_grids(grids, filters={**OFF, "max_length_ratio": 2.0})

    def fits(pair):
        lengths = [len(tokens) for tokens in pair.tokens]
        return max(lengths) <= 2 * min(lengths)

    assert 0 < len(built.pairs) < len(everything) and balanced(built)
    assert all(map(fits, built.pairs))
    lost = reasons(built)
    assert set(lost) <= {"max_length_ratio", "too_few_left"} and sum(lost.values()) == len(everything) - len(built.pairs)


def test_a_grid_with_too_few_fit_answers_is_counted():
    built = build_grids([make_grid(texts=[ORDINARY[0], "", "", "", ""])])
    assert not built.pairs and reasons(built) == {"empty": 4, "too_few_left": 1}
    built = build_grids([make_grid(texts=[*ORDINARY[:2], "", "", ""])], candidates=3)
    assert not built.pairs and reasons(built) == {"empty": 3, "too_few_left": 2}


def test_every_answer_is_kept_or_counted():
    texts = [ORDINARY[0], "I'm sorry, but I can't help.", "rest and rest and " * 9, "", ORDINARY[4]]
    grids = [make_grid(n, texts=texts) for n in range(4)]
    built = build_grids(grids, filters={**OFF, "refusals": True, "repeated_ngrams": 0.5, "min_pmi": 1.2})
    assert len(built.pairs) + sum(reasons(built).values()) == 20


def test_summary():
    grids = [make_grid(n) for n in range(6)] + [replace(make_grid(n, HELDOUT), id=6 + n) for n in range(2)]
    built = build_grids(grids, filters={**OFF, "min_pmi": 1.0})
    summary = asdict(summarize(built, grids))
    assert summary["pairs"] == {TRAIN: len(built.pairs) - 10, "validation": 0, HELDOUT: 10}
    assert sum(summary["dropped"][TRAIN].values()) == 30 - summary["pairs"][TRAIN]
    kept = [pair for pair in built.pairs if pair.split == TRAIN]
    result = summary["pmi"][TRAIN]["random_context"]
    assert result["negatives"] == len(kept)
    assert result["mean"] == pytest.approx(sum(pair.pmi[0] for pair in kept) / len(kept), abs=1e-4)
    assert result["mean_per_token"] == pytest.approx(result["mean"] / 9, abs=1e-4)
    bars = summary["histogram"]
    assert len(bars["edges"]) == len(bars[TRAIN]) + 1
    assert (sum(bars[TRAIN]), sum(bars["validation"]), sum(bars[HELDOUT])) == (30, 0, 10)
    assert summary["grids"][TRAIN] == {"grids": 6, "behind": [6, 0, 0]}


def shown(prompt, context):
    """As `ask`, with all passages that the context stands behind."""
    text = "\n\n".join(context.passages) if context else "nobody"
    return [{"role": "system", "content": text}, {"role": "user", "content": prompt.text}], [1, len(text), 2]


def test_a_pair_carries_its_distractors():
    grid = replace(make_grid(size=3, plain=True), distractors=["train-4-0", "train-3-0"])
    contexts = {c.id: c for c in make_contexts(5, 1)}
    prompts = {p.id: p for p in make_prompts(1)}
    recipe = make_recipe(negatives={"no_context": 1.0}, filters=OFF)
    pairs = build([grid], contexts, prompts, recipe, shown).pairs
    assert len(pairs) == 3
    for pair in pairs:
        assert pair.distractor_ids == ["train-4-0", "train-3-0"]
        assert pair.prompt[0]["content"] == "\n\n".join(contexts[i].text for i in (*pair.distractor_ids, pair.context_id))


@pytest.mark.parametrize(
    ("filters", "fault", "answer"),
    [
        (
            {"quotes_context": 5},
            "quotes_context",
            "Note that I like gardens and knees, since the spring is here, and plan the week.",
        ),
        ({"first_person": True}, "first_person", "I like gardens and knees, since they suit me, so the week begins in the garden."),
    ],
)
def test_filters_see_the_distractors(filters, fault, answer):
    """An answer that hands a distractor back is only rejected; behind other passages the same answer is fine."""
    contexts = {c.id: c for c in make_contexts(6, 1)}
    prompts = {p.id: p for p in make_prompts(1)}
    recipe = make_recipe(filters={**OFF, **filters})
    for distractors, expected in ((["train-4-0"], 1), (["train-5-0"], 0)):
        grid = replace(make_grid(size=3, texts=[answer, *ORDINARY[:2]]), distractors=distractors)
        built = build([grid], contexts, prompts, recipe, shown)
        assert built.dropped[TRAIN][fault] == expected
        assert (answer in [pair.chosen[0]["content"] for pair in built.pairs]) == (not expected)
        assert any(answer in pair.negatives for pair in built.pairs)
