"""Rows of JSONL and JSON as contexts."""

import pytest

from mipo_mlx import recipe_loading
from mipo_mlx.errors import UserError
from mipo_mlx.progress import Reporter
from mipo_mlx.records import HELDOUT, TRAIN
from mipo_mlx.sources import read as stage
from mipo_mlx.sources.note import Tally
from mipo_mlx.sources.note_file import NoteFile
from mipo_mlx.sources.readers.rows import read_rows
from mipo_mlx.sources.split import sentences


def read(tmp_path, content: str, name: str = "rows.jsonl", columns=None):
    (tmp_path / name).write_text(content)
    return read_rows(NoteFile.on_disk(tmp_path / name), Tally(), columns)


def test_rows_are_whole_notes(tmp_path):
    notes = read(tmp_path, '{"id": "a", "context": "I bake.\\nI sing."}\n\n{"text": "I row."}\n{"context": " "}\n')
    assert [(n.name, n.blocks[0].text, n.blocks[0].line, n.whole) for n in notes] == [
        ("a", "I bake. I sing.", 1, True),
        ("rows.jsonl:3", "I row.", 3, True),
    ]


def test_rows_without_a_text_are_left_out_and_counted(tmp_path):
    """A null is no text, and an owner of null is nobody's name."""
    rows = '{"text": null}\n{"text": "I row.", "who": null}\n{"text": "I sing.", "who": null}\n{"text": "", "who": "a"}\n'
    (tmp_path / "rows.jsonl").write_text(rows)
    tally = Tally()
    notes = read_rows(NoteFile.on_disk(tmp_path / "rows.jsonl"), tally, {"note": "who"})
    assert [note.name for note in notes] == ["rows.jsonl:2", "rows.jsonl:3"]
    assert tally.left_alone == {"rows without a context": 2}
    assert read(tmp_path, rows, columns={"context": "text"})[0].name == "rows.jsonl:2"


def test_columns_choose(tmp_path):
    row = '{"context": "wrong", "about": "I bake.", "who": 7}'
    assert read(tmp_path, row, columns={"context": "about", "note": "who"})[0].name == "7"
    assert read(tmp_path, row, columns={"context": "about"})[0].blocks[0].text == "I bake."
    assert read(tmp_path, f"[{row}]", "rows.json")[0].blocks[0].text == "wrong"


@pytest.mark.parametrize(
    ("content", "columns", "told"),
    [
        ('\n{"context"\n{"text": "a"\n', None, "rows.jsonl:2: not valid JSON"),
        ('{"bio": "a"}', None, "rows.jsonl:1: none of the columns context, text, profile, persona has text; found bio: name the"),
        ('{"bio": "a"}', {"context": "about"}, "rows.jsonl:1: column about is missing; found bio"),
        ('{"context": 3}', {"context": "context"}, "rows.jsonl:1: column context: expected text, found int"),
        ('{"context": "a"}', {"note": "who"}, "rows.jsonl:1: column who is missing"),
        ("[1]", None, "rows.jsonl:1: expected an object"),
        ("\0", None, "not text"),
    ],
)
def test_bad_rows(tmp_path, content, columns, told):
    with pytest.raises(UserError) as error:
        read(tmp_path, content, columns=columns)
    assert told in str(error.value)


def test_personas_share_no_sentence_across_the_split(shared_data):
    file = shared_data / "contexts_spc.jsonl"
    if not file.exists():
        pytest.skip("contexts_spc.jsonl is not beside this checkout")
    made = recipe_loading.parse("model: none", overrides=[f"sources.notes={file}"])
    contexts, _, row = stage.collect(made, lambda text: len(text.split()), Reporter(quiet=True))
    texts = {side: set().union(*(sentences(c.text) for c in contexts if c.split == side)) for side in (TRAIN, HELDOUT)}
    assert not texts[TRAIN] & texts[HELDOUT]
    assert (row[TRAIN]["contexts"], row[HELDOUT]["contexts"]) == (300, 100)
    assert all("\n" not in context.text for context in contexts)
