"""Notes that change under a running server: after `mipo-mlx update` of another process, and by itself with --watch."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from mipo_mlx import run as runs
from mipo_mlx.cli import main
from mipo_mlx.memory.index import Index
from mipo_mlx.memory.retrieve import Memory
from mipo_mlx.progress import Reporter
from mipo_mlx.serving import watch
from tests.commands.test_chat import COOK, run_with_notes

from .conftest import Address, serving

TEA = "Which kinds of tea do I have in tins?"
RICE = "Where are my jars of rice?"
TINS = "# Tea\n\nI have thirty-one kinds of tea in tins on a shelf.\n"


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    return run_with_notes(tmp_path, tiny_folder)


def used(server: Address, question: str) -> list[str]:
    """The notes that went with an answer."""
    body = {"model": server.name, "messages": [{"role": "user", "content": question}], "max_tokens": 1}
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    return [source["file"] for source in answer.json()["mipo_sources"]]


def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds. The test's own time limit ends an endless wait."""
    while not holds():
        time.sleep(0.02)


def test_servers_use_a_new_note_with_the_first_answer_after_update(folder, tmp_path):
    """Two servers of one run, neither with --watch; each of them first remembers the notes as they were."""
    with serving(folder) as one, serving(folder) as other:
        assert used(one, COOK) == used(other, COOK) == ["soup.md"] and used(one, TEA) == used(other, TEA) == []
        (tmp_path / "notes" / "tea.md").write_text(TINS)
        (tmp_path / "notes" / "soup.md").unlink()
        assert used(one, TEA) == []  # nobody has taken it in yet
        updated = CliRunner().invoke(main, ["update", str(folder), "--quiet"])
        assert updated.exit_code == 0, updated.output
        assert used(one, TEA) == used(other, TEA) == ["tea.md"] and used(one, COOK) == used(other, COOK) == []


def test_a_server_that_watches_follows_each_kind_of_change(folder, tmp_path):
    notes, lines = tmp_path / "notes", list[str]()
    with serving(folder, watch=lines) as server, serving(folder) as other:
        assert used(server, COOK) == ["soup.md"] and used(server, TEA) == []
        (notes / "tea.md").write_text(TINS)
        until(lambda: used(server, TEA) == ["tea.md"])
        assert used(other, TEA) == ["tea.md"]
        assert used(server, RICE) == []
        (notes / "tea.md").write_text("# Rice\n\nNineteen jars of rice stand in the cellar.\n")
        until(lambda: used(server, RICE) == ["tea.md"])
        (notes / "soup.md").rename(notes / "broth.md")
        until(lambda: used(server, COOK) == ["broth.md"])
        notes.rename(tmp_path / "elsewhere")
        until(lambda: lines[-1].endswith("; the notes are remembered as they were"))
        assert used(server, COOK) == ["broth.md"]
        (tmp_path / "elsewhere").rename(notes)
        (notes / "broth.md").unlink()
        until(lambda: used(server, COOK) == [])
    kinds = [line.partition(" (")[0] for line in lines]
    assert kinds[:2] == ["memory: new: 1 file", "memory: changed: 1 file"] and kinds[-1] == "memory: gone: 1 file"
    assert len([line for line in lines if line.endswith("as they were")]) == 1


def test_a_look_sees_names_sizes_times_and_the_owners_choice(folder, tmp_path):
    sources = runs.existing_run(folder, tmp_path).recipe.sources
    note, seen = tmp_path / "notes" / "soup.md", [watch.stamps(folder, sources)]
    assert watch.stamps(folder, sources) == seen[0]
    note.rename(note.with_name("stew.md"))
    seen.append(watch.stamps(folder, sources))
    note.with_name("stew.md").write_text(note.with_name("stew.md").read_text() + "More.\n")
    seen.append(watch.stamps(folder, sources))
    os.utime(note.with_name("stew.md"), ns=(0, 12345))
    seen.append(watch.stamps(folder, sources))
    (folder / "notes-choice.jsonl").write_text("{}\n")
    assert len({*seen, watch.stamps(folder, sources)}) == 5


def test_several_that_open_a_memory_which_is_not_there_make_one(folder, tmp_path):
    recipe = runs.existing_run(folder, tmp_path).recipe

    def open_and_search(_: int) -> list[str]:
        index = Index(folder / "memory.sqlite")
        index.refresh(recipe, lambda text: len(text.split()), Reporter(quiet=True))
        places = [match.place for match in Memory(index).search(COOK)]
        assert index.count() == 4
        index.close()
        return places

    for _ in range(5):
        (folder / "memory.sqlite").unlink(missing_ok=True)
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(open_and_search, range(6))) == [["soup.md:3"]] * 6
