"""How text is cut before byte-pair merges: llama.cpp's names (`tokenizer.ggml.pre`) and the same thing as tokenizer.json says it.

llama.cpp knows pre-tokenizers by name only, so a wrong or missing name tokenizes text wrongly without a word. Both directions
use this table: import builds the tokenizer from the name, export finds the name by structure.
"""

from dataclasses import dataclass
from typing import Any

LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LETTERS + r"\p{N}" + REST
LLAMA3 = LETTERS + r"\p{N}{1,3}" + REST


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(False)]}


@dataclass(frozen=True)
class PreTokenizer:
    """One way of cutting. `nfc`: Hugging Face normalizes first (llama.cpp never does). `whole`: a piece that is in the
    vocabulary as it stands is not merged (BPE's ignore_merges)."""

    layout: dict[str, Any]
    nfc: bool = False
    whole: bool = False
    adds_bos: bool = False  # llama.cpp's default where the file does not say


DIGITS = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(True)]}
SMOLLM = PreTokenizer(DIGITS)
GPT2 = PreTokenizer(_byte_level(True))
BY_NAME = {
    "smollm": SMOLLM,
    "starcoder": SMOLLM,
    "refact": SMOLLM,
    "gpt-2": GPT2,
    "olmo": GPT2,
    "qwen2": PreTokenizer(_split(QWEN2), nfc=True),
    "stablelm2": PreTokenizer(_split(QWEN2), nfc=True),
    "deepseek-r1-qwen": PreTokenizer(_split(QWEN2), nfc=True),
    "llama-bpe": PreTokenizer(_split(LLAMA3), whole=True, adds_bos=True),
    "dbrx": PreTokenizer(_split(LLAMA3)),
    "smaug-bpe": PreTokenizer(_split(LLAMA3)),
}


def same_structure(layout: Any, other: Any) -> bool:
    """Whether two `pre_tokenizer` entries of tokenizer.json cut alike (offsets do not matter to token ids)."""
    return _plain(layout) == _plain(other)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: _plain(v) for k, v in value.items() if k != "trim_offsets"}
        parts = kept.get("pretokenizers")
        return parts[0] if isinstance(parts, list) and len(parts) == 1 else kept
    return [_plain(item) for item in value] if isinstance(value, list) else value
