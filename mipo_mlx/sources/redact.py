"""Secrets in notes: keys and tokens, passwords, card and account numbers, e-mail addresses, phone numbers.

detect-secrets knows the forms of keys and tokens, phonenumbers knows phone numbers; both work offline. A secret is replaced by
its kind in brackets and counted, and is never printed or written. The detectors are patterns: they miss secrets that look
like ordinary words, and sometimes take a harmless number for a phone number.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

from ..errors import UserError
from .note import Block, Note

KEY, PASSWORD, CARD, ACCOUNT, EMAIL, PHONE = (
    "key or token",
    "password",
    "card number",
    "account number",
    "e-mail address",
    "phone number",
)
Span = tuple[int, int, str]
MISSING = "sources.redact: the package {} is missing; run: pip install detect-secrets phonenumbers, or set redact: false"

MIGHT = re.compile(r"\d|@|BEGIN |pass|pin\b|secret|kennwort|\w{16}", re.IGNORECASE)
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.*?-----END [A-Z ]*PRIVATE KEY-----|.*)", re.DOTALL)
MAIL = re.compile(
    r"(?<![\w.+%'-])[\w.+%'-]+@(?!\d[\d_]*\.\w+\b)[^\W_-][^\W_]*(?:-[^\W_]+)*(?:\.[^\W_]+(?:-[^\W_]+)*)*\.[^\W\d_]{2,}"
)
DIGITS = re.compile(r"(?<![\w.])\d{3,}(?:[ \u00a0-]\d{3,})*(?!\w)")
CARDS = ([4, 4, 4, 4], [4, 4, 4, 4, 3], [4, 6, 5], [4, 6, 4], [4, 4, 5], [8, 8])  # digits of each group on a card
CAPITALS = re.compile(r"\b[A-Z]{2}\d{2}[A-Z0-9]*(?:[ \u00a0-][A-Z0-9]+)*\b")
GROUP = re.compile(r"[^\W_]+")
LONGEST = 42  # characters: 34 of an IBAN in groups of four
ISSUER = re.compile(r"[3-6]|(?=\d{16}$)2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)")  # 2221 to 2720: Mastercard
IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}")
CALL = re.compile(r"(?<![\w.,:#])(?:\+|00)?\(?\d[\d \u00a0\u202f().\-/–]{5,20}\d(?![\w])")
OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
NO_CALL = re.compile(  # a date, an IP address, a long decimal
    r"\b\d{4}([-./])\d{1,2}\1\d{1,2}\b|\b\d{1,2}([-./])\d{1,2}\2\d{4}\b"
    rf"|(?<![\d.]){OCTET}(?:\.{OCTET}){{3}}(?!\.?\d)|^\d{{1,3}}\.\d{{5,}}"
)
ANNOUNCED = re.compile(
    r"(?<![^\W_])(?:pass(?:word|code|phrase|wd|wort)?|pwd|kennwort|(?<!_)pin|mot de passe|contraseña|token|secret"
    r"|(?:api|access|secret)[ _-]?key)"
    r"(?:\s+(?:is|ist|lautet|est|es|for \w+ is)(?:\s*[:=]\s*|\s+)|\s*[:=]\s*)[\"'`]?([^\s\"'`,;]{4,})",
    re.IGNORECASE,
)
CHUNK = re.compile(r"[\w+/=~.-]{16,}")
TOKEN_END = re.compile(r"[\w+/=~.-]*")
HEX = re.compile(r"[0-9a-fA-F]{32,}")
# A number without a country's code is tried as one of these regions; with the code, every country is known.
REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "CH", "IN", "AU", "BR")
OTHER_TOKENS = re.compile(  # newer than the detector's last release
    r"\b(?:sk-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}|github_pat_\w{50,}|AIza[\w-]{35}|npm_[A-Za-z0-9]{36}|xai-\w{40,}|gsk_\w{40,})"
)


def redact_note(note: Note, counts: Counter) -> Note:
    """The note with every secret in its text, title, name and file name replaced by its kind; `counts` counts them by kind."""
    blocks = [_redacted(block, counts) for block in note.blocks]
    name = redact(note.name, Counter())
    if name != note.name:  # two notes named after two addresses stay two notes
        name = hashlib.sha256(note.name.encode()).hexdigest()[:12]
    return replace(note, name=name, source=redact_name(note.source), title=redact(note.title, counts), blocks=blocks)


def _redacted(block: Block, counts: Counter) -> Block:
    text = redact(block.text, counts)
    return block if text == block.text else replace(block, text=text)


def redact_name(name: str) -> str:
    """A file's name with its secrets replaced. Its ending is no part of an address: `week@2025.md` is none."""
    parts = name.split("/")
    stem, dot, ending = parts[-1].rpartition(".")
    last = f"{redact(stem, Counter())}{dot}{ending}" if dot and stem else redact(parts[-1], Counter())
    return "/".join([*(redact(part, Counter()) for part in parts[:-1]), last])


