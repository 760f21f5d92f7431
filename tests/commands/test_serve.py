"""`mipo-mlx serve`: what ends it before the model is loaded, and what it says when it answers."""

import importlib

import pytest
from click.testing import CliRunner

from mipo_mlx.cli import main
from mipo_mlx.commands import serve as command
from mipo_mlx.files import write_json
from mipo_mlx.serving.guard import Access
from mipo_mlx.serving.web import listening

from .test_chat import trained

__all__ = ["trained"]


def serve(folder, *options: str) -> str:
    result = CliRunner().invoke(main, ["serve", str(folder), *options], env={"MIPO_API_KEY": None})
    assert result.exit_code == 2, result.output
    (line,) = result.output.splitlines()
    return line


def test_what_cannot_be_served_ends_in_one_line(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("mipo_mlx.serving.assistant"), "load", None)  # no model is loaded for these
    with listening("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1:{port}: address already in use" in serve(trained, "--port", port)
    assert "give a key with --api-key" in serve(trained, "--host", "0.0.0.0")
    assert "expected a key" in serve(trained, "--api-key", "")
    assert "no such run" in serve(tmp_path / "none")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "recipe.yaml").write_text((trained / "recipe.yaml").read_text())
    write_json(unfinished / "manifest.json", {"stages": {}})
    assert "training is not finished" in serve(unfinished)


@pytest.mark.parametrize(
    "host, key, says",
    [
        (
            "127.0.0.1",
            "",
            ["one answers at http://127.0.0.1:99/v1 (model: one), and on a page at http://127.0.0.1:99; Ctrl-C ends it"],
        ),
        ("::1", "", ["one answers at http://[::1]:99/v1 (model: one), and on a page at http://[::1]:99; Ctrl-C ends it"]),
        ("0.0.0.0", "k", ["one answers at http://127.0.0.1:99/v1 (model: one), and on a page", "API key", "not encrypted"]),
    ],
)
def test_what_it_says_when_it_answers(host, key, says):
    lines = command.started("one", Access.of(host, 99, key), 99).splitlines()
    assert len(lines) == len(says) and all(part in line for part, line in zip(says, lines, strict=True))


def test_the_key_comes_from_the_command_line_or_the_environment(monkeypatch):
    monkeypatch.setenv(command.KEY, " from-env \n")
    assert command.key_of(None) == "from-env" and command.key_of("given") == "given"
    monkeypatch.delenv(command.KEY)
    assert command.key_of(None) == ""
