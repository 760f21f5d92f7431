"""Text that is known by its form and is nobody's words: embedded files, template code, marks of plug-ins and of task lists.

`cut` takes it out of the text of every reader, before Markdown is parsed. Line breaks stay, so that blocks keep their lines.
Every pattern runs in time that grows with the length of the text, whatever the text is.
"""

import re
from collections import Counter
from collections.abc import Callable

# An embedded file behind `](`, `]: <` or `src="`, and one that stands free.
DATA = r"data:[\w.+-]{1,40}/[\w.+-]{1,80}(?:;[\w=.+-]{1,80}){0,5},"
EMBEDDED = re.compile(rf"(?P<before>\]\(<?|\]:[ \t]*<?|=[\"']?|url\([\"']?){DATA}[^\s\"'<>()]*", re.IGNORECASE)
FREE = re.compile(rf"<?{DATA}[^\s\"'<>()]*>?", re.IGNORECASE)
DRAWN = re.compile(r"data:image/svg\+xml[;,][^<>\n]{0,80}(?=<svg)", re.IGNORECASE)  # a drawing that is not encoded
ENCODED = re.compile(r"(?<![\w/:.+=-])[A-Za-z0-9+/_-]{200,}={0,2}|(?:^[A-Za-z0-9+/]{60,100}={0,2}[ \t]*\n){3,}", re.MULTILINE)
ARMOUR = re.compile(r"-----BEGIN ([A-Z ]{1,40})-----")

