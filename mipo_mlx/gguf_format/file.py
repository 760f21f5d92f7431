"""Reads a GGUF file's header strictly: metadata, tensor names, shapes, types, offsets. The bytes stay on the disk (mmap).

Every count, length, offset and type is checked against the size of the file before it is used. So a truncated or hostile file
ends in one clear line, and the file's own size limits time and memory. Layout: ggml's docs/gguf.md, versions 2 and 3.
"""

import math
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError

MAX_TENSORS = 1 << 17
MAX_KEYS = 1 << 16
MAX_NAME = 1 << 10
MAX_ARRAY = 1 << 24  # elements; the largest vocabularies have some 300,000
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9

# ggml type id: (name, elements a block, bytes a block)
TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
}


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file. `shape` is NumPy's order: rows first, the contiguous dimension last."""

    name: str
    shape: tuple[int, ...]
    type: int
    start: int  # byte in its file
    size: int  # bytes
    part: int = 0  # of a split model: which file, from 0

    @property
    def type_name(self) -> str:
        return TYPES[self.type][0]


class GGUFFile:
    """A checked GGUF file: `metadata` (key -> Python value; lists for arrays) and `tensors` (name -> Tensor).

    Of a split model (`name-00001-of-00003.gguf`) name the first file; the others are opened too. Raises UserError for a bad file.
    """

    def __init__(self, path: str | Path, part: int = 0) -> None:
        self.path = Path(path)
        self._part = part
        if self.path.exists() and not self.path.is_file():  # a pipe would be waited for without an end
            raise UserError(f"{self.path}: no file (a folder, a pipe or a device); expected a GGUF file")
        try:
            with open(self.path, "rb") as handle:
                self._map = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise UserError(f"{self.path}: cannot be read as GGUF ({error})") from None
        self.size = len(self._map)
        self._at = 0
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self._read()
        self._maps = [self._map]
        if part == 0 and self.get("split.count", int, 1) > 1:
            self._open_parts()

    def bytes(self, tensor: Tensor) -> np.ndarray:
        """The tensor's raw bytes, (tensor.size,) uint8, mapped and not copied."""
        return np.frombuffer(self._maps[tensor.part], dtype=np.uint8, count=tensor.size, offset=tensor.start)

    def _open_parts(self) -> None:
        count, number = self.metadata["split.count"], self.get("split.no", int, 0)
        match = re.fullmatch(r"(.*)-(\d{5})-of-(\d{5})\.gguf", self.path.name)
        if number != 0 or match is None or int(match[3]) != count or int(match[2]) != 1:
            raise UserError(f"{self.path}: one of the {count} files of a model; name the first, *-00001-of-{count:05d}.gguf")
        for part in range(1, count):
            path = self.path.with_name(f"{match[1]}-{part + 1:05d}-of-{match[3]}.gguf")
            if not path.exists():
                raise UserError(f"{path}: part {part + 1} of {count} is missing; download it too")
            other = GGUFFile(path, part)
            for name, tensor in other.tensors.items():
                if name in self.tensors:
                    raise other.refuse(f"tensor {_shown(name)} is in two parts")
                self.tensors[name] = tensor
            self._maps.append(other._map)

    def refuse(self, why: str) -> UserError:
        return UserError(f"{self.path}: not a usable GGUF file: {why}; download or export it again")

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """metadata[key], of the wanted Python type; `default` where the key is missing. Raises UserError for another type."""
        value = self.metadata.get(key)
        if value is None:
            return default
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.refuse(f"{key} is a {type(value).__name__}, expected {' or '.join(k.__name__ for k in kinds)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self.refuse(f"{key} is {value}")
        return value

    # ---- the header, front to back

    def _take(self, count: int, what: str) -> int:
        """The offset of the next `count` bytes; reading goes on after them."""
        at = self._at
        if count > self.size - at:
            raise self.refuse(f"it ends inside {what} (byte {at:,} of {self.size:,})")
        self._at = at + count
        return at

    def _number(self, code: str, what: str) -> Any:
        return struct.unpack_from("<" + code, self._map, self._take(struct.calcsize("<" + code), what))[0]

    def _string(self, what: str, limit: int | None = None) -> str:
        length = self._number("Q", what)
        if limit is not None and length > limit:
            raise self.refuse(f"{what} has an absurd length ({length:,} bytes)")
        start = self._take(length, what)
        try:
            return self._map[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            raise self.refuse(f"{what} is not UTF-8 (byte {start:,})") from None

    def _value(self, kind: int, what: str) -> Any:
        if kind in SCALARS:
            return self._number(SCALARS[kind], what)
        if kind == STRING:
            return self._string(what)
        if kind != ARRAY:
            raise self.refuse(f"{what} has unknown value type {kind}")
        inner, count = self._number("I", what), self._number("Q", what)
        if count > MAX_ARRAY:
            raise self.refuse(f"{what} claims {count:,} elements")
        if inner in SCALARS:
            width = struct.calcsize("<" + SCALARS[inner])
            start = self._take(count * width, what)
            return list(struct.unpack_from(f"<{count}{SCALARS[inner]}", self._map, start))
        if inner != STRING:
            raise self.refuse(f"{what} is an array of value type {inner}")
        if count * 8 > self.size - self._at:
            raise self.refuse(f"{what} claims {count:,} strings, more than the file can hold")
        return self._strings(count, what)

    def _strings(self, count: int, what: str) -> list[str]:
        # Vocabularies hold hundreds of thousands of strings, so the loop is tight and uses local names.
        data, at, end, unpack = self._map, self._at, self.size, struct.Struct("<Q").unpack_from
        strings: list[str] = []
        try:
            for _ in range(count):
                start = at + 8
                at = start + unpack(data, at)[0]
                if at > end:
                    raise self.refuse(f"it ends inside {what} (string {len(strings):,} of {count:,})")
                strings.append(data[start:at].decode("utf-8"))
        except struct.error:
            raise self.refuse(f"it ends inside {what} (string {len(strings):,} of {count:,})") from None
        except UnicodeDecodeError:
            raise self.refuse(f"{what} is not UTF-8 (string {len(strings):,})") from None
        self._at = at
        return strings

    def _read(self) -> None:
        if self._map[:4] != b"GGUF":
            raise self.refuse("it does not start with the bytes GGUF")
        self._at = 4
        version = self._number("I", "the version")
        if version not in (2, 3):
            raise self.refuse(f"version {version}, expected 2 or 3 (little-endian)")
        tensors, keys = self._number("Q", "the header"), self._number("Q", "the header")
        # A tensor's entry takes at least 32 bytes, a key's at least 13.
        if tensors > min(MAX_TENSORS, self.size // 32) or keys > min(MAX_KEYS, self.size // 13):
            raise self.refuse(f"{tensors:,} tensors and {keys:,} keys are more than a file of {self.size:,} bytes holds")
        for index in range(keys):
            key = self._string(f"key {index}", MAX_NAME)
            if key in self.metadata:
                raise self.refuse(f"key {_shown(key)} is there twice")
            self.metadata[key] = self._value(self._number("I", f"key {_shown(key)}"), f"key {_shown(key)}")
        entries = [self._entry(index) for index in range(tensors)]
        alignment = self.get("general.alignment", int, 32)
        if not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self.refuse(f"general.alignment is {alignment}, expected a power of two")
        self._place(entries, -(-self._at // alignment) * alignment, alignment)

    def _entry(self, index: int) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string(f"the name of tensor {index}", MAX_NAME)
        what = f"tensor {_shown(name)}"
        count = self._number("I", what)
        if not 1 <= count <= 4:
            raise self.refuse(f"{what} has {count} dimensions, expected 1 to 4")
        shape = tuple(self._number("Q", what) for _ in range(count))[::-1]
        kind, offset = self._number("I", what), self._number("Q", what)
        if kind not in TYPES:
            raise self.refuse(f"{what} has unknown type {kind}")
        if 0 in shape or math.prod(shape) > 1 << 48:
            raise self.refuse(f"{what} has the shape {list(shape)}")
        if shape[-1] % TYPES[kind][1]:
            raise self.refuse(f"{what}: rows of {shape[-1]} elements do not divide into {TYPES[kind][0]} blocks")
        return name, shape, kind, offset

    def _place(self, entries: list[tuple[str, tuple[int, ...], int, int]], base: int, alignment: int) -> None:
        end = 0
        for name, shape, kind, offset in sorted(entries, key=lambda entry: entry[3]):
            _, elements, width = TYPES[kind]
            size = math.prod(shape) // elements * width
            if offset % alignment:
                raise self.refuse(f"tensor {_shown(name)} starts at byte {offset:,}, not a multiple of {alignment}")
            if offset < end:
                raise self.refuse(f"tensor {_shown(name)} overlaps the one before it")
            if base + offset + size > self.size:
                raise self.refuse(
                    f"truncated: tensor {_shown(name)} ends at byte {base + offset + size:,} of a file of {self.size:,} bytes"
                )
            if name in self.tensors:
                raise self.refuse(f"tensor {_shown(name)} is there twice")
            self.tensors[name] = Tensor(name, shape, kind, base + offset, size, self._part)
            end = offset + size


def _shown(name: str) -> str:
    """A name from the file, fit to print on one line."""
    return re.sub(r"[^\x20-\x7e]", "?", name[:64]) or "''"
