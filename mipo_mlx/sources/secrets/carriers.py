"""Secrets within what carries them: connection strings, headers, addresses with a key, command lines, Wi-Fi codes, mail."""

import re
from collections.abc import Iterator

from . import EMAIL, KEY, PASSWORD, Span, by_line
from .keys import is_wordy
from .values import is_no_value

MAIL = re.compile(
    r"(?<![\w.+%'-])(?!(?:git|hg"
    r"|svn)@)[\w.+%'-]{1,64}@(?!\d[\d_]*\.\w+\b)[^\W_-][^\W_]*(?:-[^\W_]+)*(?:\.[^\W_]+(?:-[^\W_]+)*)*\.[^\W\d_]{2,}"
)
NO_MAIL = re.compile(
    r"\b(?:ssh|scp|sftp|rsync|mosh)(?: -\w+(?: \S+)?){0,3} $|://[^\s/@]{0,60}:$"
)  # a login, and what stands before @ in an address
SPELT_MAIL = re.compile(
    r"(?<![\w.+-])[\w+-]{1,32}(?:\.[\w+-]{1,32}){0,3} ?(?:\[at\]|\(at\)|\{at\}|<at>| at | AT |\(ät\)|\[ät\]|\(arroba\)"
    r"|\[arroba\]|＠) ?"
    r"(?:[\w-]{1,32}(?: ?(?:\[dot\]|\(dot\)|\{dot\}|<dot>| dot | DOT | punkt | punto |\(punkt\)|\[punkt\]) ?)){1,3}(?:com"
    r"|org|net|edu|gov|info|example|test|io|me|co|uk|de|fr|es|it|nl|pt|br|pl|ru|ch|at|be|eu|ca|au|us|in|jp|kr|cn|se|no|dk"
    r"|fi|ie|cz|gr|tr|mx|ar|cl)\b"
    r"|(?<![\w.+-])[\w+-]{1,32}(?:\.[\w+-]{1,32}){0,3} ?(?:\[at\]|\(at\)|\{at\}|<at>) "
    r"?[\w-]{1,32}(?:\.[\w-]{1,32}){0,3}\.[A-Za-z]{2,12}\b"
)
LOGIN = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{1,24}://[^\s:/@\"'<>]{0,80}:([^\s/\"'<>]{1,120})@(?=[\w\[])")
SHORT_LOGIN = re.compile(
    r"(?<![\w/])(?:root|admin|user|postgres|sa|pi|ubuntu|guest|nobody|backup):([^\s@/:\"']{3,64})@(?=[\w-]+\.)"
)
NAMED_LOGIN = re.compile(r"[a-z][a-z0-9+.-]{1,24}://([0-9A-Za-z_-]{16,80})@(?=[\w\[])")
PARAMETER = re.compile(
    r"[?&#;](?:[a-z0-9]{1,12}[_-])?(?:key|api[_-]?key|token|sig|signature|secret|auth|password|passwd|pwd|pass|code"
    r"|access[_-]?token|id[_-]?token|refresh[_-]?token|client[_-]?secret|session|sid|hash|"
    r"X-Amz-(?:Signature|Credential|Security-Token)|private|invite)=([^\s&#\"'<>)\];]{6,400})",
    re.IGNORECASE,
)
HEADER = re.compile(
    r"\b(?:(?:proxy-)?authorization|x-[a-z0-9-]{0,24}(?:key|token|auth|secret|signature)[a-z-]{0,12}|private-token"
    r"|job-token|api-?key|apikey|ocp-apim-subscription-key)[\"']?[ \t]*[:=][ \t]*[\"']?"
    r"(?:(?:bearer|basic|token|digest|apikey|key|bot|oauth|negotiate|aws4-hmac-sha256)[ \t]+)?(?!(?:bearer|basic|token"
    r"|digest|none)\b)([^\s\"'<>,;`]{4,2000})",
    re.IGNORECASE,
)
BEARER = re.compile(r"\bbearer[ \t]+([\w+/=~.-]{12,2000})", re.IGNORECASE)
COOKIE = re.compile(r"\b(?:set-)?cookie:[ \t]*([^\n\"']{6,1000})", re.IGNORECASE)
COOKIE_VALUE = re.compile(r"[\w.-]{1,60}=([^;\s\"']{12,400})")
COMMAND = re.compile(  # what programs take on the command line and in their own files
    r"(?:(?<![\w-])(?:-u|--user|--userpwd)[ \t=]{1,2}[\"']?[^\s:\"']{1,60}:([^\s\"']{3,80})|\b(?:mysql|mysqldump|mariadb"
    r"|mycli)\b[^\n]{0,80}? -p([^\s\"']{3,60})|\bsshpass[ \t]+-p[ \t]*(?:'([^'\n]{3,60})'|[\"]([^\"\n]{3,60})[\"]|([^\s\"']{3,60}))"
    r"|\blogin[ \t]+\S{1,60}[ \t]+password[ \t]+(\S{1,80})|(?<!\S)--(?:password|passphrase|passwd|token|api-?key"
    r"|secret)[ =][\"']?([^\s\"'<>\[\]{}]{4,120}))",
    re.IGNORECASE,
)
OPTION = re.compile(  # of any program: letters of both cases behind digits and before them
    r"(?<!\S)-{1,2}[A-Za-z][\w-]{0,20}[ =][\"']?"
    r"((?=\w{0,30}[a-z])(?=\w{0,30}[A-Z])(?=\w{0,30}\d\w{0,20}[A-Za-z])(?=\w{0,30}\d\w{0,20}\d)\w{8,40})[\"']?(?!\S)"
)
SETTING = re.compile(  # Password=...; of a connection string, PGPASSWORD=..., AccountKey=...
    r"(?:\b(?:password|pwd|accountkey|sharedaccesskey|sharedaccesssignature|sas)[ ]?=[ ]?([^\s;\"'&<>]{3,200})(?=;|&)"
    r"|\b[A-Z0-9_]{0,40}(?:PASSWORD|PASSWD|PASSPHRASE|_PWD|_PW|_PASS)[ ]?=[ ]?([^\s\"'<>{}$()]{3,120}+)(?!\()"
    r"|\bPrivateKey[ ]?=[ ]?(\S{40,})|\bPresharedKey[ ]?=[ ]?(\S{40,}))",
    re.IGNORECASE,
)
ENVIRONMENT = re.compile(
    r"\b[A-Z][A-Z0-9_]{0,60}(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PWD|CREDENTIALS?)(?:_[A-Z]{1,10})?[ \t]*[:= \t][ "
    r"\t]*[\"']([^\"'\n${}]{4,200})[\"']"
)
WIFI = re.compile(r"WIFI:[^\n]{0,200}", re.IGNORECASE)
WIFI_KEY = re.compile(r"(?:^WIFI:|;)P:((?:\\.|[^;\\]){1,100})", re.IGNORECASE)
HASHED = re.compile(r"(?<![\w$])\$(?:2[abxy]|[156y]|apr1|argon2id?|scrypt)\$[\w./$=,+-]{20,}|\{S?SHA(?:256|512)?\}[\w+/=]{20,}")


