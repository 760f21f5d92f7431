"""The terminal view: both answers, their PMI, where the context is from, and the counts."""

import io
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from mipo_mlx.errors import UserError
from mipo_mlx.files import write_json, write_records
from mipo_mlx.pairs.build import SAID_BACK
from mipo_mlx.pairs.overview import summarize
from mipo_mlx.pairs.show import show

from .test_build import OFF, build_grids, make_grid


def shown(folder, **options) -> str:
    out = io.StringIO()
    show(folder, console=Console(file=out, width=160), **options)
    return out.getvalue()


def test_pairs_stand_side_by_side(tmp_path):
    grids = [make_grid(n) for n in range(3)]
    built = build_grids(grids, filters={**OFF, "min_pmi": 0.5}, candidates=3)
    write_records(tmp_path / "pairs.jsonl", built.pairs)
    write_json(tmp_path / "pairs.json", asdict(summarize(built, grids)))
    text = shown(tmp_path, count=3)
    first = min(built.pairs, key=lambda pair: (min(pair.pmi), pair.id))
    assert f"PMI {first.pmi[0]:+.2f} nats" in text and f"{first.source}:{first.line}" in text
    assert first.chosen[0]["content"].split()[0] in text and first.negatives[1].split()[0] in text
    assert text.count("(train)") == 3 and f"train: {len(built.pairs)} pairs" in text
    assert shown(tmp_path, count=1).count("(train)") == 1


def test_pairs_made_elsewhere_have_no_pmi(tmp_path):
    pairs = [type(p)(**{**vars(p), "pmi": [], "kinds": ["imported"]}) for p in build_grids([make_grid()]).pairs]
    write_records(tmp_path / "pairs.jsonl", pairs)
    assert "imported" in shown(tmp_path) and "PMI" not in shown(tmp_path)


def test_a_passage_said_back_has_no_pmi_of_another_answer(tmp_path):
    grids = [make_grid()]
    built = build_grids(grids, candidates=3)
    built.pairs = [replace(pair, kinds=[pair.kinds[0], SAID_BACK], pmi=[1.5, -77.25]) for pair in built.pairs]
    summary = asdict(summarize(built, grids))
    assert [result["mean"] for result in summary["pmi"]["train"].values()] == [1.5] and SAID_BACK not in summary["pmi"]["train"]
    write_records(tmp_path / "pairs.jsonl", built.pairs)
    write_json(tmp_path / "pairs.json", summary)
    text = shown(tmp_path, count=2)
    assert "said_back" in text and "PMI +1.50 nats" in text and "77.25" not in text
    write_records(tmp_path / "pairs.jsonl", [*built.pairs[:-1], replace(built.pairs[-1], pmi=[-0.5, 3.0])])
    assert f"{built.pairs[-1].id} (train)" in shown(tmp_path, count=1)  # the least informative comes first


def test_square_brackets_are_text(tmp_path):
    built = build_grids([make_grid(texts=["Press [bold] and [/x] now.", *[f"Answer {i}." for i in range(4)]])])
    write_records(tmp_path / "pairs.jsonl", built.pairs)
    assert "[bold] and [/x]" in shown(tmp_path, count=5)


def test_no_pairs_yet(tmp_path):
    with pytest.raises(UserError, match="no pairs yet; run: mipo-mlx pairs"):
        show(tmp_path)
