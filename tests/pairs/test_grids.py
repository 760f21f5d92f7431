"""The plan: who meets whom, evenly, never two contexts of one note, never a context or prompt on two sides."""

import random
from collections import Counter

import pytest
from pydantic import ValidationError

from mipo_mlx.errors import UserError
from mipo_mlx.pairs.grids import Deck, in_chunks, make_plan
from mipo_mlx.recipe import Memory
from mipo_mlx.records import CHORES, GENERAL, HELDOUT, PERSONAL, TRAIN, VALIDATION

from .helpers import make_contexts, make_prompts, make_recipe


def everything(notes=12, each=3):
    contexts = make_contexts(notes, each) + make_contexts(8, each, "heldout")
    return contexts, make_prompts(10) + make_prompts(4, "heldout")


def test_grids_have_different_notes_and_stay_on_their_side():
    plans = make_plan(make_recipe(grids=40, heldout_grids=10), *everything())
    assert [plan.id for plan in plans] == list(range(52))
    for plan in plans:
        assert len({context.note for context in plan.contexts}) == 3
        assert len({prompt.id for prompt in plan.prompts}) == 1
    used = {split: {c.note for p in plans if p.split == split for c in p.contexts} for split in (TRAIN, VALIDATION, HELDOUT)}
    requests = {split: {p.prompts[0].id for p in plans if p.split == split} for split in (TRAIN, VALIDATION, HELDOUT)}
    for sides in (used, requests):
        assert all(sides.values())
        assert not sides[TRAIN] & sides[VALIDATION] and not (sides[TRAIN] | sides[VALIDATION]) & sides[HELDOUT]


def test_distractors_are_of_other_notes_of_the_same_side():
    recipe = make_recipe(grids=60, validation_grids=6, heldout_grids=20, distractors=[1.0, 1.0, 2.0])
    plans = make_plan(recipe, *everything())
    counts = {split: Counter(len(p.distractors) for p in plans if p.split == split) for split in (TRAIN, HELDOUT)}
    assert all(set(of) == {0, 1, 2} for of in counts.values())
    assert counts[TRAIN][2] > counts[TRAIN][1]
    notes = {split: {c.note for p in plans if p.split == split for c in p.contexts} for split in (TRAIN, VALIDATION, HELDOUT)}
    for plan in plans:
        own, others = {c.note for c in plan.contexts}, [c.note for c in plan.distractors]
        assert len({*own, *others}) == len(own) + len(others)
        assert {*others} <= notes[plan.split]
        texts = [d.text for d in plan.distractors]
        assert [list(c.passages) for c in plan.shown] == [[*texts, c.text] for c in plan.contexts]
    assert len({c.id for plan in plans for c in plan.distractors}) > 15


def test_distractors_change_nothing_else_of_the_plan():
    alone, behind = (make_plan(make_recipe(grids=20, distractors=of), *everything()) for of in ([1.0], [0.0, 0.0, 1.0]))
    assert [(p.id, p.prompts, p.contexts) for p in alone] == [(p.id, p.prompts, p.contexts) for p in behind]
    assert not any(p.distractors for p in alone) and all(len(p.distractors) == 2 for p in behind if p.split == TRAIN)


def test_too_few_notes_for_as_many_distractors():
    contexts = make_contexts(4, 2) + make_contexts(3, 2, "heldout")
    recipe = make_recipe(validation_grids=0, distractors=[0.0, 0.0, 1.0])
    plans = make_plan(recipe, contexts, everything()[1])
    assert {(p.split, len(p.distractors)) for p in plans} == {(TRAIN, 1), (HELDOUT, 0)}


def test_the_answer_without_a_context_has_no_distractors():
    recipe = make_recipe(distractors=[0.0, 1.0], negatives={"no_context": 1.0})
    plans = [plan for plan in make_plan(recipe, *everything()) if plan.split == TRAIN]
    for plan in plans:
        assert plan.shown[-1] is None and all(len(c.passages) == 2 for c in plan.shown[:-1])


def test_by_default_a_side_with_few_notes_has_no_distractors():
    contexts, prompts = everything()
    counts = {}
    for few in (False, True):
        notes = sorted({context.note for context in contexts if context.split == TRAIN})[: 9 if few else None]
        some = [context for context in contexts if context.split != TRAIN or context.note in notes]
        recipe = make_recipe(grids=20, validation_grids=0, distractors="auto", sources={"notes": "notes"})
        counts[few] = sum(len(p.distractors) for p in make_plan(recipe, some, prompts) if p.split == TRAIN)
    assert counts[True] == 0 < counts[False]


def test_distractors_by_default_where_one_owner_has_notes():
    notes = {"notes": "somewhere"}
    assert make_recipe(sources=notes).distractors == [0.5, 0.25, 0.25]
    assert make_recipe(sources=notes, distractors=[3.0, 1.0]).distractors == [3.0, 1.0]
    people = {**notes, "columns": {"context": "bio", "note": "user"}}
    assert make_recipe().distractors == make_recipe(sources=people).distractors == [1.0]
    for sources, wrong in ((people, [1.0, 1.0]), (notes, [0.0, 0.0]), (notes, [])):
        with pytest.raises(ValidationError, match="distractors"):
            make_recipe(sources=sources, distractors=wrong)


