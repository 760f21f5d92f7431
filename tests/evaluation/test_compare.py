"""Two runs on the items that they share: paired, over contexts and seeds."""

import numpy as np
import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.evaluation.compare import compare, show
from mipo_mlx.evaluation.measures import Measures
from mipo_mlx.files import write_json


def write_eval(folder, values, weights=None, keys=None, transform="mean", relative=False, groups=None):
    folder.mkdir(parents=True, exist_ok=True)
    keys = keys or [f"k{i}" for i in range(len(values))]
    measures = Measures(keys, [groups or keys], 200, 0)
    pair = (weights, weights) if weights is not None else None
    measures.add("measure", [1.0] * len(values), values, weights=pair, transform=transform, relative=relative)
    write_json(folder / "eval.json", {"heldout": {"items": measures.items()}, "fresh": None})
    return folder


def test_a_run_compared_with_itself_changes_by_zero(tmp_path):
    run = write_eval(tmp_path / "a", np.random.default_rng(0).normal(size=20))
    measure = compare([run], [run])["measures"]["measure"]
    assert measure["change"] == 0 and measure["interval"] == [0.0, 0.0] and measure["a"] == measure["b"]


def test_items_are_matched_by_name_whatever_their_order(tmp_path):
    a = write_eval(tmp_path / "a", [1, 2, 3, 4, 5, 6, 7], keys=list("abcdefg"))
    b = write_eval(tmp_path / "b", [70, 60, 50, 40, 30, 20, 1000], keys=list("gfedcbx"))
    result = compare([a], [b])
    assert result["items"] == 6  # a and x are not shared
    assert result["measures"]["measure"]["a"] == pytest.approx(4.5) and result["measures"]["measure"]["b"] == pytest.approx(45)


def test_a_key_that_occurs_twice_is_matched_in_turn(tmp_path):
    a = write_eval(tmp_path / "a", [1, 2, 3], keys=["x", "x", "y"])
    b = write_eval(tmp_path / "b", [10, 30, 20], keys=["x", "y", "x"])
    measure = compare([a], [b])["measures"]["measure"]
    assert measure["change"] == pytest.approx(20 - 2) and measure["interval"] is None


def test_a_paired_difference_has_a_narrower_interval_than_the_values(tmp_path):
    rng = np.random.default_rng(1)
    base = rng.normal(0, 5, size=60)
    a, b = write_eval(tmp_path / "a", base), write_eval(tmp_path / "b", base + 1 + rng.normal(0, 0.1, size=60))
    low, high = compare([a], [b])["measures"]["measure"]["interval"]
    assert 0.95 < low < 1 < high < 1.05


def test_ratios_and_relative_changes_are_computed_from_sums(tmp_path):
    tokens = [10, 20, 30, 40, 50, 60]
    a = write_eval(tmp_path / "a", [10.0] * 6, weights=tokens, transform="exp", relative=True)
    b = write_eval(tmp_path / "b", [20.0] * 6, weights=tokens, transform="exp", relative=True)
    measure = compare([a], [b])["measures"]["measure"]
    assert measure["a"] == pytest.approx(np.exp(60 / 210)) and measure["b"] == pytest.approx(np.exp(120 / 210))
    assert measure["change"] == pytest.approx(np.exp(60 / 210) - 1)
    assert "+" in show({"measures": {"perplexity": measure}})[1] and "%" in show({"measures": {"perplexity": measure}})[1]


def test_seeds_are_a_second_level(tmp_path):
    """Three seeds that disagree by much more than their items do: the interval follows the seeds."""
    rng = np.random.default_rng(2)
    a, b = [], []
    for seed, gain in enumerate((0.0, 1.0, 2.0)):
        base = rng.normal(size=40)
        a.append(write_eval(tmp_path / f"a{seed}", base))
        b.append(write_eval(tmp_path / f"b{seed}", base + gain + rng.normal(0, 0.05, size=40)))
    low, high = compare(a, b)["measures"]["measure"]["interval"]
    assert low < 0.1 and high > 1.9
    one_low, one_high = compare(a[1:2], b[1:2])["measures"]["measure"]["interval"]
    assert one_high - one_low < 0.1


def test_what_cannot_be_compared_ends_in_one_line(tmp_path):
    a = write_eval(tmp_path / "a", [1, 2], keys=["a", "b"])
    with pytest.raises(UserError, match="no held-out item in common"):
        compare([a], [write_eval(tmp_path / "b", [1, 2], keys=["c", "d"])])
    with pytest.raises(UserError, match="has no evaluation yet"):
        compare([a], [tmp_path / "nothing"])
    with pytest.raises(UserError, match="2 runs against 1"):
        compare([a, a], [a])
