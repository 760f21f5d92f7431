"""Read the number that an answer ends in.

Examples: "70,000", "10 000", "3,5", "-3", "1/2", "2 1/2 hours", "$4.50", "15%", "1.5e3", "#### 72", "\\boxed{72}".
"""

import re
import unicodedata
from fractions import Fraction

# A minus is a sign where it touches its number and no digit, letter or closing bracket stands before it.
# So neither 5-3 nor 5 - 3 has a -3, and "- 3 apples" is an item of a list.
NUMBER = re.compile(
    r"(?<![\w.,/])(?P<sign>(?<![\w)\]])(?<![\d)\]%] )[-\u2212\u2013])?(?:[$\u20ac\u00a3]\s?)?"
    r"(?:(?P<mixed>\d+)\s+(?P<a>\d+)/(?P<b>\d+)|(?P<top>\d+)\s?/\s?(?P<bottom>\d+)"
    # A list (1,2,3) and a point (3,5) are no decimals.
    r"|(?P<comma>(?:\d{1,3}(?:\.\d{3})+|\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+|\d+),\d{1,2}|0,\d+)(?!\d|,\d|\))"
    r"|(?P<exact>10\^-?\d{1,2})"
    # 12,34,567 as in India, 1.234.567, 1'234'567, 1,234,567, 1 234 567
    r"|(?P<whole>\d{1,2}(?:,\d{2})+,\d{3}|\d{1,3}(?:\.\d{3}){2,}|\d{1,3}(?:['\u2019]\d{3})+|\d{1,3}(?:,\d{3})+"
    r"|\d{1,3}(?:(?P<gap>[ \u00a0\u2009\u202f])\d{3}(?:(?P=gap)\d{3})*)(?!-)|\d+)(?P<decimals>\.\d+)?"
    r"(?P<power>[eE][+-]?\d{1,2}\b)?(?: ?[\u00d7*] ?10\^(?P<tens>-?\d{1,2}))?|(?P<bare>\.\d+))"
    r"(?![\d/])"
)
MARKED = re.compile(
    r"####(?=[^\w\n]*\d)(?!\W*\d+[.):]\s+[^\W\d])"  # no heading, such as "#### Step 1" or "#### 1. Eggs"
    r"|\\boxed\{|\banswer\b\W{0,4}(?:to [^.\n]{0,60}?)?(?:is\b|would be\b|will be\b|(?P<colon>[:=]))",
    re.IGNORECASE,
)
WORDS = re.compile(r"[^\W\d]+\W+[^\W\d]")
LONGEST = 100  # characters: a model that repeats one digit to the end gives no number
WHEN = re.compile(r"(?:in|after|within|at|by) [\d.,]*\d [^\W\d]+, (?!not\b)[^\W\d]+ [^\W\d]", re.IGNORECASE)  # in 5 years, he will
SUM = re.compile(r"[\d.,]*\d [-+*\u2212\u2013\u00d7\u00f7] \d")
SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
PARAGRAPH = re.compile(r"\n\s*\n")
VULGAR = "\u00bc-\u00be\u2150-\u215e"  # characters such as one half
PLAIN = (
    (re.compile(rf"(?<=\d)(?=\\[dt]?frac|[{VULGAR}])"), " "),
    (re.compile(r"\\[dt]?frac(?:\{(\d+)\}\{(\d+)\}|(\d)(\d))"), r"\1\3/\2\4"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\(?:times|cdot)\b"), "\u00d7"),
    (re.compile(r"(?<=10)\^\{(-?\d+)\}"), r"^\1"),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"(?<=\d)\\[,;: ](?=\d{3})"), "\u202f"),
    (re.compile(r"([=:#{][ \t]*)[-\u2212\u2013][ \t]+(?=[$\u20ac\u00a3]?\.?\d)"), r"\1-"),
    (re.compile(f"[{VULGAR}]"), lambda match: unicodedata.normalize("NFKC", match[0]).replace("\u2044", "/")),
)


def read_number(text: str) -> Fraction | None:
    """The number that a worked solution ends in; None where it has no number.

    A mark is "####", "\\boxed" or "the answer is". The first number behind the last mark counts. Without a mark, the last number
    of the last sentence with one counts. In an equation, the number behind the last "=" counts. Text behind a mark may work
    out the answer ("Answer: She earns 5 an hour ..."): it is read like text without a mark, to the end of its paragraph.
    Units, currency and per cent signs are ignored.
    """
    for pattern, plain in PLAIN:
        text = pattern.sub(plain, text)
    for mark in reversed(list(MARKED.finditer(text))):
        behind = text[mark.end() :].lstrip(" :*$\\")
        worked = SUM.match(behind) or (mark["colon"] and (WORDS.match(behind) or WHEN.match(behind)))
        value = _ending(PARAGRAPH.split(behind)[0]) if worked else _sentence(SENTENCES.split(behind)[0], 0)
        if value is not None:
            return value
    return _ending(text)


def _ending(text: str) -> Fraction | None:
    """The number of the last sentence that has one."""
    values = (_sentence(sentence, -1) for sentence in reversed(SENTENCES.split(text)))
    return next((value for value in values if value is not None), None)


def _sentence(text: str, which: int) -> Fraction | None:
    """The first number behind the last "=" that has one behind it; without such a "=", the first (0) or last (-1) number."""
    for equals in reversed([match.end() for match in re.finditer("=", text)]):
        if values := _values(text[equals:]):
            return values[0]
    values = _values(text)
    return values[which] if values else None


def _values(text: str) -> list[Fraction]:
    matches = [match for match in NUMBER.finditer(text) if len(match[0]) <= LONGEST]
    return [value for match in matches if (value := _value(match)) is not None]


def _value(match: re.Match) -> Fraction | None:
    part = match.groupdict()
    bottom = int(part["b"] or part["bottom"] or 1)
    if bottom == 0:
        return None
    if part["mixed"]:
        value = int(part["mixed"]) + Fraction(int(part["a"]), bottom)
    elif part["top"]:
        value = Fraction(int(part["top"]), bottom)
    elif part["exact"]:
        value = Fraction(10) ** int(part["exact"].removeprefix("10^"))
    elif part["bare"]:
        value = Fraction(f"0{part['bare']}")
    elif part["comma"]:
        value = Fraction(re.sub(r"[^\d,]", "", part["comma"]).replace(",", "."))
    else:
        value = Fraction(re.sub(r"\D", "", part["whole"]) + (part["decimals"] or "") + (part["power"] or ""))
        value *= Fraction(10) ** int(part["tens"] or 0)
    return -value if part["sign"] else value
