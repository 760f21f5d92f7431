"""A broken row, mail or chat costs itself: it is counted and named, and the others of its file are read, of each kind of file."""

import io
import json
import mailbox
from pathlib import Path

import pytest

from mipo_mlx import recipe_loading
from mipo_mlx.errors import UserError
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Dataset, Sources
from mipo_mlx.sources import gather, hub, questions, read
from mipo_mlx.sources.bank import load_prompts
from mipo_mlx.sources.note import NAMED, Tally
from mipo_mlx.sources.note_file import NoteFile
from mipo_mlx.sources.sparing import HOPELESS, sound

QUIET = Reporter(quiet=True)
GOOD = b'{"text": "I keep bees in Lund."}'
LAST = '{"text": "I ferment plums, says Åsa."}'.encode()
BROKEN = {  # a line, and the beginning of the reason
    "torn": (b'{"text": "half a', "not valid JSON"),
    "words": (b"2024-05-01 INFO rotated", "not valid JSON"),
    "deep": (b"[" * 100_000, "not valid JSON"),
    "list": (b"[1]", "expected an object with a column context or text, found list"),
    "column": (b'{"txet": "I row."}', "none of the columns context, text"),
    "type": (b'{"text": 7}', "none of the columns context, text"),
    "latin": (b'{"text": "f\xfcr"}', "not text in UTF-8"),
    "nul": (b'{"text": "a\0b"}', "not text in UTF-8"),
    "binary": (bytes(range(1, 9)) * 9, "not text in UTF-8"),
}


def read_file(path: Path, tally: Tally, **settings: str) -> list:
    return gather.read_notes(Sources(notes=str(path), **settings), tally, QUIET)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_line_of_a_file_of_rows(tmp_path, kind):
    line, why = BROKEN[kind]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([GOOD, line, LAST, b""]))
    tally = Tally()
    notes = read_file(tmp_path / "rows.jsonl", tally)
    assert [note.blocks[0].text for note in notes] == ["I keep bees in Lund.", "I ferment plums, says Åsa."]
    assert [note.name for note in notes] == ["rows.jsonl:1", "rows.jsonl:3"]
    [row] = tally.skipped
    assert row["file"] == "rows.jsonl:2" and row["why"].startswith(why)
    assert tally.removed == {"rows that cannot be read": 1} and tally.read == 1


def test_every_broken_line_is_counted_and_named_in_one_place(tmp_path):
    lines = [line for line, _ in BROKEN.values()]
    texts = [json.dumps({"text": f"I mend clock {n} of tower {n * 7} in town {n * 3}."}).encode() for n in range(12)]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([*lines, *texts, LAST]))
    made = recipe_loading.parse("model: none", overrides=[f"sources.notes={tmp_path / 'rows.jsonl'}", "sources.min_tokens=2"])
    contexts, _, row = read.collect(made, lambda text: len(text.split()), QUIET)
    assert len(contexts) == 13
    shown = read.left_out(row)
    assert shown[0].startswith("skipped rows.jsonl:1: not valid JSON") and "left out: 9 rows that cannot be read" in shown
    assert "and 4 more, named in sources.json" in shown
    assert sorted(entry["file"] for entry in row["files"]["skipped"]) == [f"rows.jsonl:{n}" for n in range(1, 10)]


def test_a_row_of_a_json_list(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"text": "I row."}, 3, {"id": 1}, {"text": "I sing."}]))
    tally = Tally()
    assert [note.blocks[0].text for note in read_file(tmp_path / "rows.json", tally)] == ["I row.", "I sing."]
    assert [row["file"] for row in tally.skipped] == ["rows.json:2", "rows.json:3"]


def test_where_no_row_can_be_used_the_first_reason_ends_the_command(tmp_path):
    """A wrong column is a fault of the recipe, and not of a thousand rows."""
    (tmp_path / "rows.jsonl").write_bytes(b'{"bio": "a"}\n' * 1000)
    with pytest.raises(UserError, match=r"rows\.jsonl:1: none of the columns .* name the right one in sources\.columns"):
        read_file(tmp_path / "rows.jsonl", Tally())


def test_a_file_in_a_legacy_encoding_is_still_read_whole(tmp_path):
    text = "Ich heiße Jürgen und habe für die Tür einen Schlüssel, der mir nicht gehört, aber es ist auch so schön hier."
    (tmp_path / "rows.jsonl").write_bytes(b"".join(f'{{"text": "{text} {n}"}}\n'.encode("cp1252") for n in range(4)))
    tally = Tally()
    assert [note.blocks[0].text for note in read_file(tmp_path / "rows.jsonl", tally)] == [f"{text} {n}" for n in range(4)]
    assert tally.skipped == [] and tally.recoded == [{"file": "rows.jsonl", "as": "windows-1252"}]


