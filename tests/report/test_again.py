"""The page of a real run of a tiny model: written anew when a stage is done alone, and whenever it is asked for."""

import re
from dataclasses import replace

import pytest
from click.testing import CliRunner

from mipo_mlx import recipe_loading, run
from mipo_mlx.cli import main
from mipo_mlx.evaluation import evaluate as evaluation
from mipo_mlx.evaluation.outcome import Judged, Outcome
from mipo_mlx.files import read_json
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Evaluation
from mipo_mlx.training import train as training
from tests.test_kill import RECIPE, write_notes

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def opened(tiny_folder, tmp_path_factory):
    """A finished run, in a folder of runs."""
    home = tmp_path_factory.mktemp("again")
    write_notes(home / "notes")
    small = ["pairs.grids=6", "pairs.heldout_grids=3", "pairs.max_tokens=4", "training.epochs=1", "evaluation.unprompted=2"]
    small += [
        "evaluation.answers=6",
        "evaluation.everyday=0",
        "evaluation.kinds=0",
        "evaluation.preferences=0",
        "evaluation.leak_contexts=0",
        "export.fidelity=0",
    ]
    values = recipe_loading.parse(RECIPE.format(model=tiny_folder, notes=home / "notes"), overrides=small)
    opened = run.open_run(values, "one", home / "runs", fresh=False)
    run.prepare(opened, fresh=False)
    run.execute(opened, "report", QUIET)
    return opened


def command(opened, *arguments, expect=0):
    result = CliRunner().invoke(main, [*map(str, arguments), "--runs", str(opened.folder.parent), "--quiet"])
    assert result.exit_code == expect, result.output
    return result.output


def page(opened):
    return (opened.folder / "report.html").read_text(encoding="utf-8")


def test_a_stage_that_is_done_alone_leaves_a_page_that_agrees_with_it(opened):
    assert "answers: 6\n" in page(opened) and "6 a side" in page(opened)
    command(opened, "eval", "one", "--set", "evaluation.answers=12")
    assert "12 a side" in page(opened) and "answers: 12\n" in page(opened)  # the recipe tells what it was made with
    assert opened.done("report") and "answers: 6\n" in (opened.folder / "recipe.yaml").read_text()
    assert "llama-cli" in page(opened) and "mlx_lm.generate" not in page(opened)
    command(opened, "fuse", "one")
    assert "mlx_lm.generate" in page(opened)
    command(opened, "export", "one", "--type", "q8_0")
    assert "r-q8_0.gguf" in page(opened)
    listed = dict(re.findall(r"<td>([^<]*)</td><td>([0-9a-f]{64})</td>", page(opened)))
    assert {"r-f16.gguf", "r-q8_0.gguf", "fused/model.safetensors", "prompts.jsonl"} <= listed.keys()
    assert all(run.sha256(opened.folder / name) == digest for name, digest in listed.items())
    assert '<th scope="col">SHA-256</th>' in page(opened)
    (opened.folder / "report.html").unlink()
    command(opened, "export", "one", "--type", "q8_0")
    assert not (opened.folder / "report.html").exists()  # none where there was none
    command(opened, "report", "one")


def test_what_is_taken_over_from_an_evaluation_before_keeps_its_settings():
    before = Evaluation(judge="base", baselines=True, answers=9)
    then = before.model_dump(mode="json")
    result = Outcome("x", judged=Judged("base", None, "pairwise", 0, 0, 0, 0, 0), baselines={})
    results = evaluation.settings_of(Evaluation(answers=12), then, result)
    assert (results["judge"], results["baselines"], results["answers"]) == ("base", True, 12)
    assert evaluation.settings_of(Evaluation(judge="other"), then, result)["judge"] == "other"
    assert evaluation.settings_of(Evaluation(), {}, Outcome("x"))["judge"] is None


def test_a_page_is_made_before_and_during_the_training_and_the_evaluation(opened, monkeypatch):
    early = run.open_run(opened.recipe, "early", opened.folder.parent, fresh=False)
    run.prepare(early, fresh=False)
    assert "pairs is not finished" in command(early, "report", "early", expect=2)
    run.execute(early, "pairs", QUIET)
    command(early, "report", "early")
    assert "Not evaluated yet: training is not finished" in page(early) and "What it learned from" in page(early)
    fit = training.fit

    def stopped(*arguments):
        fit(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.execute(early, "training", QUIET)
    assert early.manifest["stages"]["training"]["state"] == "started"
    command(early, "report", "early")
    assert "Not evaluated yet: training is not finished" in page(early) and 'id="training"' in page(early)
    monkeypatch.undo()
    run.execute(early, "training", QUIET)
    command(early, "report", "early")
    assert "Not evaluated yet: run mipo-mlx eval on this run." in page(early)


def test_an_interrupted_evaluation_of_a_finished_run_leaves_it_finished(opened, monkeypatch):
    before = page(opened)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "_evaluate", interrupted)
    message = command(opened, "eval", "one", "--set", "evaluation.answers=14", expect=130)
    assert "stopped" in message and opened.done("evaluation") and opened.done("report")
    command(opened, "report", "one")
    assert re.findall("<p class=.verdict.*", page(opened)) == re.findall("<p class=.verdict.*", before)

    def half_written(folder, *arguments):
        (folder / "eval.json").write_text("{}")
        raise KeyboardInterrupt

    whole = (opened.folder / "eval.json").read_bytes()
    monkeypatch.setattr(evaluation, "_evaluate", half_written)
    command(opened, "eval", "one", "--set", "evaluation.answers=15", expect=130)
    assert not opened.done("evaluation")
    (opened.folder / "eval.json").write_bytes(whole)


def test_the_work_of_interrupted_sessions_counts(tmp_path, monkeypatch):
    opened = run.open_run(recipe_loading.parse("model: x"), "one", tmp_path, fresh=False)
    run.prepare(opened, fresh=False)
    clock = iter([0, 0, 100, 1000, 1000, 1025, 1025])  # the run and its reporter look at it
    monkeypatch.setattr(run.time, "monotonic", lambda: next(clock))
    ends = iter([KeyboardInterrupt, None])

    def compute(*arguments):
        end = next(ends)
        if end:
            raise end
        for name in run.STAGES["sources"].writes:
            (opened.folder / name).write_text("")
        return {}

    monkeypatch.setitem(run.STAGES, "sources", replace(run.STAGES["sources"], start=compute))
    with pytest.raises(KeyboardInterrupt):
        run.run_stage(opened, "sources", QUIET)
    assert opened.manifest["stages"]["sources"] == {"state": "started", "seconds": 100}
    run.run_stage(opened, "sources", QUIET)
    assert opened.manifest["stages"]["sources"]["seconds"] == 125
    command(opened, "report", "one", expect=2)


def test_the_hash_of_the_prompts_is_that_of_the_file_after_questions_were_added(opened):
    entry = read_json(opened.folder / "manifest.json")["stages"]["pairs"]["sha256"]
    assert entry["prompts.jsonl"] == run.sha256(opened.folder / "prompts.jsonl")
