"""The tokenizer and chat template of a GGUF file, as a transformers tokenizer.

Two kinds exist among the architectures we read: byte-level BPE (`tokenizer.ggml.model` = gpt2: tokens, merges and the name
of a pre-tokenizer) and SentencePiece BPE (`llama`: tokens and scores, merges implied by the scores).
"""

import json
from functools import partial
from typing import Any

from ..errors import UserError
from .gguf_file import GGUFFile
from .pretokenizers import BY_NAME

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
# Ends of a turn as common chat templates write them; llama.cpp stops at these whatever eos_token_id says.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|end_of_text|>", "<|endoftext|>")

KEEP_SPACE = ("<unk>", "<s>", "<|endoftext|>")  # Phi-3's special tokens that leave the space after them


def load_tokenizer(file: GGUFFile) -> Any:
    """An mlx_lm TokenizerWrapper. Raises UserError for a tokenizer that is missing, damaged or of an unknown kind."""
    from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, SPMStreamingDetokenizer, TokenizerWrapper

    kind = file.get("tokenizer.ggml.model", str)
    if kind not in ("gpt2", "llama"):
        raise UserError(f"{file.path}: tokenizer.ggml.model is {kind!r}; supported are 'gpt2' (byte-level BPE) and 'llama' (SPM)")
    tokens, types = _vocabulary(file)
    prefix = file.get("tokenizer.ggml.add_space_prefix", bool, True)
    content = _byte_level_bpe(file, tokens, types) if kind == "gpt2" else _sentencepiece(file, tokens, types, prefix)
    fast = _fast(file, tokens, types, content)
    detokenizer = BPEStreamingDetokenizer if kind == "gpt2" else partial(SPMStreamingDetokenizer, trim_space=prefix)
    return TokenizerWrapper(fast, detokenizer, eos_token_ids=eos_ids(file, tokens))


def strips_after_special(name: str) -> bool:
    """Whether llama.cpp, going by the model's name (`general.name`), drops the spaces that follow a special token: Phi-3's way."""
    return any(word in name.lower() for word in ("phi-3", "phi3"))


def eos_ids(file: GGUFFile, tokens: list[str]) -> list[int]:
    """The ids that end an answer: the file's eos, eot and eom, and the turn's end as the chat template writes it."""
    ids = [_id(file, key, len(tokens)) for key in ("eos", "eot", "eom")]
    template = file.get("tokenizer.chat_template", str, "")
    positions = {text: tokens.index(text) for text in TURN_ENDS if text in template and text in tokens}
    return list(dict.fromkeys([i for i in ids if i is not None] + list(positions.values())))


def _id(file: GGUFFile, name: str, count: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    value = file.get(key, int)
    if value is not None and value in (2**32 - 1, -1):
        return None
    if value is not None and not 0 <= value < count:
        raise file.refuse(f"{key} is {value}, and there are {count} tokens")
    return value


def _vocabulary(file: GGUFFile) -> tuple[list[str], list[int]]:
    tokens = file.get("tokenizer.ggml.tokens", list)
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise file.refuse("tokenizer.ggml.tokens is missing or not a list of strings")
    types = file.get("tokenizer.ggml.token_type", list, [NORMAL] * len(tokens))
    if len(types) != len(tokens) or not all(isinstance(kind, int) for kind in types):
        raise file.refuse(f"tokenizer.ggml.token_type has {len(types)} entries for {len(tokens)} tokens")
    return tokens, types


def _ids(tokens: list[str], types: list[int]) -> dict[str, int]:
    """Token text to id; padding entries (UNUSED) are no tokens at all. The first of equal texts counts."""
    ids: dict[str, int] = {}
    for index, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind != UNUSED:
            ids.setdefault(token, index)
    return ids


def _byte_level_bpe(file: GGUFFile, tokens: list[str], types: list[int]) -> dict[str, Any]:
    name = file.get("tokenizer.ggml.pre", str)
    if name not in BY_NAME:
        raise UserError(
            f"{file.path}: tokenizer.ggml.pre is {str(name)[:40]!r}, and without knowing how to cut text the tokens would be "
            f"wrong; supported are {', '.join(sorted(BY_NAME))}. Take the model's Hub or MLX folder instead"
        )
    cut = BY_NAME[name]
    lines = file.get("tokenizer.ggml.merges", list)
    if lines is None or not all(isinstance(line, str) for line in lines):
        raise file.refuse("tokenizer.ggml.merges is missing or not a list of strings")
    merges = [line.split(" ", 1) for line in lines]
    ids = _ids(tokens, types)
    for index, merge in enumerate(merges):
        if len(merge) != 2 or merge[0] not in ids or merge[1] not in ids or merge[0] + merge[1] not in ids:
            raise file.refuse(f"merge {index} of tokenizer.ggml.merges joins no two tokens of the vocabulary")
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    bos = _adds_bos(file, tokens, cut.adds_bos)
    return {
        "normalizer": {"type": "NFC"} if cut.nfc else None,
        "pre_tokenizer": cut.layout,
        "post_processor": bos or {**byte_level, "trim_offsets": False},
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": cut.whole, "vocab": ids, "merges": merges,
        },
    }  # fmt: skip


