"""Secrets are found, replaced by their kind, counted, and appear nowhere afterwards. All of them are made up."""

import sys
from collections import Counter

import pytest

pytest.importorskip("detect_secrets")
pytest.importorskip("phonenumbers")
pytest.importorskip("stdnum")

from mipo_mlx import (
    recipe,  # noqa: E402
    recipe_loading,
)
from mipo_mlx.errors import UserError  # noqa: E402
from mipo_mlx.progress import Reporter  # noqa: E402
from mipo_mlx.sources import read  # noqa: E402
from mipo_mlx.sources.bank import load_prompts  # noqa: E402
from mipo_mlx.sources.note import Block, Note, Tally  # noqa: E402
from mipo_mlx.sources.redact import redact, redact_note  # noqa: E402
from mipo_mlx.sources.secrets import ACCOUNT, CARD, CODE, EMAIL, KEY, PASSWORD, PHONE, keys, phones  # noqa: E402
from mipo_mlx.sources.secrets.checked import is_card, is_iban  # noqa: E402

# Put together here, so that no scanner takes this file for a leak.
SECRETS = [
    (KEY, "AKIA" + "IOSFODNN7EXAMPLQ"),
    (KEY, "ghp" + "_16C7e42F292c6912E7710c838347Ae178B4a"),
    (KEY, "glpat" + "-ABCDEFGHIJ1234567890"),
    (KEY, "sk-proj" + "-abcdefghijklmnop1234567890ABCDEFGHIJKL"),
    (KEY, "hf" + "_abcdefghijklmnopqrstuvwxyzABCDEFGH"),
    (KEY, "xoxb" + "-123456789012-1234567890123-abcdefghijklmnopqrstuvwx"),
    (KEY, "sk_live" + "_4eC39HqLyjWDarjtT1zdp7dc"),
    (KEY, "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV"),
    (KEY, "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY1"),
    (KEY, "0123456789abcdef" * 4),
    (KEY, "-----BEGIN RSA " + "PRIVATE KEY----- MIIEowIBAAKCAQEA7 abc -----END RSA PRIVATE KEY-----"),
    (CARD, "4111 1111 1111 1111"),
    (CARD, "5500-0000-0000-0004"),
    (CARD, "378282246310005"),
    (CARD, "2223 0031 2200 3222"),
    (ACCOUNT, "DE89 3704 0044 0532 0130 00"),
    (ACCOUNT, "GB82WEST12345698765432"),
    (EMAIL, "nell.hartigan+notes@mail.skerry.example"),
    (EMAIL, "o'neil@skerry.co.uk"),
    (PHONE, "+1 415 555 2671"),
    (PHONE, "(415) 555-2671"),
    (PHONE, "020 7946 0958"),
    (PHONE, "07911 123456"),
    (PHONE, "+49 30 901820"),
    (PHONE, "0041 44 668 18 00"),
    (PHONE, "01 42 68 53 00"),
]


@pytest.mark.parametrize(("kind", "secret"), SECRETS)
def test_each_kind_is_found_and_only_it_is_replaced(kind, secret):
    counts = Counter()
    assert redact(f"Do write {secret} down, and keep it.", counts) == f"Do write [{kind}] down, and keep it."
    assert counts == {kind: 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4111 1111 1111 1111 12/26", "[card number] 12/26"),
        ("Visa 4111 1111 1111 1111 123, till 2027", "Visa [card number] 123, till 2027"),
        ("17 5500-0000-0000-0004 12 26 123", "17 [card number] 12 26 123"),
        ("4000056655665556 3566002020360505", "[card number] [card number]"),
        ("ES91 2100 0418 4502 0005 1332 CAIXESBB BARCELONA", "[account number] CAIXESBB BARCELONA"),
        ("FR14 2004 1010 0505 0001 3M02 606 PSSTFRPP", "[account number] PSSTFRPP"),
        ("IBAN AT61\u00a01904\u00a03002\u00a03457\u00a03201 GIBA AT", "IBAN [account number] GIBA AT"),
    ],
)
def test_numbers_are_found_among_what_is_written_beside_them(text, expected):
    """The card numbers are those that payment services publish for tests, the IBANs those of the standard's registry."""
    assert redact(text, Counter()) == expected


def test_words_of_a_million_letters_are_read_through():
    """A pasted picture is one such word; a pattern that begins again at each of its letters would never end."""
    word = "picture" * 150_000
    assert redact(f"{word} ana@b.org", Counter()) == f"{word} [e-mail address]"
    assert redact("-" * 1_000_000 + " ana@b.org", Counter()) == "-" * 1_000_000 + " [e-mail address]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The wifi password is Correct-Horse7.", "The wifi password is [password]."),
        ("password: hunter2", "password: [password]"),
        ("the api key: abcd1234", "the api key: [key or token]"),
        ("DB_PASSWORD=hunter2x", "DB_PASSWORD=[password]"),
        ("MYSQL_ROOT_PASSWORD: hunter2x", "MYSQL_ROOT_PASSWORD: [password]"),
        ("export GITHUB_TOKEN=abc123def456", "export GITHUB_TOKEN=[key or token]"),
        ("OPENAI_API_KEY: abc123def456ghi", "OPENAI_API_KEY: [key or token]"),
        ("client_secret: 'abc123def456'", "client_secret: '[key or token]'"),
        ("secret_key=abc123def456", "secret_key=[key or token]"),
        ("the password is: Blue42Fish", "the password is: [password]"),
        ("Passwort lautet Katze99!", "Passwort lautet [password]"),
    ],
)
def test_passwords_that_are_announced(text, expected):
    counts = Counter()
    assert redact(text, counts) == expected
    assert counts == {KEY if "[key" in expected else PASSWORD: 1}


