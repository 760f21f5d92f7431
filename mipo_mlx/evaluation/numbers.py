"""Read the number that an answer ends in: "70,000", "-3", "1/2", "2 1/2 hours", "$4.50", "15%", "#### 72", "\\boxed{72}"."""

import re
import unicodedata
from fractions import Fraction

# A minus sign counts where no digit, letter or closing bracket stands before it: 5-3 is no -3.
NUMBER = re.compile(
    r"(?<![\w.,/])(?P<sign>(?<![\w)\]])[-\u2212]\s?)?(?:[$\u20ac\u00a3]\s?)?"
    r"(?:(?P<mixed>\d+)\s+(?P<a>\d+)/(?P<b>\d+)|(?P<top>\d+)\s?/\s?(?P<bottom>\d+)"
    r"|(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?P<decimals>\.\d+)?|(?P<bare>\.\d+))"
    r"(?![\d/])"
)
MARKED = re.compile(r"####|\\boxed\{|\banswer\b\W{0,4}(?:to [^.\n]{0,60}?)?(?:is\b|would be\b|will be\b|:|=)", re.IGNORECASE)
SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
LATEX = ((re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}"), r"\1/\2"), (re.compile(r"\{,\}"), ","), (re.compile(r"\\([$%])"), r"\1"))
VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")  # characters such as one half


def read_number(text: str) -> Fraction | None:
    """The answer of a worked solution: the number behind the last mark ("####", "\\boxed", "the answer is") that has one; without
    a mark, that of the last sentence that has one. Of an equation, what stands behind the last "=" counts; else the first number
    behind a mark, and the last of a sentence. None where there is no number. Units, currency and per cent signs are left aside.
    """
    for pattern, plain in LATEX:
        text = pattern.sub(plain, text)
    text = VULGAR.sub(lambda match: " " + unicodedata.normalize("NFKC", match[0]).replace("\u2044", "/"), text)
    for mark in reversed(list(MARKED.finditer(text))):
        behind = SENTENCES.split(text[mark.end() :].lstrip(" :*$\\"))[0]
        if (value := _sentence(behind, 0)) is not None:
            return value
    found = (_sentence(sentence, -1) for sentence in reversed(SENTENCES.split(text)))
    return next((value for value in found if value is not None), None)


def _sentence(text: str, which: int) -> Fraction | None:
    """What stands behind the last "=" that has a number behind it; without one, the first (0) or the last (-1) number."""
    for equals in reversed([match.end() for match in re.finditer("=", text)]):
        if values := _values(text[equals:]):
            return values[0]
    values = _values(text)
    return values[which] if values else None


def _values(text: str) -> list[Fraction]:
    return [value for match in NUMBER.finditer(text) if (value := _value(match)) is not None]


def _value(match: re.Match) -> Fraction | None:
    part = match.groupdict()
    bottom = int(part["b"] or part["bottom"] or 1)
    if bottom == 0:
        return None
    if part["mixed"]:
        value = int(part["mixed"]) + Fraction(int(part["a"]), bottom)
    elif part["top"]:
        value = Fraction(int(part["top"]), bottom)
    elif part["bare"]:
        value = Fraction(f"0{part['bare']}")
    else:
        value = Fraction(part["whole"].replace(",", "") + (part["decimals"] or ""))
    return -value if part["sign"] else value
