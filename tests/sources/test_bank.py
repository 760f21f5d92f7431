"""The prompt bank and the user's own prompts."""

import json
import re
from collections import Counter, defaultdict

import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.recipe import Sources
from mipo_mlx.records import CHORES, GENERAL, HALF_PERSONAL, HELDOUT, PERSONAL
from mipo_mlx.sources.bank import load_prompts
from mipo_mlx.sources.dedupe import near_duplicates, shingles
from mipo_mlx.sources.note import Tally
from mipo_mlx.text.words import parts


def load(path, fraction: float = 0.25, seed: int = 0):
    return load_prompts(Sources(prompts=str(path), heldout_prompts=fraction), seed, Tally())


def of_kind(prompts, kind):
    return [prompt for prompt in prompts if prompt.kind == kind]


def test_the_bank():
    prompts = load("builtin")
    assert len(prompts) >= 1000 and len({prompt.id for prompt in prompts}) == len(prompts)
    assert Counter(prompt.kind for prompt in prompts).keys() == {PERSONAL, HALF_PERSONAL, GENERAL, CHORES}
    assert min(Counter(prompt.kind for prompt in prompts).values()) >= 140
    topics = Counter(prompt.topic for prompt in of_kind(prompts, PERSONAL))
    assert set(topics) == {"planning", "writing", "advice", "explaining", "food", "travel", "learning", "work", "small talk"}
    assert min(topics.values()) >= 25
    assert near_duplicates(shingles([parts(prompt.text) for prompt in prompts]), 0.5) == [None] * len(prompts)


def test_every_kind_of_the_bank_is_split_evenly_over_its_topics():
    prompts = load("builtin")
    for kind in (PERSONAL, HALF_PERSONAL, GENERAL, CHORES):
        every = of_kind(prompts, kind)
        held = [prompt for prompt in every if prompt.split == HELDOUT]
        assert len(held) == round(0.25 * len(every))
        shares, sizes = (Counter(prompt.topic for prompt in some) for some in (held, every))
        assert all(abs(shares[topic] - 0.25 * count) < 2 for topic, count in sizes.items())


def test_no_two_requests_of_the_bank_have_the_same_words_but_one():
    """Whatever their order: with any one word left out, no request becomes another, or another with one word left out."""
    prompts, without = load("builtin"), defaultdict(set)
    for prompt in prompts:
        words = sorted(re.findall(r"\w+", prompt.text.lower()))
        for place in range(len(words)):
            without[tuple(words[:place] + words[place + 1 :])].add(prompt.text)
        without[tuple(words)].add(prompt.text)
    assert [sorted(texts) for texts in without.values() if len(texts) > 1] == []


def test_a_chore_has_its_text_and_no_instruction_stands_twice():
    chores = [prompt.text for prompt in of_kind(load("builtin"), CHORES)]
    assert all("#" not in text and "\n\n" not in text and len(text.split()) >= 10 for text in chores)
    instructions = Counter(re.sub(r"\W+", " ", text.split("\n")[0].lower()).strip() for text in chores)
    assert max(instructions.values()) == 1


def test_seed_and_fraction_matter():
    def held(**options):
        return [prompt.id for prompt in of_kind(load("builtin", **options), PERSONAL) if prompt.split == HELDOUT]

    assert held() == held()
    assert held() != held(seed=1)
    assert len(held(fraction=0.1)) == 25


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("p.txt", "# food\nWhat to cook?\n\nWhat to eat?\nWhat to COOK\n", [("What to cook?", "food"), ("What to eat?", "food")]),
        ("p.md", "# Food\n\n- What to cook?\n- What to *eat*?\n", [("What to cook?", "Food"), ("What to eat?", "Food")]),
        ("p.json", '["What to cook?", {"prompt": "What to eat?"}]', [("What to cook?", "own"), ("What to eat?", "own")]),
        (
            "p.jsonl",
            '{"turns": ["What to cook?", "More?"], "category": "food"}\n{"messages": [{"role": "user", "content": "Hi there"}]}\n'
            '{"instruction": "Sum up.", "instances": [{"input": "A text."}]}\n',
            [("What to cook?", "food"), ("Hi there", "own"), ("Sum up.\n\nA text.", "own")],
        ),
        (
            "p.json",
            '["What \\ud800?", null, " ", {"prompt": null}, {"messages": []}, {"turns": [null]}, {"text": "So?", "topic": null}]',
            [("What \ufffd?", "own"), ("So?", "own")],
        ),
    ],
)
def test_own_prompts(tmp_path, name, content, expected):
    (tmp_path / name).write_text(content)
    assert [(prompt.text, prompt.topic) for prompt in load(tmp_path / name)] == expected


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("p.jsonl", '\n{"prompt": \n', "p.jsonl:2: not valid JSON"),
        ("p.jsonl", '\n\n{"question_id": 3}\n', "p.jsonl:3: none of the columns"),
        ("p.jsonl", '{"prompt": 7}\n', "p.jsonl:1: column prompt: expected text, found int"),
        ("p.jsonl", "[]\n", "p.jsonl:1: expected text, or an object"),
        ("p.json", '{"a": 1}', "expected a JSON list"),
        ("p.txt", "Only one?\n", "1 prompts, and at least 2"),
        ("p.txt", "", "0 prompts"),
        ("p.txt", "a\0b", "not text"),
    ],
)
def test_bad_prompts(tmp_path, name, content, told):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        load(tmp_path / name)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_without_a_prompt_are_counted(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a?"}\n{"prompt": null}\n{"prompt": "b?"}\n')
    tally = Tally()
    load_prompts(Sources(prompts=str(tmp_path / "p.jsonl")), 0, tally)
    assert tally.left_alone == {"rows without a prompt": 1}


def test_missing_prompts(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "none.txt")
    with pytest.raises(UserError, match="is a folder"):
        load(tmp_path)


def test_real_prompts(shared_data):
    for name, count in (("prompts_vicuna.jsonl", 80), ("prompts_self_instruct.jsonl", 252)):
        if not (shared_data / name).exists():
            pytest.skip(f"{name} is not beside this checkout")
        assert len(json.loads((shared_data / name).read_text().split("\n")[0])) > 1
        assert len(load(shared_data / name)) == count