def test_only_so_many_are_named(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(GOOD + b"\n" + b"[\n" * (NAMED + 9))
    tally = Tally()
    assert len(read_file(tmp_path / "rows.jsonl", tally)) == 1
    assert tally.broken == NAMED + 9 and len(tally.skipped) == NAMED


def test_a_file_of_broken_lines_alone_is_given_up_early():
    def refuse(place, row):
        tried.append(place)
        raise UserError(f"{place}: no")

    tried, rows = [], [(f"a.jsonl:{number}", "") for number in range(3 * HOPELESS)]
    with pytest.raises(UserError, match="a.jsonl:0: no"):
        list(sound(rows, refuse, Tally()))
    assert len(tried) == HOPELESS
    rows[0] = ("a.jsonl:0", "sound")
    tried.clear()
    assert list(sound(rows, lambda place, row: row or refuse(place, row), Tally())) == ["sound"]
    assert len(tried) == 3 * HOPELESS - 1


def test_a_row_of_csv(tmp_path):
    """Too few cells, too many, no UTF-8; a word in a column of numbers, far from the beginning, is kept as it stands."""
    rows = b"text,n\nI row.,1\nshort\na,2,3,4\n\xff\xfe,4\n" + b"I mend%s.,5\n" % (b" clocks" * 60) * 3000 + b"I sing.,many\n,7\n"
    (tmp_path / "a.csv").write_bytes(rows)
    tally = Tally()
    every = [row for _, row in hub.rows(Dataset(name=str(tmp_path / "a.csv"), columns={"context": "text"}), tally)]
    assert every[0] == {"text": "I row.", "n": 1} and every[-2:] == [{"text": "I sing.", "n": "many"}, {"text": "", "n": 7}]
    assert len(every) == 3003
    assert [(row["file"], row["why"]) for row in tally.skipped] == [
        ("a.csv:3", "1 cells, and the header has 2"),
        ("a.csv:4", "4 cells, and the header has 2"),
        ("a.csv:5", "not text in UTF-8"),
    ]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
def test_a_csv_file_in_another_encoding(tmp_path, encoding):
    text = "Ich habe für die Tür einen Schlüssel und das ist nicht der Tag für mich"
    (tmp_path / "a.csv").write_bytes(f"text,n\n{text},1\n".encode(encoding))
    [(_, row)] = hub.rows(Dataset(name=str(tmp_path / "a.csv"), columns={"context": "text"}), Tally())
    assert row == {"text": text, "n": 1}


def test_the_names_of_columns_take_one_line(tmp_path):
    header = ",".join(f'"a\nb{n}\x1b[2J"' for n in range(30))
    (tmp_path / "a.csv").write_text(f"{header}\n{'x,' * 29}x\n")
    (tmp_path / "p.jsonl").write_text(json.dumps({"a\nb\0": 1}))
    for work in (
        lambda: list(hub.read_contexts(Dataset(name=str(tmp_path / "a.csv"), columns={"context": "text"}), Tally())),
        lambda: load_prompts(Sources(prompts=str(tmp_path / "p.jsonl")), 0, Tally()),
        lambda: read_file(tmp_path / "p.jsonl", Tally()),
    ):
        with pytest.raises(UserError) as error:
            work()
        assert str(error.value).isprintable() and len(str(error.value)) < 800


def test_a_row_and_a_group_of_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    raw = pyarrow.array([b"I row.", b"\xff\xff", b"I sing."], pyarrow.binary())
    texts = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    given, tally = Dataset(name=str(tmp_path / "a.parquet"), columns={"context": "text"}), Tally()
    assert [note.blocks[0].text for note in hub.read_contexts(given, tally)] == ["I row.", "I sing."]
    assert tally.skipped == [{"file": "a.parquet:2", "why": "not text in UTF-8"}]

    rows = pyarrow.table({"text": [f"I mend clock number {n}." for n in range(300)]})
    parquet.write_table(rows, tmp_path / "b.parquet", row_group_size=100, use_dictionary=False)
    page = parquet.ParquetFile(tmp_path / "b.parquet").metadata.row_group(1).column(0).data_page_offset
    data = bytearray((tmp_path / "b.parquet").read_bytes())
    data[page : page + 20] = b"\xff" * 20
    (tmp_path / "b.parquet").write_bytes(data)
    tally = Tally()
    every = list(hub.rows(Dataset(name=str(tmp_path / "b.parquet"), columns={"context": "text"}), tally))
    assert len(every) == 200 and [row["file"] for row in tally.skipped] == ["b.parquet:101 to 200"]
    assert tally.skipped[0]["why"].startswith("damaged")


def test_a_parquet_file_that_swells_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": pyarrow.nulls(2_000_000, pyarrow.bool_())}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    with pytest.raises(UserError, match="2,000,000 rows in"):
        list(hub.rows(Dataset(name=str(tmp_path / "a.parquet"), columns={"context": "text"}), Tally()))


def test_a_row_of_a_local_data_set_whose_column_is_missing(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"about": "I row."}\n{"abuot": "I sing."}\n{"about\n"x"\n{"about": "I bake."}\n')
    given, tally = Dataset(name=str(tmp_path / "c.jsonl"), columns={"context": "about"}), Tally()
    assert [note.blocks[0].text for note in hub.read_contexts(given, tally)] == ["I row.", "I bake."]
    assert len(tally.skipped) == 3 and any("no column about; it has abuot" in row["why"] for row in tally.skipped)


def test_a_row_of_requests(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(b'{"prompt": "What now?"}\n{"prompt\n{"answer": 3}\n"f\xfcr"\n{"prompt": 7}\n"What then?"\n')
    tally = Tally()
    prompts = load_prompts(Sources(prompts=str(tmp_path / "p.jsonl")), 0, tally)
    assert {prompt.text for prompt in prompts} == {"What now?", "What then?"}
    assert [row["file"] for row in tally.skipped] == [f"p.jsonl:{n}" for n in (2, 4, 3, 5)]


def test_a_row_of_questions_with_answers(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n{"question": "?", "answer": "none"}\n[]\n')
    given = Dataset(name=str(tmp_path / "q.jsonl"), columns={"question": "question", "answer": "answer"})
    reporter = Reporter(quiet=True, stream=io.StringIO())
    questions.prepare(tmp_path, given, reporter)
    assert [json.loads(line)["answer"] for line in questions.path_in(tmp_path, given).read_text().splitlines()] == ["2"]
    [warning] = reporter.stream.getvalue().splitlines()
    assert "2 rows of evaluation.abilities left out" in warning and "q.jsonl:3" in warning and "no number in 'none'" in warning


def test_a_mail_a_chat_and_a_message(tmp_path, monkeypatch):
    """Libraries raise nearly anything over a broken part."""
    from mipo_mlx.sources.readers import mail

    box = mailbox.mbox(tmp_path / "sent.mbox")
    for text in ("I keep bees.", "broken", "I row."):
        box.add(f"From: me@here.org\nSubject: s\n\n{text}\n")
    box.flush()
    body = mail.body
    monkeypatch.setattr(mail, "body", lambda message, tally: 1 // ("broken" not in message.as_string()) and body(message, tally))
    tally = Tally()
    notes = mail.read_mbox(NoteFile.on_disk(tmp_path / "sent.mbox"), tally)
    assert [note.name for note in notes] == ["sent.mbox#1", "sent.mbox#3"]
    assert tally.skipped == [{"file": "sent.mbox#2", "why": "cannot be read (ZeroDivisionError)"}]

    def chat(text: object) -> dict:
        return {"title": "t", "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "No."}]}

    bad = {"messages": [{"role": "user", "content": "a", "metadata": "b"}, {"role": "assistant", "content": "c"}]}
    worse = {"mapping": {"a": 7}, "current_node": "a"}
    (tmp_path / "conversations.json").write_text(json.dumps([chat("I keep bees."), bad, worse, chat("I row.")]))
    tally = Tally()
    assert len(read_file(tmp_path / "conversations.json", tally)) == 2
    assert [row["file"] for row in tally.skipped] == ["conversations.json#2:1", "conversations.json#3"]
    assert tally.removed["messages that cannot be read"] == tally.removed["chats that cannot be read"] == 1

    message = {"type": "message", "date": "2024-05-01", "from": "Ana", "from_id": "user1", "text": "I keep bees."}
    other = {**message, "from": "Bo", "from_id": "user2", "text": "Do you?"}
    rows = [message, other, None, [], {**message, "text": [7, None, {"type": "bold", "text": "I row."}]}, {**message, "text": 9}]
    (tmp_path / "result.json").write_text(json.dumps({"name": "Bo", "id": 1, "messages": rows}))
    tally = Tally()
    [note] = read_file(tmp_path / "result.json", tally)
    assert [block.text for block in note.blocks] == ["I keep bees.", "I row."]
    assert tally.removed["messages that cannot be read"] == 3 and [row["file"] for row in tally.skipped] == [
        "result.json#1:3", "result.json#1:4", "result.json#1:6",
    ]  # fmt: skip
