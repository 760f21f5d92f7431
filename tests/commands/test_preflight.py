"""What cannot work is refused when a run begins: nothing was computed by then, and `--fresh` has erased nothing."""

import io
import json
import shutil

import pytest
from click.testing import CliRunner

from mipo_mlx import cli, recipe_loading, run
from mipo_mlx.commands import preflight, start
from mipo_mlx.errors import Failure, UserError
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe_loading import load_recipe
from tests.test_bad_input import home, refused  # noqa: F401

LATE = [  # what only evaluation or export would meet
    ("export.gguf=[q8_0, q9_9]", "there is no GGUF type 'q9_9'"),
    ("evaluation.judge=[base, ./nowhere]", "evaluation.judge: "),
    ("evaluation.judge=notes", "evaluation.judge: notes: no config.json in this model folder"),
    ("evaluation.abilities=none.jsonl", "none.jsonl: no such file"),
    ("evaluation.abilities=r.yaml", "r.yaml:2: broken JSON"),
    ("training.reference=./nowhere", "no such model folder or GGUF file"),
]
EARLY = [
    ("model=./nowhere", "no such model folder or GGUF file"),
    ("sources.notes=nowhere", "nowhere: no such folder or file"),
    ("sources.prompts=none.txt", "none.txt"),
    ("pairs.contexts_per_grid=40", "a grid needs 40"),
    ("evaluation.abilities={name: ./none.jsonl}", "none.jsonl"),
]


@pytest.fixture
def finished(home):  # noqa: F811
    """A folder that looks like the finished run of r.yaml."""
    opened = run.open_run(load_recipe(home / "r.yaml", [], None), "r", home / "runs", fresh=False)
    run.prepare(opened, fresh=False)
    for name in ("pairs.jsonl", "eval.json", "r-f16.gguf"):
        (opened.folder / name).write_text("{}")
    (opened.folder / "adapters").mkdir()
    return opened.folder


def content(folder):
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.parametrize(("override", "message"), LATE + EARLY, ids=lambda text: text.split("=")[0])
def test_fresh_erases_nothing_for_a_recipe_that_cannot_work(finished, override, message):
    before = content(finished)
    line = refused("train", "r.yaml", "--fresh", "--set", override)
    assert message in line and "without --fresh" not in line
    assert content(finished) == before


@pytest.mark.parametrize(("override", "message"), LATE, ids=lambda text: text.split("=")[0])
def test_a_new_run_and_the_dry_run_refuse_at_once(home, override, message):  # noqa: F811
    for more in ([], ["--dry-run"]):
        assert message in refused("train", "r.yaml", "--set", override, *more)
        assert not (home / "runs" / "r").exists()  # nothing is left, and a run of the mended recipe is no other run


@pytest.mark.parametrize(
    ("manifest", "kept"),
    [
        ("{}", "model: mine\n"),
        ('{"name": "a web page"}', recipe_loading.dump(recipe_loading.parse("model: mine\n"))),
        (None, "model: mine\n"),
        (None, "steps: [flour, water]\n"),
        ('{"recipe_sha256": ', recipe_loading.dump(recipe_loading.parse("model: mine\n"))),
    ],
)
def test_fresh_erases_no_folder_that_is_damaged_or_not_a_runs(tmp_path, manifest, kept):
    folder = tmp_path / "mine"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(kept)
    if manifest is not None:
        (folder / "manifest.json").write_text(manifest)
    before = content(folder)
    with pytest.raises((UserError, Failure), match="not written by a run|broken"):
        run.prepare(run.open_run(recipe_loading.parse("model: x\n"), "mine", tmp_path, fresh=True), fresh=True)
    assert content(folder) == before


