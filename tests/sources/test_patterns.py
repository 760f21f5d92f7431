"""Patterns that a vault or a recipe brings: none takes long, whatever name it meets, and what nobody understands is named."""

import json
import os
import time
import zipfile

import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Sources
from mipo_mlx.sources import vault as settings
from mipo_mlx.sources.choice import BY_RECIPE, BY_VAULT, rule
from mipo_mlx.sources.gather import read_notes
from mipo_mlx.sources.note import Tally
from mipo_mlx.sources.patterns import Linear, compiled
from mipo_mlx.sources.walk import walk

NAME = f"a/{'a' * 200}!.md"
HOSTILE = ["(a+)+$", "(a|a)*b$", "(a|aa)+$", "(.*a){20}$", "(?:a?){40}a{40}$", "(x+x+)+y", "^(([a-z])+.)+[0-9]([a-z])+$", "(a*)*b"]


def vault(tmp_path, filters: list[str], names: list[str]) -> None:
    (tmp_path / ".obsidian").mkdir(parents=True)
    (tmp_path / ".obsidian" / "app.json").write_text(json.dumps({"userIgnoreFilters": filters}))
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("I keep bees.")


def names_of(tmp_path, tally: Tally) -> list[str]:
    return sorted(file.source for file in walk(tmp_path, tally))


def rules(files: dict[str, str], tally: Tally) -> list:
    return settings.rules_of(files.get, "", tally)


@pytest.mark.parametrize("pattern", HOSTILE)
def test_an_endless_filter_of_a_vault_ends(tmp_path, pattern):
    vault(tmp_path, [f"/{pattern}/", "Private/", "/diary/"], [NAME, "Private/a.md", "b diary.md", "c.md"])
    begin, tally = time.process_time(), Tally()
    kept = names_of(tmp_path, tally)
    assert time.process_time() - begin < 5
    assert kept == ["a/" + "a" * 200 + "!.md", "c.md"]
    assert tally.left_alone[BY_VAULT] == 2 and tally.skipped == []


def test_filters_mean_what_they_do_in_obsidian(tmp_path):
    filters = [r"/\d{4}-\d\d.*\.md$/", "/^(?!Keep)x/", r"/(?<kind>draft)s?\/(old|new)+/", r"/\u0061sked/", "Work/", r"/\.canvas$/"]
    names = ["2024-05-01.md", "x.md", "Keep.md", "DRAFTS/oldnew.md", "Asked.md", "work/a.md", "Homework/a.md", "2024.md"]
    vault(tmp_path, filters, names)
    assert names_of(tmp_path, Tally()) == ["2024.md", "Homework/a.md", "Keep.md"]


def test_a_filter_is_seen_from_its_own_vault(tmp_path):
    vault(tmp_path / "of (me)" / "v", ["/^Private/", "Old"], ["Private.md", "Old.md", "a/Private.md", "New.md"])
    (tmp_path / "Private.md").write_text("I row.")
    assert names_of(tmp_path, Tally()) == ["Private.md", "of (me)/v/New.md", "of (me)/v/a/Private.md"]


@pytest.mark.parametrize(
    "filter", ["/(/", "/(?=.*a)(?=.*b)c*/", "/(a+)\\1+b*/", f"/{'(a|b)*' * 900}/", f"/{'(' * 900}/", "/((a{900}){900})*/"]
)
def test_a_filter_that_nobody_understands_is_named(filter):
    tally = Tally()
    assert rules({".obsidian/app.json": json.dumps({"userIgnoreFilters": [filter, "b.md"]})}, tally)[0].holds("b.md", None)
    [row] = tally.skipped
    assert row["file"] == ".obsidian/app.json" and "leaves nothing out; write one into sources.exclude" in row["why"]


def test_where_filters_take_too_long_files_are_skipped_and_named(tmp_path, monkeypatch):
    """A file that the owner may have left out is never read."""
    monkeypatch.setattr(settings, "PATIENCE", 0.0)
    vault(tmp_path / "v", ["a.md"], ["b.md"])
    (tmp_path / "c.md").write_text("I row.")
    tally = Tally()
    assert names_of(tmp_path, tally) == ["c.md"]
    assert tally.skipped[0]["file"] == "v/b.md" and "their patterns take too long" in tally.skipped[0]["why"]
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("w/.obsidian/app.json", '{"userIgnoreFilters": ["a.md"]}')
        archive.writestr("w/b.md", "I sing.")
    tally = Tally()
    notes = read_notes(Sources(notes=str(tmp_path)), tally, Reporter(quiet=True))
    assert [note.source for note in notes] == ["c.md"] and {row["file"] for row in tally.skipped} == {"v/b.md", "w.zip"}


