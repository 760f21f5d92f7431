"""The weights' files of a model folder, checked before a run computes: all are there, whole, and of a kind that can be exported."""

import json
import re
import struct
from pathlib import Path
from typing import Any

from ..errors import UserError, first_line

INDEX = "model.safetensors.index.json"
AGAIN = "download the model again"
# Values of quant_method that mlx-lm keeps as they are. It repacks the others when it loads them, and their files stay unreadable
# to the export.
KEPT = ("mxfp4", "mxfp8", "fp8")
AS_NUMBERS = ("ministral3",)  # mlx-lm takes the bytes of these models' fp8 for whole numbers, and computes with them


def check(folder: Path, config: dict[str, Any]) -> None:
    """Raise UserError for weights that are missing, cut off, or quantised by a method that cannot be exported."""
    check_quantization(folder, config)
    absent = missing(folder)
    if absent:
        more = f", and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise UserError(f"{folder / absent[0]}: this file of the model's weights is missing{more}; {AGAIN}")
    shards = sorted(folder.glob("model*.safetensors"))
    if not shards:
        raise UserError(f"{folder}: no model*.safetensors in this folder; {AGAIN}")
    for shard in shards:
        check_whole(shard)


def check_quantization(folder: Path, config: dict[str, Any]) -> None:
    """Raise UserError where another program quantised the weights by a method that ends in no export."""
    places = [place for place in (config, config.get("text_config")) if isinstance(place, dict)]
    if any(place.get("quantization") for place in places):  # MLX's own
        return
    given = next((place["quantization_config"] for place in places if place.get("quantization_config")), None)
    beside = folder / "hf_quant_config.json"  # where NVIDIA's ModelOpt says it
    method = "modelopt" if given is None and beside.exists() else (given or {}).get("quant_method", "an unknown method")
    kept = [known for known in KEPT if known != "fp8" or not any(place.get("model_type") in AS_NUMBERS for place in places)]
    if (given is not None or beside.exists()) and str(method).lower() not in kept:
        raise UserError(
            f"{folder / 'config.json'}: the weights are quantised by {str(method).upper()}, and such a model cannot be exported "
            "after the training; take an MLX 4-bit version of it (mlx-community has most), or its 16-bit weights"
        )


def missing(folder: Path) -> list[str]:
    """Names of the weights' files that are not in the folder, by its index and by the numbers in the names that are there."""
    there = {path.name for path in folder.glob("model*.safetensors") if path.is_file()}
    named = set(_weight_map(folder / INDEX).values())
    if there and not named & there:  # an index that was copied from another version of the model
        named = set()
    numbered = [match for name in there if (match := re.fullmatch(r"(model-)\d{5}(-of-(\d{5})\.safetensors)", name))]
    named |= {f"{match[1]}{number:05d}{match[2]}" for match in numbered for number in range(1, min(int(match[3]), 10_000) + 1)}
    return sorted(named - there)


def vocabulary_rows(folder: Path, config: dict[str, Any]) -> int:
    """Rows of the embedding: the file's own where it is there, else config.json's number. A tokenizer may have more tokens."""
    for shard in sorted(folder.glob("model*.safetensors")):
        with open(shard, "rb") as handle:
            header = json.loads(handle.read(struct.unpack("<Q", handle.read(8))[0]))
        for name, entry in header.items():
            if name.endswith("embed_tokens.weight"):
                return int(entry["shape"][0])
    return int(config.get("vocab_size") or (config.get("text_config") or {})["vocab_size"])


def _weight_map(index: Path) -> dict[str, str]:
    """Which file each tensor is in; {} where there is no index."""
    if not index.exists():
        return {}
    try:
        return {str(name): str(file) for name, file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index}: cannot be read ({first_line(error)}); {AGAIN}") from None


def check_whole(path: Path) -> None:
    """Raise UserError for a truncated shard, before MLX maps it: 8 bytes of header length, the JSON header, then the data."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            header = json.loads(handle.read(min(length, size)))
        end = 8 + length + max((v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"), default=0)
    except (struct.error, ValueError, RecursionError, KeyError, TypeError):
        raise UserError(f"{path}: not a safetensors file, or cut off in its header; {AGAIN}") from None
    if size < end:
        raise UserError(f"{path}: truncated ({size:,} bytes of {end:,}); {AGAIN}")