def redact(text: str, counts: Counter) -> str:
    """`text` with each secret replaced by its kind in brackets; `counts` counts them by kind."""
    if not MIGHT.search(text):
        return text
    parts, end = [], 0
    for begin, stop, kind in _apart(sorted(spans(text), key=lambda span: (span[0], -span[1]))):
        parts += [text[end:begin], f"[{kind}]"]
        end = stop
        counts[kind] += 1
    return "".join([*parts, text[end:]])


def spans(text: str) -> Iterator[Span]:
    """(begin, end, kind) of every secret; they may overlap."""
    yield from ((*match.span(), KEY) for match in PRIVATE_KEY.finditer(text))
    yield from ((*match.span(), EMAIL) for match in MAIL.finditer(text))
    yield from ((*span, CARD) for span in _stretches(DIGITS, text) if _printed(text[slice(*span)]) and is_card(text[slice(*span)]))
    yield from ((*span, ACCOUNT) for span in _stretches(CAPITALS, text) if is_iban(text[slice(*span)]))
    yield from ((*match.span(1), PASSWORD) for match in ANNOUNCED.finditer(text) if _is_password(text, match))
    yield from _tokens(text)
    yield from _phones(text)


def _stretches(run: re.Pattern, text: str) -> Iterator[tuple[int, int]]:
    """(begin, end) of every stretch of whole groups in a run: a date may follow a card's number, a bank's code an IBAN."""
    for match in run.finditer(text):
        groups = [group.span() for group in GROUP.finditer(text, *match.span())]
        for place, (begin, _) in enumerate(groups):
            for _, end in groups[place:]:
                if end - begin > LONGEST:
                    break
                yield begin, end


def _printed(text: str) -> bool:
    """Whether digits stand in groups as on a card: one in ten of other rows of numbers has a right check digit."""
    lengths = [len(group) for group in GROUP.findall(text)]
    return len(lengths) == 1 or lengths in CARDS


def is_card(text: str) -> bool:
    """13 to 19 digits of a card issuer's range with a right check digit (Luhn, ISO/IEC 7812)."""
    digits = "".join(char for char in text if char.isdigit())
    if not 13 <= len(digits) <= 19 or not ISSUER.match(digits) or len(set(digits)) == 1:
        return False
    return sum(sum(divmod(2 * int(n), 10)) if place % 2 else int(n) for place, n in enumerate(reversed(digits))) % 10 == 0


def is_iban(text: str) -> bool:
    """15 to 34 characters with a right check number (ISO 13616: letters as 10 to 35, modulo 97)."""
    letters = "".join(GROUP.findall(text))
    return bool(IBAN.fullmatch(letters)) and int("".join(str(int(char, 36)) for char in letters[4:] + letters[:4])) % 97 == 1