def test_a_missing_manifest_is_made_anew(finished):
    """What a run of this program wrote is known by its recipe.yaml, and its next start signs it again."""
    (finished / "manifest.json").unlink()
    opened = run.existing_run("r", finished.parent)
    run.prepare(opened, fresh=False)
    assert run.SIGNED in opened.manifest
    (finished / "manifest.json").unlink()
    run.prepare(opened, fresh=True)
    assert set(content(finished)) == {"recipe.yaml", "manifest.json", "r-f16.gguf"}


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), Failure("no space"), UserError("no")])
def test_after_fresh_has_erased_the_way_on_is_without_it(finished, monkeypatch, ending):
    def execute(*_):
        raise ending

    monkeypatch.setattr(run, "execute", execute)
    for more in ([], ["--fresh"]):
        message = CliRunner().invoke(cli.main, ["train", "r.yaml", *more]).output
        assert ("without --fresh" in message) == bool(more), message


def test_an_evaluation_is_refused_before_it_computes(finished, monkeypatch):
    monkeypatch.setattr(start, "require", lambda *_: None)
    monkeypatch.setattr(run, "run_stage", lambda *_: pytest.fail("computed"))
    assert "evaluation.judge: " in refused("eval", "r", "--set", "evaluation.judge=./nowhere")
    assert "there is no GGUF type" in refused("export", "r", "--type", "q9_9")


@pytest.mark.parametrize(("url", "key", "warned"), [("https://a.example/v1", None, True), ("https://a.example/v1", "k", False),
                                                    ("http://127.0.0.1:1/v1", None, False)])  # fmt: skip
def test_an_endpoint_elsewhere_without_a_key_is_told_of(home, monkeypatch, url, key, warned):  # noqa: F811
    monkeypatch.delenv("MIPO_JUDGE_KEY", raising=False)
    if key:
        monkeypatch.setenv("MIPO_JUDGE_KEY", key)
    sets = ["--set", f"evaluation.judge={url}", "--set", "evaluation.judge_model=m"]
    result = CliRunner().invoke(cli.main, ["train", "r.yaml", "--dry-run", *sets])
    assert result.exit_code == 0 and ("a.example will be asked without a key" in result.output) == warned, result.output


@pytest.mark.parametrize("key", ["\u043a\u043b\u044e\u0447", "  "])
def test_a_key_that_is_none_is_told_when_the_run_begins(home, monkeypatch, key):  # noqa: F811
    monkeypatch.setenv("MIPO_JUDGE_KEY", key)
    sets = ["--set", "evaluation.judge=https://a.example/v1", "--set", "evaluation.judge_model=m"]
    result = CliRunner().invoke(cli.main, ["train", "r.yaml", "--dry-run", *sets])
    message = "will be asked without a key" if key.isspace() else "MIPO_JUDGE_KEY is no API key"
    assert message in result.output and result.exit_code == (0 if key.isspace() else 1)


@pytest.mark.parametrize(
    ("template", "message"),
    [(None, "has no chat template"), ([{"name": "tools", "template": "x"}], "chat templates (tools) is called default")],
)
def test_a_base_that_cannot_be_asked_is_refused_by_the_dry_run(home, tiny_folder, template, message):  # noqa: F811
    model = shutil.copytree(tiny_folder, home / "other")
    (model / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    assert message in refused("train", "r.yaml", "--dry-run", "--set", f"model={model}")


def test_the_dry_run_tells_what_is_left_out(home):  # noqa: F811
    (home / "notes" / "old.rtf").write_text("{}")
    (home / "notes" / "new.md").write_bytes(b"\0")
    message = CliRunner().invoke(cli.main, ["train", "r.yaml", "--dry-run"]).output
    assert "skipped new.md: not text (binary)" in message and "left alone: 1 .rtf files" in message


def test_settings_of_a_judge_that_is_not_named_are_told(tmp_path):
    for text, message in (("judge_mode: rubric", True), ("judge_model: m", True), ("judge: base, judge_mode: rubric", False)):
        output = io.StringIO()
        preflight.settings(recipe_loading.parse(f"model: x\nevaluation: {{{text}}}\n"), ["evaluation"], Reporter(stream=output))
        assert ("judge_mode and judge_model change nothing" in output.getvalue()) is message
