"""A tokenizer as GGUF metadata: tokens, token types, merges, special ids, chat template and the name of the pre-tokenizer.

Our architectures have two kinds. Byte-level BPE (`tokenizer.ggml.model` = gpt2) keeps tokens, merges and the name of a
pre-tokenizer. SentencePiece BPE (`llama`) keeps tokens and scores, and the scores imply the merges.

`load_tokenizer` makes a transformers tokenizer of a file's keys. `from_transformers` makes the keys of a transformers tokenizer,
that is of its tokenizer.json. The keys of a GGUF base go into an export as they are (`from_gguf`).
"""

import json
from functools import partial
from typing import Any

from ..errors import UserError
from . import pretokenizers
from .file import GGUFFile
from .pretokenizers import BY_NAME, same_structure

PREFIX = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # token types
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


def eos_ids(file: GGUFFile, tokens: list[str]) -> list[int]:
    """The ids that end an answer: the file's eos, eot and eom, and the turn's end as the chat template writes it."""
    ids = [_id(file, key, len(tokens)) for key in ("eos", "eot", "eom")]
    template = file.get("tokenizer.chat_template", str, "")
    written = [tokens.index(text) for text in TURN_ENDS if text in template and text in tokens]
    return list(dict.fromkeys([i for i in ids if i is not None] + written))


def strips_after_special(name: str) -> bool:
    """Whether llama.cpp drops the spaces that follow a special token: it knows Phi-3 by the model's name (`general.name`)."""
    return any(word in name.lower() for word in ("phi-3", "phi3"))


def _vocabulary(file: GGUFFile) -> tuple[list[str], list[int]]:
    tokens = file.get("tokenizer.ggml.tokens", list)
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise file.refuse("tokenizer.ggml.tokens is missing or not a list of strings")
    types = file.get("tokenizer.ggml.token_type", list, [NORMAL] * len(tokens))
    if len(types) != len(tokens) or not all(isinstance(kind, int) for kind in types):
        raise file.refuse(f"tokenizer.ggml.token_type has {len(types)} entries for {len(tokens)} tokens")
    return tokens, types


def _ids(tokens: list[str], types: list[int]) -> dict[str, int]:
    """Token text to id. Padding entries (UNUSED) are no tokens. The first of equal texts counts."""
    ids: dict[str, int] = {}
    for index, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind != UNUSED:
            ids.setdefault(token, index)
    return ids


