"""The record of a training: its format number, and that a run of another version is refused before anything is computed."""

import json
import math

import pytest
from click.testing import CliRunner

from mipo_mlx.cli import main
from mipo_mlx.errors import UserError
from mipo_mlx.files import write_json, write_jsonl
from mipo_mlx.training import metrics, rounds


def test_rows_come_back_without_their_format_and_only_numbers_are_written(tmp_path):
    row = metrics.append(tmp_path, {"round": 1, "step": 3, "loss": math.nan, "grad_norm": math.inf, "kl": 0.25})
    assert row == {"round": 1, "step": 3, "loss": None, "grad_norm": None, "kl": 0.25}
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()] == [{"format": metrics.FORMAT, **row}]
    metrics.append(tmp_path, {"round": 1, "step": 4, "validation_loss": 0.5})
    rows = metrics.read(tmp_path)
    assert rows[0] == row and [metrics.of_validation(row) for row in rows] == [False, True]
    metrics.keep(tmp_path, 1)
    assert metrics.read(tmp_path) == [row]
    assert metrics.read(tmp_path / "nothing") == []


@pytest.mark.parametrize("number", [{}, {"format": 1}, {"format": metrics.FORMAT + 1}, {"format": None}])
def test_rows_of_another_version_are_refused(tmp_path, number):
    write_jsonl(tmp_path / "metrics.jsonl", [{"format": metrics.FORMAT, "step": 0}, {**number, "step": 1, "loss": 0.7}])
    with pytest.raises(UserError, match=r"metrics.jsonl: written by another version of mipo-mlx.*--fresh") as error:
        metrics.read(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("command", ["eval", "export", "report"])
def test_a_run_of_another_version_is_refused_before_anything_is_computed(tmp_path, tiny_folder, command):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(f"model: {tiny_folder}\nexport: {{gguf: [f16]}}\n")
    for name in ("samples.jsonl", "pairs.jsonl", "contexts.jsonl", "prompts.jsonl"):
        (folder / name).write_text("")
    (folder / "adapters").mkdir()
    for name in ("adapters.safetensors", "adapter_config.json"):
        (folder / "adapters" / name).write_text("")
    write_jsonl(folder / "metrics.jsonl", [{"step": 0, "heldout_loss": 0.69}])
    done = {"state": "done", "summary": {}, "sha256": {}}
    write_json(folder / "manifest.json", {"stages": dict.fromkeys(("sources", "pairs", "training"), done)})
    result = CliRunner().invoke(main, [command, "old", "--runs", str(tmp_path), "--quiet"])
    assert result.exit_code == 2 and "metrics.jsonl: written by another version" in result.output, result.output


def test_the_rounds_that_were_taken(tmp_path):
    assert rounds.taken(tmp_path) == [1]
    later = {"training-2": {"state": "started"}, "training-3": {"summary": {"round": 3, "taken": True}}}
    write_json(tmp_path / "manifest.json", {"stages": {"training": {"summary": {}}, **later}})
    assert rounds.taken(tmp_path) == [1, 3]
