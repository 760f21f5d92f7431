"""Phone numbers: with a country's code, in a country's own notation, or bare behind a word such as "call"."""

import re
from collections.abc import Iterator
from functools import lru_cache

from ...errors import UserError
from . import MISSING, PHONE, WORD, Span
from .checked import is_of_others, is_other

CALL = re.compile(r"(?<![A-Za-z0-9_.,:#/])(?:\+|00)?\(?\d[\d \u00a0\u202f().\-/–]{5,20}\d(?![A-Za-z0-9_])")
OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
NO_CALL = re.compile(  # a date, an IP address, a long decimal
    r"\b\d{4}([-./])\d{1,2}\1\d{1,2}\b|\b\d{1,2}([-./])\d{1,2}\2\d{4}\b"
    rf"|(?<![\d.]){OCTET}(?:([.-]){OCTET})(?:\3{OCTET}){{2}}(?!\.?\d)|^\d{{1,3}}\.\d{{5,}}| -\d|[ .]{{2}}| / "
    rf"|^(?!0)\d\d(?: \d\d){{2,}}$"
)
# Words before a number that make it somebody's phone, whatever its form.
WORDS = frozenset(
    "call phone phoned telephone tel ring text sms mobile cell whatsapp whats wpp zap signal telegram fax dial reach "
    "contact landline mob ph number handy handynummer telefon telefonnummer anrufen ruf rufnummer mobil "
    "mobilnummer festnetz nummer portable téléphone tél appelle appeler appelez fixe numéro teléfono móvil movil celular "
    "llámame llamame llámala llámalo llama llamar fijo número tlf cellulare telefono chiama chiamami fisso "
    "numero telefoon mobiel bel telefone telemóvel liga ligar numer komórka zadzwoń телефон тел звони позвони номер "
    "мобильный telefonnummer puhelin puhelinnumero telefonszám telefonu cep τηλέφωνο κινητό".split()
)
WIDE = re.compile(r"(?:电话|電話|手机|手機|打给|携帯|전화|휴대폰|핸드폰)[号號番码碼호]*[\s:：是はは은는]*$")
# A number without a country's code is tried as one of these regions; with the code, every country is known.
REGIONS = ("GB", "DE", "FR", "IT", "NL", "CH", "IN", "AU", "BR")
# How numbers without a trunk zero are grouped, and where.
SHAPES: dict[tuple[int, ...], tuple[str, ...]] = {
    (3, 3, 4): ("US", "IT", "IN"),
    (1, 3, 3, 4): ("US",),
    (3, 3, 3): ("ES",),
    (3, 2, 2, 2): ("ES",),
    (2, 3, 2, 2): ("ES", "CH"),
    (3, 6): ("ES",),
    (5, 5): ("IN",),
    (4, 6): ("IN",),
    (4, 3, 3): ("IN",),
    (2, 8): ("IN",),
    (3, 7): ("IT",),
    (2, 4, 4): ("BR", "IT"),
    (2, 5, 4): ("BR",),
}
GROUPS = re.compile(r"\d+")
# Numbers of one text that are no phone's. What then looks like one counts as one, so that no table of numbers takes long.
MOST = 1_000
# Bare digits that are a mobile or other valid number of these regions, by their form.
BARE = ((re.compile(r"[2-9]\d{2}[2-9]\d{6}"), "US"), (re.compile(r"1[3-9]\d{9}"), "CN"))
ABROAD = re.compile(r"(?:44|49|33|34|39|31|41|43|91|55|61|48|90|86)\d{9,11}")


def phones(text: str) -> Iterator[Span]:
    """Every number that is somebody's phone by its form, or by a word before it."""
    others = 0
    for candidate in CALL.finditer(text):
        digits = sum(map(str.isdigit, candidate[0]))
        if not 6 <= digits <= 15 or NO_CALL.search(candidate[0]):
            continue
        before = text[max(0, candidate.start() - 48) : candidate.start()]
        if _is_announced(before.lower()):
            yield *candidate.span(), PHONE
        elif (
            digits >= 7 and not is_other(text, candidate.start()) and text[candidate.end() : candidate.end() + 1] not in ("-", "/")
        ):
            regions = _regions(candidate[0])
            span = (0, len(candidate[0])) if others > MOST and any(regions) else _phone(candidate[0], regions)
            others += any(regions) and span is None
            if span:
                yield candidate.start() + span[0], candidate.start() + span[1], PHONE


def _is_announced(before: str) -> bool:
    """Whether one of the last three words is one for phones, with nothing but signs and words between."""
    words = list(WORD.finditer(before))[-3:]
    if not words:
        return False
    last = before[words[-1].end() :]
    if len(last) > 6 or "\n\n" in last or any(char.isdigit() for char in last):
        return False
    if not before.isascii() and WIDE.search(before):
        return True
    near = [
        word for word in words if word[0] in WORDS and not any(char.isdigit() or char in "\n;!?" for char in before[word.end() :])
    ]
    return bool(near) and not any(is_of_others(word[0]) for word in words)


def _regions(text: str) -> tuple[str | None, ...]:
    """Whose notation a number can be in; none where it has a form that no phone number has."""
    if text.startswith(("+", "00")):
        return (None,)
    if text.startswith(("0", "(0")):
        return REGIONS
    groups = GROUPS.findall(text)
    shape = tuple(map(len, groups))
    steps = len(groups) > 2 and all(group.endswith("00") for group in groups)  # 400-600-800
    if steps or shape == (5, 5) and groups[0][0] < "6":  # 12345-54321; India's mobiles begin with 6 to 9
        return ()
    if len(shape) == 1:
        return ("",)
    return tuple(dict.fromkeys(region for size in range(2, len(shape) + 1) for region in SHAPES.get(shape[:size], ())))


@lru_cache(4096)
def _phone(text: str, regions: tuple[str | None, ...]) -> tuple[int, int] | None:
    """(begin, end) of a phone number in `text`, by the rules of its country or of one of `regions`; None without one."""
    try:
        from phonenumbers import Leniency, PhoneNumberMatcher
    except ImportError:
        raise UserError(MISSING.format("phonenumbers")) from None
    if text.isdigit() and not text.startswith("0"):
        return (0, len(text)) if _is_bare(text) else None
    number = f"+{text[2:]}" if text.startswith("00") else text
    shift = len(text) - len(number)
    for region in regions:
        match = next(iter(PhoneNumberMatcher(number, region, leniency=Leniency.VALID)), None)
        if match:
            return (match.start + shift if match.start else 0), match.end + shift
    return None


def _is_bare(digits: str) -> bool:
    """Whether digits without a space or sign are a phone number: those of few regions have a form that says so."""
    from phonenumbers import NumberParseException, PhoneNumberType, is_valid_number, number_type, parse

    try:
        for form, region in BARE:
            if form.fullmatch(digits):
                return is_valid_number(parse(digits, region))
        if ABROAD.fullmatch(digits):
            number = parse(f"+{digits}")
            return is_valid_number(number) and number_type(number) == PhoneNumberType.MOBILE
    except NumberParseException:
        return False
    return False
