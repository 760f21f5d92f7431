"""`mipo-mlx update`: notes that change are used by the next question, also of a talk that goes on."""

from click.testing import CliRunner

from mipo_mlx.cli import main
from mipo_mlx.files import write_json
from mipo_mlx.progress import Reporter
from mipo_mlx.run import existing_run
from mipo_mlx.serving.assistant import Assistant, Wishes
from mipo_mlx.sources import changes

from .test_chat import COOK, trained, with_notes

__all__ = ["trained", "with_notes"]
TEA = "Which kinds of tea do I have in tins?"


def update(folder, *options: str, expect: int = 0) -> list[str]:
    result = CliRunner().invoke(main, ["update", str(folder), "--quiet", *options])
    assert result.exit_code == expect, result.output
    return result.output.splitlines()


def test_each_kind_of_change_is_one_line_and_the_talk_that_goes_on_uses_it(with_notes, tmp_path):
    run, notes = existing_run(with_notes, tmp_path), tmp_path / "notes"
    hashes = changes.hashes(run.recipe.sources)
    write_json(with_notes / "manifest.json", {"stages": {**run.manifest["stages"], "sources": {"summary": {"hashes": hashes}}}})
    assert update(with_notes) == ["memory: new: 4 files (bees.md, choir.md, knee.md, ...)", "memory: 4 passages of 4 files"]
    talk = Assistant(with_notes, run.recipe, Wishes(), Reporter(quiet=True))
    assert [match.place for match in talk.background(COOK).matches] == ["soup.md:3"] and not talk.background(TEA).matches
    (notes / "tea.md").write_text("# Tea\n\nI have thirty-one kinds of tea in tins on a shelf.\n")
    (notes / "knee.md").write_text("# Knee\n\nMy right knee is well again since the operation of last spring.\n")
    (notes / "soup.md").unlink()
    kinds = ["new: 1 file (tea.md)", "changed: 1 file (knee.md)", "gone: 1 file (soup.md)"]
    advice = f"`mipo-mlx update {with_notes} --train` trains on what is new and changed"
    said = update(with_notes)
    assert said[:3] == [f"memory: {kind}" for kind in kinds] and said[3] == "memory: 4 passages of 4 files"
    assert said[4:] == [*(f"since training: {kind}" for kind in kinds), advice]
    assert [match.place for match in talk.background(TEA).matches] == ["tea.md:3"] and not talk.background(COOK).matches
    assert update(with_notes)[0] == "memory: nothing has changed; 4 passages of 4 files"


def test_a_run_without_notes_has_nothing_to_update(trained):
    assert "has no notes of its owner" in update(trained, expect=2)[-1]
