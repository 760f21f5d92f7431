"""Pairs made elsewhere: strings, messages, implicit prompts, several negatives, sides; errors name file and line."""

import json
import os

import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.files import read_records
from mipo_mlx.models import prompts
from mipo_mlx.pairs import make
from mipo_mlx.pairs.exchange import import_pairs, written_end
from mipo_mlx.records import HELDOUT, TRAIN, VALIDATION, Pair
from mipo_mlx.sources.note import Tally

from .helpers import QUIET, fill, make_recipe

USER = [{"role": "user", "content": "What should I cook tonight?"}]
GOOD = {"prompt": "What should I cook tonight?", "chosen": "Bake bread.", "rejected": "Play waltzes."}


def reply(text):
    return [{"role": "assistant", "content": text}]


RECIPE = make_recipe()
BOTH = ({**GOOD, "split": "train"}, {**GOOD, "split": "heldout"})


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        {"prompt": USER, "chosen": reply("Bake bread."), "rejected": reply("Play waltzes.")},
        {"chosen": USER + reply("Bake bread."), "rejected": USER + reply("Play waltzes.")},
        {**GOOD, "chosen": USER + reply("Bake bread."), "rejected": USER + reply("Play waltzes.")},
        {"prompt": USER, "chosen": USER + reply("Bake bread."), "rejected": [USER + reply("Play waltzes.")]},
        {**GOOD, "chosen": "Bake bread.<|im_end|>", "rejected": "Play waltzes.<|im_end|>\n<|im_end|> "},
        {"chosen": USER + reply("Bake bread. <|im_end|>"), "rejected": USER + reply("Play waltzes.")},
        {**GOOD, "prompt": f"{GOOD['prompt']}\n", "chosen": USER + reply("Bake bread."), "rejected": USER + reply("Play waltzes.")},
    ],
    ids=["strings", "messages", "implicit prompt", "whole", "prompt twice", "ended", "ended messages", "space"],
)
def test_all_shapes_mean_the_same(row, tiny_tokenizer, tmp_path):
    rows = [{**row, "split": split} for split in (TRAIN, HELDOUT)]
    pair, _ = import_pairs(write(tmp_path / "p.jsonl", *rows), tiny_tokenizer, RECIPE)
    assert (pair.prompt, pair.chosen, pair.rejected) == (USER, reply("Bake bread."), reply("Play waltzes."))
    assert pair.negatives == ["Play waltzes."]
    assert pair.prompt_tokens == prompts.encode(tiny_tokenizer, USER)
    assert [tiny_tokenizer.decode(tokens) for tokens in pair.tokens] == ["Bake bread.<|im_end|>", "Play waltzes.<|im_end|>"]
    assert (pair.split, pair.grid, pair.source.endswith("p.jsonl"), pair.line) == (TRAIN, 0, True, 1)


def test_a_text_prompt_beside_whole_conversations_may_be_any_of_their_turns(tiny_tokenizer, tmp_path):
    opening = [{"role": "system", "content": "Be brief."}, *USER, *reply("For whom?"), {"role": "user", "content": "For two."}]
    for prompt in (GOOD["prompt"], "For two.", opening[:2], opening):
        row = {"prompt": prompt, "chosen": opening + reply("Bake bread."), "rejected": opening + reply("Play waltzes.")}
        rows = [{**row, "split": split} for split in (TRAIN, HELDOUT)]
        pair, _ = import_pairs(write(tmp_path / "p.jsonl", *rows), tiny_tokenizer, RECIPE)
        assert (pair.prompt, pair.chosen, pair.rejected) == (opening, reply("Bake bread."), reply("Play waltzes."))
    row = {"prompt": opening[:2], "chosen": USER + reply("Bake bread."), "rejected": USER + reply("Play waltzes.")}
    rows = [{**row, "split": split} for split in (TRAIN, HELDOUT)]
    assert import_pairs(write(tmp_path / "p.jsonl", *rows), tiny_tokenizer, RECIPE)[0].prompt == opening[:2]


def test_only_marks_at_the_end_of_an_answer_go(tiny_tokenizer, tmp_path):
    rows = [{**row, "chosen": "Write <|im_end|> here. ", "rejected": "No\n<|im_end|>"} for row in BOTH]
    pair, _ = import_pairs(write(tmp_path / "p.jsonl", *rows), tiny_tokenizer, RECIPE)
    assert pair.chosen == reply("Write <|im_end|> here. ") and pair.rejected == reply("No") and pair.negatives == ["No"]
    assert [tokens.count(2) for tokens in pair.tokens] == [1, 1] and all(tokens[-1] == 2 for tokens in pair.tokens)


def test_several_negatives_grids_and_splits(tiny_tokenizer, tmp_path):
    one, two = BOTH
    rows = [{**one, "rejected": ["Play waltzes.", "Run."], "grid": 0}, {**two, "grid": 0}, one]
    pairs = import_pairs(write(tmp_path / "p.jsonl", *rows), tiny_tokenizer, RECIPE)
    assert [len(pair.tokens) for pair in pairs] == [3, 2, 2]
    assert [pair.grid for pair in pairs] == [0, 0, 1]  # a number of its own where none is given
    assert [pair.split for pair in pairs] == [TRAIN, HELDOUT, TRAIN]


