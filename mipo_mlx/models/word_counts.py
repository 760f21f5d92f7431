"""How many tokens a text has, as the sum over its words: each word is given to the tokenizer once, and remembered.

Most tokenizers cut a text before they look words up: before each single space, and behind each line break. A word then has the
same tokens in any text. `stand_apart` asks a tokenizer whether it cuts so. To count a note's tokens takes a fraction of the time.
"""

from collections.abc import Callable
from typing import Any

# One word of each kind of sign. A tokenizer that cuts every two of them apart cuts all words apart.
KINDS = "a Z é e\u0301 П ש ع ह ไ 日 か 한 7 ٣ ½ . , ' 's ’ - / ( \" $ _ # @ ~ 🙂 \u200d € \ue000".split()
LONGEST, MOST = 200, 200_000  # characters of a word that is remembered; how many are remembered at one time


class Uneven(Exception):
    """A text whose words cannot be counted one by one."""


class Counts(dict[str, int]):
    """Word -> its tokens where `before` and `after` stand beside it: a space, a line break or nothing."""

    def __init__(self, words: "Words", before: str, after: str = "") -> None:
        self.words, self.before, self.after = words, before, after

    def __missing__(self, word: str) -> int:
        if not word or word[0].isspace() or word[-1].isspace() or self.words.has_control(word):
            raise Uneven
        line, line_break, behind = word.partition("\n")
        if line_break:
            return self.words.ending[self.before][line] + self.words.first[behind]
        number = self.words.count(self.before + word + self.after)
        if len(word) <= LONGEST:
            if len(self) >= MOST:
                self.clear()
            self[word] = number
        return number


class Words:
    """The tokens of texts by their words. count: of any text; has_control: whether a text has a control token."""

    def __init__(self, count: Callable[[str], int], has_control: Callable[[str], Any]) -> None:
        self.count, self.has_control = count, has_control
        self.first, self.others = Counts(self, ""), Counts(self, " ")  # words that begin a line, and the others
        self.ending = {before: Counts(self, before, "\n") for before in ("", " ")}

    def total(self, text: str) -> int:
        """The tokens of a text. Raises Uneven for one with spaces side by side, at its ends, or with a control token."""
        first, *others = text.split(" ")
        return self.first[first] + sum(map(self.others.__getitem__, others))


def stand_apart(fast: Any) -> bool:
    """Whether a Rust tokenizer cuts a text before each single space and behind each line break, and finds nothing across them."""
    cutter = fast.pre_tokenizer
    added = fast.get_added_tokens_decoder().values()
    if any(set(token.content.lstrip(" ")) & {" ", "\n"} or token.rstrip for token in added):
        return False
    if cutter is None or str(fast.normalizer) not in ("None", "NFC()"):
        return False

    def pieces(text: str) -> list[str]:
        return [piece for piece, _ in cutter.pre_tokenize_str(text)]

    for between, after, before in ((" ", "", " "), ("\n", "\n", "")):
        begins, middles, ends = (
            {word: pieces(f"{left}{word}{right}") for word in KINDS} for left, right in (("", after), (before, after), (before, ""))
        )
        for word in KINDS:
            others = [each for other in KINDS for each in (word, other)]  # beside each other on both sides
            expected = [*begins[others[0]], *(piece for each in others[1:-1] for piece in middles[each]), *ends[others[-1]]]
            if pieces(between.join(others)) != expected:
                return False
    return True
