"""What others wrote in a discussion on the web, pasted into a note: comments of a forum, a numbered thread, answers.

Such text is in the first person of people who are not the owner. Two forms show it: an address of a discussion on a line of its own
with long paragraphs directly behind it, and lines such as "ada 3 hours ago" or "Posted by u/ada" of several people. A short
remark behind an address is the owner's. The captions of a video, which a machine heard, are known by words without points.
"""

import re
from collections import Counter
from collections.abc import Iterator

DISCUSSION = re.compile(
    r"news\.ycombinator\.com/item|reddit\.com/r/\w+/comments|redd\.it/|lobste\.rs/s/|(?:twitter|x)\.com/\w+/status"
    r"|threadreaderapp\.com/thread|bsky\.app/profile/[^/\s]+/post|/@[\w.]+/\d{10,}|facebook\.com/\S+/posts"
    r"|linkedin\.com/(?:posts|feed/update)|(?:stackoverflow|stackexchange|superuser|serverfault|askubuntu)\.com/(?:questions|q|a)/"
    r"|quora\.com/\w|/comments?/\d|[?&]lc=\w|/t/[\w-]+/\d|v2ex\.com/t/|zhihu\.com/(?:question|answer)|indiehackers\.com/post"
)
ADDRESS = re.compile(r"(?P<indent>[ \t]*)(?:[-*+][ \t]+)?(?P<title>[^\n]{0,60}?)[<(]?https?://(?P<place>[^\s<>()]+)[>)]?[ \t.:]*")
ITEM = re.compile(r"[ \t]*[-*+][ \t]")
STARTS_ANEW = re.compile(r"[ \t]*(?:#{1,6} |[-*_]{3,}[ \t]*$)")
NUMBERED = re.compile(r"[ \t]*(?:[-*+>][ \t]+)?(?:\d{1,2}/(?:\d{1,2}|n)?[ \t.]+|[^\W\d_]{3,12} ?#\d{1,2}[:.] )\S")
LONG, FEWEST, WORDS, MOSTLY = 25, 2, 60, 0.6  # words of a long line; long lines; words of them all; their share of all words
ALONE = 120  # words of one long line

AGO = r"\d{1,3} ?(?:s|sec|seconds?|m|min|minutes?|h|hr|hours?|d|days?|w|weeks?|mo|months?|y|yr|years?)\.?"
HANDLE = r"(?:u/|@)?(?P<{}>[A-Za-z][\w.-]{{1,29}})"
HEADER = re.compile(  # above a comment, as sites lay it out
    rf"[\s>*_-]*(?:{HANDLE.format('ago')}(?: on [\w ,]{{4,20}})?[\s,|·•*_]{{1,6}}(?:\d+ points?[\s,|·•]{{1,4}})?{AGO} ago"
    rf"(?:\s*[|·•(\[–-].{{0,60}}|\s+(?:edited|prev|parent|reply|on:).{{0,60}})?"
    rf"|u/(?P<dot>[\w-]{{3,24}})\**[ \t]*[·•][ \t]*{AGO}(?: ago)?.{{0,20}}"
    rf"|(?:r/\w+ ?[·•] ?)?Posted by u/(?P<posted>[\w-]+).{{0,40}}|\d+ points? by (?P<points>[\w.-]+).{{0,60}}"
    r"|[^@\n]{0,40}@(?P<at>\w{2,20})[ \t]*[·•].{0,30})\s*"
)
MAY_HAVE = re.compile(r" ago\b|[·•]|Posted by u/| points? by ")
# A video in a note, and from how many words a paragraph below it without commas and ends of sentences is what a machine heard.
VIDEO = re.compile(r"youtube(?:-nocookie)?\.com/|youtu\.be/|vimeo\.com/|bilibili\.com/|ted\.com/talks/|\{\{(?:video|youtube)")
HEARD, POINT = 50, re.compile(r"[.,;:!?。，、！？；…](?=\s|$)")
UNROLLED = re.compile(r"[\W_]*thread by @\w{2,30}\b.{0,60}", re.IGNORECASE)
SURE = re.compile(r"Posted by u/|\| ?(?:parent|next|prev|root)|u/[\w-]+ ?\**[ \t]*[·•]| points? by ")  # no diary has such
COMMENTS = 3  # headers of comments in a text, at least, of two people or more


