"""What `fuzz.py` reads: each reader with its syntax and valid samples, and hostile inputs that are written from them."""

import asyncio
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mipo_mlx import recipe_loading
from mipo_mlx.gguf_format.file import GGUFFile
from mipo_mlx.pairs import exchange
from mipo_mlx.recipe import Dataset, Sources
from mipo_mlx.sources import bank, gather, hub, own_choice
from mipo_mlx.sources.chunks import cut
from mipo_mlx.sources.dedupe import drop_duplicates
from mipo_mlx.sources.note import Tally
from mipo_mlx.sources.rank import ranked
from mipo_mlx.sources.sparing import read_votes
from mipo_mlx.sources.walk import walk

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "sources" / "fixtures"
LARGEST = 1 << 20  # bytes of an input

# Between blanks; those that hold blanks or line ends stand between §.
MARKDOWN = """[ ] ( ) [[ ]] ![ ]( [^ ]: < > <!-- --> <a </ & &amp; &#0; * ** _ __ ~~ ` ``` ~~~ | |- --- === # ###### {{ }} {% %} {#
#} ${ %% $$ \\ \\begin{a} \\end{a} - + 1. > >> : :: ::: ^ ^^ ^[ @ @{ == (( )) " ' ; , . ! ? / // \x00 \x1b[31m \u202e \ufeff
é ａ 你 😀 a A 0 12:30 2024-05-01 a:b key:: http:// www. a@b.c data:a/b; [x] ]_ pw= 0x dead 0123456789 AKIA -----BEGIN *[ _[ *_ <!
<? <![CDATA[ ]]> &a !!b
""".split()
MARKDOWN += " §  §    §\t§\n§\n\n§\r\n§\n\n\n§\n- §\n> §\n# §\n|§a b §a: b§password: §\u0300\u0316§seed phrase: ".split("§")
CHAT = "12/31/23, 10:00 - Ana: §[20/6/17, 8:10:05] E: §User: §**You:** §Ana\t§<a> §On x wrote:\n§\n§10:00 ".split("§")
HTML = """<p> </p> <div <table> <tr> <td> </td> <ul> <li> <ol> <b> <script> <style> <!-- --> <![ <? <a href= &lt; &#x " ' = > <
<blockquote> <h1> <br> </""".split()
JSON = '[§{§]§}§"§,§:§1§-§{"a":§null§1e9§"a"§\\u0000§\\ud800§{"role":"user","content":"§{"messages":[§"mapping":{'.split("§")
ORG = """* ** #+begin_quote #+end_quote :a: [[ ][ ]] {{{ <2024-05-01> -- = ~ / | :b: #+begin_src""".split() + [
    "\n",
    "#+TITLE: ",
    "\n* a :b:",
]
MAIL = """From: =?utf-8?q? =?utf-8?b? ?= > , < ( ) " ; a@b = =3D""".split() + [
    "From a\n",
    "Subject: ",
    "--a\n",
    "--a--\n",
    "\n",
    "\n\n",
    " ",
]
MAIL += ["Content-Type: multipart/mixed; boundary=a\n\n", "Content-Type: message/rfc822\n\n"]
XML = (
    """<note> </note> <content> <![CDATA[ ]]> <title> <tag> <resource> </resource> <en-note> </content> a &a; <!ENTITY""".split()
    + [" ", "\n"]
)
YAML = """- [ { ? : &a *a !! | > ' " # --- ... 0 1_0 1:2 % @ , } ]""".split() + "a: §- §<<: §\n§  §\t§\n- §a:\n §*a ".split("§")
PDF = """obj endobj << >> [ ] R stream endstream /Kids /Filter ( ) % xref /Length startxref""".split() + ["1 0 R ", "1 ", "\n"]
DRAWN = MARKDOWN + ["q ", "BT ", "ET ", "(a)Tj ", "[", "<<", "/a ", "1 ", "1 0 0 1 0 0 cm ", "[(a)1]TJ ", "BI ", "ID ", "EI "]
VOTE = (
    '{"request": "a", "own": true, "prompt": [{"role": "user", "content": "a"}], "passages": ["b"], "tuned": "c", "base": "d", '
    '"first": "base", "choice": "tuned", "adapters": "e"}\n'
)
PAIR = (
    '{"prompt": "a", "chosen": "c", "rejected": "d"}\n{"prompt": [{"role": "user", "content": "g"}], "chosen": "h", "rejected": []}'
)
BODIES = (
    '{"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "b"}]}], "stop": ["x"], "top_k": 5}',
    '{"model": "m", "messages": [{"role": "user", "content": "b"}, {"role": "assistant", "tool_calls": [{"id": "c", "function": '
    '{"name": "f", "arguments": "{}"}}]}, {"role": "tool", "tool_call_id": "c", "content": "d"}], "seed": 1, "min_p": 0.1}',
    '{"model": "m", "prompt": "a", "max_tokens": 5, "frequency_penalty": 0.5, "stream_options": {"include_usage": true}}',
)
ENEX = "<note><title>A</title><content><![CDATA[<en-note><div>I bake.</div></en-note>]]></content><tag>b</tag></note>"
EML = "From: Ana <a@b.c>\nSubject: A\nContent-Type: text/plain\n\nI bake bread.\n\nOn Monday, B wrote:\n> x\n-- \nA\n"
DAY_ONE = '{"entries":[{"creationDate":"x","uuid":"a","text":"I bake."}],"activeNotes":[]}'
SPACE = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"


