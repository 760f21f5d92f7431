"""What became of notes since a run read them."""

from collections import Counter
from pathlib import Path

import pytest

from mipo_mlx import recipe, run
from mipo_mlx.errors import UserError
from mipo_mlx.progress import Reporter
from mipo_mlx.sources import changes, note_file
from mipo_mlx.sources.gather import read_notes
from mipo_mlx.sources.note import Tally


def test_new_changed_and_gone_notes_are_named(tmp_path):
    for name in ("a.md", "b.md", "c.md"):
        (tmp_path / name).write_text(f"I keep bees, says {name}.")
    sources = recipe.Sources(notes=str(tmp_path))
    before = changes.hashes(sources)
    assert before.keys() == {"a.md", "b.md", "c.md"} and not changes.since(sources, before)
    (tmp_path / "a.md").write_text("I keep hens.")
    (tmp_path / "b.md").unlink()
    for name in "defg":
        (tmp_path / f"{name}.md").write_text("I sing.")
    (tmp_path / "photo.png").write_bytes(b"no note")
    seen = changes.since(sources, before)
    assert seen == changes.Changes(("d.md", "e.md", "f.md", "g.md"), ("a.md",), ("b.md",))
    assert seen.lines() == ["new: 4 files (d.md, e.md, f.md, ...)", "changed: 1 file (a.md)", "gone: 1 file (b.md)"]
    assert not changes.since(sources, {})  # a run of another version, which kept no hashes
    for path in tmp_path.iterdir():
        path.unlink()
    tmp_path.rmdir()
    with pytest.raises(UserError, match="no such folder"):
        changes.since(sources, before)


def in_icloud(monkeypatch, *names):
    """These files have their bytes in iCloud alone; who opens one waits for a download, which fails the test."""

    def opened(path, *rest, **named):
        assert Path(path).name not in names, f"{path} was opened"
        return open(path, *rest, **named)

    monkeypatch.setattr(note_file, "_flags", lambda path: note_file.DATALESS if path.name in names else 0)
    monkeypatch.setattr(note_file, "open", opened, raising=False)


@pytest.mark.parametrize("name", ["b.md", "b.txt", "b.html", "b.json", "b.zip", "b.eml"])
def test_files_in_icloud_are_counted_first_and_never_opened(tmp_path, monkeypatch, name):
    (tmp_path / "a.md").write_text("I keep bees, and I sing to them.")
    (tmp_path / name).write_text("I sing.")
    in_icloud(monkeypatch, name)
    sources, tally, warned = recipe.Sources(notes=str(tmp_path)), Tally(), []
    reporter = Reporter(quiet=True)
    monkeypatch.setattr(reporter, "warn", warned.append)
    notes = read_notes(sources, tally, reporter)
    assert [note.source for note in notes] == ["a.md"]
    assert [skip["file"] for skip in tally.skipped] == [name] and "still in iCloud" in tally.skipped[0]["why"]
    assert len(warned) == 1 and warned[0].startswith("1 of 2 files of notes are in a cloud")


def test_a_note_that_macos_took_to_icloud_has_not_changed(tmp_path, monkeypatch):
    for name in ("a.md", "b.md", "c.md"):
        (tmp_path / name).write_text("I keep bees.")
    sources = recipe.Sources(notes=str(tmp_path))
    before = changes.hashes(sources)
    (tmp_path / "c.md").write_text("I keep hens.")
    in_icloud(monkeypatch, "b.md")
    assert changes.since(sources, before) == changes.Changes((), ("c.md",), ())


@pytest.mark.parametrize("name", ["a.md", "a.txt", "a.html", "a.org", "README.md"])
def test_reading_notes_hashes_them_too_and_a_note_is_opened_once(tmp_path, monkeypatch, name):
    (tmp_path / name).write_text("I keep bees, and I sing to them.")
    (tmp_path / "broken.md").write_bytes(b"\x00\xff\x01" * 50)
    opened = Counter[str]()

    def counted(path, *rest, **named):
        opened[str(path)] += 1
        return open(path, *rest, **named)

    monkeypatch.setattr(note_file, "open", counted, raising=False)
    sources, tally = recipe.Sources(notes=str(tmp_path)), Tally()
    read_notes(sources, tally, Reporter(quiet=True))
    assert set(opened.values()) == {1}
    assert changes.kept(tally.hashes, sources) == changes.hashes(sources) and len(tally.hashes) == 2


def test_names_with_secrets_are_hashed(tmp_path):
    for name in ("ana@example.org.md", "bob@example.org.md"):
        (tmp_path / name).write_text("I keep bees.")
    kept = changes.hashes(recipe.Sources(notes=str(tmp_path)))
    assert len(kept) == 2 and not any("@" in name for name in kept)
    assert any("@" in name for name in changes.hashes(recipe.Sources(notes=str(tmp_path), redact=False)))


def test_a_rerun_warns_and_goes_on(tmp_path, tiny_folder, capsys):
    notes = tmp_path / "notes"
    notes.mkdir()
    for number in range(8):
        (notes / f"{number}.md").write_text(f"I keep {number} bees in the garden of my aunt, and I sing to them on day {number}.")
    values = recipe.Recipe(model=str(tiny_folder), sources=recipe.Sources(notes=str(notes), min_tokens=5))
    opened = run.Run(tmp_path / "run", values)
    opened.folder.mkdir()
    run.prepare(opened, fresh=False)
    run.execute(opened, "sources", Reporter())
    capsys.readouterr()
    (notes / "new.md").write_text("I dance.")
    run.execute(opened, "sources", Reporter())
    warning = capsys.readouterr().err
    assert "new: 1 file (new.md)" in warning and f"`mipo-mlx update {opened.folder} --train`" in warning
    notes.rename(tmp_path / "elsewhere")
    run.execute(opened, "sources", Reporter())
    assert "no such folder or file; the run goes on with the notes as they were" in capsys.readouterr().err