def without_threads(lines: list[str], removed: Counter) -> list[str]:
    """The lines with those of pasted discussions emptied; `removed` counts the discussions."""
    kept = list(lines)
    for begin, end in [*_behind_addresses(lines), *_beneath_headers(lines)]:
        removed["pasted discussions"] += any(line.strip() for line in kept[begin:end])
        kept[begin:end] = [""] * (end - begin)
    for begin, end in _captions(lines) if any(VIDEO.search(line) for line in lines if "//" in line or "{{" in line) else ():
        removed["captions of videos"] += 1
        kept[begin:end] = [""] * (end - begin)
    return kept


def _captions(lines: list[str]) -> Iterator[tuple[int, int]]:
    """(first line, line behind the last) of each paragraph in which a machine wrote down what was said: words without points."""
    begin = 0
    for number, line in enumerate([*lines, ""]):
        if line.strip() and not ITEM.match(line):
            continue
        text = " ".join(lines[begin:number])
        if len(words := text.split()) >= HEARD and 40 * len(POINT.findall(text)) < len(words):
            yield begin, number
        begin = number if line.strip() else number + 1


def _behind_addresses(lines: list[str]) -> list[tuple[int, int]]:
    """(first line, line behind the last) of what stands behind each address of a discussion and is too long for a remark."""
    stretches: list[tuple[int, int]] = []
    for number, line in enumerate(lines):
        if len(line) <= 120 and UNROLLED.fullmatch(line):
            stretches.append((number, _end(lines, number + 1, 0)))
            continue
        address = _address(line)
        if not address or not DISCUSSION.search(address["place"]):
            continue
        end = _end(lines, number + 1, len(address["indent"]))
        inside = [lines[place] for place in range(number + 1, end) if lines[place].strip()]
        sizes = [len(text.split()) for text in inside]
        long = [size for size in sizes if size >= LONG]
        pasted = (len(long) >= FEWEST or max(long, default=0) >= ALONE) and sum(long) >= WORDS and sum(long) >= MOSTLY * sum(sizes)
        if pasted or sum(bool(NUMBERED.match(text)) for text in inside) >= FEWEST:
            stretches.append((number + 1, end))
    return stretches


def _address(line: str) -> re.Match | None:
    """The address that stands on a line of its own, with at most its title before it."""
    return ADDRESS.fullmatch(line) if "://" in line and len(line) <= 400 else None


def _end(lines: list[str], begin: int, indent: int) -> int:
    """Where the text behind an address ends: at a heading, two empty lines, the next address, or a line further out."""
    for number in range(begin, len(lines)):
        line = lines[number]
        if not line.strip():
            if number + 1 < len(lines) and not lines[number + 1].strip():
                return number
        elif STARTS_ANEW.match(line) or len(line) - len(line.lstrip()) < indent or _address(line):
            return number
    return len(lines)


def _beneath_headers(lines: list[str]) -> list[tuple[int, int]]:
    """The same for comments beneath lines that name their writers, of two people or more: to the next heading."""
    text = "\n".join(lines)
    if not any(sign in text for sign in (" ago", "·", "•", "Posted by u/", " point")):  # MAY_HAVE, in a fraction of the time
        return []
    headers = [
        (number, next(filter(None, match.groups())))
        for number, line in enumerate(lines)
        if len(line) <= 120 and MAY_HAVE.search(line) and (match := HEADER.fullmatch(line))
    ]
    sure = any(SURE.search(lines[number]) for number, _ in headers)
    if not sure and (len(headers) < COMMENTS or len({name.lower() for _, name in headers}) < 2):
        return []
    stretches: list[tuple[int, int]] = []
    for number, _ in headers:
        if not stretches or number >= stretches[-1][1]:
            anew = (place for place in range(number + 1, len(lines)) if STARTS_ANEW.match(lines[place]))
            stretches.append((number, next(anew, len(lines))))
    return stretches
