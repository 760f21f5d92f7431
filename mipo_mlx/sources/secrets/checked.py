"""Numbers with a check digit or an unmistakable form: cards, IBANs, ids. python-stdnum knows the rules of each country."""

import re
from collections.abc import Callable, Iterator
from functools import cache

from ...errors import UserError
from . import ACCOUNT, CARD, IDENTITY, MISSING, WORD, Span, by_line

DIGITS = re.compile(r"(?<![A-Za-z0-9_.])\d{3,}(?:[ \u00a0.-]\d{3,})*(?![A-Za-z0-9_])")
CARDS = (
    [4, 4, 4, 4],
    [4, 4, 4, 4, 3],
    [4, 6, 5],
    [4, 6, 4],
    [4, 4, 5],
    [8, 8],
    [6, 13],
    [4, 4, 4, 4, 2],
)  # digits of each group on a card
LENGTHS = {  # of an IBAN, by its country
    row[:2]: int(row[2:])
    for row in (
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
        "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 "
        "HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 "
        "MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 "
        "RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
    ).split()
}
LETTERS = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2} ?\d ?\d[A-Za-z0-9]*(?:[ \u00a0.-][A-Za-z0-9]+)*(?![A-Za-z0-9])")
GROUP = re.compile(r"[^\W_]+")
START = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2} ?\d ?\d")
ISSUER = re.compile(r"[3-6]|(?=\d{16}$)2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)")  # 2221 to 2720: Mastercard
POLISH = re.compile(r"(?<![\w-])\d{2}(?:[ \u00a0-]?\d){24}(?![\w-])")  # an account, without its country
DOUBLED = str.maketrans("0123456789", "0246813579")  # twice a digit, and the sum of its digits
IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}")
# Words before a number that is nobody's: of orders, articles, books.
OTHERS = frozenset(
    "isbn issn ean upc gtin asin doi arxiv rfc pep cve order orders invoice receipt article item part ticket issue "
    "tracking parcel case reference ref build version model sku batch lot "
    "commande facture pedido factura ordine fattura utm unix epoch timestamp заказ заказа".split()
)
STEMS = ("bestell", "rechnung", "auftrag", "artikel", "sendung", "zamówieni", "zakaz")
SHORT = frozenset("no nr num id n row".split())  # directly before the number
# (form, module of stdnum that checks it, or "" where the form alone is unmistakable)
IDS: tuple[tuple[str, str], ...] = (
    (r"(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}", ""),  # United States
    (r"9\d{2}-[5-9]\d-\d{4}", "us.itin"),
    (
        r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]|QQ ?\d{2} ?\d{2} "
        r"?\d{2} ?[A-D]", ""),  # United Kingdom
    (r"\d{8}-?[A-HJ-NP-TV-Z]", "es.dni"),
    (r"\d{2}\.\d{3}\.\d{3}-?[A-HJ-NP-TV-Z]", ""),  # the same with dots
    (r"[XYZ]-?\d{7}-?[A-Z]", "es.nie"),
    (r"[12] ?\d{2} ?\d{2} ?[0-9][0-9AB] ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),
    (r"[A-Z]{6} ?\d{2}[A-EHLMPRST]\d{2} ?[A-Z]\d{3}[A-Z]", ""),  # Italy
    (r"\d{2} ?(?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2])\d{2} ?[A-Z] ?\d{3}", ""),  # Germany: pension
    (r"\d{2} \d{3} \d{3} \d{3}", "de.idnr"),
    (r"756\.\d{4}\.\d{4}\.\d{2}", ""),  # Switzerland
    (r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", ""),  # Belgium
    (r"(?:\d{2})?\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])[-+]\d{4}", "se.personnummer"),
    (r"(?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2])\d{2}-\d{4}", ""),  # Denmark
    (r"(?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2])\d{2}[A-FU-Y+-]\d{3}[0-9A-Z]", "fi.hetu"),
    (r"(?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2])\d{2} \d{5}", "no.fodselsnummer"),
    (r"\d{4}(?:0[1-9]|[12]\d|3[01])\d{5}", "pl.pesel"),
    (r"\d{2}(?:[05][1-9]|[16][0-2])(?:0[1-9]|[12]\d|3[01])/\d{3,4}", ""),  # Czechia
    (r"[1-8]\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{6}", "ro.cnp"),
    (r"[1-9]\d{10}", "tr.tckimlik"),
    (r"\d{3}\.\d{3}\.\d{3}-\d{2}", ""),  # Brazil
    (r"\d{1,2}\.\d{3}\.\d{3}-[\dkK]", ""),  # Chile
    (r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[A-Z0-9]\d", ""),  # Mexico
    (r"(?:20|2[347]|30|3[34])-\d{8}-\d", ""),  # Argentina
    (r"[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]", ""),  # China
    (r"\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])-[1-8]\d{6}", ""),  # Korea
    (r"[2-9]\d{3} \d{4} \d{4}", "in.aadhaar"),
    (r"[A-Z]{3}[ABCFGHLJPTK][A-Z]\d{4}[A-Z]", ""),  # India
    (r"[STFGM]\d{7}[A-Z]", ""),  # Singapore
    (r"[A-Z][12]\d{8}", ""),  # Taiwan
    (r"[A-Z]{1,2}\d{6}\([\dA]\)", ""),  # Hong Kong
    (r"\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])-\d{2}-\d{4}", ""),  # Malaysia
    (r"\d-\d{4}-\d{5}-\d{2}-\d", ""),  # Thailand
    (r"\d{3}-\d{3}-\d{3} \d{2}", ""),  # Russia
    (r"\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{4}[01]8\d", "za.idnr"),
    (r"\d{7}[A-W][ABHWTX]?", "ie.pps"),
    (r"P[A-Z<][A-Z]{3}[A-Z<]{39}|P<[A-Z]{3}[A-Z]+<[A-Z<]{12,}", ""),  # the two lines of a passport
    (r"[A-Z0-9<]{9}[\d<][A-Z][A-Z<]{2}\d{7}[MFX<]\d{7}[A-Z0-9<]{14,16}", ""),
)  # fmt: skip
BEFORE, AFTER = r"(?<![A-Za-z0-9_./-])(?=[A-Z0-9])", r"(?![A-Za-z0-9_]|[.-]\d)"
FORMS = [(re.compile(f"{BEFORE}(?:{form}){AFTER}"), module) for form, module in IDS]
# One search for all forms: nearly every line has none of them.
ANY_FORM = re.compile(f"{BEFORE}(?:{'|'.join(form for form, _ in IDS)}){AFTER}")
AS_MANY = re.compile(r"(?:\d[ \u00a0.-]?){13}")  # as many digits as the shortest card has
# What every form has: six digits in a row or in groups, or two behind letters; in a passport's lines also "<".
MAY_BE = re.compile(r"[\d<](?:(?<=[A-Za-z]{2}\d)\d|(?<=[A-Z]{6} \d)\d|(?<=\d)(?:[ \u00a0./-]?\d){5}|(?<=[A-Z]<))")


def checked(text: str) -> Iterator[Span]:
    """Every number that a check digit or its form shows to be a card's, an account's or a person's."""
    if MAY_BE.search(text):
        yield from by_line(text, MAY_BE.search, _in_line)


def _in_line(text: str) -> Iterator[Span]:
    for begin, end in _stretches(DIGITS, text) if AS_MANY.search(text) else ():
        if text[begin - 1 : begin] != "." and _printed(text[begin:end]) and is_card(text[begin:end]) and not is_other(text, begin):
            yield begin, end, CARD
    for match in LETTERS.finditer(text):
        for start in START.finditer(text, *match.span()):
            if end := _iban_end(text, start.start(), match.end()):
                yield start.start(), end, ACCOUNT
    yield from ((*match.span(), ACCOUNT) for match in POLISH.finditer(text) if is_iban(f"PL{match[0]}"))
    for form, module in FORMS if ANY_FORM.search(text) else ():
        for match in form.finditer(text):
            if (not module or _valid(module)(match[0])) and not is_other(text, match.start()):
                yield *match.span(), IDENTITY


def is_other(text: str, begin: int) -> bool:
    """Whether the words before a number say that it is an order's, an article's, a book's."""
    before = text[max(0, begin - 40) : begin].lower()
    words = WORD.findall(before)[-3:]
    if before.rstrip()[-1:] in ("#", "№", "°", "º") or words and words[-1] in SHORT:
        return True
    return any(map(is_of_others, words))


def is_of_others(word: str) -> bool:
    """Whether a word in lower case announces a number that is nobody's."""
    return word in OTHERS or word.startswith(STEMS)


def _iban_end(text: str, begin: int, end: int) -> int:
    """Where the IBAN ends that begins there, in groups of any length; 0 without one. A bank's code may follow it."""
    places = [place for place in range(begin, min(end, begin + 70)) if text[place].isalnum()]
    size = LENGTHS.get(text[begin : begin + 2].upper(), 0)
    last = places[size - 1] + 1 if 0 < size <= len(places) else 0
    return last if last and not text[last : last + 1].isalnum() and is_iban(text[begin:last]) else 0


def _stretches(run: re.Pattern, text: str) -> Iterator[tuple[int, int]]:
    """(begin, end) of every stretch of whole groups with as many digits as a card: a date may follow its number."""
    for match in run.finditer(text):
        groups = [group.span() for group in GROUP.finditer(text, *match.span())]
        for place, (begin, _) in enumerate(groups):
            size = 0
            for first, end in groups[place : place + 7]:
                size += end - first
                if 13 <= size <= 19:
                    yield begin, end


def _printed(text: str) -> bool:
    """Whether digits stand in groups as on a card: one in ten of other rows of numbers has a right check digit."""
    lengths = [len(group) for group in GROUP.findall(text)]
    return len(lengths) == 1 or lengths in CARDS


def is_card(text: str) -> bool:
    """13 to 19 digits of a card issuer's range with a right check digit (Luhn, ISO/IEC 7812)."""
    digits = "".join(filter(str.isdigit, text))
    if not 13 <= len(digits) <= 19 or not ISSUER.match(digits) or len(set(digits)) == 1:
        return False
    return sum(map(int, digits[::-2] + digits[-2::-2].translate(DOUBLED))) % 10 == 0


def is_iban(text: str) -> bool:
    """As many characters as its country's have, with a right check number (ISO 13616: letters as 10 to 35, modulo 97)."""
    letters = "".join(GROUP.findall(text)).upper()
    if not IBAN.fullmatch(letters) or LENGTHS.get(letters[:2]) != len(letters):
        return False
    return int("".join(str(int(char, 36)) for char in letters[4:] + letters[:4])) % 97 == 1


@cache
def _valid(module: str) -> Callable[[str], bool]:
    """The check of a country's numbers, by the name of its module in python-stdnum."""
    try:
        from stdnum.util import get_cc_module
    except ImportError:
        raise UserError(MISSING.format("python-stdnum")) from None
    known = get_cc_module(*module.split("."))
    return known.is_valid if known else lambda number: False
