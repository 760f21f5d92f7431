"""Made-up secrets of many kinds and languages are found, harmless look-alikes stay, and no text takes long."""

import random
import re
import signal
import time
import timeit
from collections import Counter

import pytest

pytest.importorskip("detect_secrets")
pytest.importorskip("hypothesis")
pytest.importorskip("phonenumbers")
pytest.importorskip("stdnum")

from hypothesis import HealthCheck, given, settings, strategies  # noqa: E402

from mipo_mlx.recipe import Sources  # noqa: E402
from mipo_mlx.sources import gather  # noqa: E402
from mipo_mlx.sources.note import Tally  # noqa: E402
from mipo_mlx.sources.note_file import NoteFile  # noqa: E402
from mipo_mlx.sources.redact import redact, redact_name  # noqa: E402
from mipo_mlx.sources.secrets import WORD, announced, checked, codes, keys, words_of  # noqa: E402
from mipo_mlx.sources.secrets.phrases import ENDING, ENDINGS, IN_CJK, PHRASES, find, lowered, may_announce  # noqa: E402

from . import made_up  # noqa: E402

# Texts of one piece, again and again: what makes a pattern with a repetition in a repetition take a day.
PIECES = (
    "a", "1", "A1", "a ", "password ", "password: ", "pw:\n", "code de la ", "card 4", "@", "a@", "a.", "1-", "1 ", "DE12 ",
    "a://a:", "a=", "x-", "WIFI:P:", "\n", " ", "witch ", "1. witch ", "a\tpassword\n", "a,b,", "|a|pin", "\"'", "- ",
    "cookie: a=", "key ", "+1 ", "0", "0123 456 ", "a at a dot ", "密码", "é", "eyJ.", "sk-a1", "Authorization: Basic ",
    "login: a / ", "hunter2 is the password ", "password (a) ", "mysql -p", "0123456789abcdef", "1234567 ", "bearer ", ".",
    "recovery codes: a1b2c3 ", "a1b2-c3d4 ", "call 4155552671 ", "415 555 2671 ", "a:", "_", "SECRET_KEY_", "?key=",
    "Aa1Bb2Cc3", "door with 1234 ", "1-2-3 ", "şifresi Aa_1 ", "-a A1b2 ",
    "-----BEGIN PRIVATE KEY-----", "Password,User\n", "[at]", "P<", "AB12", "$2a$",
)  # fmt: skip


def test_the_set_is_wide():
    cases = made_up.secrets()
    assert len(cases) >= 200 and len({case.kind for case in cases}) >= 40 and len(made_up.languages()) >= 8
    assert len(made_up.harmless()) >= 100


def test_secrets_of_every_kind_are_found():
    cases = made_up.secrets()
    missed = [case.text for case in cases if case.left(redact(case.text, Counter()))]
    assert len(missed) <= 0.02 * len(cases), missed


def test_they_are_found_in_notes_as_they_are_read(tmp_path):
    cases = made_up.secrets()
    missed = []
    for number, case in enumerate(cases):
        path = tmp_path / f"{number}.md"
        path.write_text(f"Some words before it.\n\n{case.text}\n\nSome words after it.\n", encoding="utf-8")
        file = NoteFile.on_disk(path)
        notes = gather.read_file(gather.replace(file, reader=gather.reader_for(file)), Tally(), Sources(notes=str(tmp_path)))
        if case.left("\n".join(block.text for note in notes for block in note.blocks)):
            missed.append(case.text)
    assert len(missed) <= 0.05 * len(cases), missed


def test_what_only_looks_like_a_secret_stays():
    harmed = {case.text: new for case in made_up.harmless() if (new := redact(case.text, Counter())) != case.text}
    assert not harmed


def test_the_page_of_what_is_not_found_is_true():
    """A kind that is found by now belongs into secrets.jsonl."""
    assert not [case.text for case in made_up.missed() if redact(case.text, Counter()) != case.text]


def test_a_page_of_secrets_is_found_as_each_alone():
    """Other notes before and after a secret hide none of it."""
    cases = [case for case in made_up.secrets() if "\n" not in case.text]
    random.Random(0).shuffle(cases)
    text = redact("\n\n".join(case.text for case in cases), Counter())
    lines = [line for line in text.split("\n\n") if line]
    missed = [case.text for case, line in zip(cases, lines, strict=True) if case.left(line)]
    assert len(missed) <= 0.05 * len(cases), missed


