"""Discussions of others that were pasted into a note are cut; the owner's remarks, diaries and logs beside them stay."""

from collections import Counter

import pytest

from mipo_mlx.sources.readers.threads import without_threads

LONG = (
    "I have run a small bakery for nine years and we tried this twice, and both times my customers told me within a week that they "
    "had never asked for any of it, so I went back."
)
OTHER = (
    "My firm sends such a letter every month to about five hundred people, and although I write it alone it takes me two evenings, "
    "which I would rather spend with my children by the river."
)
OWN = "I want to try this in my own garden in May."


def note(*parts: str) -> str:
    return "\n\n".join(parts)


PASTED = {  # notes in which nothing but OWN is the owner's
    "paragraphs behind a forum's address": note("# Letters", "https://news.ycombinator.com/item?id=1", LONG, OTHER, f"\n{OWN}"),
    "a list": note(OWN, f"- https://www.reddit.com/r/bread/comments/x1/why/\n\t- {LONG}\n\t- {OTHER}"),
    "a list in groups": note(OWN, f"https://lobste.rs/s/a1/letters\n- **Why**\n\t- {LONG}\n- **How often**\n\t- {OTHER}"),
    "a thread": note(OWN, "https://twitter.com/ada/status/12\n1/ I led a team once.", "2/ My rule was simple.", "15/ I left."),
    "one comment by its address": note(OWN, f"- https://a.example.com/p/data/comment/59?s=r\n- {LONG}\n- {OTHER}", ""),
    "an answer": note(OWN, "Source: https://stackoverflow.com/a/77/1", LONG, OTHER),
    "headers of a forum": note(
        OWN, "## Saved", "ada77 3 hours ago | prev | next", LONG, "bob_k 1 day ago | parent", "Me too.", "eve 5 hours ago", OTHER
    ),
    "headers of Reddit": note(OWN, "## Saved", "Posted by u/ada77", LONG, "u/bob · 5h", "I did.", "u/eve • 2 d", OTHER),
    "headers with points": note(OWN, "## Saved", "142 points by ada on May 3", LONG, "3 points by bob", "I did.", "1 point by eve"),
    "handles": note(OWN, "## Saved", "Ada K @adak · Mar 3", LONG, "Bob @bob7 · Mar 4", "I did.", "Ada K @adak · Mar 4", OTHER),
}
KEPT = {  # notes that stay as they are
    "a short remark": f"https://news.ycombinator.com/item?id=1\n{OWN} They say it saves water.",
    "one long remark": note("https://news.ycombinator.com/item?id=1", LONG, "## Tonight", OTHER),
    "long paragraphs behind another page": note("https://example.org/my-blog", LONG, OTHER),
    "an address within a sentence": note("I read https://news.ycombinator.com/item?id=1 today.", LONG, OTHER),
    "a list of addresses": "- https://twitter.com/ada/status/1\n- call the vet\n- https://twitter.com/ada/status/2\n- the bank",
    "a diary of what was": note(
        "Started 3 weeks ago with choir.", "Moved 5 years ago to the sea.", "Bread 2 days ago was good.", LONG
    ),
    "a log of habits": note("Swim · 30 min\nRun • 20 min\nYoga · 1 h", LONG),
    "one header": note("ada77 3 hours ago", LONG, OTHER),
    "numbered plans": f"1/ Sow the peas\n2/ Water them\n3/ {LONG}",
}


@pytest.mark.parametrize("kind", PASTED)
def test_a_pasted_discussion_is_cut_and_the_lines_keep_their_places(kind):
    removed = Counter()
    lines = PASTED[kind].split("\n")
    kept = without_threads(lines, removed)
    words = [line for line in kept if line.strip() and "://" not in line and not line.startswith("#")]
    assert words == [OWN] and removed["pasted discussions"] == 1
    assert len(kept) == len(lines) and kept.index(OWN) == lines.index(OWN)


@pytest.mark.parametrize("kind", KEPT)
def test_what_only_resembles_one_stays(kind):
    removed = Counter()
    lines = KEPT[kind].split("\n")
    assert without_threads(lines, removed) == lines and not +removed
