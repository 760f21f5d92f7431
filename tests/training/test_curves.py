"""Sparklines by hand; what a terminal, a log and --quiet show of a training."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Training
from mipo_mlx.training import monitor, train
from mipo_mlx.training.monitor import Curves, sparkline
from tests.conftest import build_model, tiny_config
from tests.training.test_train import VALIDATION, fresh, make_pairs


def test_a_sparkline_by_hand():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([3, 1], 8) == "█▁" and sparkline([3, 1], 8, unicode=False) == "#_"
    assert sparkline([5, 5, 5], 8) == "▅▅▅"
    assert sparkline([0, 0, 4, 4, 8, 8], 3) == "▁▅█"  # means of two each
    assert len(sparkline(list(range(1000)), 48)) == 48


def test_lines_hold_the_first_and_the_latest_value_and_fit():
    drawn = Curves()
    assert drawn.lines(80) == []
    drawn.watch({"step": 0, "validation_loss": 0.693, "validation_accuracy": 0.5, "validation_margin": 0.0, "validation_kl": 0.0})
    for step in range(1, 60):
        drawn.watch({"step": step, "loss": 0.7 - 0.005 * step, "accuracy": 0.5})
    drawn.watch({"step": 59, "loss": None, "validation_loss": 0.5, "validation_accuracy": 0.8})
    for width in (120, 80, 44, 20):
        lines = drawn.lines(width)
        assert len(lines) == 5 and all(len(line) <= width for line in lines)
    first = drawn.lines(80)[0].split()
    assert first[0] == "loss" and first[1] == "0.695" and first[-1] == "0.405" and len(first[2]) == 38
    assert drawn.lines(80)[2].split() == ["validation", "accuracy", "0.50", "▁█", "0.80"]
    assert drawn.lines(80, unicode=False)[2].split()[-2] == "_#"


def logged(**options):
    stream = io.StringIO()
    model = fresh()
    base = build_model(tiny_config())
    settings = Training(learning_rate=1e-3, evaluate_every=3, max_kl=None)
    validation = make_pairs(base, grids=2, split=VALIDATION, seed=9)
    job = train.Job(make_pairs(base), validation, settings, options.pop("folder"), seed=0, budget=512, pad=0)
    train.train(model, job, train.Watch(Reporter(stream=stream, **options)))
    return stream.getvalue()


def test_a_log_has_plain_lines_of_the_validations_and_quiet_has_none(tmp_path):
    (tmp_path / "log").mkdir()
    lines = logged(folder=tmp_path / "log").splitlines()
    validated = [line for line in lines if "validation loss" in line]
    assert [line.split(":")[0].strip() for line in validated] == ["step 0", "step 3", "step 6"]
    assert "validation loss 0.693, validation accuracy 0.50, validation margin 0.000, validation drift 0.0000" in validated[0]
    assert not re.search("[▁-█]|\x1b", "".join(lines))
    (tmp_path / "quiet").mkdir()
    assert logged(folder=tmp_path / "quiet", quiet=True) == ""


SCRIPT = """
import time
from mipo_mlx.progress import Reporter
from mipo_mlx.training.monitor import Curves
curves = Curves()
with Reporter().track("training", 12, "steps", curves.lines) as bar:
    for step in range(1, 13):
        curves.watch({"step": step, "loss": 0.7 - 0.02 * step})
        bar.advance(1, "loss")
    time.sleep(0.3)
"""


@pytest.mark.parametrize("locale, ramp", [("C.UTF-8", monitor.RAMPS[True]), ("ascii", monitor.RAMPS[False])])
def test_a_terminal_shows_the_curve_beneath_the_bar(locale, ramp):
    ours, theirs = pty.openpty()
    encoding = "utf-8" if locale == "C.UTF-8" else "ascii"
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONIOENCODING": encoding}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=theirs, stdin=theirs, stdout=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    assert process.wait(timeout=60) == 0, shown.decode(errors="replace")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    last = [line for line in re.split(r"[\r\n]+", text) if line.strip().startswith("loss ")][-1]
    assert (
        last.split()[1] == "0.680"
        and last.split()[-1] == "0.460"
        and last.split()[2] == sparkline([0.7 - 0.02 * s for s in range(1, 13)], 48, ramp == monitor.RAMPS[True])
    )
    assert "12/12 steps" in text