@pytest.mark.parametrize("piece", PIECES)
def test_no_text_takes_long(piece):
    """The clock of the processor ends the test: 10 s for what takes well below one, and hours where time grows with the square."""

    def stop(*_):
        raise AssertionError("not done within 10 s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, 10)
    try:
        redact((piece * (40_000 // len(piece) + 1))[:40_000], Counter())
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize("piece", ["code wifi ", "pin ", "password for the ", "contraseña de la "])
def test_plain_words_behind_a_word_are_not_searched(piece, monkeypatch):
    """No digit, sign, line end or "is" follows, and so no value: nothing is tried, however often the word stands there."""
    tried = []
    for module in (announced, codes):
        monkeypatch.setattr(module, "between", tried.append)
    redact(piece * 200, Counter())
    assert len(tried) < 10


@pytest.mark.parametrize(
    "name", ["letters/to ana@skerry.example.md", "pin 4711.txt", "bank DE89370400440532013000.pdf", "pw hunter2/a.md"]
)
def test_no_file_name_shows_a_secret(name):
    clean = redact_name(name)
    assert clean != name and clean.endswith(name[-3:]) and not any(part in clean for part in ("ana@", "4711", "3704", "hunter2"))


def test_one_search_for_all_forms_misses_none():
    lines = [line for case in made_up.secrets() for line in case.text.split("\n")]
    formed = [line for line in lines if any(form.search(line) for form, _ in checked.FORMS)]
    assert len(formed) > 20 and all(checked.ANY_FORM.search(line) for line in formed)
    assert not any(checked.ANY_FORM.search(line) for line in lines if line not in formed)


def test_words_are_found_in_one_search_each():
    """`find` gives every announcement in order, whole words alone, as reading word by word does."""
    rng = random.Random(4)
    heads = ["pin", "password", "clé", "wifi", "mein-passwort", "pinned", "½pin", "key", "n", "code", "the", "2024", "密码", "ı"]
    for _ in range(300):
        lower = lowered("".join(rng.choice(heads) + rng.choice((" ", " ", "_", "-", ":\n", ", ")) for _ in range(12)))
        assert set(words_of(lower)) == set(WORD.findall(lower))
        by_word = [
            (phrase, match.start(), rest.end())
            for match in WORD.finditer(lower)
            for phrase in PHRASES.get(match[0], [ENDING] if match[0].endswith(ENDINGS) else ())
            if (rest := phrase.rest.match(lower, match.end()))
        ]
        in_cjk = [(phrase, *match.span()) for phrase, form in IN_CJK for match in form.finditer(lower) if "密码" in match[0]]
        assert list(find(lower)) == by_word + in_cjk
        assert may_announce(lower, set(words_of(lower))) or not by_word + in_cjk


def test_a_pattern_is_tried_where_it_can_match():
    """Each text that it matches has one of its words, also in letters that `re.IGNORECASE` takes for the same."""
    patterns = {pattern: [word for word, other in keys._patterns() if other is pattern] for _, pattern in keys._patterns()}
    assert all(map(all, patterns.values()))  # each has a word

    @settings(max_examples=40, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategies.data())
    def one(data):
        pattern = data.draw(strategies.sampled_from(list(patterns)))
        text = data.draw(strategies.from_regex(pattern, fullmatch=True))
        same = text.replace("s", "\u017f").replace("k", "\u212a").replace("i", "\u0131")
        for each in (text, same) if pattern.flags & re.IGNORECASE else (text,):
            assert any(word in each.translate(keys.FOLDED).lower() for word in patterns[pattern]), each

    one()


@pytest.mark.parametrize("sign", [" ", "   ", "=", ":", ":=", "=>", "::", " = ", "  =>  ", ": ", " = = ", "", "-"])
def test_signs_before_a_value_are_those_of_detect_secrets(sign):
    text = f"x softlayer_key{sign}'{'0123456789abcdef' * 4}'"
    assert (min(keys.keys(text))[0] == 2) == (sign not in (" = = ", "", "-"))


@pytest.mark.parametrize("begin, sign", [("0123456789abcdefg key", " "), ("0123456789abcdefg softlayer_key=", " "), ("", "/")])
@pytest.mark.parametrize("end", ["", "/:_authToken= x"])
def test_long_lines_take_no_longer_than_short_ones(begin, sign, end):
    def seconds(length):
        text = f"{begin}{sign * (length - len(begin) - len(end))}{end}\n" * (36_000 // length)
        return min(timeit.repeat(lambda: list(keys.keys(text)), timer=time.process_time, number=1, repeat=3))

    assert seconds(1800) < 2.5 * seconds(450)


@pytest.mark.parametrize("end", ["", " ", "  \n", "\t", "\u00a0", "\u2003\nBees"])
@pytest.mark.parametrize("begin", ['password: "', "pw: '", "Passwort: „", "mot de passe : « ", 'PIN: "', 'secret key "'])
def test_a_quotation_mark_with_nothing_behind_it(begin, end):
    assert redact(begin + end, Counter()) == begin + end