KEPT_IN_BRACES = re.compile(r"\{\{(?:c\d+::|cloze )([^{}\n]{1,2000}?)(?:::[^{}\n]{0,200})?\}\}")  # the cards of Anki and Logseq
INNER_BRACES = re.compile(r"\{\{[^{}]*\}\}")
DOLLAR_BRACES = re.compile(r"\$\{[^{}\n]{0,120}\}")
ATTRIBUTES = re.compile(r"\{[:.#][^{}\n]{0,120}\}")  # of kramdown and Pandoc: {: .wide}, {#id .class}
FENCED_DIV = re.compile(r"^:{3,}.*$", re.MULTILINE)
SHORTCODE = re.compile(
    r"\[/?[a-z][\w-]{1,30}(?: [a-z_-]{1,30}=(?:\"[^\"\n]{0,300}\"|[^\s\]\"]{1,100})){1,10} ?/?\]|\[/[a-z][\w-]{1,30}\](?!\()"
)
EMOJI_CODE = re.compile(r":(?<![\w:/]:)[A-Za-z][\w+-]{1,32}:(?![\w:/])")
INLINE_QUERY = re.compile(r"`(?:\$?=|\{?(?:r|python|julia)\}? |dv:|INPUT\[|VIEW\[|BUTTON\[|button-)[^`\n]{0,400}`")
LEFT_OVER = re.compile(r"^(?![ \t|:-]*$)[ \t*+#<>|\[\]-]+$", re.MULTILINE)
CONTENTS = re.compile(r"^[ \t]*(?:\[\[?_?TOC_?\]\]?|\\toc|<toc ?/?>)[ \t]*$", re.MULTILINE | re.IGNORECASE)
NESTED = re.compile(r"^[ \t]*(?:>[ \t]*+|(?:[-*+]|\d{1,9}[.)])[ \t]++){30,}+", re.MULTILINE)  # nobody nests so deep on one line
MARKERS = frozenset(">-*+0123456789")  # what such a line begins with
COLUMNS = re.compile(
    r"^[ \t]*(?:={3}|-{3}) ?(?:start|end)-[\w-]*column\w*(?:: [^\n]{0,40})?(?: ?[=-]{3})?[ \t]*$"
    r"|^[ \t]*-{3} ?column-break ?-{3}[ \t]*$",
    re.MULTILINE,
)
IMPORT = re.compile(r"^(?:import [\w{}*, ]{1,200} from|export (?:const|default)) .*$", re.MULTILINE)
COMPONENT = re.compile(r"<[A-Z][\w.]{0,40}(?:\s[^<>{}]{0,400})?[\w-]=\{")  # of MDX: <Gallery images={[...]} />
COMPONENTS = 20_000  # characters of one component, at most
VARIABLE_HEADING = re.compile(r"^#{1,6}[ \t]+\{[\w. ]{1,40}\}[ \t]*$", re.MULTILINE)
WIKI_HEADING = re.compile(r"^(={2,6}) ?(\S[^\n]{0,200}?) ?\1[ \t]*$", re.MULTILINE)  # of Zim, DokuWiki and Vimwiki
WIKI_MATTER = re.compile(r"Content-Type: text/x-zim-wiki\n(?:[A-Z][\w-]+: [^\n]*\n)*")
CONFLICT = re.compile(
    r"^(?:<{7}(?: [^\n]*)?|\|{7}(?: [^\n]*)?|={7}|>{7}(?: [^\n]*)?)$", re.MULTILINE
)  # of Git, between two versions
DIAGRAM = re.compile(
    r"^[ \t]*(?:sequenceDiagram|classDiagram|stateDiagram(?:-v2)?|erDiagram|gantt|gitGraph|(?:graph|flowchart) (?:TB|TD"
    r"|BT|LR|RL);?|@startuml)[ \t]*$"
    r"(?:\n(?![ \t]*(?:`{3}|~{3}))[ \t]*\S[^\n]*){0,400}",
    re.MULTILINE,
)
FORMULA = re.compile(r"\$\$(?:[^$\n]|\n(?![ \t]*\n)){1,2000}\$\$")
CODE = (  # of Jekyll and Hugo
    ("{% highlight", "{% endhighlight %}"),
    ("{% code", "{% endcode %}"),
    ("{% comment", "{% endcomment %}"),
    ("{{< highlight", "{{< /highlight >}}"),
    ("{{< mermaid", "{{< /mermaid >}}"),
)
QUOTES = (  # a shortcode around the words of others
    ("{{< quote", "{{< /quote >}}"),
    ("{{< blockquote", "{{< /blockquote >}}"),
    ("{{% quote", "{{% /quote %}}"),
    ("{{% blockquote", "{{% /blockquote %}}"),
    ("{% quote", "{% endquote %}"),
    ("{% blockquote", "{% endblockquote %}"),
)
TIDDLY_MATTER = re.compile(r"\A(?:[a-z][\w.-]{0,30}: [^\n]*\n){2,40}(?=\n)")  # of TiddlyWiki
TEMPLATES = (("<%", "%>"), ("{{<", ">}}"), ("{{%", "%}}"), ("{%", "%}"), ("{#", "#}"))
TEMPLATE = 3000  # characters of one stretch of template code, at most
KINDS = 50  # names of armour or of LaTeX's environments in one text, at most: each takes a search of the whole text
LATEX = re.compile(r"\\begin\{([a-z]{2,20}\*?)\}")