@pytest.mark.parametrize("settings_file", [".obsidian/app.json", "logseq/config.edn", ".vscode/settings.json"])
@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_settings_that_are_broken_in_an_archive_leave_its_notes(tmp_path, settings_file, packed):
    with zipfile.ZipFile(tmp_path / "w.zip", "w", packed) as archive:
        archive.writestr(settings_file, "{}" * 90)
        archive.writestr(".obsidian/x", "")
        archive.writestr("b.md", "I sing.")
        broken = archive.getinfo(settings_file).header_offset
    data = bytearray((tmp_path / "w.zip").read_bytes())
    for first, last in ((0, 4), (30 + len(settings_file), 50 + len(settings_file))):  # its header, then its content
        spoilt = bytearray(data)
        spoilt[broken + first : broken + last] = b"\xff" * (last - first)
        (tmp_path / "w.zip").write_bytes(spoilt)
        assert [note.source for note in read_notes(Sources(notes=str(tmp_path)), Tally(), Reporter(quiet=True))] == ["w.zip/b.md"]


@pytest.mark.parametrize(
    "pattern", ["*a" * 40 + "b", "**/" * 30 + "b.md", "**a" * 40 + "b", "?*" * 40 + "b", "/" + "*a*/" * 9 + "b"]
)
def test_a_glob_of_a_recipe_or_of_foam_ends(pattern):
    for name in (f"{'a' * 250}.md", f"{'a/' * 200}a.md", f"{'aaaa/' * 20}a.md"):
        begin = time.process_time()
        assert not rule(pattern, BY_RECIPE).holds(name, None)
        assert time.process_time() - begin < 1
        foam = {".vscode/settings.json": json.dumps({"foam.files.ignore": [pattern]})}
        assert not rules(foam, Tally())[0].holds(name, None)


def test_globs_with_many_wildcards_mean_the_same():
    assert isinstance(rule("*a*b*.md", BY_RECIPE).path, Linear)
    for pattern, fits, other in (
        ("*a*b*.md", ["xaxbx.md", "deep/AB.md"], ["ba.md", "a/b.md"]),
        ("**/x/**/y?*.md", ["x/y1.md", "a/b/x/c/d/yyy.md"], ["x/y.md", "ax/y1.md"]),
        ("a+(b)*?*é[1]*.md", ["a+(b)x.é[1].md"], ["aab1.md"]),
    ):
        assert all(rule(pattern, BY_RECIPE).holds(name, None) for name in fits)
        assert not any(rule(pattern, BY_RECIPE).holds(name, None) for name in other)


def test_a_pattern_of_endless_length_is_refused():
    with pytest.raises(UserError, match="1,000 characters at most"):
        rule("*a" * 10_000, BY_RECIPE)
    tally = Tally()
    files = {".obsidian/templates.json": json.dumps({"folder": "*a" * 10_000}), ".obsidian/app.json": "{}"}
    assert rules(files, tally) == [] and "1,000 characters at most" in tally.skipped[0]["why"]
    with pytest.raises(ValueError, match="longer than 1,000"):
        compiled("a" * 1001)


@pytest.mark.parametrize(
    "config", [":hidden [" * 100_000, "\n" * 500_000 + "x", " " * 500_000, ':pages-directory "' * 50_000, ";" * 900_000]
)
def test_settings_of_any_length_are_read_in_time(config):
    begin = time.process_time()
    rules({"logseq/config.edn": config, ".obsidian/app.json": config, ".vscode/settings.json": config}, Tally())
    assert time.process_time() - begin < 2


def test_pipes_in_place_of_settings_are_never_waited_for(tmp_path):
    (tmp_path / ".obsidian").mkdir()
    (tmp_path / "logseq").mkdir()
    for name in (".obsidian/app.json", "logseq/config.edn"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "a.md").write_text("I keep bees.")
    assert names_of(tmp_path, Tally()) == ["a.md"]
