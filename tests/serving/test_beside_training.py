"""`mipo-mlx serve` in a process of its own: it answers while others train its run anew, update and remove it."""

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2 as httpx
import pytest
from click.testing import CliRunner
from openai import OpenAI

from mipo_mlx.cli import main
from tests.test_kill import KEPT, RECIPE, write_notes

pytestmark = pytest.mark.process
EVERY = 0.3  # seconds between two questions: the commands beside have the cores meanwhile
MIPO = [sys.executable, "-m", "mipo_mlx.cli"]

SMALLER = [word for key in ("grids=5", "heldout_grids=2") for word in ("--set", f"pairs.{key}")]


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in KEPT}


def test_a_run_is_served_while_it_is_trained_anew_updated_and_removed(tiny_folder, tmp_path):
    notes = tmp_path / "notes"
    write_notes(notes)
    (tmp_path / "r.yaml").write_text(RECIPE.format(model=tiny_folder, notes=notes))
    train = [*MIPO, "train", str(tmp_path / "r.yaml"), "--runs", str(tmp_path / "runs"), "--quiet", *SMALLER]
    assert CliRunner().invoke(main, train[len(MIPO) :]).exit_code == 0
    folder = tmp_path / "runs" / "r"
    alone = digests(folder)

    serve = [*MIPO, "serve", str(folder), "--port", "0", "--temperature", "0", "--max-tokens", "6"]
    server = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=(tmp_path / "said").open("w"), text=True)

    def said() -> str:
        return (tmp_path / "said").read_text()

    try:
        line = server.stdout.readline()
        assert line.startswith("r answers at http://127.0.0.1:"), line + said()
        url = line.split()[3]
        client = OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60)

        def ask() -> str:
            question = [{"role": "user", "content": "Where do I keep my bees?"}]
            answer = client.chat.completions.create(model="r", messages=question)
            assert answer.mipo_sources[0]["file"] == "bees.md"
            return answer.choices[0].message.content

        def replies_beside(*words: str) -> list[tuple[int, str]]:
            """The status and the error's code of each answer, whole and streamed in turns, until that command has ended well."""
            command = subprocess.Popen([*MIPO, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            replies, stream = [], False
            while command.poll() is None:
                body = {"model": "r", "messages": [{"role": "user", "content": "What do I build?"}], "stream": stream}
                reply = httpx.post(f"{url}/chat/completions", json=body, timeout=60)  # no answer hangs
                assert "error" not in reply.text or reply.status_code != 200, reply.text
                replies.append((reply.status_code, "" if reply.status_code == 200 else reply.json()["error"]["code"]))
                stream = not stream
                time.sleep(EVERY)
            assert command.returncode == 0, command.stdout.read()
            return replies

        before = ask()
        training = subprocess.Popen([*train, "--fresh"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        during = [ask()]
        while training.poll() is None:
            during.append(ask())
            time.sleep(EVERY)
        assert training.returncode == 0, training.stdout.read()
        assert {before, *during, ask()} == {before} and len(during) > 3
        assert digests(folder) == alone

        (notes / "kites.md").write_text("# Kites\n\nI build kites out of old tents, and I fly the largest one at the beach.\n")
        updated = replies_beside("update", str(folder), "--train", "--quiet")
        assert len(updated) > 3 and set(updated) == {(200, "")}
        body = {"model": "r", "messages": [{"role": "user", "content": "What do I build out of old tents?"}]}
        answer = httpx.post(f"{url}/chat/completions", json=body, timeout=60).json()
        assert answer["mipo_sources"][0]["file"] == "kites.md"

        removed = replies_beside("rm", str(folder), "--yes")
        assert set(removed) <= {(200, ""), (409, "run_gone")} and removed == sorted(removed) and not folder.exists()
        last = httpx.post(f"{url}/chat/completions", json=body, timeout=60)
        assert last.status_code == 409 and "removed" in last.json()["error"]["message"]
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0 and "Traceback" not in said() and "error:" not in said()
    except BaseException:
        print(said())
        raise
    finally:
        server.kill()
