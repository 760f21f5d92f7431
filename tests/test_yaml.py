"""YAML as people write it: what YAML 1.1 reads otherwise than it looks, in recipes and in front matter."""

import pytest
import yaml

from mipo_mlx import recipe_loading
from mipo_mlx.sources import matter
from mipo_mlx.sources.matter import front_matter

TEXT = [
    "12:30",
    "1:30:00",
    "190:20:30",
    "yes",
    "No",
    "ON",
    "off",
    "y",
    "0o14",
    "010",
    "0x1F",
    "0b11",
    "1_000",
    "2024-03-01",
    "2024-03-01 10:00:00",
    "1__0.5",
]
VALUES = {
    "2e-5": 2e-5,
    "1.5": 1.5,
    ".5": 0.5,
    "-3": -3,
    "+4": 4,
    "0": 0,
    "true": True,
    "False": False,
    "~": None,
    "null": None,
    "1e6": 1e6,
    "-.inf": float("-inf"),
}


@pytest.mark.parametrize("written", TEXT)
def test_what_looks_like_text_is_text(written):
    assert recipe_loading.read(f"a: {written}") == {"a": written}
    assert front_matter(f"---\na: {written}\n---\nwords\n")[0] == {"a": written}


@pytest.mark.parametrize("written", VALUES)
def test_numbers_and_the_two_truths_are_what_they_are(written):
    assert recipe_loading.read(f"a: {written}") == {"a": VALUES[written]}
    assert type(recipe_loading.read(f"a: {written}")["a"]) is type(VALUES[written])


def test_front_matter_may_repeat_a_key_and_a_recipe_may_not():
    assert front_matter("---\na: 1\na: 2\n---\n")[0] == {"a": 2}
    with pytest.raises(yaml.YAMLError, match="written twice"):
        recipe_loading.read("a: 1\na: 2")


def test_a_bomb_of_aliases_is_refused():
    """Ten lines that stand for ten thousand million words."""
    lines = [
        "a0: &a0 [" + ", ".join(["boom"] * 10) + "]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)),
    ]
    with pytest.raises(yaml.YAMLError, match="aliases"):
        recipe_loading.read("\n".join(lines))
    assert front_matter("---\n" + "\n".join(lines) + "\n---\nwords\n")[0] is None


def test_a_few_aliases_are_read():
    assert recipe_loading.read("a: &a [1]\nb: *a") == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    "written", [*TEXT, *VALUES, "[a, {b: 12:30}]", "|\n  x\n  y", "'it''s'", '"\\u00e9"', "!!str 1", "2024-01-02", "🐝"]
)
def test_libyaml_reads_front_matter_as_the_slow_loader_does(written, monkeypatch):
    text = f"---\na: {written}\nb: [{written.splitlines()[0] if written[0] not in '|[' else 1}]\n---\nwords\n"
    quick = front_matter(text)
    monkeypatch.setattr(matter.yaml, "__with_libyaml__", False)
    assert front_matter(text) == quick and "a" in quick[0]
