"""Keys and tokens by their form: the beginnings that services give them, private keys, hexadecimal and random words."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

from ...errors import UserError
from . import KEY, MISSING, Span, by_line

PRIVATE_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
PRIVATE_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
LEAST = 16
LONG = re.compile(r"[\w+/=~.$:-]{16}")
CHUNK = re.compile(r"[\w+/~.$-]{16,}={0,2}")
TOKEN_END = re.compile(r"[\w+/=~.-]*")
HEX = re.compile(r"(?:0[xX])?[0-9a-fA-F]{32,}")
SHORT_HEX = re.compile(r"[0-9a-f]{24,31}|[0-9A-F]{24,31}")
HEX_WORD = re.compile(r"[0-9a-fA-F]+")
BASE64 = re.compile(r"[A-Za-z0-9+/]{32,}={0,2}")
NAME = re.compile(r"[A-Z]?[a-z]{3,}")
SPLIT = re.compile(r"[-_./=+~$]")
# Hashes of commits and files are no secrets: the words before one, on its line, or the address that it is part of.
HASH = re.compile(
    r"(?:\b(?:git|commits?|sha-?\d*|md5|hash(?:es)?|checksums?|digests?|revisions?|rev|revert(?:ed|s)?|cherry-pick(?:ed)?"
    r"|bisect|merged?|head|branch|tree|blob|parent|"
    r"integrity|etag|fingerprint|diff|blame|checkout|reset|rebased?|prüfsumme)\b|[@/]|sha\d*[:-]|\.\.)[^\n]{0,24}$",
    re.IGNORECASE,
)
KEYS = re.compile(r"key|token|secret|auth|api\b|passw|credential|schlüssel|clé|clave|chiave|ключ|密|キー", re.IGNORECASE)
FILE = re.compile(r"[0-9a-f]{8,64}\.[a-z]\w{1,5}")
BEGINNINGS = (  # what services put before their keys; at least twelve further characters follow
    r"sk-|sk_|pk_live_|rk_|ak_|sk-ant-|sk-proj-|sk-or-|gh[pousr]_|github_pat_|gl(?:pat|ptt|rt|dt|cbt|ft|soat|agent|oas"
    r"|ffct|imt)-|hf_|api_org_|r8_|gsk_|xai-|pplx-|nvapi-|xox[a-z]-|xoxe\.|xapp-|"
    r"do[opr]_v1_|npm_|pypi-|dckr_(?:pat|oat)_|cio(?=\w{32})|ATBB|ATATT|ATCTT|ATSTT|hv[sbr]\.|dp\.(?:pt|st|ct|sa|scim"
    r"|audit)\.|tskey-|sbp_|sb_secret_|vc[pkairs]_|vercel_blob_rw_|nf[pcoub]_|fo1_|fm2_|flyv1|FlyV1|rnd_|"
    r"rubygems_|lin_(?:api|oauth)_|ntn_|secret_|fig[dou]_|glsa_|glc_|PMAK-|NRAK-|NRJS-|NRII-|NRRA-|shp(?:at|ss|ca|pa|ua"
    r"|tka)_|whsec_|sq0[a-z]{3}-|EAAA|access_token\$|xkeysib-|xsmtpsib-|SG\.|key-|"
    r"re_|lsv2_(?:pt|sk)_|sntry[su]_|ph[cx]_|[ps]k\.eyJ|tk\.eyJ|AGE-SECRET-KEY-1|nsec1|[xyz]prv|ops_|dapi|CFPAT-|dd[pw]_"
    r"|atlasv1\.|pul-|tvly-|csk-|jina_|fc-|gAAAA|AIza|ya29\.|1//0|GOCSPX-|LTAI|AKID|"
    r"tfp_|v1\.0-|cfk_|cfat_|cfut_|bkua_|cm[a-z]*_|ctp_|cld_|crates_|clojars_|CLOJARS_|dnkey-|duffel_|EZ[AT]K|frameio"
    r"|flb_|FLWSECK|gpat_|heroku_|HRKU-|ico-|infracost|ionos_|key_live_|key_test_|"
    r"lc_|live_|test_|mapbox|mlsn\.|NTT|oy2|p8e-|patr_|PAT-|pat-|pscale_|rdme_|rpa_|s-s4t2|scalr|SCW|shippo_|signal_|sl\."
    r"|snyk|sourcegraph|sgp_|square_|tok_|token_|trello|ATTA|twilio|uk_|us_|ey[JI]|zpka_|"
    r"pat(?=\w{14}\.)|AC(?=[0-9a-f]{32})|SK(?=[0-9a-f]{32})"
)
BEGUN = re.compile(rf"(?<![A-Za-z0-9])(?:{BEGINNINGS})[\w+/~.$-]{{12,}}={{0,2}}")
CERTAIN = re.compile(  # beginnings and lengths that nothing else has
    r"\b(?:sk-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}|github_pat_\w{50,}|gh[pousr]_\w{30,}|AIza[\w-]{35}|npm_[A-Za-z0-9]{36}|xai-\w{40,}"
    r"|gsk_\w{40,})"
)
WALLET = re.compile(r"(?<![A-Za-z0-9])(?:[5KL][1-9A-HJ-NP-Za-km-z]{50,51}|nsec1[02-9ac-hj-np-z]{58})(?![A-Za-z0-9])")
TELEGRAM = re.compile(r"(?<![\w])\d{8,10}:[A-Za-z0-9_-]{35}(?![\w-])")
HOOKS = re.compile(
    r"(?:hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/webhooks/\d+/"
    r"|maker\.ifttt\.com/\S{0,60}key/"
    r"|chat\.googleapis\.com/v1/spaces/\S{0,80}token=)([\w/%=-]{12,})"
)
# Each letter of an address of Teams' or Power Automate's is part of what lets a stranger write there.
TEAMS = re.compile(r"webhook\.office\.com/(?:webhookb2/)?([\w@/.-]{20,}+)|\.outlook\.office\.com/webhook/([\w@/.-]{20,}+)")
LICENCE = re.compile(
    r"(?<![\w-])(?:[A-Z0-9]{5}-){4}[A-Z0-9]{5}(?![\w-])|(?<![\w-])(?:\d{6}-){7}\d{6}(?![\w-])"
    r"|(?<![\w-])(?:[A-Z0-9]{4}-){5}[A-Z0-9]{4}(?![\w-])"
)
RECOVERY = re.compile(
    r"(?<![\w-])(?:[0-9a-f]{5}-[0-9a-f]{5}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}:fx)(?![\w-])"
)  # of GitHub; of DeepL

# A registry's line of .npmrc, of which detect-secrets begins at every "//" anew.
NPM = re.compile(r"(?:[^/]|/(?!/))*+(//.+?/:_authToken=\s*(?:npm_.|[A-Fa-f0-9-]{36}).*)")
# How detect-secrets writes a sign between a name and its value, which takes the cube of the spaces there, and how it takes none.
SIGN, LINEAR_SIGN = "(?: *)(?:=|:|:=|=>| +|::)(?: *)", "(?: *+(?:=>|:=|::|=|:) *+| ++)"
FOLDED = str.maketrans({"\u0130": "i", "\u0131": "i", "\u017f": "s", "\u212a": "k"})  # beside its other case, for re.IGNORECASE


def keys(text: str) -> Iterator[Span]:
    """Every key and token that is known by its form, and every word that is too random for a language."""
    yield from _private(text)
    if _has_long(text):
        yield from by_line(text, _has_long, _in_line)
    for match in RECOVERY.finditer(text) if "-" in text else ():
        if re.search(r"[a-f]", match[0]) and sum(map(str.isdigit, match[0])) >= 4:
            yield *match.span(), KEY


def _has_long(text: str) -> bool:
    """Whether one word is as long as a key; `LONG` alone takes ten times as long to say no."""
    return max(map(len, text.split()), default=0) >= LEAST and bool(LONG.search(text))


def _in_line(text: str) -> Iterator[Span]:
    yield from ((*match.span(), KEY) for match in WALLET.finditer(text))
    yield from ((*match.span(1), KEY) for match in HOOKS.finditer(text))
    yield from ((*match.span(match.lastindex or 0), KEY) for match in TEAMS.finditer(text))
    yield from ((*match.span(), KEY) for match in TELEGRAM.finditer(text))
    yield from ((*match.span(), KEY) for match in LICENCE.finditer(text) if re.search(r"\d", match[0]))
    for match in CHUNK.finditer(text):
        word = match[0].strip(".$")
        begin = match.start() + len(match[0]) - len(match[0].lstrip(".$"))
        if _is_key(text, begin, word):
            yield begin, begin + len(word), KEY
    for match in BEGUN.finditer(text):
        tail = match[0][3:]
        if re.search(r"\d", tail) and (is_random(tail) or any(map(is_random, SPLIT.split(tail))) or _is_dense(tail)):
            yield match.start(), match.start() + len(match[0].rstrip(".")), KEY
    if "_authToken" in text and (line := NPM.match(text)):
        yield *line.span(1), KEY
    lower = text.translate(FOLDED).lower()
    for pattern in {pattern: word for word, pattern in _patterns() if word in lower}:
        for match in pattern.finditer(text):
            if HEX.fullmatch(match[0]) and _is_hash(text, match.start(), match[0]):
                continue
            rest = TOKEN_END.match(text, match.end())
            yield match.start(), match.end() + (len(rest[0].rstrip(".")) if rest else 0), KEY


def _private(text: str) -> Iterator[Span]:
    """Private keys; one without an end goes to the end of the text, for a key that was cut is a key still."""
    at = 0
    while begin := PRIVATE_BEGIN.search(text, at):
        end = PRIVATE_END.search(text, begin.end())
        at = end.end() if end else len(text)
        yield begin.start(), at, KEY


def _is_key(text: str, begin: int, word: str) -> bool:
    if HEX.fullmatch(word):
        return not _is_hash(text, begin, word) and len(set(word.lower())) > 4
    if FILE.fullmatch(word):
        return False
    if SHORT_HEX.fullmatch(word):
        return is_random(word) and not _is_hash(text, begin, word)
    pieces = SPLIT.split(word)
    if any(HEX.fullmatch(piece) for piece in pieces):
        longest = max(pieces, key=len)
        return not _is_hash(text, begin + word.index(longest), longest)
    if BASE64.fullmatch(word) and ("+" in word or word.endswith("=")) and re.search(r"\d", word):
        return not is_wordy(word)
    return any(map(is_random, pieces))


def _is_hash(text: str, begin: int, word: str) -> bool:
    """Whether a hexadecimal word is a commit's (40 digits) or a file's hash: of such a length, with a word for it before."""
    before = text[max(0, begin - 48) : begin]
    if len(word) == 40 and not KEYS.search(before):
        return True
    return len(word) in (24, 28, 32, 40, 56, 64, 96, 128) and bool(HASH.search(before))


def _is_dense(word: str) -> bool:
    """Whether digits and letters change places often enough for a key that a service's own beginning announces."""
    return len(word) >= 16 and (_changes(word) >= 3 or len(word) >= 20 and word == word.upper())


