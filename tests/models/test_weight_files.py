"""Weights that are incomplete, or of a kind that no export takes, are refused when a run begins, and `--fresh` erases nothing."""

import json
import shutil

import mlx.core as mx
import pytest

from mipo_mlx import run
from mipo_mlx.errors import UserError
from mipo_mlx.models import load, weight_files
from mipo_mlx.recipe_loading import load_recipe
from tests.conftest import make_case
from tests.test_bad_input import home, refused  # noqa: F401

SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


@pytest.fixture
def sharded(folder):
    """The tiny model in three files with an index."""
    weights = mx.load(str(folder / "model.safetensors"))
    names, where = sorted(weights), {}
    for number, shard in enumerate(SHARDS):
        part = names[number::3]
        mx.save_safetensors(str(folder / shard), {name: weights[name] for name in part}, metadata={"format": "mlx"})
        where |= dict.fromkeys(part, shard)
    (folder / "model.safetensors").unlink()
    (folder / weight_files.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def refusal(folder) -> str:
    """Both the check and the load end in this line."""
    lines = set()
    for function in (load.check_weights, load.load):
        with pytest.raises(UserError) as error:
            function(str(folder))
        lines.add(str(error.value))
    assert len(lines) == 1 and "\n" not in next(iter(lines))
    return lines.pop()


def test_whole_weights_pass(sharded):
    load.check_weights(str(sharded))
    assert load.load(str(sharded)).config["model_type"] == "llama" and weight_files.missing(sharded) == []


@pytest.mark.parametrize("gone", [SHARDS[:1], SHARDS[1:2], SHARDS[1:], SHARDS])
@pytest.mark.parametrize("index", [True, False])
def test_a_missing_file_is_named(gone, index, sharded):
    for name in gone:
        (sharded / name).unlink()
    if not index:
        (sharded / weight_files.INDEX).unlink()
    expected = f"{sharded / gone[0]}: this file" if index or len(gone) < 3 else f"{sharded}: no model*.safetensors"
    assert refusal(sharded).startswith(expected)
    assert ("and 1 more" in refusal(sharded)) == (len(gone) == 2)


def test_a_link_to_nowhere_is_a_missing_file(sharded):
    """As the Hub's cache is where a download was cut off: names in the snapshot, the content not there."""
    (sharded / SHARDS[2]).unlink()
    (sharded / SHARDS[2]).symlink_to("../../blobs/none")
    assert f"{SHARDS[2]}: this file" in refusal(sharded)


def test_a_file_that_was_cut_off(sharded):
    (sharded / SHARDS[1]).write_bytes((sharded / SHARDS[1]).read_bytes()[:-5])
    assert f"{SHARDS[1]}: truncated" in refusal(sharded)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', "{}"])
def test_a_broken_index_is_named(text, sharded):
    (sharded / weight_files.INDEX).write_text(text)
    assert f"{weight_files.INDEX}: cannot be read" in refusal(sharded)


def test_an_index_of_another_version_of_the_model_does_not_count(folder):
    (folder / weight_files.INDEX).write_text(json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}))
    load.check_weights(str(folder))


def test_a_part_of_a_hub_model_in_the_cache(sharded, tmp_path, monkeypatch):
    """Without network the missing file is named; where the Hub can be reached it will be downloaded."""
    import huggingface_hub

    (sharded / SHARDS[1]).unlink()
    reachable = [True]

    def snapshot(name, allow_patterns, dry_run=False):
        if dry_run and not reachable[0]:
            raise OSError("no network")
        return ["a file"] if dry_run else str(sharded)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    load.check_weights("someone/some-model")
    reachable[0] = False
    with pytest.raises(UserError, match=f"{SHARDS[1]}: this file"):
        load.check_weights("someone/some-model")


def quantised(folder, **config):
    before = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(before | config))


@pytest.mark.parametrize("method", ["awq", "gptq", "bitsandbytes", "compressed-tensors", "hqq", "modelopt", "bitnet"])
def test_what_another_program_quantised_is_refused(method, folder):
    quantised(folder, quantization_config={"quant_method": method, "bits": 4, "group_size": 64})
    line = refusal(folder)
    assert method.upper() in line and "MLX 4-bit" in line and "config.json" in line


def test_the_method_may_stand_elsewhere(folder):
    quantised(folder, text_config={"quantization_config": {"quant_method": "gptq"}})
    assert "GPTQ" in refusal(folder)
    quantised(folder, text_config=None)
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    assert "MODELOPT" in refusal(folder)


def test_what_mlx_quantised_is_taken(folder):
    own = {"group_size": 64, "bits": 4}
    weight_files.check_quantization(folder, {"quantization": own, "quantization_config": own})
    for method in weight_files.KEPT:
        weight_files.check_quantization(folder, {"quantization_config": {"quant_method": method}})


def test_fp8_that_mlx_lm_would_take_for_whole_numbers_is_refused(folder):
    """As Ministral 3's own weights on the Hub are: their bytes would be multiplied as they are."""
    config = {"model_type": "mistral3", "quantization_config": {"quant_method": "fp8"}, "text_config": {"model_type": "ministral3"}}
    with pytest.raises(UserError, match="quantised by FP8, and such a model cannot be exported .* or its 16-bit weights"):
        weight_files.check_quantization(folder, config)
    weight_files.check_quantization(folder, {**config, "text_config": {"model_type": "mistral"}})


def test_weights_of_an_unreadable_kind_end_before_any_work(folder):
    """fp8 with scales of its own, which this architecture does not read."""
    quantised(folder, quantization_config={"quant_method": "fp8"})
    weights = dict(mx.load(str(folder / "model.safetensors")))
    weights["model.layers.0.mlp.up_proj.weight_scale_inv"] = mx.ones((1, 1))
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    assert "cannot be loaded" in refusal(folder) and "weight_scale_inv" in refusal(folder)


@pytest.mark.parametrize("gone", ["model", "training.reference", "evaluation.judge"])
def test_every_model_of_a_recipe_is_checked_and_fresh_erases_nothing(gone, home, sharded):  # noqa: F811
    (sharded / SHARDS[1]).unlink()
    override = f"{gone}={f'[{sharded}]' if gone == 'evaluation.judge' else sharded}"
    opened = run.open_run(load_recipe(home / "r.yaml", [], None), "r", home / "runs", fresh=False)
    run.prepare(opened, fresh=False)
    (opened.folder / "adapters").mkdir()
    (opened.folder / "adapters" / "adapters.safetensors").write_bytes(b"weights")
    for more in ([], ["--dry-run"], ["--fresh"]):
        line = refused("train", "r.yaml", "--name", "r" if more == ["--fresh"] else "new", "--set", override, *more)
        assert f"{SHARDS[1]}: this file" in line
    assert (opened.folder / "adapters" / "adapters.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("name", ["awq", "gptq"])
def test_the_case_of_foreign_quantisation(name, tmp_path):
    place = make_case("awq-gptq", tmp_path)
    for more in ([], ["--dry-run"]):
        assert name.upper() in refused("train", place / f"{name}.yaml", "--runs", tmp_path / "runs", *more)


def test_the_case_of_the_missing_shard(tmp_path):
    place = make_case("missing-shard", tmp_path)
    (place / "model" / "model-00002-of-00002.safetensors").unlink()
    for more in ([], ["--dry-run"], ["--fresh"]):
        assert "model-00002-of-00002.safetensors" in refused("train", place / "t.yaml", "--runs", tmp_path / "runs", *more)