@pytest.fixture(scope="module")
def sampled(tiny_folder, tmp_path_factory):
    """A run's pairs: sampled tokens that no tokenizer would choose, answers without an end, two negatives."""
    folder = fill(tmp_path_factory.mktemp("sampled"))
    recipe = make_recipe(tiny_folder, candidates=3)
    make.run(folder, recipe, QUIET)
    return folder, recipe


def test_own_pairs_come_back_with_the_same_token_ids(sampled, tiny_tokenizer, tmp_path):
    folder, recipe = sampled
    own = read_records(folder / "pairs.jsonl", Pair)
    assert any(tokens[-1] != 2 for pair in own for tokens in pair.tokens)
    read = fill(tmp_path)
    named = recipe.pairs.model_copy(update={"file": str(folder / "pairs.jsonl")})
    make.run(read, recipe.model_copy(update={"pairs": named}), QUIET)
    again = read_records(read / "pairs.jsonl", Pair)
    for key in ("id", "split", "grid", "prompt", "chosen", "negatives", "prompt_tokens", "tokens", "prompt_id", "context_id"):
        assert [getattr(pair, key) for pair in again] == [getattr(pair, key) for pair in own], key
    for one, two in zip(again, own, strict=True):
        assert one.reference == pytest.approx(two.reference, abs=1e-3)  # the base's own, computed anew
    assert (read / "samples.jsonl").read_bytes() == b""


def test_token_ids_of_another_tokenizer_are_not_believed(tiny_tokenizer, tmp_path):
    rows = [{**row, "tokens": [[5, 6, 2], [999_999]]} for row in BOTH]
    pair, _ = import_pairs(write(tmp_path / "p.jsonl", *rows), tiny_tokenizer, RECIPE)
    assert [tiny_tokenizer.decode(tokens[:-1]) for tokens in pair.tokens] == ["Bake bread.", "Play waltzes."]


def many(count, **more):
    return [{**GOOD, "prompt": f"How do I plan week {n}?", **{k: v(n) for k, v in more.items()}} for n in range(count)]


def test_sides_are_dealt_by_the_seed(tiny_tokenizer, tmp_path):
    path = write(tmp_path / "p.jsonl", *many(40))
    recipe = make_recipe(validation_grids=2)  # of three contexts: six pairs
    result = [import_pairs(path, tiny_tokenizer, recipe.model_copy(update={"seed": seed})) for seed in (0, 0, 1)]
    sides = [[pair.split for pair in pairs] for pairs in result]
    assert sides[0] == sides[1] != sides[2]
    for side in sides:
        assert [side.count(split) for split in (TRAIN, VALIDATION, HELDOUT)] == [24, 6, 10]
    none = make_recipe(validation_grids=0, sources={"heldout_prompts": 0.5})
    side = [pair.split for pair in import_pairs(path, tiny_tokenizer, none)]
    assert [side.count(split) for split in (TRAIN, VALIDATION, HELDOUT)] == [20, 0, 20]