def is_random(word: str) -> bool:
    """Whether a word mixes letters of both cases and digits as no language does, or changes often between them."""
    if len(word) < 16 or not word.isascii() or is_wordy(word):
        return False
    digits = sum(map(str.isdigit, word))
    if not digits:
        turns = sum(a.islower() and b.isupper() or a.isupper() and b.islower() for a, b in zip(word, word[1:], strict=False))
        return len(word) >= 28 and turns >= 0.35 * len(word)
    if len(word) >= 20 and _changes(word) >= 6 and digits < 0.85 * len(word):
        return not HEX_WORD.fullmatch(word) or len(word) >= 24
    if len(word) < 20 or digits < (1 if len(word) >= 32 else 3) or word in (word.upper(), word.lower()):
        return False
    counts = Counter(word).values()
    return -sum(n / len(word) * math.log2(n / len(word)) for n in counts) > 3.8


def is_wordy(word: str) -> bool:
    """Whether most of a word is words, as in CamelCaseName2024."""
    return word != word.lower() and sum(len(name) for name in NAME.findall(word)) > 0.6 * sum(map(str.isalpha, word))


def _changes(word: str) -> int:
    """How often a letter stands beside a digit."""
    return sum(a.isdigit() and b.isalpha() or a.isalpha() and b.isdigit() for a, b in zip(word, word[1:], strict=False))


