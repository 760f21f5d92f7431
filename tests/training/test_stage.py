"""The training stage around the loop: what it tells."""

import io
from dataclasses import replace

import pytest

from mipo_mlx import recipe_loading
from mipo_mlx.files import write_records
from mipo_mlx.progress import Reporter
from mipo_mlx.records import Pair
from mipo_mlx.training import rounds, train
from mipo_mlx.training.train import Result

TEXTS = {"prompt": [], "chosen": [], "rejected": [], "negatives": [], "pmi": [], "kinds": []}
PAIR = Pair("0", "train", 0, prompt_tokens=[5], tokens=[[6], [7]], reference=[-1.0, -1.0], **TEXTS)


@pytest.mark.parametrize(
    "max_kl, split, round_number, message",
    [
        ("0.5", "heldout", 1, "so training.max_kl stops nothing and the last weights are kept"),
        ("0.5", "heldout", 2, None),
        ("null", "heldout", 1, "so the last weights are kept"),
        ("0.5", "validation", 1, None),
    ],
)
def test_that_nothing_picks_the_weights_is_told_once(max_kl, split, round_number, message, tmp_path, monkeypatch):
    recipe = recipe_loading.parse("model: x\n", overrides=[f"training.max_kl={max_kl}", "rounds=2"])
    for name in ("pairs.jsonl", "pairs-2.jsonl"):
        write_records(tmp_path / name, [PAIR, replace(PAIR, split=split)])
    monkeypatch.setattr(train, "fit", lambda *_: Result(1, 1, 1, None, None, None))
    stream = io.StringIO()
    for folder in ("adapters", "adapters-2"):
        (tmp_path / folder).mkdir()
    rounds.run(tmp_path, recipe, Reporter(stream=stream), round_number)
    warnings = [line for line in stream.getvalue().splitlines() if "warning: there are no validation pairs" in line]
    assert len(warnings) == bool(message) and (not message or message in warnings[0])
