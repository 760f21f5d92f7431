"""Read the number that an answer ends in: "70,000", "-3", "1/2", "2 1/2 hours", "$4.50", "15%", "#### 72"."""

import re
from fractions import Fraction

# A minus sign counts where no digit, letter or closing bracket stands before it: 5-3 is no -3.
NUMBER = re.compile(
    r"(?<![\w.,/])(?P<sign>(?<![\w)\]])[-\u2212]\s?)?(?:[$\u20ac\u00a3]\s?)?"
    r"(?:(?P<mixed>\d+)\s+(?P<a>\d+)/(?P<b>\d+)|(?P<top>\d+)\s?/\s?(?P<bottom>\d+)"
    r"|(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?P<decimals>\.\d+)?|(?P<bare>\.\d+))"
    r"(?![\d/])"
)
MARKED = re.compile(r"####|\\boxed\{|\banswer(?:\s+is)?\s*[:=]?|=", re.IGNORECASE)


def read_number(text: str) -> Fraction | None:
    """The answer of a worked solution: the first number behind the last mark ("####", "the answer is", "=") that has one,
    else the last number of the text; None where there is none. Units, currency and per cent signs are left aside."""
    for mark in reversed(list(MARKED.finditer(text))):
        behind = re.search(r"[^\n]*", text[mark.end() :].lstrip(" :*$\\"))
        found = NUMBER.search(behind.group(0)) if behind else None
        if found and (value := _value(found)) is not None:
            return value
    values = [value for match in NUMBER.finditer(text) if (value := _value(match)) is not None]
    return values[-1] if values else None


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
