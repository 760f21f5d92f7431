"""`mipo-mlx train` on a pair file made elsewhere: training, evaluation, export and report, and every mistake in one line."""

import json
import shutil

import pytest
from click.testing import CliRunner

from mipo_mlx import recipe_loading, run
from mipo_mlx.cli import main
from mipo_mlx.files import read_json, read_records
from mipo_mlx.recipe_loading import load_recipe
from mipo_mlx.records import Pair
from tests.conftest import make_case
from tests.pairs.helpers import THINGS

RECIPE = """
model: {model}
pairs: {{file: mine/pairs.jsonl, max_tokens: 8, validation_grids: 2}}
training: {{max_kl: null, lora: {{rank: 2}}}}
evaluation: {{bootstrap: 100, answers: 6, preferences: 4}}
export: {{mlx: false, gguf: [f16], fidelity: 2}}
"""


@pytest.fixture
def home(tiny_folder, tmp_path):
    """A recipe beside a folder `mine` with pairs.jsonl: 16 requests, of four people each, one grid a request."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "r.yaml").write_text(RECIPE.format(model=tiny_folder))
    rows = []
    for n in range(16):
        for k in range(4):
            likes = THINGS[(n + k) % 12], THINGS[(n + k + 1) % 12]
            system = {"role": "system", "content": f"About the user: I like {likes[0]}."}
            prompt = [system, {"role": "user", "content": f"How do I plan week {n}?"}]
            rows.append({"prompt": prompt, "chosen": f"With {likes[0]}.", "rejected": f"With {likes[1]}.", "grid": n})
    write(tmp_path, rows)
    return tmp_path


def write(home, rows):
    (home / "mine" / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def train(home, *more, expect=0):
    result = CliRunner().invoke(main, ["train", str(home / "r.yaml"), "--runs", str(home / "runs"), "--quiet", *more])
    assert result.exit_code == expect, result.output
    return result.output


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_the_window_of_a_model_of_several_modalities_counts(more, home, tiny_folder):
    """Its configuration keeps max_position_embeddings within text_config."""
    model = shutil.copytree(tiny_folder, home / "model")
    config = json.loads((model / "config.json").read_text())
    window = config.pop("max_position_embeddings") // 16
    (model / "config.json").write_text(json.dumps({**config, "text_config": {"max_position_embeddings": window}}))
    assert f"and the model takes {window}; shorten the pair" in train(
        home, "--set", f"model={model}", "--set", "export.gguf=[]", *more, expect=2
    )


def test_from_file_to_report(home):
    output = train(home)
    folder = home / "runs" / "r"
    pairs = read_records(folder / "pairs.jsonl", Pair)
    counts = [sum(pair.split == split for pair in pairs) for split in ("train", "validation", "heldout")]
    assert counts == [40, 8, 16] and "Reward accuracy" in output
    results = read_json(folder / "eval.json")
    assert results["heldout"]["pairs"] == 16 and results["heldout"]["grids"] == 4
    assert results["fresh"]["answers"] == 6  # asked under a grid's own contexts, from the file
    assert all((folder / name).exists() for name in ("r-f16.gguf", "Modelfile", "report.html", "adapters/adapters.safetensors"))
    stages = read_json(folder / "manifest.json")["stages"]
    assert [stages[name]["state"] for name in run.STAGES] == ["done"] * 6
    result = CliRunner().invoke(main, ["pairs", str(folder), "--show", "--quiet"])
    assert result.exit_code == 0 and "imported" in result.output and "train: 40 pairs" in result.output


def test_strings_without_a_context_are_evaluated_on_the_pairs_alone(home):
    rows = [{"prompt": f"How do I plan week {n}?", "chosen": f"With {THINGS[n % 12]}.", "rejected": "No."} for n in range(40)]
    write(home, rows)
    train(home, "--set", "training.grids_per_step=4")
    result = read_json(home / "runs" / "r" / "eval.json")
    assert result["heldout"]["pairs"] == 10 and result["fresh"] is None and result["unprompted"] is None


def test_the_plan_of_a_file(home):
    message = train(home, "--dry-run")
    assert f"file       {home / 'mine' / 'pairs.jsonl'}, 64 pairs" in message and "pairs      up to 40, 2 answers each" in message
    assert "steps      10 of 1 grids" in message and "answers    0 of" in message and not (home / "runs").exists()


def test_a_bad_line_is_named_and_one_bad_file_ends_the_command(home):
    path = home / "mine" / "pairs.jsonl"
    good, bad = path.read_text(), '{"prompt": "a", "chosen": "b"}\n'
    reason = "expected an object with prompt, chosen and rejected"
    path.write_text(good + bad)
    message = train(home, "--dry-run")
    assert f"{path}:65: {reason}" in message and ", 64 pairs" in message
    path.write_text(bad)
    for dry in ([], ["--dry-run"]):
        assert train(home, *dry, expect=2).strip() == f"error: {path}:1: {reason}"
    path.unlink()
    assert f"error: {path}: no such file" in train(home, expect=2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sources.notes=notes", "pairs.file: pairs come from a file or from notes, and both are named"),
        ("rounds=2", "rounds: later rounds are sampled from notes, and pairs.file has none"),
        ("pairs.own_prompts=4", "pairs.own_prompts: questions are written from notes"),
    ],
)
def test_keys_that_a_file_leaves_nothing_to_do(override, message, home):
    assert message in train(home, "--set", override, expect=2)


def test_a_profile_that_no_stage_will_make_is_missed_at_the_start(home):
    for dry in ([], ["--dry-run"]):
        message = train(home, "--set", "export.system=profile", *dry, expect=2)
        assert message.startswith("error: export.system: ") and message.count("\n") == 1
        assert not (home / "runs").exists()
    (home / "runs" / "r").mkdir(parents=True)
    (home / "runs" / "r" / "profile.md").write_text("- The user likes tea.\n")
    assert "steps " in train(home, "--set", "export.system=profile", "--dry-run")


@pytest.mark.parametrize("objective", ["sami", "infonce_authors"])
def test_an_objective_that_needs_grids_is_refused_without_them(objective, home):
    """Before anything is loaded, and in the plan; with the file's own grids it trains."""
    rows = [json.loads(line) for line in (home / "mine" / "pairs.jsonl").read_text().splitlines()]
    sets = ("--set", f"training.objective={objective}", "--dry-run")
    assert f"objective {objective}" in train(home, *sets)
    alone = [{key: value for key, value in row.items() if key != "grid"} for row in rows]
    alike = [{**row, "prompt": f"How do I plan week {row['grid']}?"} for row in rows]
    for case in (alone, alike):
        write(home, case)
        for dry in (sets, sets[:2]):
            message = train(home, *dry, expect=2)
            assert message.startswith(f"error: training.objective: {objective} contrasts the contexts") and message.count("\n") == 1
    shutil.rmtree(home / "runs")
    assert "steps " in train(home, "--dry-run")  # dpo needs none