# In lower case: one of SIGNS is in every line that has something, and of each of the others one in what its pattern finds.
AT = ("[at]", "(at)", "{at}", "<at>")
DOT = (*AT, "dot", "punkt", "punto")
VARIABLES = ("key", "token", "secret", "passw", "pwd", "credential")
HEADERS = ("auth", "key", "token", "secret", "signature")
COMMANDS = ("-u", "-p", "--", " -", "login")
SIGNS = (*DOT, *VARIABLES, *HEADERS, *COMMANDS, "@", "=", "＠", "://", "cookie", "bearer", "wifi:", "$", "{s")


def carriers(text: str, lower: str) -> Iterator[Span]:
    """Every secret that its surroundings show; `lower` is the text in lower case."""
    if any(map(lower.__contains__, SIGNS)):
        yield from by_line(text, bool, _in_line)


def _in_line(text: str) -> Iterator[Span]:
    has = text.lower().__contains__
    if has("@"):
        yield from (
            (*match.span(), EMAIL)
            for match in MAIL.finditer(text)
            if not NO_MAIL.search(text, max(0, match.start() - 80), match.start())
        )
        yield from _values(LOGIN, text, PASSWORD)
        yield from _values(SHORT_LOGIN, text, PASSWORD)
        yield from ((*match.span(1), KEY) for match in NAMED_LOGIN.finditer(text) if re.search(r"\d", match[1]))
    if any(map(has, DOT)):
        yield from ((*match.span(), EMAIL) for match in SPELT_MAIL.finditer(text))
    if has("="):
        for match in PARAMETER.finditer(text):
            if re.search(r"\d", match[1]) or (len(match[1]) >= 16 and "-" not in match[1]):
                yield from _value(match, KEY)
        yield from _values(SETTING, text, PASSWORD)
    if any(map(has, VARIABLES)):
        yield from _values(ENVIRONMENT, text, PASSWORD)
    if any(map(has, HEADERS)):
        yield from _values(HEADER, text, KEY)
    if has("bearer"):
        yield from ((*match.span(1), KEY) for match in BEARER.finditer(text) if re.search(r"\d", match[1]))
    for header in COOKIE.finditer(text) if has("cookie") else ():
        for match in COOKIE_VALUE.finditer(header[1]):
            yield header.start(1) + match.start(1), header.start(1) + match.end(1), KEY
    if any(map(has, COMMANDS)):
        yield from _values(COMMAND, text, PASSWORD)
        yield from ((*match.span(1), KEY) for match in OPTION.finditer(text) if not is_wordy(match[1]))
    if has("$") or has("{s"):
        yield from ((*match.span(), KEY) for match in HASHED.finditer(text))
    for code in WIFI.finditer(text) if has("wifi:") else ():
        for match in WIFI_KEY.finditer(code[0]):
            yield code.start() + match.start(1), code.start() + match.end(1), PASSWORD


def _values(pattern: re.Pattern, text: str, kind: str) -> Iterator[Span]:
    for match in pattern.finditer(text):
        yield from _value(match, kind)


def _value(match: re.Match, kind: str) -> Iterator[Span]:
    """The group that matched, unless it is a placeholder, a variable or a call."""
    group = match.lastindex or 0
    if not is_no_value(match[group]):
        yield *match.span(group), kind
