"""Whatever a file holds, its reader ends in notes or in one line: readers, redaction, recipe, GGUF, pair file.

A few examples a reader in every run of the tests. FUZZ_EXAMPLES=20000 makes it a long one, with other examples each time:

    FUZZ_EXAMPLES=20000 python -m pytest tests/test_fuzz.py
"""

import json
import os
import random
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from mipo_mlx import recipe_loading  # noqa: E402
from mipo_mlx.errors import UserError  # noqa: E402
from mipo_mlx.gguf_format.file import GGUFFile  # noqa: E402
from mipo_mlx.pairs import exchange  # noqa: E402
from mipo_mlx.recipe import Sources  # noqa: E402
from mipo_mlx.sources import gather  # noqa: E402
from mipo_mlx.sources.note import Tally  # noqa: E402
from mipo_mlx.sources.note_file import NoteFile  # noqa: E402
from mipo_mlx.sources.readers import READERS, reader_for  # noqa: E402
from mipo_mlx.sources.redact import redact  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import fuzz  # noqa: E402
import hostile  # noqa: E402

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
long_or_short = settings(
    max_examples=EXAMPLES or 25,
    deadline=5000 if EXAMPLES else None,  # ms: the bar for any file of a megabyte
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
)
FIXTURES = sorted(path for path in (Path(__file__).parent / "sources" / "fixtures").rglob("*") if path.is_file())
SEEDS = [path.read_bytes()[:20_000] for path in FIXTURES]
PIECES = [
    b'\x00', b'\r', b'\r\n', b'\n\n', b'---\n', b'```', b'<', b'>', b'<!--', b'[[', b']]', b'![', b'](', b'{{', b'}}', b'|',
    b'\\', b'&#0;', b'\xff', b'\xc3', b'\xed\xa0\x80', b'{"a":', b'[', b'null', b'From ', b'Content-Type: ', b'=?utf-8?q?',
    b'12/31/23, 10:00 - Ana: ', b'#', b'> ', b'* ', b'\t', b'%%', b'$$', b'<?xml ', b'<!ENTITY a "b">', b'PK\x03\x04',
    b'%PDF-1.7', b'password: ', b'12:30', b'*a', b'&a ', b'!!python/object:os.system', b'2024-99-99', b'\xe2\x80\xae',
    b'\x1b[31m', b'GGUF', b'\xff\xff\xff\xff\xff\xff\xff\x7f',
]  # fmt: skip


@st.composite
def mutated(draw, seeds: list[bytes] = SEEDS) -> bytes:
    """A real file with pieces cut out, put in, repeated or replaced; or a few pieces and random bytes."""
    data = draw(st.sampled_from([b"", *seeds]))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(len(data), 1)))
        cut = draw(st.sampled_from([0, 0, 1, 5, 200]))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=12)))
        times = draw(st.sampled_from([1, 1, 2, 300]))
        data = data[:at] + piece * times + data[at + cut :]
    return data[:40_000]


ENDINGS = [".md", ".txt", *READERS, ".json", ".zip", ".jex", ""]


@pytest.mark.parametrize("ending", ENDINGS)
def test_readers(ending):
    @long_or_short
    @given(mutated())
    def one(data):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"a{ending}")
            path.write_bytes(data)
            tally, sources = Tally(), Sources(notes=folder)
            file = NoteFile.on_disk(path)
            for each in list(gather._readable(file, "Ana", tally, gather.Choice.of(sources))):
                for note in gather.read_file(each, tally, sources):
                    assert all("\n" not in block.text and "\0" not in block.text for block in note.blocks), note
            json.dumps(tally.to_row()).encode()
            failed = [skip for skip in tally.skipped if skip["why"].startswith("cannot be read (")]
            assert not [skip for skip in failed if "Error)" in skip["why"]], failed
            reader_for(file)

    one()


def test_redaction():
    @long_or_short
    @given(mutated())
    def one(data):
        text = data.decode(errors="replace")
        clean = redact(text, Counter())
        assert clean.count("\n") <= text.count("\n")

    one()


def test_recipes():
    seed = b"model: x\nsources: {notes: a, min_tokens: 3}\npairs:\n  candidates: 2\nexport: {gguf: [q8_0]}\n"

    @long_or_short
    @given(mutated([seed]))
    def one(data):
        try:
            recipe_loading.parse(data.decode(errors="replace"), "r.yaml")
        except recipe_loading.RecipeError as error:
            assert "\n" not in str(error)

    one()


def test_gguf(tmp_path):
    import gguf
    import numpy as np

    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    writer.add_tensor("token_embd.weight", np.ones((2, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    seed = path.read_bytes()

    @long_or_short
    @given(mutated([seed]))
    def one(data):
        path.write_bytes(data)
        try:
            GGUFFile(path)
        except UserError as error:
            assert "\n" not in str(error)

    one()


def test_pair_file(tmp_path):
    seed = b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
    seed += b'{"prompt": [{"role": "user", "content": "d"}], "chosen": "e", "rejected": ["f"]}\n'

    @long_or_short
    @given(mutated([seed]))
    def one(data):
        (tmp_path / "a.jsonl").write_bytes(data)
        try:
            for where, row in exchange._rows(tmp_path / "a.jsonl", Tally()):
                exchange._conversations(row, where)
        except UserError as error:
            assert "\n" not in str(error)

    one()


def test_hostile_inputs_of_every_reader(tmp_path):
    """A few short ones of `benchmarks/fuzz.py`, which tries thousands up to a megabyte, and times them."""
    for number, target in enumerate(hostile.targets()):
        path = tmp_path / str(number) / target.name
        path.parent.mkdir(parents=True)
        for case in range(EXAMPLES // 100 or 2):
            dice = random.Random(f"{target.name} {case}")
            path.write_bytes(target.wrap(hostile.written(replace(target, wrap=lambda data, _: data), dice)[0][:3_000], dice))
            assert fuzz.once(replace(target, least=1e9), path, 0) == "", (target.name, case)