def test_the_file_and_the_reference_are_relative_to_the_recipe(home):
    values = load_recipe(home / "r.yaml", ["training.reference=./other"], None)
    assert values.pairs.file == str(home / "mine" / "pairs.jsonl") and values.training.reference == str(home / "other")
    assert load_recipe(home / "r.yaml", ["training.reference=owner/name"], None).training.reference == "owner/name"
    assert recipe_loading.parse("model: x\n").training.reference == "base"


def test_files_of_other_trainers_are_read(tmp_path):
    """`prompt` as text beside whole conversations, and answers that already have the mark of an end of turn."""
    make_case("pair-files", tmp_path)
    for name in ("conversations", "ended"):
        command = ["pairs", str(tmp_path / f"{name}.yaml"), "--runs", str(tmp_path / "runs"), "--quiet"]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        pairs = read_records(tmp_path / "runs" / name / "pairs.jsonl", Pair)
        assert len(pairs) == 12
        for pair in pairs:
            assert [turn["role"] for turn in (*pair.prompt, *pair.chosen, *pair.rejected)] == ["user", "assistant", "assistant"]
            assert not any("<|" in text for text in (pair.chosen[0]["content"], *pair.negatives))
            assert all(tokens.count(2) == 1 and tokens[-1] == 2 for tokens in pair.tokens)
