"""Discussions of others that were pasted into a note are cut; the owner's remarks, diaries and logs beside them stay."""

from collections import Counter

import pytest

from mipo_mlx.sources.note import Skip
from mipo_mlx.sources.readers.dialogues import without_others
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
    "one endless comment": note(OWN, "https://twitter.com/ada/status/12?s=20", " ".join([LONG, OTHER, LONG, OTHER])),
    "a thread by numbers": note(OWN, "- https://x.com/ada/status/12\n\t- Surprise #1: I led a team.\n\t- Surprise #2: I left it."),
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


def talk(clocks: str, names: str = "Ada Lovelace|Bob|Ada Lovelace|Nell|Bob", words: str = "I sing here {}") -> list[str]:
    every = zip(names.split("|"), clocks.split("|"), strict=True)
    return [line for place, (name, clock) in enumerate(every) for line in (name, clock, words.format(place))]


TALKS = ["11:19 pm|11:39 pm|11:44 pm|11:46 pm|11:55 pm", "9:05|9:06|9:41|10:00|12:30"]


@pytest.mark.parametrize(
    "clocks", [*TALKS, "Today at 9:05 AM|Today at 9:10 AM|Today at 11:00 AM|Today at 12:10 PM|Today at 1:10 PM"]
)
def test_a_talk_copied_out_of_a_window_keeps_the_owners_messages(clocks):
    lines, removed = talk(clocks), Counter()
    kept = without_others(lines, "call", "Nell", removed)
    assert [line for line in kept if line] == ["I sing here 3"] and removed["messages of others"] == 4
    assert kept.index("I sing here 3") == lines.index("I sing here 3")
    for me in (None, "Tomas"):
        with pytest.raises(Skip, match="sources.me"):
            without_others(lines, "call", me, Counter())


HEARD = "and then we take the pump out of the box and you see here that there is a valve on it which I open " * 3
VIDEOS = ["{{video https://www.youtube.com/watch?v=a1}}", "Seen on https://youtu.be/a1 today", "![](https://vimeo.com/12)"]


@pytest.mark.parametrize("video", VIDEOS)
@pytest.mark.parametrize("mark", ["", "\t- ", "0:12 "])
def test_what_a_machine_heard_in_a_video_is_cut(video, mark):
    removed = Counter()
    lines = [video, "", f"{mark}{HEARD}", "", OWN]
    assert without_threads(lines, removed) == [video, "", "", "", OWN] and removed["captions of videos"] == 1
    for stays in (HEARD.replace(" and", ", and").replace("open ", "open. "), OWN, HEARD[:100]):
        assert without_threads([video, "", stays], Counter()) == [video, "", stays]
    assert without_threads(["", HEARD], Counter()) == ["", HEARD]  # a diary without points is its writer's


FIELDS = {
    "keys": ["Shortcut: <leader>fb", "Description: opens the list of all open buffers"],
    "talks": ["Speaker: Ada Lovelace of the old mill", "Session: pumps and how to mend them", "Length: about half an hour"],
    "people": ["Role: mends the pumps of our club", "Bio: came to us from the coast years ago"],
}


@pytest.mark.parametrize("kind", FIELDS)
def test_entries_with_the_same_fields_are_no_conversation(kind):
    lines = [line for n in range(5) for line in (f"- entry {n} of this list", *(f"  - {field} {n}" for field in FIELDS[kind]))]
    assert without_others(lines, "a", None, Counter()) == lines
    spoken = [line for n in range(5) for line in ("they sat", f"Ada: I sing here every day {n}", f"Bob: so do I each night {n}")]
    shuffled = [*spoken[:3], spoken[0], spoken[5], spoken[4], *spoken[6:]]
    with pytest.raises(Skip, match="sources.me"):
        without_others(shuffled, "a", None, Counter())


DIARIES = {
    "meals of several days": talk("8:00|12:30|19:00|8:10|12:40|19:05", "Breakfast|Lunch|Dinner|Breakfast|Lunch|Dinner"),
    "a plan of one day": talk("8:00|9:00|10:00|11:00", "Swim|Work|Break|Choir"),
    "a few times in a long diary": [*[f"I walked by the river on day {n}." for n in range(60)], *talk(TALKS[0])],
    "sentences above clocks": talk(TALKS[1], "I slept.|I ate.|I slept.|I swam.|I ate."),
}


@pytest.mark.parametrize("kind", DIARIES)
def test_a_diary_with_clocks_is_no_talk(kind):
    assert without_others(DIARIES[kind], "2024-05-01", None, Counter()) == DIARIES[kind]
