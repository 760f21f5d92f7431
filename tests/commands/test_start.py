"""What a command's first argument means: a recipe's path or name, or a run; and where runs are."""

import errno
import fcntl
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mipo_mlx import run
from mipo_mlx.cli import main
from mipo_mlx.commands import options, start
from mipo_mlx.commands.options import RunOptions
from mipo_mlx.errors import UserError
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe_loading import load_recipe, parse, shipped
from tests.test_bad_input import home, refused  # noqa: F401

RECIPES = Path(__file__).parent.parent.parent / "recipes"


def begin(target, root, **more):
    opened = start.open_target(RunOptions(target, root, **more))
    run.prepare(opened, fresh=False)
    return opened


def test_built_in_recipes_work_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped() == {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}
    opened = begin("demo", tmp_path / "runs")
    assert opened.folder == tmp_path / "runs" / "demo" and opened.recipe == load_recipe(RECIPES / "demo.yaml")
    (tmp_path / "demo.yaml").write_text("model: mine\n")
    assert load_recipe("demo").model == "mine"  # a file of the working folder wins
    output = CliRunner().invoke(main, ["recipes"]).output
    assert all(f"\n{name}" in f"\n{output}" for name in shipped()) and str(RECIPES) in output


def test_a_run_goes_on_by_its_name_without_its_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs"
    begun = begin("demo", root, sets=("pairs.grids=4",))
    assert begin("demo", root).recipe == begun.recipe and begun.recipe.pairs.grids == 4
    named = begin("demo", root, sets=("pairs.grids=5",), name="five")
    assert begin("five", root).recipe == named.recipe == begin(str(root / "five"), tmp_path).recipe
    with pytest.raises(UserError, match="demo: this run was made from another recipe"):
        begin("demo", root, sets=("pairs.grids=6",))
    with pytest.raises(UserError, match="a run keeps the recipe that it began with"):
        begin("five", root, sets=("pairs.grids=6",))
    with pytest.raises(UserError, match="six: no such recipe and no such run"):
        begin("six", root)


def test_runs_are_in_one_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.delenv("MIPO_RUNS")
    for platform, folder in (("linux", ".local/share/mipo-mlx/runs"), ("darwin", "Library/Application Support/mipo-mlx/runs")):
        monkeypatch.setattr(options.sys, "platform", platform)
        assert options.default_root() == tmp_path / "me" / folder
    (tmp_path / "runs").mkdir()
    assert options.default_root() == Path("runs")
    monkeypatch.setenv("MIPO_RUNS", "~/mine")
    assert options.default_root() == tmp_path / "me" / "mine"


@pytest.mark.parametrize(
    ("sets", "trained", "command"),
    [
        (["evaluation.answers=5"], True, "`mipo-mlx eval r --set evaluation.answers=5`"),
        (["export.gguf=[f16]"], True, "`mipo-mlx export r --set 'export.gguf=[\"f16\"]'`"),
        (
            ["evaluation.judge=base", "export.system=I am."],
            False,
            "`mipo-mlx train r`, then `mipo-mlx eval r --set 'evaluation.judge=\"base\"'`, "
            "then `mipo-mlx export r --set 'export.system=\"I am.\"'`",
        ),
        (["evaluation.answers=5", "seed=3"], True, "pass --fresh"),
    ],
)
def test_a_changed_key_names_the_command_that_suffices(sets, trained, command, tmp_path, monkeypatch):
    kept = run.open_run(parse("model: x\n"), "r", tmp_path)
    run.prepare(kept, fresh=False)
    monkeypatch.setattr(run.Run, "done", lambda self, step: trained)
    with pytest.raises(UserError) as error:
        run.open_run(parse("model: x\n", overrides=sets), "r", tmp_path)
    assert command in str(error.value) and ("--fresh" in str(error.value)) == ("--fresh" in command)


def test_the_dry_run_says_that_a_run_exists_and_goes_on(home):  # noqa: F811
    for more, line in ((["--set", "seed=3"], "pass --fresh"), ([], "goes on with it")):
        begun = run.open_run(load_recipe("r.yaml"), "r", home / "runs")
        run.prepare(begun, fresh=False)
        result = CliRunner().invoke(main, ["train", "r.yaml", "--dry-run", *more])
        assert result.exit_code == 0 and line in result.output.splitlines()[-1], result.output
        shutil.rmtree(begun.folder)
    assert "goes on" not in CliRunner().invoke(main, ["train", "r.yaml", "--dry-run"]).output


@pytest.mark.parametrize("name", ["ENOTSUP", "ENOLCK", "ENOSYS"])
def test_a_disk_without_locks_is_warned_of_and_the_run_goes_on(name, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    number = getattr(errno, name)
    with run.locked(tmp_path, Reporter()):
        pass
    assert f"this disk knows no locks ({os.strerror(number)})" in capsys.readouterr().err
    number = errno.EWOULDBLOCK
    (tmp_path / ".lock").write_text("pid 7")
    with pytest.raises(UserError, match=r"another process \(pid 7\)"), run.locked(tmp_path, Reporter()):
        pass


@pytest.mark.parametrize("module", ["commands.init", "commands.start", "commands.dry_run", "models.load", "run"])
def test_whatever_is_imported_first_mlx_finds_the_fast_blas(module):
    """With MLX imported before, its own matrix library stays, 30 times slower."""
    code = (
        "import sys; from mipo_mlx import backend; started = []; real = backend.start\n"
        "def start(): started.append(1); real()\n"
        "class Watch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'mlx.core': sys.exit(0 if started else 'MLX comes first')\n"
        f"sys.meta_path.insert(0, Watch()); backend.start = start; import mipo_mlx.{module}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("sign", ["package.json", "pyproject.toml", "Cargo.toml"])
def test_a_repository_of_code_is_asked_about_before_it_is_read(tmp_path, monkeypatch, sign):
    vault, code = tmp_path / "vault", tmp_path / "code"
    for folder in (vault, code):
        (folder / ".git").mkdir(parents=True)  # notes under version control are notes
    (code / sign).write_text("{}")

    def ask(folder, answer=None):
        opened = run.Run(tmp_path / "r", parse("model: x", overrides=[f"sources.notes={folder}"]))
        stream, questions = io.StringIO(), []
        monkeypatch.setattr(sys.stdin, "isatty", lambda: answer is not None)
        monkeypatch.setattr(start.click, "confirm", lambda question: questions.append(question) or answer)
        start._ask_about_code(opened, Reporter(stream=stream))
        return len(questions), sign in stream.getvalue()

    assert ask(vault) == (0, False) and ask(vault, True) == (0, False)
    assert ask(code) == (0, True) and ask(code, True) == (1, False)
    with pytest.raises(UserError):
        ask(code, False)
