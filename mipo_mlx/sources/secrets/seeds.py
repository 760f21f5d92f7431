"""Seed phrases of wallets: 12, 15, 18, 21 or 24 words in a row, known by their shape, without a list of words.

BIP-39 takes words of three to eight small letters. A sentence of so many words has "the", "of" or "is", or a longer word.
"""

import re
from collections.abc import Iterator

from . import SEED, WORD, Span
from .phrases import lowered

# Short words of sentences that BIP-39 does not have; one of them shows prose.
PROSE = frozenset(
    "the and for was were are not but his her its our who how did does has had have been which their would from than "
    "them she him your with some such "
    "der die das den dem und ein eine einen ist sind nicht mit von für auf les des une est pour avec dans mais los las "
    "una por con para que pero gli che per non "
    "het een van niet voor com uma não jest oraz nie это как что для или".split()
)
LENGTHS = (12, 15, 18, 21, 24)
BETWEEN = re.compile(
    r"(?:[ \t]*,?[ \t]*\n?[ \t>]*(?:[-*+•][ \t]+)?|[ \t]*[,;|]?[ \t]*\n?[ \t]*\d{1,2}[.):]?[ \t]*|[ \t]*[,;/|·-][ \t]*)"
)
# Twelve words and more with nothing but such signs between: only there is it worth looking at every word.
RUN = re.compile(
    r"(?<![^\W\d_])(?:[^\W\d_]{3,10}+(?![^\W\d_])[ \t\n\d,;|/·.:)>*+•-]{1,12}+){11,}+(?:(?<![^\W\d_])[^\W\d_]{3,10}(?![^\W\d_]))?"
)
SUCH_WORDS = bytes([True]) * 11
LEADING = re.compile(r"(?:^|\n|[:;\"'`“«(=|>–—→.-]|[-*+•]|\b\d{1,2}[.):]?|[!?])[ \t\"'`*_]*$")
TRAILING = re.compile(r"[ \t\"'`*_»”)|]*(?:\n|$|[.;,)\"'`”»|!?(])")
ANNOUNCED = re.compile(
    r"seed|mnemonic|recovery (?:phrase|words)|secret (?:phrase|words)|backup (?:phrase|words)|bip-?39|wallet|ledger"
    r"|trezor|metamask|wiederherstellungsw|"
    r"frase (?:semilla|de recup|di recup|secreta)|phrase de r[ée]cup|phrase (?:mn[ée]monique|secr)|herstelzin"
    r"|frase-?semente|сид|мнемоник|助记词|シード|니모닉|"
    r"(?:12|15|18|21|24|twelve|zwölf|douze|doce) (?:words|wörter|mots|palabras|parole|woorden|слов)"
)
NO_SEEDS = re.compile(
    r"tags|keywords|stichw|ingredients|zutaten|mots[- ]cl|etiquetas|january|februar|monday|montag|lundi|lunes|\bone two\b"
    r"|\beins zwei\b|\bun deux\b|\buno dos\b|colou?rs"
)


def seeds(text: str, words: list[str]) -> Iterator[Span]:
    """Every run of words that has the shape of a seed phrase; where one is announced, any twelve words and more are one."""
    if SUCH_WORDS not in bytes([3 <= len(word) <= 10 for word in words]):
        return
    for stretch in RUN.finditer(text):
        yield from _within(text, *stretch.span())


def _within(text: str, begin: int, end: int) -> Iterator[Span]:
    run: list[tuple[int, int]] = []
    for match in WORD.finditer(text, begin, end):
        follows = bool(run) and match.start() - run[-1][1] <= 12 and BETWEEN.fullmatch(text, run[-1][1], match.start())
        fits = 3 <= len(match[0]) <= 10 and match[0] == lowered(match[0])
        if not (follows and fits):
            yield from _checked(text, run)
            run = []
        if fits:
            run.append(match.span())
    yield from _checked(text, run)


def _checked(text: str, run: list[tuple[int, int]]) -> Iterator[Span]:
    for head in range(1, 5):  # "seed phrase" above the words is no part of them
        if len(run) - head in LENGTHS and ANNOUNCED.search(text[run[0][0] : run[head - 1][1]]):
            run = run[head:]
            break
    if len(run) < 12:
        return
    before = text[max(0, run[0][0] - 90) : run[0][0]].lower()
    called = bool(ANNOUNCED.search(before))
    words = [text[begin:end] for begin, end in run]
    prose = sum(word in PROSE for word in words)
    while called and len(run) not in LENGTHS and len(run) > 12:
        run, words = run[:-1], words[:-1]
    shaped = (
        len(run) in LENGTHS
        and all(len(word) <= 8 for word in words)
        and LEADING.search(before)
        and TRAILING.match(text, run[-1][1])
    )
    line = text[text.rfind("\n", 0, run[0][0]) + 1 : run[-1][1]].lower()
    if called and prose <= len(words) // 6 or shaped and not prose and not NO_SEEDS.search(line):
        yield run[0][0], run[-1][1], SEED