@cache
def _patterns() -> tuple[tuple[str, re.Pattern], ...]:
    """(word, pattern) of the forms that detect-secrets knows, without IP addresses and connection strings, and of `CERTAIN`.

    A match of a pattern has one of its words, so a text without them is not searched.
    """
    try:
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
        from detect_secrets.plugins.base import RegexBasedDetector
    except ImportError:
        raise UserError(MISSING.format("detect-secrets")) from None
    known: dict[str, Any] = get_mapping_from_secret_type_to_class()
    chosen = [
        re.compile(pattern.pattern.replace(SIGN, LINEAR_SIGN), pattern.flags)
        for kind, plugin in sorted(known.items())
        if issubclass(plugin, RegexBasedDetector) and "IP" not in kind and "Basic" not in kind
        for pattern in plugin().denylist
        if "_authToken" not in pattern.pattern
    ]
    parse = import_module("re._parser").parse
    return tuple((word, pattern) for pattern in (CERTAIN, *chosen) for word in _words(parse(pattern.pattern, pattern.flags)))


def _words(parsed: Any) -> list[str]:
    """Words in lower case of which each match of a parsed pattern has one; of several such lists the one with long words."""
    best, run = [""], ""
    for what, value in [*parsed, ("END", None)]:
        found: list[str] = []
        if str(what) == "LITERAL":
            run += chr(value).lower()
            continue
        if str(what) == "SUBPATTERN":
            found = _words(value[-1])
        elif str(what) == "BRANCH":
            found = [word for branch in value[1] for word in _words(branch)]
        elif str(what).endswith("REPEAT") and value[0]:
            found = _words(value[2])
        best, run = max(best, [run], found, key=lambda words: min(map(len, words), default=0)), ""
    return best