def _id(file: GGUFFile, name: str, count: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    value = file.get(key, int)
    if value is not None and value in (2**32 - 1, -1):
        return None
    if value is not None and not 0 <= value < count:
        raise file.refuse(f"{key} is {value}, and there are {count} tokens")
    return value


def _byte_level_bpe(file: GGUFFile, tokens: list[str], types: list[int]) -> dict[str, Any]:
    name = file.get("tokenizer.ggml.pre", str)
    if name not in BY_NAME:
        raise UserError(
            f"{file.path}: tokenizer.ggml.pre is {str(name)[:40]!r}, and the tokens of an unknown pre-tokenizer would be wrong; "
            f"supported are {', '.join(sorted(BY_NAME))}. Take the model's Hub or MLX folder instead"
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
    return {
        "normalizer": {"type": "NFC"} if cut.nfc else None,
        "pre_tokenizer": cut.layout,
        "post_processor": _bos_processor(file, tokens, cut.adds_bos) or {**byte_level, "trim_offsets": False},
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
        "post_processor": _bos_processor(file, tokens, True),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": tokens[unknown] if unknown is not None else None,
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
            "ignore_merges": False, "vocab": ids, "merges": _merges(ids, types, scores),
        },
    }  # fmt: skip


def _merges(ids: dict[str, int], types: list[int], scores: list[float]) -> list[tuple[str, str]]:
    """Every way to merge two tokens into a third, best score first: SentencePiece merges the pair whose result scores best."""
    ranked = []
    for token, index in ids.items():
        if types[index] != NORMAL or len(token) > 256:  # a longer piece is damage, and would take quadratic time
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                ranked.append((-scores[index], ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(ranked)]


def _bos_processor(file: GGUFFile, tokens: list[str], default: bool) -> dict[str, Any] | None:
    """The post-processor that puts the bos token before a text; None where the file wants none."""
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


def from_transformers(tokenizer: Any, vocabulary: int, pre: str | None = None) -> dict[str, Any]:
    """The tokenizer keys of an mlx_lm TokenizerWrapper. Of `vocabulary` rows of embeddings, those without a token become [PADn].

    Added tokens without a row are left out: llama.cpp loads no such file, and the model cannot read or write them.
    pre: the user's own value of tokenizer.ggml.pre. Raises UserError for a tokenizer that is no BPE, and for a pre-tokenizer that
    llama.cpp may not have. A file with a wrong name would load and then cut text wrongly without a word.
    """
    fast = inner(tokenizer)
    if not hasattr(fast, "backend_tokenizer"):
        raise UserError("export.gguf: the model has no tokenizer.json, and only such a tokenizer can go into a GGUF file")
    content = json.loads(fast.backend_tokenizer.to_str())
    model = content["model"]
    if model.get("type") != "BPE":
        raise UserError(f"export.gguf: the model's tokenizer is a {model.get('type')}; only BPE can go into a GGUF file here")
    tokens, types = _tokens(content, vocabulary)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    keys: dict[str, Any] = {}
    if model.get("byte_fallback"):
        keys[PREFIX + "model"], keys[PREFIX + "pre"] = "llama", "default"
        keys[PREFIX + "scores"] = _scores(tokens, model["merges"])
        # Added tokens are matched in the text before its spaces become "▁", and Gemma has some made of spaces.
        spaced = [t.replace("▁", " ") if kind == USER_DEFINED else t for t, kind in zip(tokens, types, strict=True)]
        keys[PREFIX + "tokens"] = spaced
        keys[PREFIX + "token_type"] = _sentencepiece_types(tokens, types, fast.unk_token)
        keys[PREFIX + "add_space_prefix"] = _adds_space(content)
    else:
        keys[PREFIX + "model"], keys[PREFIX + "pre"] = "gpt2", pre or match(fast, content)
        keys[PREFIX + "tokens"], keys[PREFIX + "token_type"], keys[PREFIX + "merges"] = tokens, types, merges
    ids = {"bos": fast.bos_token_id, "eos": fast.eos_token_id, "unknown": fast.unk_token_id, "padding": fast.pad_token_id}
    keys.update({f"{PREFIX}{name}_token_id": i for name, i in ids.items() if i is not None and i < vocabulary})
    template = fast.chat_template if isinstance(fast.chat_template, str) else ""
    ends = [i for i in sorted(getattr(tokenizer, "eos_token_ids", ())) if i < len(tokens)]  # configurations name others, too
    turn_ends = [i for i in ends if tokens[i] in TURN_ENDS and tokens[i] in template]
    if turn_ends and ids["eos"] not in turn_ends:
        keys[PREFIX + "eot_token_id"] = turn_ends[0]
    probe = fast("a", add_special_tokens=True)["input_ids"]
    keys[PREFIX + "add_bos_token"] = bool(ids["bos"] is not None and probe and probe[0] == ids["bos"])
    return keys


def without_row(tokenizer: Any, vocabulary: int) -> list[str]:
    """Added tokens whose ids are beyond the `vocabulary` rows of embeddings, as Gemma 3's <image_soft_token>."""
    added = inner(tokenizer).added_tokens_decoder.items()
    return [token.content for index, token in sorted(added, key=lambda entry: entry[0]) if index >= vocabulary]


def from_gguf(file: GGUFFile) -> dict[str, Any]:
    """The tokenizer keys of a GGUF file, chat template left out. Tokens without a row of embeddings, which some have, go out."""
    rows = file.tensors["token_embd.weight"].shape[0]
    keys = {k: v for k, v in file.metadata.items() if k.startswith("tokenizer.") and not k.startswith("tokenizer.chat_template")}
    return {k: v[:rows] if k in (f"{PREFIX}{name}" for name in ("tokens", "scores", "token_type")) else v for k, v in keys.items()}


def match(fast: Any, content: dict[str, Any]) -> str:
    """llama.cpp's name for a tokenizer's pre-tokenizer: by its token ids, else by the structure of tokenizer.json.

    Raises UserError where neither is known.
    """
    known_name = pretokenizers.name(fast)
    if known_name:
        return known_name
    whole = bool(content["model"].get("ignore_merges"))
    for name, known in BY_NAME.items():
        if known.whole == whole and same_structure(content["pre_tokenizer"], known.layout):
            return name
    raise UserError(
        "export.pretokenizer: the model's pre-tokenizer is not known here, and under a wrong name llama.cpp would cut text "
        f"wrongly; if you know its name in llama.cpp, write it there (known here: {', '.join(sorted(BY_NAME))})"
    )


def inner(tokenizer: Any) -> Any:
    """The transformers tokenizer inside mlx_lm's wrapper."""
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    return tokenizer._tokenizer if isinstance(tokenizer, TokenizerWrapper) else tokenizer


def _tokens(content: dict[str, Any], vocabulary: int) -> tuple[list[str], list[int]]:
    """Token texts and types by id; ids that have no token are padding. Added tokens beyond the vocabulary are left out."""
    by_id = {index: (text, NORMAL) for text, index in content["model"]["vocab"].items()}
    for added in content["added_tokens"]:
        by_id[added["id"]] = (added["content"], CONTROL if added["special"] else USER_DEFINED)
    beyond = set(by_id) - set(range(vocabulary)) - {added["id"] for added in content["added_tokens"]}
    if beyond:
        raise UserError(
            f"export.gguf: the tokenizer has ids up to {max(beyond)}, the model {vocabulary} rows of embeddings; take a base whose "
            "tokenizer is its own"
        )
    rows = [by_id.get(index, (f"[PAD{index}]", UNUSED)) for index in range(vocabulary)]
    return [text for text, _ in rows], [kind for _, kind in rows]


def _sentencepiece_types(tokens: list[str], types: list[int], unknown: str | None) -> list[int]:
    def kind(text: str, given: int) -> int:
        if text == unknown:
            return UNKNOWN
        return BYTE if given == NORMAL and len(text) == 6 and text.startswith("<0x") and text.endswith(">") else given

    return [kind(text, given) for text, given in zip(tokens, types, strict=True)]


def _adds_space(content: dict[str, Any]) -> bool:
    """Whether a text gets a space in front. Older files have a Prepend normalizer for that, newer ones Metaspace."""
    parts = json.dumps([content["normalizer"], content["pre_tokenizer"]], ensure_ascii=False)
    return '"prepend": "▁"' in parts or '"prepend_scheme": "first"' in parts or '"prepend_scheme": "always"' in parts


def _scores(tokens: list[str], merges: list[Any]) -> list[float]:
    """SentencePiece scores in the order of the merges: a token that is merged earlier scores better."""
    first: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        first.setdefault("".join(merge.split(" ", 1) if isinstance(merge, str) else merge), rank)
    return [-float(first.get(token, len(merges))) for token in tokens]
