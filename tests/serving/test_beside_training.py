"""`mipo-mlx serve` in a process of its own: it answers while its run is trained anew, and both end as if alone."""

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from openai import OpenAI

from mipo_mlx.cli import main
from tests.test_kill import KEPT, RECIPE, write_notes

pytestmark = pytest.mark.process
MIPO = [sys.executable, "-m", "mipo_mlx.cli"]


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in KEPT}


def test_a_run_is_served_while_it_is_trained_anew(tiny_folder, tmp_path):
    write_notes(tmp_path / "notes")
    (tmp_path / "r.yaml").write_text(RECIPE.format(model=tiny_folder, notes=tmp_path / "notes"))
    train = [*MIPO, "train", str(tmp_path / "r.yaml"), "--runs", str(tmp_path / "runs"), "--quiet"]
    assert CliRunner().invoke(main, train[len(MIPO) :]).exit_code == 0
    folder = tmp_path / "runs" / "r"
    alone = digests(folder)

    serve = [*MIPO, "serve", str(folder), "--port", "0", "--temperature", "0", "--max-tokens", "6"]
    server = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        assert line.startswith("r answers at http://127.0.0.1:"), line + server.stderr.read()
        client = OpenAI(base_url=line.split()[3], api_key="none", max_retries=0, timeout=60)

        def ask() -> str:
            question = [{"role": "user", "content": "Where do I keep my bees?"}]
            answer = client.chat.completions.create(model="r", messages=question)
            assert answer.mipo_sources[0]["file"] == "bees.md"
            return answer.choices[0].message.content

        before = ask()
        training = subprocess.Popen([*train, "--fresh"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        during = [ask()]
        while training.poll() is None:
            during.append(ask())
        assert training.returncode == 0, training.stdout.read()
        assert {before, *during, ask()} == {before} and len(during) > 3
        assert digests(folder) == alone
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=30)
        assert server.returncode == 0 and "Traceback" not in err
    finally:
        server.kill()