def test_memory_gives_as_many_passages_as_training_deals_at_once():
    notes = {"notes": "somewhere"}
    most = {None: 3, (1.0,): 1, (1.0, 0.0, 0.0): 1, (1.0, 2.0): 2, (0.0, 0.0, 1.0): 3}
    for shares, passages in most.items():
        recipe = make_recipe(sources=notes, distractors="auto" if shares is None else list(shares))
        assert recipe.passages == passages
        assert recipe.model_copy(update={"memory": Memory(passages=2)}).passages == 2
    assert make_recipe().passages == 1  # a data set: training deals one


def test_contexts_and_prompts_are_used_evenly():
    plans = [p for p in make_plan(make_recipe(grids=40, validation_grids=0), *everything()) if p.split == TRAIN]
    contexts = Counter(c.id for plan in plans for c in plan.contexts)
    prompts = Counter(plan.prompts[0].id for plan in plans)
    assert len(contexts) == 36 and max(contexts.values()) - min(contexts.values()) <= 2
    assert set(prompts.values()) == {4}


def test_no_item_waits_twice_where_a_note_has_many_passages():
    """One note of 40 passages among nine of one: what is passed over is not shuffled in again beside itself."""
    items = [("long", n) for n in range(40)] + [(f"short {n}", 0) for n in range(9)]
    deck = Deck(items, random.Random(0))
    dealt = Counter()
    for _ in range(200):
        hand = deck.deal(4, lambda item: item[0])
        assert len({note for note, _ in hand}) == 4
        assert len(set(deck.left)) == len(deck.left) <= len(items)
        dealt.update(item for item in hand if item[0] == "long")
    assert len(dealt) == 40 and max(dealt.values()) - min(dealt.values()) <= 2


def test_single_passages_are_dealt_once_before_any_twice():
    deck = Deck(list(range(10)), random.Random(0))
    hands = [deck.deal(4, lambda item: item) for _ in range(25)]
    for hand in hands:
        assert len(set(hand)) == 4
    counts = [Counter(sum(hands[: n + 1], [])) for n in range(25)]
    assert all(max(count[i] for i in range(10)) - min(count[i] for i in range(10)) <= 1 for count in counts)
    assert hands[:3] == [[6, 9, 0, 2], [4, 3, 5, 1], [8, 7, 5, 3]]  # as runs that exist were dealt


def test_same_seed_same_plan():
    one, two, other = (make_plan(make_recipe(seed=seed), *everything()) for seed in (1, 1, 2))
    assert one == two
    assert one != other


def test_no_context_adds_a_row():
    plans = make_plan(make_recipe(negatives={"random_context": 1.0, "no_context": 1.0}), *everything())
    assert all(plan.contexts[-1] is None and len(plan) == 4 for plan in plans)


def test_validation_is_left_out_where_notes_are_few():
    plans = make_plan(make_recipe(), *everything(notes=5))
    assert {plan.split for plan in plans} == {TRAIN, HELDOUT}


def test_too_few_notes_says_how_many():
    contexts, prompts = everything(notes=2, each=4)
    with pytest.raises(UserError, match="8 different training .* 2 notes, .* needs 3 .* lower pairs.contexts_per_grid to 2"):
        make_plan(make_recipe(), contexts, prompts)


def test_one_note_only():
    contexts, prompts = everything(notes=1, each=4)
    with pytest.raises(UserError, match="from 1 note, .*; add notes"):
        make_plan(make_recipe(), contexts, prompts)


def test_no_contexts_on_the_held_out_side():
    contexts, prompts = everything()
    with pytest.raises(UserError, match="0 different held-out ones"):
        make_plan(make_recipe(), [c for c in contexts if c.split == TRAIN], prompts)


def test_contexts_all_alike():
    contexts, prompts = everything()
    alike = [type(c)(**{**vars(c), "text": "I  like BEES."}) if c.split == TRAIN else c for c in contexts]
    with pytest.raises(UserError, match="36 training ones are all alike"):
        make_plan(make_recipe(), alike, prompts)


def test_no_prompts():
    contexts, prompts = everything()
    with pytest.raises(UserError, match="prompts: none on the held-out side"):
        make_plan(make_recipe(), contexts, [p for p in prompts if p.split == TRAIN])


def test_kinds_of_request_are_dealt_in_their_shares_on_every_side():
    contexts, prompts = everything()
    others = [p for kind in (GENERAL, CHORES) for p in make_prompts(10, kind=kind) + make_prompts(4, "heldout", kind)]
    recipe = make_recipe(grids=40, validation_grids=8, heldout_grids=8, kinds={"general": 1.0, "personal": 3.0})
    plans = make_plan(recipe, contexts, prompts + others)
    for split, count in ((TRAIN, 40), (VALIDATION, 8), (HELDOUT, 8)):
        dealt = [plan.prompts[0].kind for plan in plans if plan.split == split]
        assert Counter(dealt) == {PERSONAL: 0.75 * count, GENERAL: 0.25 * count}
        assert all(set(dealt[place : place + 4]) == {PERSONAL, GENERAL} for place in range(0, count, 4))
    ids = {split: {p.id for plan in plans if plan.split == split for p in plan.prompts} for split in (TRAIN, VALIDATION, HELDOUT)}
    assert not ids[TRAIN] & ids[VALIDATION] and not (ids[TRAIN] | ids[VALIDATION]) & ids[HELDOUT]
    # What is not dealt changes nothing.
    assert make_plan(make_recipe(), contexts, prompts + others) == make_plan(make_recipe(), contexts, prompts)


