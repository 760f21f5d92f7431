"""Parts of the sampling from other machines: the same bytes as one machine, whatever arrives, and whatever is damaged."""

import json
import random
import shutil
from dataclasses import replace
from functools import partial

import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.files import append_jsonl, read_jsonl, sealed
from mipo_mlx.pairs import make
from mipo_mlx.pairs.parts import Origin, Parts, Share, header, keep_whole_lines, known_ids
from mipo_mlx.progress import Reporter

from .helpers import QUIET, fill, make_recipe


@pytest.fixture(scope="module")
def recipe(tiny_folder):
    return make_recipe(tiny_folder, grids=8)


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    folder = fill(tmp_path_factory.mktemp("whole"))
    make.run(folder, recipe, QUIET)
    return folder


@pytest.fixture(scope="module")
def parts(recipe, tmp_path_factory):
    """The second and the third of three parts, each made in a folder of its own."""
    folder = tmp_path_factory.mktemp("parts")
    for number in (2, 3):
        own = Share(number, 3)
        make.share(fill(tmp_path_factory.mktemp("other")), recipe, own, [], partial(append_jsonl, folder / own.file))
    return folder


class Heard(Reporter):
    def __init__(self):
        super().__init__(quiet=True)
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


def chunks_sampled(monkeypatch):
    """A list that gets the numbers of the chunks that are sampled from now on."""
    numbers, real = [], make.Chunks.sampled
    monkeypatch.setattr(make.Chunks, "sampled", lambda self, number, *rest: numbers.append(number) or real(self, number, *rest))
    return numbers


def merged(folder, recipe, whole, monkeypatch):
    """Run the stage with the parts that are in `folder`; returns the numbers of the chunks that it sampled, and its summary."""
    sampled, heard = chunks_sampled(monkeypatch), Heard()
    summary = make.run(folder, recipe, heard)
    for name in ("samples.jsonl", "pairs.jsonl"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    return sampled, summary, heard.warnings


@pytest.mark.parametrize("count", [1, 2, 7, 20])
@pytest.mark.parametrize("of", [1, 2, 3, 9])
def test_shares_hold_every_chunk_once_and_begin_with_the_last(count, of):
    shares = [Share(number, of).numbers(count) for number in range(1, of + 1)]
    assert sorted(number for share in shares for number in share) == list(range(count))
    assert all(list(share) == sorted(share, reverse=True) for share in shares)


@pytest.mark.parametrize("text", ["0/3", "4/3", "2", "a/b", "2/3/4", "-1/3", ""])
def test_no_share(text):
    with pytest.raises(UserError, match="expected a share such as 2/3"):
        Share.parse(text)


def test_three_parts_are_one_machines_bytes(recipe, whole, parts, tmp_path, monkeypatch):
    folder = fill(tmp_path)
    shutil.copytree(parts, folder / "parts")
    sampled, summary, warnings = merged(folder, recipe, whole, monkeypatch)
    assert sampled == sorted(Share(1, 3).numbers(7)) and not warnings
    assert summary["made_on"] == {str(Origin.of(recipe)): 9}


@pytest.mark.parametrize("fault", ["flipped", "cut"])
def test_a_part_that_is_damaged_or_half_written_is_made_again(fault, recipe, whole, parts, tmp_path, monkeypatch):
    rng, folder = random.Random(fault), fill(tmp_path)
    shutil.copytree(parts, folder / "parts")
    path = folder / "parts" / "3-of-3.jsonl"
    written = bytearray(path.read_bytes())
    place = rng.randrange(written.index(b"\n") + 1, len(written))
    lost = {row["id"] for row in read_jsonl(path) if "id" in row}
    before, after = written[:place].rfind(b"\n") + 1, written.find(b"\n", place)
    if fault == "flipped":
        lost &= {json.loads(written[before:after])["id"]}
        written[place] ^= 1 << rng.randrange(8)
    else:
        lost -= {row["id"] for row in map(json.loads, written[:before].splitlines()) if "id" in row}
        del written[place:]
    path.write_bytes(written)
    sampled, _, _ = merged(folder, recipe, whole, monkeypatch)
    assert lost and sampled == sorted({*Share(1, 3).numbers(7), *(name // 2 for name in lost)})


def test_a_part_goes_on_where_it_stopped(recipe, whole, parts, tmp_path, monkeypatch):
    folder, own = fill(tmp_path), Share(2, 3)
    path = folder / "parts" / own.file
    path.parent.mkdir()
    lines = (parts / own.file).read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:3], lines[3][:50]]))
    keep_whole_lines(path)
    sampled = chunks_sampled(monkeypatch)
    make.share(folder, recipe, own, known_ids(folder, recipe), partial(append_jsonl, path))
    assert sampled == [2]
    grids = {row["id"]: row for row in read_jsonl(path) if "id" in row}
    assert grids == {row["id"]: row for row in read_jsonl(parts / own.file) if "id" in row}


@pytest.mark.parametrize(
    ("change", "refusal", "is_taken"),
    [
        ({"base": "other"}, "another base", False),
        ({"settings": "other"}, "another seed or other settings", False),
        ({"kind": "metal"}, "computes on cpu", False),
        ({"device": "Apple M1"}, "might write other answers", True),
        ({"mlx": "0.1"}, "might write other answers", True),
    ],
)
def test_parts_of_another_kind_are_refused_or_named(change, refusal, is_taken, recipe, parts, tmp_path):
    head, *rows = read_jsonl(parts / "2-of-3.jsonl")
    own = Origin.of(recipe)
    append_jsonl(tmp_path / "2-of-3.jsonl", [header(Share(2, 3), replace(own, **change)), *rows])
    heard = Heard()
    taken = Parts(tmp_path, own, heard)
    taken.read_on()
    assert len(heard.warnings) == 1 and refusal in heard.warnings[0]
    assert sorted(taken.grids) == (sorted(row["id"] for row in rows) if is_taken else [])
    assert head["part"] == "2/3"


def test_a_file_that_grows_is_read_on(recipe, parts, tmp_path):
    lines = (parts / "2-of-3.jsonl").read_bytes().split(b"\n")[:-1]
    taken = Parts(tmp_path, Origin.of(recipe), QUIET)
    for end in range(1, len(lines) + 1):
        whole_lines = b"".join(line + b"\n" for line in lines[:end])
        (tmp_path / "2-of-3.jsonl").write_bytes(whole_lines + (lines[end][:9] if end < len(lines) else b""))
        taken.read_on()
        assert len(taken.grids) == end - 1


def test_grids_of_another_plan_are_left_alone(recipe, whole, parts, tmp_path, monkeypatch):
    """Sealed rows, but of other contexts than planned, or with scores missing: all chunks are sampled here."""
    folder = fill(tmp_path)
    rows = read_jsonl(parts / "2-of-3.jsonl")
    odd = [
        {**row, "prompt_hash": "other"} if i % 2 else {**row, "scores": row.get("scores", [])[:1]} for i, row in enumerate(rows[1:])
    ]
    path = folder / "parts" / "2-of-3.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(sealed(row)) + "\n" for row in [rows[0], *odd]))
    sampled, _, _ = merged(folder, recipe, whole, monkeypatch)
    assert sampled == list(range(7))


def test_pairs_of_a_file_have_no_parts(recipe, tmp_path):
    given = recipe.model_copy(update={"pairs": recipe.pairs.model_copy(update={"file": "pairs.jsonl"})})
    with pytest.raises(UserError, match="nothing is sampled"):
        make.share(fill(tmp_path), given, Share(1, 2), [], print)
