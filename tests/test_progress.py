"""What long work shows on a narrow terminal, and before anything is done."""

import pytest

from mipo_mlx import progress


def drawn(width, monkeypatch, capsys, label="training", note="loss 0.693  accuracy 0.50"):
    monkeypatch.setenv("COLUMNS", str(width))
    with progress._rich_bar(label, 288, "steps", None) as bar:
        bar.begin -= 100
        bar.advance(120, note)
    return capsys.readouterr().err.rstrip("\n")


@pytest.mark.parametrize("width, bar, note", [(120, True, True), (80, True, False), (60, False, False), (40, False, False)])
def test_a_narrow_terminal_loses_the_note_then_the_bar_never_the_label(width, bar, note, monkeypatch, capsys):
    line = drawn(width, monkeypatch, capsys)
    assert line.startswith("  training ") and "120/288 steps" in line and "\n" not in line
    assert ("loss 0.693  accuracy 0.50" in line) == note and (("\u2501" in line) or ("---" in line)) == bar
    assert ("2:20 left" in line) == (width >= 60)


def test_nothing_is_foretold_before_a_part_is_done():
    texts = []
    bar = progress.Bar("sampling", 24, "answers", lambda bar: texts.append(bar.text()))
    bar.skip(8)
    bar.advance(4)
    assert texts[0] == "8/24 answers" and " left" in texts[1] and "?" not in texts[1]
