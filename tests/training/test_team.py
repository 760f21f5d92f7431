"""Training on several machines, as processes on this one: the gradient, the adapters, and what a lost or stalled process does."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.files import write_records
from mipo_mlx.training import team
from mipo_mlx.training.heartbeat import Place, place
from tests.conftest import build_model, tiny_config

from . import ranked
from .test_train import make_pairs

ROOT = Path(__file__).parents[2]
LIMIT = 60.0  # seconds within which all processes of a training end when one of them is lost


def ports(count: int) -> list[int]:
    """Free ones, for TCP."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    numbers = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return numbers


def start(size: int, work: str, folder: Path, **more: str) -> list[subprocess.Popen]:
    """The processes of one training, as mlx.launch starts them. more: variables of their environment."""
    hosts = folder / f"hosts-{size}.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in ports(size)]))
    environment = {**os.environ, "MLX_HOSTFILE": str(hosts), "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}
    command = [sys.executable, "-m", "tests.training.ranked", work, str(folder)]
    return [
        subprocess.Popen(command, env={**environment, "MLX_RANK": str(rank)}, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        for rank in range(size)
    ]


def end(processes: list[subprocess.Popen], seconds: float = 200) -> list[tuple[int, list[str]]]:
    """The exit code of each process, and its lines."""
    until, results = time.monotonic() + seconds, []
    for process in processes:
        try:
            _, errors = process.communicate(timeout=max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            for each in processes:
                each.kill()
            raise
        results.append((process.returncode, [line for line in errors.splitlines() if "PyTorch was not found" not in line]))
    return results


@pytest.mark.process
def test_several_processes_take_the_steps_of_one(tmp_path, alone):
    size = 3  # so that their shares of a step differ
    assert end(start(size, "gradient", tmp_path)) == [(0, [])] * size
    steps, trained = alone
    for i, (flat, figures) in enumerate(steps):
        ranks = [np.load(tmp_path / f"step-{i}-{rank}.npz") for rank in range(size)]
        assert all(np.array_equal(ranks[0]["flat"], other["flat"]) for other in ranks)
        assert np.linalg.norm(ranks[0]["flat"] - flat) <= 1e-6 * np.linalg.norm(flat), ranked.CASES[i]
        assert ranks[0]["figures"] == pytest.approx(figures, rel=1e-5, abs=1e-6)
    adapters = [np.load(tmp_path / f"adapters-{rank}.npz") for rank in range(size)]
    for name, value in trained.items():
        assert all(np.array_equal(adapters[0][name], other[name]) for other in adapters[1:])
        assert np.allclose(adapters[0][name], value, atol=1e-4)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same steps and the same training in this process."""
    pairs, members = make_pairs(build_model(tiny_config())), team.Team()
    return list(ranked.steps(pairs, members)), ranked.trained(tmp_path_factory.mktemp("alone"), pairs, members)


RECIPE = {
    "sources": {},
    "training": {"epochs": 3.0, "checkpoint_every": 2, "evaluate_every": 5, "max_kl": None, "min_chosen_reward": None},
}


@pytest.fixture
def run_folder(tiny_folder, tmp_path):
    """A run whose pairs are done."""
    folder = tmp_path / "run"
    folder.mkdir()
    base = build_model(tiny_config())
    pairs = [*make_pairs(base), *make_pairs(base, grids=2, split="validation", seed=9)]
    write_records(folder / "pairs.jsonl", pairs)
    (folder / "recipe.json").write_text(json.dumps({"model": str(tiny_folder), **RECIPE}))
    return folder


def adapters_of(folder: Path) -> bytes:
    return (folder / "adapters" / "adapters.safetensors").read_bytes()


@pytest.mark.process
def test_a_machine_that_is_stopped_while_the_others_connect_is_noticed(run_folder):
    """MLX holds Python's lock then, so no sign of life is sent or heard.

    Here the first machine's port takes calls, and is silent.
    """
    numbers = ports(2)
    hosts = run_folder / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in numbers]))
    more = {"MLX_RANK": "1", "MLX_HOSTFILE": str(hosts), "RANKED_LOST": "0 SIGKILL 999", "PYTHONPATH": str(ROOT)}
    with socket.create_server(("127.0.0.1", numbers[0])):
        command = [sys.executable, "-m", "tests.training.ranked", "fit", str(run_folder)]
        process = subprocess.Popen(command, env={**os.environ, **more}, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        [(code, lines)] = end([process], LIMIT)
    assert code == 1 and lines == [
        "error: the machines were not connected within 8 seconds, so one of them is lost; run the same command again, "
        "with any number of machines: it goes on from the last checkpoint"
    ]


@pytest.mark.process
def test_a_process_that_is_killed_or_stopped_ends_all_and_the_rerun_ends_as_undisturbed(run_folder, tmp_path):
    whole = Path(shutil.copytree(run_folder, tmp_path / "whole"))
    assert [code for code, _ in end(start(2, "fit", whole))] == [0, 0]
    killed, leader = start(2, "fit", run_folder, RANKED_LOST="1 SIGKILL 5")[::-1]
    [(code, lines)] = end([leader], LIMIT)
    assert code == 1 and len(lines) == 1 and lines[0].startswith("error: another machine is lost")
    assert end([killed]) == [(-signal.SIGKILL, [])]
    stopped, other = start(2, "fit", run_folder, RANKED_LOST="0 SIGSTOP 9")
    [(code, lines)] = end([other], LIMIT)
    assert code == 1 and len(lines) == 1 and lines[0].startswith("error: machine 1 of 2 is lost: it was silent")
    stopped.send_signal(signal.SIGCONT)
    [(code, lines)] = end([stopped], LIMIT)
    assert code == 1 and len(lines) == 1 and lines[0].startswith("error: ")
    assert not (run_folder / "adapters").exists() and list((run_folder / "checkpoints").glob("step-*"))
    assert [code for code, _ in end(start(2, "fit", run_folder))] == [0, 0]
    assert adapters_of(run_folder) == adapters_of(whole)


def test_what_mlx_launch_says(tmp_path, monkeypatch):
    for name in ("MLX_RANK", "MLX_HOSTFILE", "MLX_JACCL_COORDINATOR", "MLX_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert place() is None
    hosts = tmp_path / "hosts.json"
    monkeypatch.setenv("MLX_RANK", "1")
    monkeypatch.setenv("MLX_HOSTFILE", str(hosts))
    for text in ("", '[["127.0.0.1:5000"]]'):
        hosts.write_text(text)
        assert place() is None
    hosts.write_text('[["10.0.0.1:5000", "10.0.1.1:5001"], ["10.0.0.2:5002"]]')
    assert place() == Place(1, 2, "10.0.0.1", 5000, "ring")
    monkeypatch.delenv("MLX_HOSTFILE")
    monkeypatch.setenv("MLX_JACCL_COORDINATOR", "10.0.0.1:7000")
    monkeypatch.setenv("MLX_IBV_DEVICES", str(hosts))
    hosts.write_text('[[null, "rdma_en2"], ["rdma_en2", null]]')
    assert place() == Place(1, 2, "10.0.0.1", 7000, "jaccl")
    monkeypatch.delenv("MLX_JACCL_COORDINATOR")
    monkeypatch.setenv("MLX_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="--backend ring"):
        place()