TASK = re.compile(r"^([ \t>]*(?:[-*+]|\d{1,9}[.)])[ \t]+)\[[^\[\]\n]\](?=[ \t])[ \t]*", re.MULTILINE)
TASK_DATE = re.compile(r"[\U0001f4c5\u23f3\U0001f6eb\u2795\u2705\u274c]\ufe0f?[ \t]*\d{4}-\d\d-\d\d")
TASK_MARK = re.compile(
    "\U0001f501\ufe0f?[ \t]*every "
    "[^\n\U0001f4c5\u23f3\U0001f6eb\u2795\u2705\u274c\U0001f53a\u23eb\U0001f53c\U0001f53d\u23ec#]{0,60}"
    "|[\U0001f53a\u23eb\U0001f53c\U0001f53d\u23ec]\ufe0f?|[\U0001f194\u26d4\U0001f3c1]\ufe0f?[ \t]*[\\w,-]{1,60}"
)
KANBAN_DATE = re.compile(r"@@?\{[^{}\n]{1,40}\}|@@?\[\[\d{4}-\d\d-\d\d\]\]|\(@\d{4}-\d\d-\d\d[^()\n]{0,10}\)")
KANBAN_DONE = re.compile(r"^\*\*Complete\*\*[ \t]*$", re.MULTILINE)
FIELD = re.compile(r"[\[(][\w -]{1,40}::[^\[\]()\n]{0,200}[\])]")  # Dataview's, within a line
FIELD_LINE = re.compile(
    r"^([ \t]*(?:[-*+][ \t]+)?)(?:\*\*|__|_)?([^\W\d][\w ./-]{0,40}?)(?:\*\*|__|_)?::(?:\*\*)?(?:[ \t]+(.*))?$", re.MULTILINE
)
FIELD_WORDS = 5  # a field with fewer words is data

INLINE_NOTE = re.compile(r"\^\[([^\[\]\n]{1,2000})\]")
FOOTNOTE = re.compile(r"\[\^[^\]\n]{1,80}\]:?")
CITATION = re.compile(r"\[[^\[\]\n]{0,80}@[\w:.#$%&+?<>~/-]{2,80}+[^\[\]\n]{0,200}+\](?!\()")
BLOCK_ID = re.compile(r"[ \t]\^[A-Za-z0-9_-]{1,80}[ \t]*$", re.MULTILINE)
REFERENCE = re.compile(r"\(\((?:[0-9a-fA-F-]{36}|(?=[\w-]*[\d_A-Z-])[\w-]{9})\)\)")  # of Logseq and Roam
LABELLED_REFERENCE = re.compile(r"\[([^\[\]\n]{1,300})\]\(\(\([0-9a-fA-F-]{36}\)\)\)")
BEAR = re.compile(r"\[(?:image|file):[^\[\]\n]{1,300}\]")
BEAR_TAG = re.compile(r"#(?<![\w#&/]#)[^\W\d][\w/-]*(?: [\w/-]{1,30}){1,4}#(?![\w#])")
BEAR_MARK = re.compile(r"(?<!:)::(?=\S)([^:\n]{1,500}\S)::(?!:)")
ROAM_MARK = re.compile(r"\^\^(?=\S)([^\^\n]{1,500})\^\^")


def _field(match: re.Match) -> str:
    """A line `key:: value` keeps what is long enough to be words."""
    value = (match[3] or "").strip()
    return f"{match[1]}{match[2].strip()}: {value}" if len(value.split()) >= FIELD_WORDS else ""


# In this order: (what the text must have, '' for anything beyond ASCII; the pattern; what stays).
MARKS: tuple[tuple[str, re.Pattern, str | Callable[[re.Match], str]], ...] = (
    ("]", TASK, r"\1"),
    ("", TASK_DATE, ""),
    ("", TASK_MARK, ""),
    ("@", KANBAN_DATE, ""),
    ("**Complete**", KANBAN_DONE, ""),
    ("::", FIELD, ""),
    ("e:", BEAR, ""),
    ("#", BEAR_TAG, ""),
    ("::", FIELD_LINE, _field),
    ("^[", INLINE_NOTE, r" (\1)"),
    ("^", BLOCK_ID, ""),
    ("[^", FOOTNOTE, ""),
    ("@", CITATION, ""),
    ("((", LABELLED_REFERENCE, r"\1"),
    ("((", REFERENCE, ""),
    ("::", BEAR_MARK, r"\1"),
    ("^^", ROAM_MARK, r"\1"),
)


