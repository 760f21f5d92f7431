"""Adapters that are not those of the run's training, or of another base, are refused by every command that reads them."""

import json
import shutil

import pytest
from click.testing import CliRunner

from mipo_mlx.cli import main
from mipo_mlx.errors import UserError
from mipo_mlx.files import read_json, sha256, write_json
from mipo_mlx.models import identity
from tests.conftest import SHORTER, make_case

WEIGHTS = "adapters/adapters.safetensors"


def test_the_identity_follows_weights_and_configuration_and_nothing_else(tiny_folder, tmp_path):
    own = identity.identity_of(tiny_folder)
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    (copy / "README.md").write_text("new")
    assert identity.identity_of(copy) == own
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    for place in (9, len(data) // 2, len(data) - 1):
        changed = data.copy()
        changed[place] ^= 1
        weights.write_bytes(changed)
        assert identity.identity_of(copy) != own, place
    weights.write_bytes(data)
    assert identity.identity_of(copy) == own
    config = read_json(copy / "config.json")
    write_json(copy / "config.json", {**config, "rope_theta": 5e5})
    assert identity.identity_of(copy) != own
    model = tmp_path / "one.gguf"
    model.write_bytes(bytes(data))
    moved = shutil.copy(model, tmp_path / "other name.gguf")
    assert identity.identity_of(model) == identity.identity_of(moved) != own


@pytest.fixture
def run(tiny_folder, tmp_path):
    """The files of a finished training that the check reads."""
    (tmp_path / "adapters").mkdir()
    (tmp_path / WEIGHTS).write_bytes(b"weights" * 40)
    config = {"lora_parameters": {"scale": 20.0}, identity.KEY: identity.identity_of(tiny_folder)}
    write_json(tmp_path / "adapters/adapter_config.json", config)
    known = {name: sha256(tmp_path / name) for name in identity.ADAPTERS}
    stages = {"training": {"sha256": {**known, WEIGHTS: "of the first round"}}, "training-2": {"sha256": known}}
    write_json(tmp_path / "manifest.json", {"stages": stages})
    return tmp_path


def test_the_adapters_of_the_last_round_pass(run, tiny_folder):
    identity.check_adapters(run, str(tiny_folder))
    (run / "manifest.json").unlink()
    identity.check_adapters(run, str(tiny_folder))  # nothing is recorded: adapters from elsewhere


def test_a_flipped_bit_another_scale_and_a_cut_are_named(run, tiny_folder):
    whole = (run / WEIGHTS).read_bytes()
    for damaged in (whole[:100] + bytes([whole[100] ^ 4]) + whole[101:], whole[:-1], b""):
        (run / WEIGHTS).write_bytes(damaged)
        with pytest.raises(UserError, match=r"adapters.safetensors: not the adapters that training left .* remove it and run"):
            identity.check_adapters(run, str(tiny_folder))
    (run / WEIGHTS).write_bytes(whole)
    config = run / "adapters/adapter_config.json"
    config.write_text(config.read_text().replace("20.0", "40.0"))
    with pytest.raises(UserError, match="adapter_config.json: not the adapters that training left"):
        identity.check_adapters(run, str(tiny_folder))


def test_another_base_under_the_same_name_is_refused(run, tiny_folder, tmp_path):
    other = shutil.copytree(tiny_folder, tmp_path / "model")
    identity.check_adapters(run, str(other))
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (other / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="adapters: trained on another base than .*model is now"):
        identity.check_adapters(run, str(other))


def test_no_command_takes_swapped_adapters(tmp_path):
    """Adapters of a run on another base of the same size. Without them, `train` makes the run's own again."""
    make_case("swapped-adapters", tmp_path)

    def command(*words):
        result = CliRunner().invoke(main, [*words, "--runs", str(tmp_path / "runs")], input="")
        return result.exit_code, result.output

    for name in ("a", "b"):
        assert command("train", str(tmp_path / f"{name}.yaml"), *SHORTER, "--quiet")[0] == 0
    run, kept = tmp_path / "runs" / "a", (tmp_path / "runs/a" / WEIGHTS).read_bytes()
    shutil.copytree(tmp_path / "runs" / "b" / "adapters", run / "adapters", dirs_exist_ok=True)
    before = {path: path.read_bytes() for path in (run / "eval.json", run / "report.html")}
    for words in (["eval", "a"], ["export", "a"], ["chat", "a"], ["train", str(tmp_path / "a.yaml"), *SHORTER]):
        code, output = command(*words)
        assert code == 2 and "not the adapters that training left" in output, (words, output)
    assert {path: path.read_bytes() for path in before} == before
    shutil.rmtree(run / "adapters")
    assert command("train", str(tmp_path / "a.yaml"), *SHORTER, "--quiet")[0] == 0
    assert (run / WEIGHTS).read_bytes() == kept
    assert json.loads((run / "adapters/adapter_config.json").read_text())[identity.KEY]