def test_pairs_of_a_grid_or_a_prompt_stay_together(tiny_tokenizer, tmp_path):
    """Grids of two; every second grid asks what the one before it asks."""
    rows = many(40, grid=lambda n: n // 2)
    for n, row in enumerate(rows):
        row["prompt"] = rows[n - 2]["prompt"] if n // 2 % 2 and n % 2 else row["prompt"]
    pairs = import_pairs(write(tmp_path / "p.jsonl", *rows), tiny_tokenizer, RECIPE)
    assert {pair.split for pair in pairs} == {TRAIN, VALIDATION, HELDOUT} and pairs[3].prompt == pairs[1].prompt
    for first in range(0, 40, 4):
        assert len({pair.split for pair in pairs[first : first + 4]}) == 1


def test_splits_are_whole_or_absent(tiny_tokenizer, tmp_path):
    path = tmp_path / "p.jsonl"
    with pytest.raises(UserError, match=r"p\.jsonl:2: split: other lines have one"):
        import_pairs(write(path, BOTH[0], GOOD), tiny_tokenizer, RECIPE)
    with pytest.raises(UserError, match=r"p\.jsonl: no line has the split heldout"):
        import_pairs(write(path, BOTH[0]), tiny_tokenizer, RECIPE)
    with pytest.raises(UserError, match=r"p\.jsonl: all pairs share a prompt or a grid"):
        import_pairs(write(path, GOOD, GOOD), tiny_tokenizer, RECIPE)


def test_a_pair_beyond_the_models_window_is_named(tiny_tokenizer, tmp_path):
    rows = ["", {**BOTH[0], "rejected": "Run. " * 60}]
    with pytest.raises(UserError, match=r"p\.jsonl:2: \d+ tokens, and the model takes 100"):
        import_pairs(write(tmp_path / "p.jsonl", *rows), tiny_tokenizer, RECIPE, window=100)


def test_a_line_separator_inside_a_text_is_no_new_line(tiny_tokenizer, tmp_path):
    rows = [json.dumps({**row, "chosen": "Bake\u2028bread."}, ensure_ascii=False) for row in BOTH]
    assert len(import_pairs(write(tmp_path / "p.jsonl", *rows), tiny_tokenizer, RECIPE)) == 2


def test_the_end_is_the_templates_own(tiny_tokenizer):
    assert written_end(tiny_tokenizer) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{broken", "not JSON"),
        ("[1]", "expected an object with prompt, chosen and rejected"),
        ({"prompt": "a", "chosen": "b"}, "expected an object with prompt, chosen and rejected"),
        ({**GOOD, "prompt": 3}, "prompt: expected a string or a list of chat messages"),
        ({**GOOD, "rejected": [{"role": "assistant"}]}, "rejected: expected a string or a list of chat messages"),
        ({**GOOD, "rejected": []}, "rejected: expected a string or a list of chat messages"),
        ({**GOOD, "chosen": " "}, "chosen: expected one assistant message with text"),
        ({**GOOD, "chosen": USER}, "chosen: expected one assistant message with text"),
        ({**GOOD, "rejected": GOOD["chosen"]}, "chosen and rejected are the same text"),
        ({**GOOD, "chosen": "<|im_end|>"}, "expected text in chosen and rejected"),
        ({**GOOD, "chosen": "b<|im_end|>", "rejected": "b"}, "chosen and rejected are the same text"),
        ({**GOOD, "chosen": reply("a") + reply("b"), "rejected": USER + reply("b")}, "do not begin with the same"),
        (
            {"prompt": "else", "chosen": USER + reply("a"), "rejected": USER + reply("b")},
            "prompt: not what chosen and rejected begin",
        ),
        ({"chosen": reply("a"), "rejected": reply("b")}, "no prompt, and chosen and rejected do not begin with the same"),
        ({**GOOD, "split": "test"}, "split: expected train, validation or heldout"),
        ({**GOOD, "grid": "a"}, "grid: expected a whole number"),
    ],
)
def test_errors_name_file_and_line(row, message, tiny_tokenizer, tmp_path):
    path = write(tmp_path / "p.jsonl", "", "", row)
    with pytest.raises(UserError, match=rf"p\.jsonl:3: .*{message}"):
        import_pairs(path, tiny_tokenizer, RECIPE)


def test_a_broken_line_costs_itself(tiny_tokenizer, tmp_path):
    """Each kind of broken line between pairs that are read: counted, and named with its reason."""
    rows = [BOTH[0], "{broken", "[1]", {**GOOD, "grid": "a"}, {**GOOD, "rejected": "Run. " * 60}, "@", "#", BOTH[1], "&"]
    path = write(tmp_path / "p.jsonl", *rows)
    half = b'{"prompt": "a \\ud83d b", "chosen": "c", "rejected": "d"}'
    path.write_bytes(path.read_bytes().replace(b"@", b'{"prompt": "f\xfcr"}').replace(b"#", half).replace(b"&", b"[" * 100_000))
    tally = Tally()
    pairs = import_pairs(path, tiny_tokenizer, RECIPE, 100, tally)
    assert [(pair.id, pair.split) for pair in pairs] == [("1", "train"), ("8", "heldout")]
    assert tally.removed == {"rows that cannot be read": 7}
    reasons = {int(row["file"].rpartition(":")[2]): row["why"] for row in tally.skipped}
    assert reasons[2].startswith("not JSON") and reasons[3].startswith("expected an object with prompt")
    assert reasons[4].startswith("grid: expected a whole number") and "and the model takes 100" in reasons[5]
    assert reasons[6] == "not text in UTF-8" and "half of a surrogate pair" in reasons[7] and reasons[9].startswith("not JSON")


def test_a_pipe_in_place_of_a_file_is_never_waited_for(tiny_tokenizer, tmp_path):
    os.mkfifo(tmp_path / "p.jsonl")
    with pytest.raises(UserError, match="cannot be read"):
        import_pairs(tmp_path / "p.jsonl", tiny_tokenizer, RECIPE)


def test_missing_and_empty_files(tiny_tokenizer, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        import_pairs(tmp_path / "none.jsonl", tiny_tokenizer, RECIPE)
    with pytest.raises(UserError, match="cannot be read"):
        import_pairs(tmp_path, tiny_tokenizer, RECIPE)
    with pytest.raises(UserError, match="no pairs in this file"):
        import_pairs(write(tmp_path / "p.jsonl", ""), tiny_tokenizer, RECIPE)


def test_ids_are_kept(tiny_tokenizer, tmp_path):
    pairs = import_pairs(write(tmp_path / "p.jsonl", {**BOTH[0], "id": "x-1"}, BOTH[1]), tiny_tokenizer, RECIPE)
    assert [pair.id for pair in pairs] == ["x-1", "2"]