def test_a_secret_is_found_across_the_blocks_of_a_note():
    counts = Counter()
    blocks = [
        Block("Password:", 1),
        Block("blue gull 7", 2),
        Block("Site, Login, PIN", 4),
        Block("shed, nell, 4711", 5),
        Block("till noon", 6),
    ]
    note = redact_note(Note("a", "a.md", "", blocks), counts)
    assert [block.text for block in note.blocks] == [
        "Password:",
        "[password]",
        "Site, Login, PIN",
        "shed, nell, [PIN or code]",
        "till noon",
    ]
    assert counts == {PASSWORD: 1, CODE: 1}


@pytest.mark.parametrize(
    "text",
    [
        "The secret is patience, and my password is written nowhere.",
        "max_token: 1024, pad_token = 32000, led_pin: GPIO17, eos_token = <|end1|>, DB_PASSWORD=${PW_1}, my_token = get(1)",
        "I walked 12 miles on 12/03/2024 at 18:22 and again on 2024-03-13 10:00.",
        "ISBN 9780306406157, chapter 3, pages 100-120, version 3.10.0",
        "The loft costs 85,000 and the bill was 2 100 pounds in 1998, 1999 and 2001.",
        "Order 4111 1111 1111 1112 is no card, for its check digit is wrong.",
        "See harbour-lights-2024-03-01-final-version.jpg or @bettina on the 40 m band.",
        "In 2009, 2010, 2011 and 2012 we lost; 3:2, 1:4, 0:0.",
        "Room 3.14, 51.5074, -0.1278 on the map; 192.168.1.10 is the printer.",
        "Sets of 4 4 4 4 3 3 3 2 and 5 10 15 20 25 30 35 40 45 50 55.",
        "100 200 300 400 500 600 700 800 900 and 4000 5000 6000 7001 8000",
        "The router is 192.168.1.100, the camera 10.255.0.200:8080.",
    ],
)
def test_ordinary_text_stays(text):
    assert redact(text, Counter()) == text


def test_check_digits():
    assert is_card("4111111111111111") and not is_card("4111111111111112") and not is_card("0000000000000000")
    assert is_iban("DE89370400440532013000") and not is_iban("DE88370400440532013000")


def test_names_and_file_names_tell_nothing():
    def made(address: str) -> Note:
        return redact_note(Note(address, f"mail/{address}.md", f"To {address}", [Block("Hi", 1)]), Counter())

    first, second = made("ana@b.org"), made("bob@b.org")
    assert first.source == "mail/[e-mail address].md" and first.title == "To [e-mail address]"
    assert first.name != second.name and "@" not in first.name


@pytest.mark.parametrize(("module", "text"), [("phonenumbers", "+49 30 901820"), ("detect_secrets", "abcdefghijklmnopqrst1")])
def test_a_missing_detector_is_told_never_passed_over(monkeypatch, module, text):
    keys._patterns.cache_clear(), phones._phone.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match="pip install"):
        redact(text, Counter())


def collect(tmp_path, *overrides):
    for number, (_, secret) in enumerate(SECRETS):
        text = f"Number {number}: do keep {secret} in mind when you plan your day at the harbour."
        (tmp_path / f"note{number}.txt").write_text(text)
    made = recipe_loading.parse("model: none", overrides=[f"sources.notes={tmp_path}", "sources.min_tokens=5", *overrides])
    return read.collect(made, lambda text: len(text.split()), Reporter(quiet=True))


def test_no_secret_is_written(tmp_path):
    contexts, _, row = collect(tmp_path, "sources.near_duplicate=0.99")
    written = f"{contexts} {row}"
    assert not [secret for _, secret in SECRETS if secret in written]
    assert row["redacted"] == {kind: sum(kind == k for k, _ in SECRETS) for kind in sorted({k for k, _ in SECRETS})}
    assert all(secret not in "\n".join(read.summary(row)) for _, secret in SECRETS)


def test_own_prompts_are_redacted_too(tmp_path):
    (tmp_path / "own.txt").write_text("Write to ana@skerry.example\nWhat now?\n")
    tally = Tally()
    prompts = load_prompts(recipe.Sources(prompts=str(tmp_path / "own.txt")), 0, tally)
    assert [prompt.text for prompt in prompts] == ["Write to [e-mail address]", "What now?"]
    assert tally.redacted == {EMAIL: 1}


def test_redacting_can_be_switched_off(tmp_path):
    contexts, _, row = collect(tmp_path, "sources.redact=false")
    assert row["redacted"] == {}
    assert "nell.hartigan+notes@mail.skerry.example" in str(contexts)
