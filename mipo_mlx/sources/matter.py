"""Front matter: the keys and values between two lines of dashes at the beginning of a note, as YAML or TOML.

libyaml reads it where PyYAML has it, ten times as fast. Values mean the same in both: `PlainLoader` knows the rules.
"""

import re
from typing import Any

import yaml

from ..recipe_loading import PlainLoader

FRONT_MATTER = re.compile(
    r"\A(?P<space>\s{0,8})(?P<mark>---|\+\+\+)[ \t]*\n(?P<keys>.*?)\n(?:(?P=mark)|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL
)
LONG_MATTER = 50_000  # characters of front matter, above which it is looked at by its lines: to parse YAML takes 10 s a MB
WORDY = 10  # words of a line that is a sentence, and no key with its value
KEY_LINE = re.compile(r"[ \t]*(?:- |[\w-]+:(?: |$))")
# What libyaml is given: it bounds neither values within values nor aliases (*name), so a text with more signs is not for it.
SHORT, OPENINGS = 4_000, 200  # characters, signs
OPENING = re.compile(r"[\[{]|[-?:]\s")


if yaml.__with_libyaml__:

    class FastLoader(yaml.CSafeLoader):
        """PlainLoader with the parser of libyaml."""

        yaml_implicit_resolvers = PlainLoader.yaml_implicit_resolvers


def front_matter(text: str) -> tuple[dict[str, Any] | None, str, int]:
    """The same as `_front_matter`, of all blocks of keys that follow each other, as programs that add keys leave them behind."""
    matter, after, lines = _front_matter(text)
    while matter and after.startswith("---"):
        more, rest, count = _front_matter(after)
        keys = after.split("\n", count)[1 : count - 1]
        if not more or len(more) < 2 or not all(KEY_LINE.match(key) and len(key.split()) < WORDY for key in keys):
            break  # sentences between two rules
        matter, after, lines = more | matter, rest, lines + count
    return matter, after, lines


def _front_matter(text: str) -> tuple[dict[str, Any] | None, str, int]:
    """(its keys, the text after it, how many lines it took). Broken front matter (None) is cut off all the same.

    A space before the first line is no reason to take the keys for words of the note; broken keys below one are.
    """
    match = FRONT_MATTER.match(text)
    if not match:
        return {}, text, 0
    after = text[match.end() :], text.count("\n", 0, match.end())
    if len(match["keys"]) > LONG_MATTER:
        lines = [line for line in match["keys"].split("\n") if line.strip()]
        return (None, *after) if sum(bool(KEY_LINE.match(line)) for line in lines) > 0.8 * len(lines) else ({}, text, 0)
    try:
        values = _yaml(match["keys"]) if match["mark"] == "---" else _toml_title(match["keys"])
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError):  # &a [*a] is a RecursionError
        return ({}, text, 0) if match["space"] else (None, *after)
    if not isinstance(values, dict) and match["keys"].strip():
        return {}, text, 0  # two thematic breaks around prose
    return values or {}, *after


def _toml_title(text: str) -> dict[str, Any]:
    title = re.search(r"^title\s*=\s*[\"'](.*?)[\"']\s*$", text, re.MULTILINE)
    return {"title": title[1]} if title else {}


def _yaml(text: str) -> Any:
    """The value of a YAML text. What libyaml refuses, PlainLoader decides. Raises what PlainLoader raises."""
    if yaml.__with_libyaml__ and len(text) <= SHORT and "*" not in text and len(OPENING.findall(text)) <= OPENINGS:
        try:
            return yaml.load(text, Loader=FastLoader)
        except (yaml.YAMLError, RecursionError):
            pass
    return yaml.load(text, Loader=PlainLoader)
