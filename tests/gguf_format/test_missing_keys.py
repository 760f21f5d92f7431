"""GGUF files as other converters write them: keys that are left out or have another name mean what they do in their own readers."""

import gguf
import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner

from mipo_mlx.cli import main
from mipo_mlx.errors import UserError
from mipo_mlx.gguf_format.to_mlx import load_config_gguf, load_gguf
from tests.conftest import make_case
from tests.export.helpers import MODELS, make_tiny


def rewritten(path, renamed: dict[str, str | None]):
    """A copy of a GGUF file with other names for some keys; None leaves a key out."""
    read = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(path.with_name("changed.gguf"), bytes(read.fields["general.architecture"].parts[-1]).decode())
    for key, field in read.fields.items():
        name = renamed.get(key.partition(".")[2], key)
        if key.startswith("GGUF.") or key == "general.architecture" or name is None:
            continue
        kind, inner = field.types[0], field.types[-1]
        name = name if name == key else f"{key.partition('.')[0]}.{name}"
        writer.add_key_value(name, field.contents(), kind, sub_type=inner if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in read.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_name("changed.gguf")


EPSILON = {"attention.layer_norm_rms_epsilon": None}
OLLAMA = {**EPSILON, "rope.freq_base": "rope.global.freq_base", "rope.freq_base_swa": "rope.local.freq_base"}


@pytest.mark.parametrize("renamed", [EPSILON, OLLAMA, {"rope.freq_base": None}], ids=["epsilon", "ollama", "theta"])
def test_gemma_3_without_keys_is_the_same_model(renamed, tmp_path):
    whole = make_tiny("gemma3", *MODELS["gemma3"], tmp_path).write(tmp_path / "model.gguf", "f16")
    changed, ids = rewritten(whole, renamed), mx.array([[5, 6, 7, 8]])
    assert load_config_gguf(changed) == load_config_gguf(whole)
    assert np.array_equal(np.array(load_gguf(changed)[0](ids)), np.array(load_gguf(whole)[0](ids)))


def test_gemma_2_without_an_epsilon(tmp_path):
    whole = make_tiny("gemma2", *MODELS["gemma2"], tmp_path).write(tmp_path / "model.gguf", "f16")
    assert load_config_gguf(rewritten(whole, EPSILON))["rms_norm_eps"] == 1e-6


@pytest.mark.parametrize("name", ["llama", "qwen2-tied"])
def test_a_family_whose_converters_write_it_is_refused_without(name, tmp_path):
    whole = make_tiny(name, *MODELS[name], tmp_path).write(tmp_path / "model.gguf", "f16")
    with pytest.raises(UserError, match="attention.layer_norm_rms_epsilon is missing"):
        load_config_gguf(rewritten(whole, EPSILON))


def test_the_case_of_the_missing_epsilon(tmp_path):
    place = make_case("gguf-no-epsilon", tmp_path)
    result = CliRunner().invoke(main, ["train", str(place / "t.yaml"), "--runs", str(tmp_path / "runs"), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert load_config_gguf(place / "model.gguf")["rms_norm_eps"] == 1e-6
