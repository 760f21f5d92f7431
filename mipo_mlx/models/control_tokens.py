"""A model's control tokens: the ones that end an answer, and the user's text in which none of them is one.

A tokenizer takes `<|im_end|>` for a control token wherever it is, also in a note about chat formats, where it would end the turn.
So the user's are replaced by marks, each a private-use character, before the template sees the text. A second tokenizer knows the
control tokens under private-use names only. It encodes the rendered text with the template's own tokens under these names and the
user's written out again: as ordinary text. A text without a control token never comes here, so its ids are as ever.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any

from ..gguf_format.tokenizer import inner
from .chat_template import Messages, render
from .word_counts import Uneven, Words, stand_apart

NAMES, MARKS = 0xF0000, 0x100000  # first characters of Unicode's two private planes
PRIVATE = re.compile("[\U000f0000-\U000ffffd\U00100000-\U0010fffd]")
# Ends of a text. Models write them in place of the end of a turn, also where no configuration says so; llama.cpp stops at them.
TEXT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eot_id|>", "<|EOT|>", "<｜end▁of▁sentence｜>", "[EOS]")


class ControlTokens:
    """The control tokens of one tokenizer: its special tokens, and what its template writes around messages."""

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.fast = tokenizer, inner(tokenizer)
        self.rust: Any = getattr(self.fast, "backend_tokenizer", None)
        added = {token.content: (index, token.special) for index, token in getattr(self.fast, "added_tokens_decoder", {}).items()}
        written = self._rendered([{"role": role, "content": "a"} for role in ("user", "assistant", "user")])
        # DeepSeek's <｜User｜> is added and not special. So is Gemma's line break, which is no control token.
        turns = {text for text in added if text in written and re.fullmatch(r"[<\[].*[>\]]", text)}
        self.ids = {text: index for text, (index, special) in added.items() if text.strip() and (special or text in turns)}
        self.texts = sorted(self.ids, key=lambda text: (-len(text), text))  # longest first
        self.pattern = re.compile("|".join(map(re.escape, self.texts)) or r"(?!)")
        self.place = {text: place for place, text in enumerate(self.texts)}

    def _rendered(self, turns: Messages) -> str:
        try:
            return str(render(self.tokenizer, turns, tokenize=False, opened=False))
        except Exception:  # no template, or one that refuses these turns: each library has a class of its own for it
            return ""

    def ends(self) -> set[int]:
        """Ids that end an answer beside those that configurations name: ends of a text, and what the template writes after one."""
        after = self._rendered([{"role": "user", "content": "a"}, {"role": "assistant", "content": chr(MARKS)}]).partition(
            chr(MARKS)
        )[2]
        closing = self.pattern.match(after.lstrip())
        return {self.ids[text] for text in TEXT_ENDS if text in self.ids} | ({self.ids[closing[0]]} if closing else set())

    def encode(self, text: str) -> list[int]:
        """Token ids of a text of the user's, without special tokens."""
        if not self.pattern.search(text):
            return list(self.tokenizer.encode(text, add_special_tokens=False))
        return self._encode(self._marked(text))

    def count(self, text: str) -> int:
        """How many ids `encode` gives; faster where the tokenizer is one of the Rust library, as nearly all are."""
        if self.words:
            with suppress(Uneven):
                return self.words.total(text)
        return self.fast_count(text) if self.fast_count and not self.pattern.search(text) else len(self.encode(text))

    @cached_property
    def words(self) -> Words | None:
        """The tokens of single words; None where a text's are not their sum."""
        return Words(self.fast_count, self.pattern.search) if self.fast_count and stand_apart(self.rust) else None

    @cached_property
    def fast_count(self) -> Callable[[str], int] | None:
        """The tokens of a text without control tokens; None where the Rust library cannot count them alone."""
        rust = self.rust
        if rust is None or rust.truncation or rust.padding:
            return None
        return lambda text: len(rust.encode_batch_fast([text], add_special_tokens=False)[0])

    def encode_messages(self, messages: Messages) -> list[int]:
        """Token ids of messages under the chat template, up to where an answer begins."""
        if not any(self.pattern.search(message["content"]) for message in messages):
            return list(render(self.tokenizer, messages, tokenize=True))
        marked = [{**message, "content": self._marked(message["content"])} for message in messages]
        return self._encode(render(self.tokenizer, marked, tokenize=False))

    def _marked(self, text: str) -> str:
        return self.pattern.sub(lambda match: chr(MARKS + self.place[match[0]]), PRIVATE.sub("", text))

    def _encode(self, text: str) -> list[int]:
        """Ids of a text in which the user's control tokens are marks."""
        if self.plain is None:  # broken by a space, a control token is ordinary text for any tokenizer
            broken = {MARKS + place: f"{control[0]} {control[1:]}" for control, place in self.place.items()}
            return list(self.fast.encode(text.translate(broken), add_special_tokens=False))
        named = self.pattern.sub(lambda match: chr(NAMES + self.place[match[0]]), text)
        plain = named.translate({MARKS + place: control for control, place in self.place.items()})
        real = {self.plain.token_to_id(chr(NAMES + place)): self.ids[control] for control, place in self.place.items()}
        return [real.get(index, index) for index in self.plain.encode(plain, add_special_tokens=False).ids]

    @cached_property
    def plain(self) -> Any:
        """The tokenizer under the private names; None for one without a tokenizer.json, or where it does not fit together."""
        from tokenizers import Tokenizer

        name = {control: chr(NAMES + place) for control, place in self.place.items()}
        try:
            content = json.loads(self.fast.backend_tokenizer.to_str())
            model, vocabulary = content["model"], content["model"]["vocab"]
            if isinstance(vocabulary, dict):
                model["vocab"] = {name.get(token, token): index for token, index in vocabulary.items()}
            else:
                model["vocab"] = [[name.get(token, token), *rest] for token, *rest in vocabulary]
            if model.get("unk_token") in name:
                model["unk_token"] = name[model["unk_token"]]
            for token in content["added_tokens"]:
                token["content"] = name.get(token["content"], token["content"])
            return Tokenizer.from_str(json.dumps({**content, "post_processor": None, "truncation": None, "padding": None}))
        except Exception:  # the Rust library raises plain Exception
            return None


@lru_cache(maxsize=4)
def of(tokenizer: Any) -> ControlTokens:
    """The control tokens of a tokenizer, worked out once for each."""
    return ControlTokens(tokenizer)
