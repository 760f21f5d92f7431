"""Whole runs of tiny models from ../shared/cases: names, chat templates and system messages that an export once got wrong."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from mipo_mlx.cli import main
from mipo_mlx.gguf_format.file import GGUFFile
from tests.conftest import SHORTER, make_case

from .ollama import go, parse

pytestmark = pytest.mark.process


def command(place: Path, *arguments: str) -> str:
    result = CliRunner().invoke(main, [*arguments, "--runs", str(place / "runs"), "--quiet"])
    assert result.exit_code == 0, result.output
    return result.output


def jinja(template: str, messages: list[dict[str, str]]) -> str:
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    marks = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    return environment.from_string(template).render(messages=messages, add_generation_prompt=True, **marks)


def test_a_name_that_ollama_refuses_is_changed_and_printed(tmp_path, monkeypatch):
    make_case("run-names", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for name in ("two words", "Notizen ü"):
        trained = command(tmp_path, "train", str(tmp_path / "t.yaml"), "--name", name, *SHORTER)
        installed = command(tmp_path, "export", name, "--install", "ollama").splitlines()[-1]
        entered = installed.removeprefix("ollama run ")
        assert f"ollama create {entered} -f" in trained
        assert f"ollama create {entered} -f" in (tmp_path / "runs" / name / "report.html").read_text()


def test_a_system_message_before_the_last_request_reaches_ollama(tmp_path):
    make_case("late-system", tmp_path)
    command(tmp_path, "train", str(tmp_path / "t.yaml"), *SHORTER)
    command(tmp_path, "export", "t", "--set", "export.system=I keep bees.")
    commands = dict(parse((tmp_path / "runs" / "t" / "Modelfile").read_text()))
    assert commands["system"] == "I keep bees."
    [model] = (tmp_path / "runs" / "t").glob("*.gguf")
    shown = jinja(GGUFFile(model).metadata["tokenizer.chat_template"], [{"role": "user", "content": "hi"}])
    ours = go(commands["template"], System=commands["system"], Prompt="hi", Response="")
    assert ours.startswith(shown) and "I keep bees." in shown


def test_every_file_holds_the_same_system_message(tmp_path):
    make_case("system-texts", tmp_path)
    command(tmp_path, "train", str(tmp_path / "t.yaml"), *SHORTER)
    texts = [json.loads(line) for line in (tmp_path / "texts.txt").read_text().splitlines()]
    folder = tmp_path / "runs" / "t"
    for text in texts:
        command(tmp_path, "export", "t", "--set", f"export.system={json.dumps(text)}")
        wanted = text.replace("\r\n", "\n").replace("\r", "\n")
        assert dict(parse((folder / "Modelfile").read_text()))["system"] == wanted
        [model] = folder.glob("*.gguf")
        for template in (GGUFFile(model).metadata["tokenizer.chat_template"], (folder / "fused/chat_template.jinja").read_text()):
            assert wanted in jinja(template, [{"role": "user", "content": "hi"}])
