"""What long work shows on a narrow terminal, and before anything is done."""

import io

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


@pytest.mark.parametrize(
    ("done", "seconds", "text"),
    [
        (0, 400, "100/1,100 answers"),
        (1, 39, "101/1,100 answers"),  # the first answer takes as long as those beside it
        (49, 299, "149/1,100 answers"),
        (60, 19, "160/1,100 answers"),
        (50, 25, "150/1,100 answers, 2 answers/s, 7:55 left"),
        (10, 400, "110/1,100 answers, 0.025 answers/s, 11:00:00 left"),
        (1000, 10, "1,100/1,100 answers, 100 answers/s in 0:10"),
    ],
)
def test_nothing_is_foretold_before_it_can_be_known(done, seconds, text, monkeypatch):
    bar = progress.Bar("sampling", 1100, "answers", lambda bar: None)
    bar.skip(100)
    bar.advance(done)
    monkeypatch.setattr(progress.time, "monotonic", lambda: bar.begin + seconds)
    assert bar.text() == text


def work(reporter):
    with reporter.stage("[1/2] pairs"):
        reporter.say("  a detail")
        with reporter.track("sampling", total=2, unit="answers") as bar:
            bar.advance(2)
        reporter.conclude("  100 pairs")
    with reporter.stage("[2/2] training", earlier=60):
        reporter.warn("it ended early")
    reporter.say("behind")


def test_a_log_has_one_line_a_stage_and_quiet_has_warnings_only():
    for quiet, lines in (
        (
            False,
            [
                "[1/2] pairs: 100 pairs; 0:00",
                "[2/2] training",
                "warning: it ended early",
                "[2/2] training: 0:00, 1:00 in all",
                "behind",
            ],
        ),
        (True, ["warning: it ended early"]),
    ):
        stream = io.StringIO()
        work(progress.Reporter(quiet, stream))
        assert stream.getvalue().splitlines() == lines


def test_a_stage_is_named_in_the_log_while_it_works_and_its_line_ends_where_it_fails():
    stream = io.StringIO()
    reporter = progress.Reporter(stream=stream)
    with pytest.raises(ValueError), reporter.stage("[1/2] pairs"):
        assert stream.getvalue() == "[1/2] pairs"
        raise ValueError
    reporter.say("behind")
    assert stream.getvalue() == "[1/2] pairs\nbehind\n"