def _is_password(text: str, match: re.Match) -> bool:
    """Whether the value behind a word for secrets is one.

    Code and settings may stand behind a variable's name (DB_PASSWORD, eos_token): there a number, a call and a placeholder do
    not count.
    """
    value = match[1]
    if not text.startswith("_", max(match.start() - 1, 0)):
        return _looks_made_up(value)
    code = value[0] in "$%" or re.search(r"[][(){}<>|]", value)
    return not code and bool(re.search(r"[^\W\d_]", value) and re.search(r"\d|\w[!@#$%^&*?]", value))


def _looks_made_up(word: str) -> bool:
    """`hunter2`, `Correct-Horse7` and `s3cret!`, but not `patience` in "the secret is patience"."""
    return bool(re.search(r"\d|\w[^\w\s.,;:)'’-]|[a-z][A-Z]", word))


def _tokens(text: str) -> Iterator[Span]:
    chunks = list(CHUNK.finditer(text))
    for match in chunks:
        word = match[0].strip(".")
        if HEX.fullmatch(word) or any(map(is_random, re.split(r"[-_./=]", word))):
            yield match.start(), match.start() + len(word), KEY
    if chunks or "://" in text:
        for pattern in (OTHER_TOKENS, *_patterns()):
            for match in pattern.finditer(text):
                rest = TOKEN_END.match(text, match.end())
                yield match.start(), match.end() + (len(rest[0].rstrip(".")) if rest else 0), KEY


def is_random(word: str) -> bool:
    """Whether a word mixes letters of both cases and digits as no language does: over 3.8 bits of entropy a character."""
    digits = sum(map(str.isdigit, word))
    if len(word) < 20 or digits < (1 if len(word) >= 32 else 3) or word in (word.upper(), word.lower()):
        return False
    counts = Counter(word).values()
    return -sum(n / len(word) * math.log2(n / len(word)) for n in counts) > 3.8


@cache
def _patterns() -> tuple[re.Pattern, ...]:
    """The forms of keys and tokens that detect-secrets knows, without IP addresses and keys announced by a word."""
    try:
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
        from detect_secrets.plugins.base import RegexBasedDetector
    except ImportError:
        raise UserError(MISSING.format("detect-secrets")) from None
    known: dict[str, Any] = get_mapping_from_secret_type_to_class()
    chosen = [plugin for kind, plugin in sorted(known.items()) if issubclass(plugin, RegexBasedDetector) and "IP" not in kind]
    return tuple(pattern for plugin in chosen for pattern in plugin().denylist)


def _phones(text: str) -> Iterator[Span]:
    for candidate in CALL.finditer(text):
        groups = GROUP.findall(candidate[0])
        if 7 <= sum(map(len, groups)) <= 15 and len(groups) <= 7 and not NO_CALL.search(candidate[0]):
            span = _phone(candidate[0])
            if span:
                yield candidate.start() + span[0], candidate.start() + span[1], PHONE


@lru_cache(4096)
def _phone(text: str) -> tuple[int, int] | None:
    """(begin, end) of a phone number in `text`, by the rules of its country or of one of REGIONS; None without one."""
    try:
        from phonenumbers import Leniency, PhoneNumberMatcher
    except ImportError:
        raise UserError(MISSING.format("phonenumbers")) from None
    bare = text.isdigit()
    international = text.startswith(("+", "00"))
    number = f"+{text[2:]}" if text.startswith("00") else text
    shift = len(text) - len(number)
    for region in (None,) if international else REGIONS:
        # Digits without a space or sign are a phone number only where they begin with a trunk zero.
        if bare and not text.startswith("0"):
            return None
        match = next(iter(PhoneNumberMatcher(number, region, leniency=Leniency.VALID)), None)
        if match:
            return (match.start + shift if match.start else 0), match.end + shift
    return None


def _apart(spans: list[Span]) -> Iterator[Span]:
    """The spans in order; of two that overlap, the first (and longer) one takes in the other."""
    held: Span | None = None
    for span in spans:
        if held and span[0] < held[1]:
            held = (held[0], max(held[1], span[1]), held[2])
            continue
        if held:
            yield held
        held = span
    if held:
        yield held
