"""How text is cut before byte-pair merges: llama.cpp's names (`tokenizer.ggml.pre`) and the same in tokenizer.json's words.

llama.cpp knows pre-tokenizers by name only, so a wrong or missing name tokenizes text wrongly without a word. Import builds the
tokenizer from the name (BY_NAME). Export finds the name by a hash of a fixed text's token ids (NAMES), else by structure.

llama.cpp's own converter recognises tokenizers by this hash. Text and hashes are its public facts, kept here for the
architectures that we write. The hash is over ids, so it may miss a tokenizer with one token more or less.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LETTERS + r"\p{N}" + REST
LLAMA3 = LETTERS + r"\p{N}{1,3}" + REST
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
WORD = r"[^\r\n\p{L}\p{N}]?"  # what may stand before a word
QWEN35 = QWEN2.replace(r"\p{L}+|", r"[\p{L}\p{M}]+|").replace(r"^\s\p{L}", r"^\s\p{L}\p{M}")
TEKKEN = rf"{WORD}[{UPPER}]*[{LOWER}]+|{WORD}[{UPPER}]+[{LOWER}]*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(False)]}


@dataclass(frozen=True)
class PreTokenizer:
    """One way to cut text. `nfc`: Hugging Face normalizes first (llama.cpp never does). `whole`: a piece that is in the
    vocabulary already is not merged (BPE's ignore_merges)."""

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
    "qwen35": PreTokenizer(_split(QWEN35), nfc=True),
    "stablelm2": PreTokenizer(_split(QWEN2), nfc=True),
    "deepseek-r1-qwen": PreTokenizer(_split(QWEN2), nfc=True),
    "llama-bpe": PreTokenizer(_split(LLAMA3), whole=True, adds_bos=True),
    "lfm2": PreTokenizer(_split(LLAMA3), whole=True, adds_bos=True),
    "dbrx": PreTokenizer(_split(LLAMA3)),
    "smaug-bpe": PreTokenizer(_split(LLAMA3)),
    "tekken": PreTokenizer(_split(TEKKEN), whole=True, adds_bos=True),
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


TEXT = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis concatenated) ✅ 🦙🦙 3 33 333 "
    "3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български "
    "''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, "
    "'D you like some tea? We'Ve a'lL"
)
NAMES = {
    "0ef9807a4087ebef797fc749390439009c3b9eda9ad1a097abbe738f486c01e5": "llama-bpe",  # Llama 3
    "c136ed14d01c2745d4f60a9596ae66800e2b61fa45643e72436041855ad4089d": "smaug-bpe",
    "855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249": "smollm",
    "63b97e4253352e6f357cc59ea5b583e3a680eaeaf2632188c2b952de2588485e": "tekken",  # Mistral Nemo
    "0e9433cbbb161f89e264eb32e8e64bfe69e834973ffca5d41d3948a604a3e2a3": "pixtral",
    "9d032fcbd5501f4a38150912590928bfb36091efb5df11b8e2124b0390e3fb1e": "falcon3",
    "049ecf7629871e3041641907f3de7c733e4dbfdc736f57d882ba0b0845599754": "deepseek-llm",
    "347715f544604f9118bb75ed199f68779f423cabb20db6de6f31b908d04d7821": "deepseek-coder",
    "7fc505bd3104ca1083b150b17d088b59534ede9bde81f0dd2090967d7fe52cee": "viking",
    "1431a23e583c97432bc230bff598d103ddb5a1f89960c8f1d1051aaa944d0b35": "minerva-7b",
    "1994ffd01900cfb37395608534236ecd63f2bd5995d6cb1004dda1af50240f15": "trillion",
    "d4c8f286ea6b520b3d495c4455483cfa2302c0cfcd4be05d781b6a8a0a7cdaf1": "megrez",
    "d5f1dd6f980fec569fb218a81a7658ac45fc56b38c5a0adeb1c232fbe04ef5ec": "seed-coder",
    "f6791d196f87ce6b56a7d234be618e0d58f8cda3549416635b2bebcd22cd95c4": "midm-2.0",
    "a1e163ecab2e718a4c829d1148b6e86824ec36163bb71941c3dca9cd5ac25756": "mellum",
    "3ce83efda5659b07b1ad37ca97ca5797ea4285d9b9ab0dc679e4a720c9da7454": "gpt-2",
    "e636dc30a262dcc0d8c323492e32ae2b70728f4df7dfe9737d9f920a282b8aea": "qwen2",
    "d4540891389ea895b53b399da6ac824becc30f2fba0e9ddbb98f92e55ca0e97c": "qwen2",  # Qwen3 Embedding
    "d30d75d9059f1aa2c19359de71047b3ae408c70875e8a3ccf8c5fba56c9d8af4": "qwen35",
    "169bf0296a13c4d9b7672313f749eb36501d931022de052aad6e36f2bf34dd51": "lfm2",
    "9e454714343b69b99b71795c1d27a68c2a1d15dab111f4d353109f966af29da7": "lfm2",  # LFM2.5
    "b3f499bb4255f8ca19fccd664443283318f2fd2414d5e0b040fbdd0cc195d6c5": "deepseek-r1-qwen",
    "b0a6b1c0bd5998ebd9df08611efde34a4ff03faed45ae09c43e6b31ebd4b94cf": "a.x-4.0",
    "862f827721df956049dff5ca81a57f29e575280bc622e290d3bf4e35eca29015": "f2llmv2",
    "7dec86086fcc38b66b7bc1575a160ae21cf705be7718b9d5598190d7c12db76f": "superbpe",  # an OLMo 2
    "6221ad2852e85ce96f791f476e0b390cf9b474c9e3d1362f53a24a06dc8220ff": "refact",  # Granite too
    "a8594e3edff7c29c003940395316294b2c623e09894deebbc65f33f1515df79e": "dbrx",  # OLMo 2, Phi-4
    "ccc2ef013c104be7bae2965776d611e1d7a8a2a9c547dd93a682c9a9fc80352e": "gpt-4o",  # Phi-4 mini
}


def fingerprint(tokenizer: Any) -> str:
    """SHA-256 of the ids of TEXT as a Python list prints them, special tokens included (a transformers tokenizer)."""
    return hashlib.sha256(str(list(tokenizer.encode(TEXT))).encode()).hexdigest()


def name(tokenizer: Any) -> str | None:
    """llama.cpp's name for this tokenizer's way to cut text, by its fingerprint; None for an unknown one."""
    return NAMES.get(fingerprint(tokenizer))