def cut(text: str, removed: Counter) -> str:
    """`text` without what is nobody's words; `removed` counts embedded files, encoded data and template code."""
    if len(text) >= 30:
        text = in_lines(NESTED, _flat, text, lambda line: line.lstrip(" \t")[:1] in MARKERS)
    if "data:" in text.lower():
        text, *drawings = DRAWN.split(text)
        text += "".join(f"image.png{drawing.partition('</svg>')[2] or drawing}" for drawing in drawings)
        # A link to an image stays in place of the file, so that Markdown still sees an image, and counts it.
        text = EMBEDDED.sub(lambda match: f"{match['before']}image.png", text)
        text, count = FREE.subn("", text)
        removed["images and embeds"] += count
    for name in sorted({match[1] for match in ARMOUR.finditer(text)})[:KINDS] if "-----BEGIN " in text else ():
        if "PRIVATE KEY" not in name:  # redaction counts those
            text, count = between(text, f"-----BEGIN {name}-----", f"-----END {name}-----")
            removed["encoded data"] += count
    if _may_be_encoded(text):
        text, count = ENCODED.subn(_breaks, text)
        removed["encoded data"] += count
    for kind, pairs in (("code blocks", CODE), ("quotes", QUOTES)) if "{{" in text or "{%" in text else ():
        for opening, closing in pairs:
            if opening in text:
                text, count = between(text, opening, closing)
                removed[kind] += count
    if "text/vnd.tiddlywiki" in text and (matter := TIDDLY_MATTER.match(text)) and "text/vnd.tiddlywiki" in matter[0]:
        text = _breaks(matter) + text[matter.end() :]
    text = COLUMNS.sub("", text) if "column" in text else text
    text = WIKI_HEADING.sub(_heading, WIKI_MATTER.sub(_breaks, text)) if "==" in text or "-wiki" in text[:60] else text
    text = _templates(text, removed)
    for opening, closing in (("%%", "%%"), ("<!--", "-->")):
        text = between(text, opening, closing)[0] if opening in text else text
    if ">>>>>>>" in text and "\n<<<<<<< " in f"\n{text}" and "\n>>>>>>>" in text:
        text = CONFLICT.sub("", text)
    if any(map(text.__contains__, ("Diagram", "gantt", "gitGraph", "graph ", "flowchart ", "@startuml"))):
        text, count = _without_diagrams(text)
        removed["code blocks"] += count
    if "$$" in text:
        text, count = FORMULA.subn(_breaks, text)
        removed["formulas"] += count
    for name in sorted({match[1] for match in LATEX.finditer(text)})[:KINDS] if "\\begin{" in text else ():
        text, count = between(text, f"\\begin{{{name}}}", f"\\end{{{name}}}")
        removed["formulas"] += count
    return _marks(text)


def _without_diagrams(text: str) -> tuple[str, int]:
    """(text without diagrams that stand in no fence, line breaks kept; how many there were). Markdown's parser cuts the others."""
    parts, at, count = [], 0, 0
    for match in DIAGRAM.finditer(text):
        above = text[text.rfind("\n", 0, max(0, match.start() - 1)) + 1 : match.start()]
        if not above.lstrip(" \t>").startswith(("```", "~~~", "---")):
            parts += [text[at : match.start()], _breaks(match)]
            at, count = match.end(), count + 1
    return "".join([*parts, text[at:]]), count


def _may_be_encoded(text: str) -> bool:
    """Whether words are as long as ENCODED wants them: one of 200 characters, or three of 60 that are no addresses."""
    long = [word for word in text.split() if len(word) >= 60] if len(text) >= 180 else []
    return any(len(word) >= 200 for word in long) or sum("://" not in word for word in long) >= 3


def between(text: str, opening: str, closing: str, most: int = 1 << 30) -> tuple[str, int]:
    """(text without the stretches from an `opening` to the next `closing`, line breaks kept; how many there were).

    A stretch of more than `most` characters stays: its opening is no opening.
    """
    parts, at, count, start, end = [], 0, 0, 0, -1
    while (begin := text.find(opening, start)) >= 0:
        start = begin + len(opening)
        if end < start:
            end = text.find(closing, start)
        if end < 0:  # no later one either
            break
        if end - begin <= most:
            inside = text[begin : end + len(closing)]
            parts += [text[at:begin], "\n" * inside.count("\n")]
            at = start = end + len(closing)
            count += 1
    return ("".join([*parts, text[at:]]), count) if count else (text, 0)