@dataclass(frozen=True)
class Target:
    """What is attacked: the name of the file, how it is read, its syntax and valid samples. wrap: from text to the file's bytes."""

    name: str
    read: Callable[[Path], None]
    tokens: list[str]
    samples: list[bytes]
    wrap: Callable[[bytes, random.Random], bytes] = lambda data, _: data
    least: float = 0.6  # seconds that any input may take, however small: what is longer than a limit is not read


def notes(path: Path, vault: Path | None = None) -> None:
    """The file, or the vault that it is in, as a run reads it. Raises AssertionError where its reader failed."""
    sources, tally = Sources(notes=str(path), me="Ana"), Tally()
    if vault is None:
        files = gather.note_files(sources, tally)
    else:
        choice = gather.Choice.of(sources)
        files = [one for file in walk(vault, tally, choice) for one in gather._readable(file, "Ana", tally, choice)]
    passages = []
    for file in files:
        for note in gather.headings_as_notes(gather.read_file(file, tally, sources)):
            passages += ranked(note, cut(note, lambda text: len(text) // 4, sources.context_tokens, sources.min_tokens, tally))
    drop_duplicates(passages, sources.near_duplicate, tally)
    json.dumps(tally.to_row()).encode()
    whole = [skip["why"] for skip in tally.skipped if "#" not in skip["file"]]  # a part of a file may be broken in any way
    failed = [why for why in whole if re.fullmatch(r"cannot be read \(\w+\)", why)]
    assert not failed, failed


def settings(path: Path) -> None:
    """A vault with these settings, and a note with a long name."""
    for name in ("a" * 60, "aXb"):
        (path.parent.parent / f"{name}.md").write_text("I bake bread on Sundays.")
    notes(path, path.parent.parent)


def requests(path: Path) -> None:
    bank._from_file(path, Tally())


def table(path: Path) -> None:
    hub.read_contexts(Dataset(name=str(path), columns={"context": "text"}), Tally())


def votes(path: Path) -> None:
    read_votes(path.parent, Tally())


def parquet(data: bytes, _: random.Random) -> bytes:
    """A Parquet file with these bytes as texts, or these bytes."""
    import pyarrow
    from pyarrow import parquet as format

    if data.startswith(b"PAR1"):
        return data
    raw = pyarrow.array(data.split(b"\n"), pyarrow.binary())
    texts = pyarrow.Array.from_buffers(pyarrow.string(), len(raw), raw.buffers())
    out = io.BytesIO()
    format.write_table(pyarrow.table({"text": texts}), out, row_group_size=10_000)
    return out.getvalue()


def choices(path: Path) -> None:
    own_choice._read(path, own_choice.OwnChoice())


def recipe(path: Path) -> None:
    recipe_loading.parse(path.read_text(encoding="utf-8", errors="replace"), "r.yaml")


def model(path: Path) -> None:
    GGUFFile(path)


def pairs(path: Path) -> None:
    for where, row in exchange._rows(path, Tally()):
        exchange._conversations(exchange._redacted(row), where)


def body(path: Path) -> None:
    from starlette.requests import Request

    from mipo_mlx.serving.protocol import Refused, read_chat, read_text
    from mipo_mlx.serving.web import body_of

    async def receive() -> dict:
        return {"type": "http.request", "body": path.read_bytes(), "more_body": False}

    for read in (read_chat, read_text):
        try:
            read(asyncio.run(body_of(Request({"type": "http", "method": "POST", "headers": []}, receive))))
        except Refused as error:
            json.dumps(error.body).encode()


def zipped(*names: str) -> Callable[[bytes, random.Random], bytes]:
    def wrap(data: bytes, dice: random.Random) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, data[: LARGEST // len(names)])
        packed = out.getvalue()
        return mutated(packed, [b"\xff\xff\xff\xff", b"PK\x01\x02", b"\0"], dice) if dice.random() < 0.2 else packed

    return wrap


def docx(data: bytes, dice: random.Random) -> bytes:
    """A Word file with this text, or this XML, in it."""
    text = data.decode(errors="replace").replace("]]>", "")
    lines = text.split("\n")
    paragraphs = "".join(f"<w:p><w:r><w:t><![CDATA[{line}]]></w:t></w:r></w:p>" for line in lines)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", f'<Types><Override PartName="/word/document.xml" ContentType="{WORD}"/></Types>')
        link = f'<Relationship Id="a" Type="{OFFICE}" Target="word/document.xml"/>'
        archive.writestr("_rels/.rels", f"<Relationships>{link}</Relationships>")
        inside = text if dice.random() < 0.3 else paragraphs[:LARGEST]
        archive.writestr("word/document.xml", f"<w:document {SPACE}><w:body>{inside}</w:body></w:document>")
    return out.getvalue()


def pdf(data: bytes, dice: random.Random) -> bytes:
    """A PDF with pages of this text, or of this as their commands."""
    lines = [line.translate({40: None, 41: None, 92: None}) for line in data.decode("latin-1").split("\n")]
    text = "".join(f"({line}) Tj T*\n" for line in lines)
    packed = zlib.compress(data if dice.random() < 0.4 else f"BT /F 9 Tf {text} ET".encode("latin-1")[:LARGEST])
    pages = dice.choice((1, 1, 1, 3))
    kids = " ".join(f"{4 + page} 0 R" for page in range(pages))
    page = b"<</Type/Page/Parent 2 0 R/Contents 3 0 R/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Courier>>>>>>>>"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {pages}>>".encode(),
        b"<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream" % (len(packed), packed),
        *[page] * pages,
    ]
    written = b"".join(b"%d 0 obj%b endobj\n" % (number, each) for number, each in enumerate(objects, 1))
    return b"%PDF-1.7\n" + written + b"trailer<</Root 1 0 R>>\n%%EOF"


def front_matter(data: bytes, _: random.Random) -> bytes:
    return b"---\n" + data + b"\n---\na b c\n"


def fixtures(pattern: str) -> list[bytes]:
    return [path.read_bytes()[:200_000] for path in sorted(FIXTURES.rglob(pattern)) if path.is_file()]


def gguf() -> bytes:
    """A small file of two keys, an array of two strings and one tensor."""

    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    keys = (
        text(b"general.architecture")
        + struct.pack("<I", 8)
        + text(b"llama")
        + text(b"llama.block_count")
        + struct.pack("<II", 4, 2)
    )
    keys += text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text(b"a") + text(b"b")
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 3) + keys + text(b"token_embd.weight") + struct.pack("<IQQIQ", 2, 32, 2, 0, 0)
    return head + bytes(-len(head) % 32 + 256)


def targets() -> list[Target]:
    texts, chats = (
        fixtures("*.md") + fixtures("*.txt"),
        [*fixtures("*.txt"), b"User: a\n\nAssistant: b\n\n", b"**You:** a\n\n**ChatGPT:** b\n"],
    )
    exports = [*fixtures("*.json"), DAY_ONE.encode()]
    numbers = [struct.pack("<Q", value).decode("latin-1") for value in (0, 1, 32, 2**31, 2**32 - 1, 2**48, 2**63, 2**64 - 1)]
    matter = b"---\ntags: [a]\ntitle: b\n---\n"
    app = b'{"userIgnoreFilters": ["/a/", "b"], "attachmentFolderPath": "c"}'
    return [
        Target("a.md", notes, MARKDOWN + CHAT, [*texts, matter]),
        Target("b.md", notes, YAML, [b"tags: [a]\ntitle: b\n"], front_matter, 3.0),
        Target("c.txt", notes, MARKDOWN + CHAT, chats),
        Target("d.html", notes, HTML + MARKDOWN, fixtures("*.html")),
        Target("e.org", notes, ORG + MARKDOWN, fixtures("*.org")),
        Target("f.docx", notes, MARKDOWN + HTML, texts, docx),
        Target("g.docx", notes, ["\xff", "\0"], fixtures("*.docx")),
        Target("h.pdf", notes, DRAWN, texts, pdf),
        Target("i.pdf", notes, PDF, fixtures("*.pdf")),
        Target("Sent.mbox", notes, MAIL, [*fixtures("*.mbox"), b"From a\n" + EML.encode()]),
        Target("Sent/j.eml", notes, MAIL, [EML.encode()]),
        Target("k.enex", notes, XML + HTML, [ENEX.encode()]),
        Target("conversations.json", notes, JSON, exports),
        Target("l.json", notes, JSON, exports),
        Target("m.zip", notes, MARKDOWN, texts, zipped("a.md", "b/c.txt", "d/e.html")),
        Target(
            "n.zip",
            notes,
            ["PK\x03\x04", "PK\x01\x02", "\xff", "\0"],
            [zipped("a.md", "logseq/config.edn")(b"a b", random.Random(0))],
        ),
        Target("o.jex", notes, ["\0" * 512, "x", "0000644", "././@PaxHeader", "path=", "a.md"], [b"\0" * 2048]),
        Target("p.jsonl", notes, JSON, [b'{"context": "a b c", "user": "u"}\n{"text": "d"}\n']),
        Target("q/.obsidian/app.json", settings, [*JSON, "/", "(a+)+", ".*"], [app]),
        Target("r/logseq/config.edn", settings, [":hidden", *'[";]', ":pages-directory ", "\n", " "], [b'{:hidden ["a" "b"]}']),
        Target("s.csv", table, [*',"\n\0a1', "text"], [b"text,b\na b,c\n"]),
        Target("s.parquet", table, [*MARKDOWN, "\xff", "\0"], [*texts, parquet(b"a b\nc d", random.Random(0))], parquet),
        Target("votes.jsonl", votes, JSON, [VOTE.encode()]),
        Target("t.txt", requests, MARKDOWN, texts),
        Target("u.md", requests, MARKDOWN, texts),
        Target("v.jsonl", choices, JSON, [b'{"keep": false, "place": "a"}\n']),
        Target("w.yaml", recipe, YAML, [b"model: x\nsources: {notes: a, min_tokens: 3}\npairs: {grids: 2}\n"], least=5.0),
        Target("x.gguf", model, ["GGUF", *numbers], [gguf()]),
        Target("y.jsonl", pairs, JSON, [PAIR.encode()]),
        Target("z.body", body, JSON, [sample.encode() for sample in BODIES]),
    ]


def encoded(text: str, dice: random.Random) -> bytes:
    """UTF-8; now and then another encoding, or a mix of two."""
    kinds = ["utf-8"] * 12 + ["utf-16", "utf-16-le", "latin-1", "cp1251", "shift-jis", "utf-8-sig"]
    middle = len(text) // 2 if dice.random() < 0.1 else len(text)
    return text[:middle].encode(dice.choice(kinds), errors="replace") + text[middle:].encode(dice.choice(kinds), errors="replace")


def repeated(tokens: list[str], size: int, dice: random.Random) -> str:
    """A few tokens again and again, perhaps behind others, perhaps with line ends between them."""
    unit = "".join(dice.choice(tokens) for _ in range(dice.choice((1, 1, 2, 2, 3, 5)))) + dice.choice(
        ("", "", "", "\n", " ", "\n\n")
    )
    opening = "".join(dice.choice(tokens) for _ in range(dice.choice((0, 0, 1, 3))))
    return opening + unit * (size // len(unit.encode(errors="replace"))) + dice.choice(tokens)


def nested(tokens: list[str], size: int, dice: random.Random) -> str:
    opening, closing = dice.choice(tokens), dice.choice(tokens)
    count = size // len((opening + closing).encode(errors="replace"))
    return opening * count + dice.choice(("a", "")) + closing * dice.choice((count, count // 2, 0))


def mixed(tokens: list[str], size: int, dice: random.Random) -> str:
    """Tokens and words in any order."""
    few = dice.sample(tokens, min(len(tokens), dice.choice((2, 5, 20)))) + dice.choice(([], ["I bake bread"], ["word", " ", "\n"]))
    return "".join(dice.choices(few, k=max(1, size // 3)))[:size]


def mutated(data: bytes, pieces: list[bytes], dice: random.Random) -> bytes:
    """A valid file with pieces cut out, put in, doubled and flipped."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 2, 5, 20))):
        at, length, change = dice.randrange(len(out) + 1), dice.choice((0, 1, 4, 30, 400)), dice.randrange(5)
        if change == 0:
            del out[at : at + length]
        elif change == 1:
            out[at:at] = dice.choice(pieces) * dice.choice((1, 1, 2, 200))
        elif change == 2:
            out[at:at] = out[at : at + length] * dice.choice((1, 3, 1000))
        elif change == 3 and at < len(out):
            out[at] ^= 1 << dice.randrange(8)
        else:
            out[at : at + 8] = dice.choice(pieces)[:8]
        del out[LARGEST:]
    return bytes(out)


def written(target: Target, dice: random.Random) -> tuple[bytes, int]:
    """(one input for a target, its bytes where it is unpacked)."""
    size, how = round(2 ** dice.uniform(10, 20)), dice.randrange(10)
    if how < 6:
        data = encoded((repeated if how < 4 else nested if how < 5 else mixed)(target.tokens, size, dice), dice)
        if dice.random() < 0.3:  # behind the beginning of a valid file, so that its reader goes on
            sample = dice.choice(target.samples)
            data = sample[: dice.randrange(len(sample) + 1)] + data
    else:
        data = mutated(dice.choice(target.samples), [token.encode("utf-8", "replace") for token in target.tokens], dice)
        if how > 7 and 0 < len(data) < size:
            data *= size // len(data)
    data = data[:LARGEST]
    packed = target.wrap(data, dice)[:LARGEST]
    return packed, max(len(data), len(packed), unpacked(packed))


def unpacked(data: bytes) -> int:
    """The bytes of the files in an archive, LARGEST at most; 0 for what is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return min(LARGEST, sum(member.file_size for member in archive.infolist()))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return 0
