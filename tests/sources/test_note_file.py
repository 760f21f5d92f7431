"""Which files are read, and as what: hidden folders, links, encodings, sizes."""

import os

import pytest

from mipo_mlx.sources import encodings
from mipo_mlx.sources.decode import decode
from mipo_mlx.sources.note import Skip, Tally
from mipo_mlx.sources.note_file import NoteFile
from mipo_mlx.sources.walk import walk


def names(root) -> tuple[list[str], Tally]:
    tally = Tally()
    return [file.source for file in walk(root, tally)], tally


@pytest.fixture
def vault(tmp_path):
    for name in "b.md a/x.md a/y/z.txt .git/config .obsidian/app.json .trash/old.md Trash/older.md .hidden.md".split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    return tmp_path


def test_hidden_folders_and_trash_are_left_alone(vault):
    found, tally = names(vault)
    assert found == ["b.md", "a/x.md", "a/y/z.txt"]
    assert tally.left_alone["hidden or trash"] == 5


def test_links_that_loop_are_left_alone(vault):
    (vault / "a" / "up").symlink_to(vault)
    (vault / "0").symlink_to(vault / "a")
    (vault / "root").symlink_to("/")
    (vault / "self").symlink_to(vault / "self")
    found, tally = names(vault)
    assert found == ["b.md", "a/x.md", "a/y/z.txt"]
    assert tally.left_alone["links that loop or repeat"] == 3
    assert tally.left_alone["broken links and special files"] == 1


def test_a_linked_folder_elsewhere_is_read_once(vault, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "new.md").write_text("text")
    (other / "back").symlink_to(vault)
    (vault / "one").symlink_to(other)
    (vault / "two").symlink_to(other)
    assert names(vault)[0] == ["b.md", "a/x.md", "a/y/z.txt", "one/new.md"]


def test_logseq_keeps_its_backups_to_itself(vault):
    (vault / "logseq" / "bak").mkdir(parents=True)
    (vault / "logseq" / "config.edn").write_text("{}")
    (vault / "logseq" / "bak" / "old.md").write_text("text")
    assert "logseq/bak/old.md" not in names(vault)[0]


def test_folders_of_runs_are_left_alone(vault, tmp_path_factory):
    """A run trains on notes, never on its own recipe, samples and report; a recipe alone makes no run."""
    made = tmp_path_factory.mktemp("made")
    for folder in (vault / "runs" / "one", vault / "runs" / "two", made, vault / "cooking"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.html").write_text("text")
        (folder / "recipe.yaml").write_text("model: x")
        if folder.name != "cooking":
            (folder / "manifest.json").write_text("{}")
    (vault / "linked").symlink_to(made)
    found, tally = names(vault)
    assert found == ["b.md", "a/x.md", "a/y/z.txt", "cooking/recipe.yaml", "cooking/report.html"]
    assert tally.left_alone["folders of runs"] == 3


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        ("Grüße".encode(), "Grüße", "utf-8"),
        ("Grüße".encode("utf-8-sig"), "Grüße", "utf-8"),
        ("Grüße".encode("utf-16"), "Grüße", "utf-16"),
        ("Grüße".encode("utf-32"), "Grüße", "utf-32"),
        (
            "Grüße an die Tante, “zu Haus” ist es nicht so still.".encode("cp1252"),
            "Grüße an die Tante, “zu Haus” ist es nicht so still.",
            "windows-1252",
        ),
        ("é".encode() * 9 + b"\nbroken \xff\n" + "é".encode(), "é" * 9 + "\n\né", "utf-8 without its broken lines"),
        (b"", "", "utf-8"),
    ],
)
def test_decode(data, text, encoding):
    assert decode(data) == (text, encoding)


@pytest.mark.parametrize("piece", [b"1", b"1\xe9", b"a:\xe9", b"\xe9", b"\xb5\xc4", b" \xe9"])
def test_the_encoding_of_an_endless_line_is_found_in_its_beginning(piece):
    """It took 7 s a megabyte where the line had no space."""
    sample = encodings._sample(piece * 200_000 + b"\xe9")
    assert 0.9 * encodings.SAMPLE < len(sample) <= encodings.SAMPLE and (piece * 20_000).startswith(sample)


@pytest.mark.parametrize("sign", ["，", ", ", "。我在", "1 "])
@pytest.mark.parametrize("encoding, name", [("gbk", "gb18030"), ("big5", "big5")])
def test_a_long_line_in_characters_of_two_bytes_is_read(sign, encoding, name):
    text = f"我在他人中{sign}" * 3_000
    assert decode(text.encode(encoding)) == (text, name)


@pytest.mark.parametrize("data", [b"PNG\0\0\1", bytes(range(1, 32)) * 9, b"\xff\xfea", "привет мир".encode("koi8-r")])
def test_what_is_not_text_is_skipped(data):
    with pytest.raises(Skip):
        decode(data)


def test_a_large_file_is_skipped_with_its_size(tmp_path):
    big = tmp_path / "big.md"
    with open(big, "wb") as handle:
        handle.truncate(50 << 20)
    with pytest.raises(Skip, match="50 MB"):
        NoteFile.on_disk(big).text(Tally())


def test_files_in_other_encodings_are_named(tmp_path):
    (tmp_path / "old.txt").write_bytes("Käse\r\nund das Brot\rist für mich".encode("cp1252"))
    tally = Tally()
    assert NoteFile.on_disk(tmp_path / "old.txt").text(tally) == "Käse\nund das Brot\nist für mich"
    assert tally.recoded == [{"file": "old.txt", "as": "windows-1252"}]


def test_a_folder_in_which_nobody_may_look_is_no_run_and_ends_nothing(vault, monkeypatch):
    real = os.stat

    def refuse(path, *args, **kwargs):
        if os.fspath(path).endswith(("recipe.yaml", "manifest.json")):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr("os.stat", refuse)
    before = Tally()
    assert list(walk(vault, before)) and not before.left_alone["folders of runs"]


def test_a_file_that_may_not_be_read_is_skipped(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # root may read everything, so the mode bits would prove nothing
    with pytest.raises(Skip, match="permission"):
        NoteFile.on_disk(tmp_path / "a.md").text(Tally())
