"""800 damaged files: each loads or ends in one clear line, in little time and memory; never another exception."""

import gc
import random
import resource
import struct
import sys
import time

import mlx.core as mx
import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.gguf_format.file import GGUFFile
from mipo_mlx.gguf_format.to_mlx import load_gguf
from tests.export.helpers import MODELS, make_tiny

CASES = 800
NUMBERS = [0, 1, 2, 7, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    return make_tiny("llama", *MODELS["llama"], folder).write(folder / "model.gguf", "f16").read_bytes()


@pytest.fixture(scope="module")
def header(whole, tmp_path_factory) -> int:
    path = tmp_path_factory.mktemp("header") / "model.gguf"
    path.write_bytes(whole)
    return min(t.start for t in GGUFFile(path).tensors.values())


def truncated(data: bytearray, header: int, dice: random.Random) -> None:
    del data[dice.randrange(header if dice.random() < 0.7 else len(data)) :]


def huge_count(data: bytearray, header: int, dice: random.Random) -> None:
    """One of the numbers in the first bytes: version, counts, the first key's length and type."""
    at = dice.choice([4, 8, 16, 24])
    data[at : at + 8] = struct.pack("<Q", dice.choice(NUMBERS))


def any_number(data: bytearray, header: int, dice: random.Random) -> None:
    at = dice.randrange(4, header - 8)
    data[at : at + 8] = struct.pack("<Q", dice.choice(NUMBERS))


def tensor_table(data: bytearray, header: int, dice: random.Random) -> None:
    """Shapes, types and offsets: the numbers after a tensor's name."""
    names = [b"token_embd.weight", b"blk.0.attn_q.weight", b"blk.1.ffn_up.weight", b"output_norm.weight", b"blk.0.attn_k.weight"]
    name = dice.choice(names)
    at = data.index(name) + len(name) + dice.choice([0, 4, 8, 12, 16, 20, 24, 28])
    data[at : at + dice.choice([4, 8])] = struct.pack("<Q", dice.choice(NUMBERS))[: dice.choice([4, 8])]


def bad_utf8(data: bytearray, header: int, dice: random.Random) -> None:
    for _ in range(dice.randrange(1, 4)):
        data[dice.randrange(24, header)] = dice.choice([0xFF, 0xC0, 0x80, 0xFE])


def wrong_type(data: bytearray, header: int, dice: random.Random) -> None:
    """The value type behind a key, and the number that follows."""
    names = (
        "block_count head_count head_count_kv context_length embedding_length feed_forward_length rms_epsilon rope.freq_base "
        "dimension_count ggml.tokens token_type merges eos_token_id ggml.pre chat_template add_bos_token general.architecture"
    )
    keys = [name.encode() for name in names.split()]
    key = dice.choice([key for key in keys if key in data])
    at = data.index(key) + len(key)
    if dice.random() < 0.5:
        data[at : at + 4] = struct.pack("<I", dice.choice([0, 1, 4, 5, 6, 7, 8, 9, 10, 12, 13, 99]))
    else:
        data[at + 4 : at + 8] = struct.pack("<I", dice.choice(NUMBERS) & 0xFFFFFFFF)


def noise(data: bytearray, header: int, dice: random.Random) -> None:
    for _ in range(dice.choice([1, 3, 20])):
        data[dice.randrange(header)] = dice.randrange(256)


def shifted(data: bytearray, header: int, dice: random.Random) -> None:
    at = dice.randrange(header)
    if dice.random() < 0.5:
        del data[at : at + dice.randrange(1, 40)]
    else:
        data[at:at] = dice.randbytes(dice.randrange(1, 40))


KINDS = [truncated, huge_count, any_number, tensor_table, bad_utf8, wrong_type, noise, shifted]


def test_damaged_files_end_in_one_clear_line(whole, header, tmp_path):
    path = tmp_path / "damaged.gguf"
    refused = 0
    slowest = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(CASES):
        data, dice = bytearray(whole), random.Random(case)
        KINDS[case % len(KINDS)](data, header, dice)
        path.write_bytes(data)
        begin = time.process_time()
        try:
            model, _, _ = load_gguf(path)
            mx.eval(model.parameters())
        except UserError as error:
            refused += 1
            text = str(error)
            assert str(path) in text and "\n" not in text and len(text) < 500, (case, text)
        slowest = max(slowest, time.process_time() - begin)
        if case % 200 == 0:
            gc.collect()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    assert refused > CASES * 0.6  # the rest damages what nobody reads, or a weight
    assert slowest < 2.0 and grown < 300e6


NO_GGUF = [b"", b"GGUF", b"GGUF\x03\0\0\0", b"PK\x03\x04" * 50, random.Random(0).randbytes(4096), b"GGUF" + b"\xff" * 100]


@pytest.mark.parametrize("content", NO_GGUF)
def test_things_that_are_no_gguf(content, tmp_path):
    path = tmp_path / "no.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError, match="GGUF"):
        load_gguf(path)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="nowhere.gguf"):
        load_gguf(tmp_path / "nowhere.gguf")


def test_a_cut_file_says_where_it_ends(whole, tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(UserError, match="truncated: tensor .* ends at byte"):
        load_gguf(path)
