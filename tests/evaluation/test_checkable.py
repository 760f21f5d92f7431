"""Every kind of requirement is met by one text and missed by another; the stage counts them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mipo_mlx import run as runs
from mipo_mlx.commands import summary as runs_summary
from mipo_mlx.evaluation import checkable, evaluate
from mipo_mlx.evaluation.checkable import Demand
from mipo_mlx.evaluation.workbench import Workbench
from mipo_mlx.files import read_json, read_jsonl, read_records, write_records
from mipo_mlx.models import prompts as chat
from mipo_mlx.pairs.grids import make_plan
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe_loading import load_recipe
from mipo_mlx.records import Answer, Pair, Prompt
from mipo_mlx.sources import read as sources

from .helpers import make_run, more_prompts, recipe

LONG = "one two three four five six seven eight nine ten " * 4
EXAMPLES = {
    "short": ("Bake bread.", LONG),
    "long": (LONG, "Bake bread."),
    "one sentence": ("Bake bread, then rest.", "Bake bread. Then rest."),
    "three sentences": ("Bake. Rest! Eat?", "Bake. Rest."),
    "bullets": ("Do this:\n- bake\n- rest", "- bake"),
    "numbers": ("1. bake\n2) rest", "1 loaf and 2 rolls"),
    "prose": ("Bake bread - it is good.", "Well:\n* bake"),
    "emoji": ("Bake \U0001f35e", "Bake :)"),
    "no emoji": ("Bake.", "Bake \u2728"),
    "JSON": ('```json\n{"do": "bake"}\n```', "[1, 2] is {json}"),
    "lower case": ("bake bread in 2 hours.", "Bake bread."),
    "capitals": ("BAKE BREAD IN 2 HOURS!", "BAKE bread"),
    "a word": ("Visit the Lighthouse.", "Visit two lighthouses."),
    "not a word": ("Your bread is good.", "Can YOU bake?"),
    "an opening": ("Certainly, bake.", "Bake, certainly."),
    "a question": ('Why not "bake?"', "Why not? Bake."),
    "no exclamation": ("Bake.", "Bake!"),
    "no commas": ("Bake and rest.", "Bake, rest."),
    "digits": ("Bake 2 loaves.", "Bake two loaves."),
    "no digits": ("Bake two loaves.", "Bake 2 loaves."),
    "Spanish": ("Puedes hacer pan con las manos y es muy bueno.", "You can bake with the hands and it is good."),
    "German": ("Du kannst das Brot mit der Hand kneten und es ist gut.", "El pan es muy bueno con las manos."),
    "French": ("Le pain est bon avec des herbes pour les amis.", "Das Brot ist gut mit der Butter und nicht ohne."),
    "paragraphs": ("Bake.\n\nRest.", "Bake.\nRest."),
}


def test_there_are_at_least_twenty_kinds_and_ten_ways_to_say_each():
    assert len(checkable.KINDS) >= 20 and len(set(k.name for k in checkable.KINDS)) == len(checkable.KINDS)
    assert len(set(checkable.PHRASINGS)) == 10 and all("{wish}" in p for p in checkable.PHRASINGS)
    assert set(EXAMPLES) == {kind.name for kind in checkable.KINDS}


def test_the_shipped_contexts_are_all_phrasings_of_two_thirds_of_the_kinds():
    path = Path(__file__).parents[2] / "recipes" / "checkable.jsonl"
    rows = read_jsonl(path)
    assert rows == checkable.contexts() and len(rows) == 160 and len({row["context"] for row in rows}) == 160
    wishes = [kind.wish for kind in checkable.KINDS if kind.heldout]
    assert len(wishes) == len(checkable.HELDOUT_KINDS) == 8
    assert not any(wish in row["context"] for wish in wishes for row in rows)


def test_the_shipped_recipe_keeps_them_all_and_mixes_kinds():
    """They are short and alike, and none is dropped. A kind is on one side. Its comment says how many are trained on."""
    values = load_recipe(Path(__file__).parents[2] / "recipes" / "checkable.yaml", [], None)
    contexts, prompts, row = sources.collect(values, lambda text: len(text.split()), Reporter(quiet=True))
    assert len(contexts) == 160 and not row["passages"]["dropped"]
    sides = {side: {c.note for c in contexts if c.split == side} for side in ("train", "heldout")}
    assert not sides["train"] & sides["heldout"] and min(map(len, sides.values())) >= 4
    plans = make_plan(values, contexts, prompts)
    kinds = {split: {c.note for plan in plans if plan.split == split for c in plan.contexts} for split in ("train", "validation")}
    assert [len(kinds["train"]), len(kinds["validation"]), len(sides["heldout"])] == [12, 0, 4]


@pytest.mark.parametrize("kind", checkable.KINDS, ids=lambda kind: kind.name)
def test_each_kind_tells_a_text_that_meets_it_from_one_that_does_not(kind):
    good, bad = EXAMPLES[kind.name]
    assert kind.met(good) and not kind.met(bad)
    assert not kind.met("")  # saying nothing meets no requirement


@pytest.mark.parametrize(
    "text",
    ["\u23f0", "\u231b", "\u2764", "\u2764\ufe0f", "1\ufe0f\u20e3", "\U0001f1e9\U0001f1ea", "\U0001f44d\U0001f3fd", "\U0001f336"],
)
def test_what_is_an_emoji(text):
    assert checkable.EMOJI.search(f"Bake {text} now")


def test_what_is_no_emoji():
    """Digits, signs and dingbats that Unicode's emoji-data.txt leaves out or shows as text."""
    assert not checkable.EMOJI.search(
        "Bake 3 #1 * \u00a9 \u00ae \u2122 \u2192 \u2605 \u2713 \u25aa \u2022 \u231c \u2764\ufe0e \u20ac"
    )


