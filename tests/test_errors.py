"""What a terminal is shown: text of notes, names, models and servers cannot steer it."""

import io

import pytest

from mipo_mlx.errors import UserError, one_line, printable
from mipo_mlx.progress import Reporter

STEERING = {
    "colour": ("\x1b[31mred\x1b[0m", "red"),
    "clears the screen": ("a\x1b[2J\x1b[Hb", "ab"),
    "title": ("a\x1b]0;title\x07b", "ab"),
    "title that ends otherwise": ("a\x1b]2;title\x1b\\b", "ab"),
    "clipboard": ("\x1b]52;c;cm0gLXJm\x07b", "b"),
    "device control": ("a\x1bPq1\x1b\\b", "ab"),
    "short": ("a\x1bcb", "ab"),
    "eight bits": ("a\x9b31mb", "a31mb"),
    "NUL, bell, backspace, delete": ("a\x00\x07\x08\x7fb", "ab"),
    "carriage return": ("good\rbad", "good\nbad"),
    "CRLF": ("a\r\nb", "a\nb"),
    "direction": ("a\u202eb\u2066c", "abc"),
    "cut": ("a\x1b[", "a"),
    "alone": ("a\x1b", "a"),
}


@pytest.mark.parametrize("kind", STEERING)
def test_no_text_steers_a_terminal(kind):
    text, shown = STEERING[kind]
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["Zürich, 北京, שלום, 🙂👩‍🌾", "a\tb\nc", "100 % [sic] ]0; c"])
def test_writing_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize("kind", STEERING)
def test_messages_and_errors_are_clean(kind):
    text = STEERING[kind][0]
    stream = io.StringIO()
    reporter = Reporter(stream=stream)
    reporter.say(text)
    reporter.warn(text)
    with reporter.stage(text):
        reporter.conclude(text)
    assert stream.getvalue() == printable(stream.getvalue()) and "\r" not in stream.getvalue()
    for error in (UserError(text), ValueError(text), OSError(2, text, text)):
        line, _ = one_line(error)
        assert line == printable(line) and "\n" not in line


def test_time_does_not_grow_with_the_square():
    """A million openings of a title that never ends; without a bound this takes days."""
    assert printable("\x1b]" * 200_000).count("]") == 0