def _sentencepiece(file: GGUFFile, tokens: list[str], types: list[int], prefix: bool) -> dict[str, Any]:
    scores = file.get("tokenizer.ggml.scores", list)
    if scores is None or len(scores) != len(tokens) or not all(isinstance(score, float) for score in scores):
        raise file.refuse("tokenizer.ggml.scores is missing or does not fit the tokens")
    ids = _ids(tokens, types)
    unknown = _id(file, "unknown", len(tokens))
    normalizers: list[dict[str, Any]] = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}
    ]  # fmt: skip
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*normalizers, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}],
        },
        "pre_tokenizer": None,
        "post_processor": _adds_bos(file, tokens, True),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": tokens[unknown] if unknown is not None else None,
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
            "ignore_merges": False, "vocab": ids, "merges": _merges(ids, types, scores),
        },
    }  # fmt: skip


def _merges(ids: dict[str, int], types: list[int], scores: list[float]) -> list[tuple[str, str]]:
    """Every way to join two tokens into a third, best score first: SentencePiece joins the pair whose result scores best."""
    found = []
    for token, index in ids.items():
        if types[index] != NORMAL or len(token) > 256:  # a longer piece is damage, and would take quadratic time
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                found.append((-scores[index], ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _adds_bos(file: GGUFFile, tokens: list[str], default: bool) -> dict[str, Any] | None:
    bos = _id(file, "bos", len(tokens))
    if bos is None or not file.get("tokenizer.ggml.add_bos_token", bool, default):
        return None
    text, special = tokens[bos], {"SpecialToken": {"id": tokens[bos], "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [special, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [special, {"Sequence": {"id": "A", "type_id": 0}}, special, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {text: {"id": text, "ids": [bos], "tokens": [text]}},
    }


def _fast(file: GGUFFile, tokens: list[str], types: list[int], content: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    plain = {"single_word": False, "lstrip": False, "normalized": False}
    strips = strips_after_special(file.get("general.name", str, ""))
    added = [
        {"id": index, "content": token, **plain, "special": kind != USER_DEFINED, "rstrip": strips and token not in KEEP_SPACE}
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (CONTROL, USER_DEFINED, UNKNOWN) and token
    ]
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **content}
    try:
        tokenizer = Tokenizer.from_str(json.dumps(whole))
    except Exception as error:  # the Rust library raises plain Exception
        raise file.refuse(f"its tokenizer does not fit together ({str(error)[:120]})") from None
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    special = {key: _id(file, name, len(tokens)) for key, name in names.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        name_or_path=str(file.path),
        chat_template=file.get("tokenizer.chat_template", str),
        clean_up_tokenization_spaces=False,
        **{key: tokens[index] for key, index in special.items() if index is not None},
    )