def _templates(text: str, removed: Counter) -> str:
    counts = 0
    if "{{" in text:
        text = KEPT_IN_BRACES.sub(r"\1", text)
    for opening, closing in TEMPLATES if "{" in text or "<%" in text else ():
        text, count = between(text, opening, closing, TEMPLATE)
        counts += count
    for _ in range(3) if "{{" in text else ():  # braces within braces
        text, count = INNER_BRACES.subn(_breaks, text)
        counts += count
    for sign, pattern in (("${", DOLLAR_BRACES), ("{", ATTRIBUTES), ("]", SHORTCODE), ("`", INLINE_QUERY), ("port ", IMPORT)):
        if sign in text:
            text, count = pattern.subn("", text)
            counts += count
    if "={" in text:
        text, count = _without_components(text)
        counts += count
    if "# {" in text:
        text, count = VARIABLE_HEADING.subn("", text)
        counts += count
    if counts:  # arrows and bars between two links of a template, and headings of which nothing is left
        removed["template code"] += counts
        text = LEFT_OVER.sub("", text)
    text = CONTENTS.sub("", text) if "toc" in text.lower() else text
    text = FENCED_DIV.sub("", text) if ":::" in text else text
    return EMOJI_CODE.sub("", text) if ":" in text else text


def _without_components(text: str) -> tuple[str, int]:
    """(text without components of MDX that are given values in braces, line breaks kept; how many there were)."""
    parts, at, count = [], 0, 0
    while opening := COMPONENT.search(text, at):
        end = text.find("/>", opening.end(), opening.start() + COMPONENTS)
        if end < 0:
            parts.append(text[at : opening.end()])
            at = opening.end()
            continue
        parts += [text[at : opening.start()], "\n" * text.count("\n", opening.start(), end)]
        at, count = end + 2, count + 1
    return "".join([*parts, text[at:]]), count


def _marks(text: str) -> str:
    for sign, pattern, kept in MARKS:
        if pattern is TASK and sign in text:
            text = in_lines(pattern, kept, text, lambda line: "]" in line)
        elif sign in text if sign else not text.isascii():
            text = pattern.sub(kept, text)
    return text


def in_lines(pattern: re.Pattern, kept: str | Callable[[re.Match], str], text: str, wanted: Callable[[str], bool]) -> str:
    """What pattern.sub(kept, text) returns, for a pattern that stays within one of the lines that are `wanted`; in less time."""
    return "\n".join([pattern.sub(kept, line) if wanted(line) else line for line in text.split("\n")])


def without_sections(lines: list[str], heading: re.Pattern, begins: Callable[[re.Match], object]) -> tuple[list[str], int]:
    """The lines with sections emptied, from a heading that `begins` accepts to the next one of its level; and how many.

    heading: what a heading's line begins with; its first group is the signs, whose number is the level.
    """
    kept, level, count = list(lines), 0, 0
    for number, line in enumerate(lines):
        match = heading.match(line) if line.startswith("#") else None
        if match and (not level or len(match[1]) <= level):
            level = len(match[1]) if begins(match) else 0
            count += level > 0
        if level:
            kept[number] = ""
    return kept, count


def _flat(match: re.Match) -> str:
    """One mark in place of those of quotes and lists within each other."""
    return "> " if ">" in match[0] else "- "


def _heading(match: re.Match) -> str:
    """A wiki's heading as Markdown has it: the more signs, the higher."""
    return f"{'#' * max(1, 7 - len(match[1]))} {match[2]}"


def _breaks(match: re.Match) -> str:
    return "\n" * match[0].count("\n")
