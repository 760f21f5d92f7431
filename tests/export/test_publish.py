"""Ollama, LM Studio and the Hub: nothing leaves without a yes, and a card never tells the notes."""

import json
import re
import stat

import gguf
import pytest

from mipo_mlx.errors import Failure, UserError
from mipo_mlx.export import card, install, publish
from mipo_mlx.recipe import Recipe
from mipo_mlx.records import Context, write_records

RECIPE = Recipe(model="owner/base", name="mine", export={"system": "I keep bees."})


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    folder = tmp_path / "runs" / "mine"
    (folder / "adapters").mkdir(parents=True)
    (folder / "fused").mkdir()
    (folder / "adapters" / "adapters.safetensors").write_bytes(b"a")
    (folder / "adapters" / "adapter_config.json").write_text('{"lora_parameters": {"rank": 8}}')
    (folder / "fused" / "model.safetensors").write_bytes(b"m")
    writer = gguf.GGUFWriter(folder / "mine-q8_0.gguf", "llama")
    writer.add_license("apache-2.0")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    (folder / "recipe.yaml").write_text("model: owner/base\n")
    (folder / "mine-lora.gguf").write_bytes(b"l")
    (folder / "Modelfile").write_text("FROM ./mine-q8_0.gguf\n")
    (folder / "export.json").write_text(json.dumps({"q8_0": {"fidelity": {"kl": 0.002, "argmax": 0.98, "lost": 0.1}}}))
    write_records(folder / "contexts.jsonl", [Context("1", "My secret is 1234.", "1", "a.md", 1, "train", 5)])
    return folder


class Hub:
    def __init__(self) -> None:
        self.made, self.files = [], {}

    def create_repo(self, name, private, exist_ok):
        self.made.append((name, private))

    def upload_file(self, path_or_fileobj, path_in_repo, repo_id):
        self.files[path_in_repo] = path_or_fileobj


def test_push_asks_first_and_uploads_what_was_named(run):
    hub, asked = Hub(), []
    address = publish.push(publish.Upload(run, RECIPE, "ana/mine", ("adapter", "gguf")), lambda q: asked.append(q) or True, hub)
    assert address == "https://huggingface.co/ana/mine" and hub.made == [("ana/mine", True)]
    assert set(hub.files) == {"README.md", "adapters/adapters.safetensors", "adapters/adapter_config.json", "mine-q8_0.gguf"}
    assert "private repository ana/mine" in asked[0] and "mine-q8_0.gguf" in asked[0]
    assert "trained on your notes" in asked[0] and "holds your default system message" in asked[0]


def test_push_of_the_model_folder_in_public(run):
    hub, asked = Hub(), []
    publish.push(publish.Upload(run, RECIPE, "ana/mine", ("mlx",), public=True), lambda q: asked.append(q) or True, hub)
    assert "model.safetensors" in hub.files and hub.made == [("ana/mine", False)] and "PUBLIC" in asked[0]


def test_a_no_uploads_nothing(run):
    hub = Hub()
    with pytest.raises(UserError, match="nothing was uploaded"):
        publish.push(publish.Upload(run, RECIPE, "ana/mine", ("gguf",)), lambda q: False, hub)
    assert not hub.made and not hub.files


def test_a_hub_that_refuses_is_one_line(run):
    class Closed(Hub):
        def create_repo(self, *_, **__):
            raise OSError("401 Client Error\nmore")

    with pytest.raises(Failure, match="401 Client Error.*hf auth login"):
        publish.push(publish.Upload(run, RECIPE, "ana/mine", ("gguf",)), lambda q: True, Closed())


@pytest.mark.parametrize("repository, parts, said", [("mine", ("gguf",), "owner/name"), ("a/b", ("soup",), "adapter, mlx, gguf")])
def test_bad_words(run, repository, parts, said):
    with pytest.raises(UserError, match=said):
        publish.push(publish.Upload(run, RECIPE, repository, parts), lambda q: True, Hub())


def test_the_card_has_base_method_and_figures_but_no_note(run):
    text = card.model_card(run, RECIPE, "ana/mine")
    assert text.startswith("---\n") and "base_model: owner/base" in text and "2603.19294" in text and "LoRA rank 8" in text
    assert "\nlicense: apache-2.0\n" in text and re.search("recipe [0-9a-f]{64}", text)
    assert "| q8_0 | 0.002 | 98% | 90% |" in text and "secret" not in text and "bees" not in text


def test_ollama_is_called_in_the_run_folder(run, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="ollama is not on this machine"):
        install.install_ollama(run, "mine")
    program = tmp_path / "ollama"
    program.write_text('#!/bin/sh\necho "$@" > called; [ -f Modelfile ] || exit 1\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    assert install.install_ollama(run, "mine") == "ollama run mine"
    assert (run / "called").read_text().split() == ["create", "mine", "-f", "Modelfile"]
    program.write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    with pytest.raises(Failure, match="failed: broken"):
        install.install_ollama(run, "mine")


def test_lmstudio_gets_links_and_a_preset(run, tmp_path):
    with pytest.raises(UserError, match="start it once first"):
        install.install_lmstudio(run, RECIPE, "mine")
    home = tmp_path / "home" / ".lmstudio"
    home.mkdir()
    assert "mipo/mine" in install.install_lmstudio(run, RECIPE, "mine")
    assert (home / "models" / "mipo" / "mine" / "mine-q8_0.gguf").samefile(run / "mine-q8_0.gguf")
    assert not (home / "models" / "mipo" / "mine" / "mine-lora.gguf").exists()
    preset = json.loads((home / "config-presets" / "mine.preset.json").read_text())
    assert preset["operation"]["fields"] == [{"key": "llm.prediction.systemPrompt", "value": "I keep bees."}]


def test_nothing_exported_yet(tmp_path):
    with pytest.raises(UserError, match="no GGUF file"):
        install.ggufs(tmp_path)