@pytest.mark.parametrize(
    "kinds, split, message",
    [
        ({"chores": 1.0}, None, "prompts of the kind chores: none on the training side; only the built-in bank has this kind"),
        ({"personal": 1.0, "general": 0.1}, HELDOUT, "prompts of the kind general: none on the held-out side"),
    ],
)
def test_a_kind_without_requests_says_where_there_are_some(kinds, split, message):
    contexts, prompts = everything()
    some = [prompt for prompt in make_prompts(9, kind=GENERAL) + make_prompts(3, "heldout", GENERAL) if prompt.split != split]
    with pytest.raises(UserError, match=message):
        make_plan(make_recipe(kinds=kinds), contexts, prompts + some)


def test_chunks_hold_whole_grids_and_fill_the_batch():
    plans = make_plan(make_recipe(), *everything())
    chunks = in_chunks(plans, 8)
    assert [plan for chunk in chunks for plan in chunk] == plans
    assert {len(chunk) for chunk in chunks[:-1]} == {2}
    assert [len(chunk) for chunk in in_chunks(plans, 1)] == [1] * len(plans)


def test_random_prompt_grids_have_one_context_and_different_prompts():
    recipe = make_recipe(negatives={"random_prompt": 1.0, "random_context": 3.0}, grids=40, validation_grids=0)
    plans = [plan for plan in make_plan(recipe, *everything()) if plan.split == TRAIN]
    of_prompts = [plan for plan in plans if plan.of_prompts]
    assert len(of_prompts) == 10
    for plan in of_prompts:
        assert len({prompt.text for prompt in plan.prompts}) == 3 and len({context.id for context in plan.contexts}) == 1
    assert [plan.id % 4 for plan in of_prompts] == [3] * 10  # spread evenly


def test_random_prompt_alone_needs_no_contexts():
    recipe = make_recipe(negatives={"random_prompt": 1.0})
    plans = make_plan(recipe, [], make_prompts(20) + make_prompts(4, "heldout"))
    assert all(plan.of_prompts and set(plan.contexts) == {None} for plan in plans)
    assert [plan.split for plan in plans] == [TRAIN] * 5 + [VALIDATION] * 2 + [HELDOUT] * 3
    seen = {split: {p.id for plan in plans if plan.split == split for p in plan.prompts} for split in (TRAIN, VALIDATION)}
    assert not seen[TRAIN] & seen[VALIDATION]


def test_random_prompt_with_too_few_prompts():
    recipe = make_recipe(negatives={"random_prompt": 1.0})
    with pytest.raises(UserError, match="2 held-out ones, and a grid for random_prompt needs 3"):
        make_plan(recipe, [], make_prompts(20) + make_prompts(2, "heldout"))


def nearest(prompt, context):
    """A prompt and a context fit where their numbers are the same."""
    return float(prompt.id.rpartition("p")[2] == context.note.rpartition("-")[2])


def test_fitting_grids_take_the_contexts_that_fit_and_the_others_what_is_left():
    contexts = make_contexts(12, 3) + make_contexts(8, 3, "heldout")
    plans = {
        share: [
            plan
            for plan in make_plan(make_recipe(grids=24, validation_grids=0, fitting=share), contexts, everything()[1], fit=nearest)
            if plan.split == TRAIN
        ]
        for share in (0.0, 0.5, 1.0)
    }
    fitted = {share: sum(nearest(p.prompts[0], c) for p in of for c in p.contexts) for share, of in plans.items()}
    assert fitted[0.0] < fitted[0.5] < fitted[1.0]
    for of in plans.values():
        uses = Counter(c.id for plan in of for c in plan.contexts)
        assert set(uses.values()) == {2}  # 72 rows of 36 contexts: as even as without
        assert all(len({c.note for c in plan.contexts}) == 3 for plan in of)
    random_ones = make_plan(make_recipe(grids=24, validation_grids=0), contexts, everything()[1])
    assert plans[0.0] == [plan for plan in random_ones if plan.split == TRAIN]


def test_the_best_that_is_left_is_chosen():
    deck = Deck(list(range(10)), random.Random(0))
    assert [deck.choose(4, lambda item: item, float) for _ in range(2)] == [[9, 8, 7, 6], [5, 4, 3, 2]]
    assert deck.choose(4, lambda item: item, float) == [1, 0, 9, 8]  # then a new shuffle begins
    assert deck.choose(3, lambda item: item % 3, float) == [7, 6, 5]
