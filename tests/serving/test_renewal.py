"""Adapters that change under a running server: an update that was taken, another recipe's, a damaged file, a run that is gone."""

import shutil
import threading
from pathlib import Path

import mlx.core as mx
import pytest

from mipo_mlx.evaluation import blind_votes
from mipo_mlx.files import read_json, read_records, replacing, write_json
from mipo_mlx.models.identity import ADAPTERS
from mipo_mlx.records import VOTES, Ballot
from tests.commands.test_chat import COOK, run_with_notes

from .conftest import Address, serving
from .test_page_calls import token


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    return run_with_notes(tmp_path, tiny_folder)


def answer(server: Address, model: str = "mine", **more) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": COOK}], **more}
    reply = server.post("/v1/chat/completions", body)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]["content"]


def put(folder: Path, factor: float) -> None:
    """Other adapters in the run, as an update puts them there: the file is replaced as a whole."""
    path = folder / ADAPTERS[0]
    arrays = {name: value * factor if name.endswith("lora_b") else value for name, value in mx.load(str(path)).items()}
    with replacing(path) as temporary:
        named = temporary.with_suffix(".safetensors")
        mx.save_safetensors(str(named), arrays)
        named.rename(temporary)


def test_the_next_answer_and_the_next_votes_are_of_the_new_adapters(folder, tmp_path):
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    put(other, -1.0)
    with serving(other) as server:
        expected = [answer(server, name) for name in ("other", "other:base")]
    with serving(folder) as server:
        before, base = answer(server), answer(server, "mine:base")
        old = blind_votes.adapters_of(folder)
        trials = [server.post("/page/ask", {"question": COOK}, headers=token(server)).json()]
        put(folder, -1.0)
        assert [answer(server), answer(server, "mine:base")] == expected and expected[1] == base and expected[0] != before
        trials.append(server.post("/page/ask", {"question": COOK}, headers=token(server)).json())
        ballots = [{"id": trial["id"], "choice": "first"} for trial in trials]
        states = [server.post("/page/vote", ballot, headers=token(server)).json() for ballot in ballots]
    votes = read_records(folder / VOTES, Ballot)
    assert [vote.adapters for vote in votes] == [old, blind_votes.adapters_of(folder)] and votes[0].tuned == before.strip()
    assert [state["votes"] for state in states] == [0, 1]  # the first vote was about other adapters


def test_an_answer_that_is_under_way_ends_by_the_adapters_that_began_it(folder):
    """A second question comes while the first is being answered: it waits for the new adapters, and the base waits for nobody."""
    long = {"max_tokens": 60, "stop": ["\0"]}
    with serving(folder) as server:
        alone = answer(server, **long)
        texts: dict[str, str] = {}
        held = threading.Event()
        real = server.worker._step

        def step() -> None:  # the file changes in the middle of the first answer
            real()
            order = next(iter(server.worker._sides["tuned"].orders.values()), None)
            if order and order.written == 10 and not held.is_set():
                put(folder, -1.0)
                held.set()

        server.worker._step = step
        first = threading.Thread(target=lambda: texts.update(first=answer(server, **long)))
        first.start()
        assert held.wait(30)
        second = threading.Thread(target=lambda: texts.update(second=answer(server, **long)))
        second.start()
        base = answer(server, "mine:base")
        first.join(), second.join()
        assert texts["first"] == alone and texts["second"] == answer(server, **long) != alone
        assert base == answer(server, "mine:base")


def other_layout(folder: Path) -> None:
    write_json(folder / ADAPTERS[1], {**read_json(folder / ADAPTERS[1]), "num_layers": 1})


def other_recipe(folder: Path) -> None:
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("seed: 0", "seed: 7"))
    assert (folder / "recipe.yaml").read_text() != text


def other_shapes(folder: Path) -> None:
    path = folder / ADAPTERS[0]
    mx.save_safetensors(str(path), {name: mx.concatenate([value, value]) for name, value in mx.load(str(path)).items()})


def damaged(folder: Path) -> None:
    (folder / ADAPTERS[0]).write_bytes(b"\x00" * 64)


@pytest.mark.parametrize("change", [other_layout, other_recipe, other_shapes, damaged])
def test_adapters_that_do_not_belong_to_the_server_are_left_with_one_line(folder, change, capfd):
    with serving(folder) as server:
        before = answer(server)
        put(folder, -1.0)
        change(folder)
        assert answer(server) == answer(server) == before
        (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
        assert "adapters is new: " in line and line.endswith("start the server anew to use it")


@pytest.mark.parametrize("left", [False, True])
def test_a_run_that_is_gone_answers_nothing_and_is_not_made_again(folder, left):
    """left: a file of the owner's own stays in the folder."""
    with serving(folder) as server:
        headers = token(server)
        trial = server.post("/page/ask", {"question": COOK}, headers=headers).json()
        (folder / ".lock").touch()
        (folder / "recipe.yaml").rename(folder / "kept")  # as while a training starts the run over
        assert answer(server) and server.get("/health").status_code == 200
        shutil.rmtree(folder)
        if left:
            folder.mkdir()
            (folder / "mine.txt").write_text("my own")
        state = server.get("/page/state", headers=headers)
        assert state.status_code == 200 and state.json()["blind"]["votes"] == 0
        messages = [{"role": "user", "content": COOK}]
        refused = [
            *(server.post("/v1/chat/completions", {"model": model, "messages": messages}) for model in ("mine", "mine:base")),
            server.post("/v1/chat/completions", {"model": "mine", "messages": messages, "stream": True}),
            server.post("/v1/completions", {"model": "mine", "prompt": COOK}),
            server.post("/page/ask", {"question": COOK}, headers=headers),
            server.post("/page/vote", {"id": trial["id"], "choice": "first"}, headers=headers),
            server.post("/page/profile", {"text": "- New.", "version": state.json()["profile"]["version"]}, headers=headers),
        ]
        for reply in refused:
            assert reply.status_code == 409 and reply.json()["error"]["code"] == "run_gone", reply.text
        health = server.get("/health")
        assert (health.status_code, health.json()) == (503, {"status": "gone"})
        assert [path.name for path in folder.glob("*")] == ["mine.txt"] * left