@pytest.mark.parametrize(
    "text, count",
    [
        ("Dr. Ana bakes.", 1),
        ("Bake, e.g. bread, i.e. loaves, at 8 a.m. or so.", 1),
        ("Rest at 9 p.m. Then bake.", 2),
        ("Is it late? No. Then bake No. 5.", 3),
        ("- bake bread\n- rest\n- eat", 3),
        ("1. Bake bread.\n2. Rest.", 2),
        ("Do this:\n\n* Bake. Rest!", 3),
        ("Bake bread\nand rest. \U0001f35e", 1),
        ("bake. rest. eat.", 3),
        ("The ball took 5 ms. Then it stopped.", 2),
        ("We met on Main St. It rained.", 2),
    ],
)
def test_sentences_are_counted_as_a_person_would(text, count):
    assert checkable._sentences(text) == count


def test_requests_take_every_kind_in_turn(tmp_path, tiny_folder):
    settings = recipe(tiny_folder, checkable=30)
    make_run(tmp_path, settings)
    demands = checkable.demands(tmp_path, settings)
    assert [demand.kind for demand in demands[:24]] == list(checkable.KINDS) and len(demands) == 30
    assert len({demand.phrasing for demand in demands}) > 5 and demands == checkable.demands(tmp_path, settings)
    assert checkable.bar_total(tmp_path, settings) == 120


def told_in_training(folder: Path, settings, kinds) -> None:
    """Training pairs whose prompts say these requirements; validation's say another."""
    (pair, *_), rows = read_records(folder / "pairs.jsonl", Pair), []
    for number, kind in enumerate((*kinds, checkable.KINDS[-1])):
        context = checkable.PHRASINGS[number % 10].format(wish=kind.wish)
        split = "train" if number < len(kinds) else "validation"
        rows.append(replace(pair, id=f"t{number}", split=split, prompt=chat.messages(settings.pairs, "What now?", context)))
    write_records(folder / "pairs.jsonl", [*read_records(folder / "pairs.jsonl", Pair), *rows])


def test_the_kinds_that_were_trained_on_are_those_of_the_training_pairs(tmp_path, tiny_folder):
    settings = recipe(tiny_folder, checkable=24)
    folder = make_run(tmp_path, settings)
    assert checkable.trained(folder) == set()
    told_in_training(folder, settings, checkable.KINDS[3:8])
    assert checkable.trained(folder) == {kind.name for kind in checkable.KINDS[3:8]}


def test_the_stage_counts_what_was_met_told_and_untold(tmp_path, tiny_folder, monkeypatch):
    """A stand-in that says "Bake!" when told something, and a question when not."""
    settings = recipe(tiny_folder, answers=2, checkable=24)
    folder = make_run(tmp_path, settings)
    more_prompts(folder)
    told_in_training(folder, settings, checkable.KINDS[:19])
    original = Workbench.sample_now
    untold = set()

    def sample_now(self, prompts, *others):
        if "checkable" not in current:
            return original(self, prompts, *others)
        message = ["About the user" in self.tokenizer.decode(p) for p in prompts]
        untold.update(map(bool, message))
        return [Answer("Bake!" if t else "Bake?", [3], "stop") for t in message]

    current: list[str] = []
    whole = checkable.evaluate
    monkeypatch.setattr(Workbench, "sample_now", sample_now)
    monkeypatch.setattr(evaluate.checkable, "evaluate", lambda *args: current.append("checkable") or whole(*args))
    summary = evaluate.run(folder, settings, Reporter(quiet=True))
    result = read_json(folder / "eval.json")["checkable"]
    assert untold == {True, False} and result["requests"] == 24
    expected = {text: sum(kind.met(text) for kind in checkable.KINDS) / 24 for text in ("Bake!", "Bake?")}
    assert result["metrics"]["checkable"]["after"]["value"] == pytest.approx(expected["Bake!"])
    assert result["metrics"]["checkable_without"]["before"]["value"] == pytest.approx(expected["Bake?"])
    gain = result["metrics"]["checkable_gain"]["after"]
    assert gain["value"] == pytest.approx(expected["Bake!"] - expected["Bake?"])
    assert gain["interval"] and gain["interval"][0] <= gain["value"] <= gain["interval"][1]
    unseen = checkable.KINDS[19:]
    assert result["heldout_kinds"]["requests"] == len(unseen) == 5
    met = sum(kind.met("Bake!") for kind in unseen) / 5
    assert result["heldout_kinds"]["metrics"]["checkable"]["after"]["value"] == pytest.approx(met)
    assert result["no_interval"] is None and "independent ones" in result["heldout_kinds"]["no_interval"]
    assert result["kinds"]["a question"] == {"requests": 1, "before": 0.0, "after": 0.0} and summary["checkable"]["after"] > 0
    message = runs_summary.evaluation(runs.Run(folder, settings))
    share = f"{expected['Bake!']:.2f}"
    assert re.search(rf"Meets a stated requirement +{share} -> {share} \(", message)
    assert re.search(rf"\.\.\. of kinds that .+ {met:.2f} -> {met:.2f}\n", message + "\n")


def test_requests_are_the_same_case_in_two_runs_by_their_text():
    def keys(*prompts: Prompt) -> list[str]:
        return [checkable._key(Demand(checkable.KINDS[0], 0, prompt)) for prompt in prompts]

    first, second = keys(Prompt("p0", "Cook?", "", "heldout"), Prompt("p1", "Read?", "", "heldout"))
    assert keys(Prompt("p1", "Cook?", "", "heldout"), Prompt("p0", "Sing?", "", "heldout"))[0] == first != second
