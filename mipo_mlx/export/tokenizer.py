"""A tokenizer as GGUF metadata: tokens, token types, merges, special ids, chat template and the name of the pre-tokenizer.

Of a GGUF base the keys are taken over as they stand. Otherwise they come from the `tokenizers` object behind the model's
transformers tokenizer, that is from its tokenizer.json.
"""

import json
from typing import Any

from ..errors import UserError
from ..models.gguf_file import GGUFFile
from ..models.gguf_tokenizer import BYTE, CONTROL, NORMAL, TURN_ENDS, UNKNOWN, UNUSED, USER_DEFINED
from ..models.pretokenizers import BY_NAME, same_structure
from . import fingerprints

PREFIX = "tokenizer.ggml."


def inner(tokenizer: Any) -> Any:
    """The transformers tokenizer inside mlx_lm's wrapper."""
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    return tokenizer._tokenizer if isinstance(tokenizer, TokenizerWrapper) else tokenizer


def from_gguf(file: GGUFFile) -> dict[str, Any]:
    """The tokenizer keys of a GGUF file, chat template left out."""
    return {k: v for k, v in file.metadata.items() if k.startswith("tokenizer.") and not k.startswith("tokenizer.chat_template")}


def from_transformers(tokenizer: Any, vocabulary: int, pre: str | None = None) -> dict[str, Any]:
    """The tokenizer keys of an mlx_lm TokenizerWrapper; `vocabulary` rows of embeddings are filled up with [PADn].

    pre: the user's own word for tokenizer.ggml.pre. Raises UserError where the pre-tokenizer is not one that llama.cpp is
    known to have: a file with a wrong name would load and then cut text wrongly without a word.
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
        # Added tokens are looked for in the text as it comes, before its spaces become "▁" (Gemma has some made of spaces).
        shown = [t.replace("▁", " ") if kind == USER_DEFINED else t for t, kind in zip(tokens, types, strict=True)]
        keys[PREFIX + "tokens"] = shown
        keys[PREFIX + "token_type"] = _sentencepiece_types(tokens, types, fast.unk_token)
        keys[PREFIX + "add_space_prefix"] = _adds_space(content)
    else:
        keys[PREFIX + "model"], keys[PREFIX + "pre"] = "gpt2", pre or match(fast, content)
        keys[PREFIX + "tokens"], keys[PREFIX + "token_type"], keys[PREFIX + "merges"] = tokens, types, merges
    ids = {"bos": fast.bos_token_id, "eos": fast.eos_token_id, "unknown": fast.unk_token_id, "padding": fast.pad_token_id}
    keys.update({f"{PREFIX}{name}_token_id": value for name, value in ids.items() if value is not None})
    template = fast.chat_template if isinstance(fast.chat_template, str) else ""
    ends = [i for i in sorted(getattr(tokenizer, "eos_token_ids", ())) if i < len(tokens)]  # configurations name others, too
    turn_ends = [i for i in ends if tokens[i] in TURN_ENDS and tokens[i] in template]
    if turn_ends and ids["eos"] not in turn_ends:
        keys[PREFIX + "eot_token_id"] = turn_ends[0]
    probe = fast("a", add_special_tokens=True)["input_ids"]
    keys[PREFIX + "add_bos_token"] = bool(ids["bos"] is not None and probe and probe[0] == ids["bos"])
    return keys


def match(fast: Any, content: dict[str, Any]) -> str:
    """llama.cpp's name for a tokenizer's pre-tokenizer: known by its token ids, else found by the structure of tokenizer.json.
    Raises UserError where it is neither."""
    known_name = fingerprints.name(fast)
    if known_name:
        return known_name
    whole = bool(content["model"].get("ignore_merges"))
    for name, known in BY_NAME.items():
        if known.whole == whole and same_structure(content["pre_tokenizer"], known.layout):
            return name
    raise UserError(
        "export.pretokenizer: the model's pre-tokenizer is none that is known here, and under a wrong name llama.cpp would cut "
        f"text wrongly; if you know its name in llama.cpp, write it there (known here: {', '.join(sorted(BY_NAME))})"
    )


def _tokens(content: dict[str, Any], vocabulary: int) -> tuple[list[str], list[int]]:
    """Token texts and types by id; ids that have no token are padding."""
    by_id = {index: (text, NORMAL) for text, index in content["model"]["vocab"].items()}
    for added in content["added_tokens"]:
        by_id[added["id"]] = (added["content"], CONTROL if added["special"] else USER_DEFINED)
    if max(by_id) >= vocabulary:
        raise UserError(f"export.gguf: the tokenizer has ids up to {max(by_id)}, the model {vocabulary} rows of embeddings")
    rows = [by_id.get(index, (f"[PAD{index}]", UNUSED)) for index in range(vocabulary)]
    return [text for text, _ in rows], [kind for _, kind in rows]


def _sentencepiece_types(tokens: list[str], types: list[int], unknown: str | None) -> list[int]:
    def kind(text: str, given: int) -> int:
        if text == unknown:
            return UNKNOWN
        return BYTE if given == NORMAL and len(text) == 6 and text.startswith("<0x") and text.endswith(">") else given

    return [kind(text, given) for text, given in zip(tokens, types, strict=True)]


def _adds_space(content: dict[str, Any]) -> bool:
    """Whether a text gets a space in front: said by a Prepend normalizer in older files, by Metaspace in newer ones."""
    said = json.dumps([content["normalizer"], content["pre_tokenizer"]], ensure_ascii=False)
    return '"prepend": "▁"' in said or '"prepend_scheme": "first"' in said or '"prepend_scheme": "always"' in said


def _scores(tokens: list[str], merges: list[Any]) -> list[float]:
    """SentencePiece scores in the order of the merges: a token that is joined earlier scores better."""
    first: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        first.setdefault("".join(merge.split(" ", 1) if isinstance(merge, str) else merge), rank)
    return [-float(first.get(token, len(merges))) for token in tokens]
