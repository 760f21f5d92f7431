"""A model's files are data: absurd numbers, pipes and names that climb end in one line, at once."""

import json
import os
import shutil

import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.gguf_format.file import GGUFFile
from mipo_mlx.models import load, stores, template_probe
from tests.conftest import CHAT_TEMPLATE


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def change(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 10_000_000),
        ("num_hidden_layers", -1),
        ("num_hidden_layers", 1e300),
        ("vocab_size", 10**12),
        ("hidden_size", 10**12),
        ("intermediate_size", 10**15),
        ("num_attention_heads", 10**9),
        ("head_dim", 10**9),
    ],
)
def test_absurd_numbers_are_refused_before_anything_is_built(folder, name, value):
    change(folder, **{name: value})
    for use in (load.load, load.model_config, load.check_weights):
        with pytest.raises(UserError, match=name) as error:
            use(str(folder))
        assert "\n" not in str(error.value)


ODD = [
    ("hidden_size", 0), ("num_attention_heads", 0), ("vocab_size", 0), ("intermediate_size", 0), ("num_hidden_layers", "10"),
    ("hidden_size", [1]), ("max_position_embeddings", "x"), ("eos_token_id", "a"), ("eos_token_id", [None]), ("rope_scaling", 3),
    ("rope_scaling", {"type": "linear", "factor": 0}), ("tie_word_embeddings", "no"), ("model_type", "../x"), ("quantization", 3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), ODD)
def test_odd_values_end_in_one_line(folder, name, value):
    change(folder, **{name: value})
    with pytest.raises(UserError) as error:
        load.load(str(folder))
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_absurd_numbers_one_level_below(folder):
    change(folder, text_config={"num_hidden_layers": 10**7})
    with pytest.raises(UserError, match="num_hidden_layers"):
        load.model_config(str(folder))


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
)
def test_a_pipe_in_a_model_folder_is_never_waited_for(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(UserError):
        load.load(str(folder))


def test_a_pipe_or_a_device_is_no_model(tmp_path):
    os.mkfifo(tmp_path / "model.gguf")
    for path in (tmp_path / "model.gguf", "/dev/zero"):
        with pytest.raises(UserError, match="pipe or a device"):
            load.load(str(path))
    with pytest.raises(UserError, match="no file"):
        GGUFFile(tmp_path / "model.gguf")


@pytest.mark.parametrize("text", ["[]", "3", "null", "[" * 100_000, '{"model_type": ["llama"]}'])
def test_a_configuration_that_is_none(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError):
        load.load(str(folder))


@pytest.mark.parametrize("digest", ["sha256:../../../../etc/passwd", "../secret", "/etc/passwd", "sha256:", "sha256:ab/../cd"])
def test_a_digest_never_leaves_the_store(tmp_path, monkeypatch, digest):
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    place = tmp_path / "manifests" / "registry.ollama.ai" / "library" / "m"
    place.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (place / "latest").write_text(json.dumps({"layers": [{"mediaType": stores.MODEL_LAYER, "digest": digest}]}))
    with pytest.raises(UserError, match="digest"):
        stores.find("ollama:m")


def test_code_in_a_models_folder_is_never_run(folder, tmp_path):
    """Both ways in which a folder asks for its own code: mlx-lm's `model_file`, transformers' `auto_map`."""
    mark = tmp_path / "was-run"
    for name in ("model.py", "tokenization_own.py", "configuration_own.py"):
        (folder / name).write_text(f"open({str(mark)!r}, 'w').write('x')\nclass Own: pass\nModel = ModelArgs = Own\n")
    change(
        folder,
        model_file="model.py",
        auto_map={"AutoConfig": "configuration_own.Own", "AutoTokenizer": ["tokenization_own.Own", None]},
    )
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(
        json.dumps({**settings, "tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}})
    )
    for use in (load.load, load.load_tokenizer, load.check_weights):
        try:
            use(str(folder))
        except UserError as error:
            assert "\n" not in str(error)
    assert not mark.exists()


HANGING = {  # chat templates that never end, or fill the memory
    "range": "{% for i in range(10**9) %}a{% endfor %}",
    "loops": "{% set l = 'a' * 9999 %}{% for i in l %}{% for j in l %}{% for k in l %}{% endfor %}{% endfor %}{% endfor %}",
    "power": "{{ 10 ** (10 ** 9) }}",
    "doubling": "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "macro": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "width": "{{ '%9999999999d' % 1 }}",
}
KINDLY = "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}{{ m['content'] | trim }}{% endfor %}"


@pytest.mark.parametrize("name", HANGING)
def test_a_chat_template_that_hangs_is_refused(monkeypatch, name):
    monkeypatch.setattr(template_probe, "SECONDS", 1)
    assert not template_probe.is_plain(HANGING[name])
    with pytest.raises(UserError, match="m: its chat template takes more than 1 seconds or 1 GB") as error:
        template_probe.check(HANGING[name] + "{# of this test #}", "m")
    assert "\n" not in str(error.value)


def test_a_model_with_such_a_template_is_refused_wherever_it_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(template_probe, "SECONDS", 1)
    path = next(place for place in (folder / "chat_template.jinja", folder / "tokenizer_config.json") if place.exists())
    text = HANGING["loops"]
    path.write_text(text if path.suffix == ".jinja" else json.dumps({**json.loads(path.read_text()), "chat_template": text}))
    with pytest.raises(UserError, match="its chat template takes"):
        load.load(str(folder))
    with pytest.raises(UserError, match="its chat template takes"):
        load.check_chat_template(load.load_tokenizer(str(folder)), "m")


def test_other_chat_templates_are_taken():
    assert template_probe.is_plain(CHAT_TEMPLATE) and template_probe.is_plain(KINDLY)  # no process
    mild = "{% for m in messages %}{% for p in m.content %}{{ p * 2 }}{% endfor %}{% generation %}{% endgeneration %}{% endfor %}"
    assert not template_probe.is_plain(mild)
    template_probe.check(mild, "m")
    with pytest.raises(UserError, match="characters"):
        template_probe.check("a" * 300_000, "m")
