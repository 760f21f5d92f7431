"""`mipo-mlx doctor`: the sizes that it knows, what fits where, and the command that mends what is wrong."""

import tomllib
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mipo_mlx import backend
from mipo_mlx.commands import doctor, init, self_test
from mipo_mlx.models import embedding
from mipo_mlx.models.skeleton import from_config

BILLIONS = {
    "SmolLM2-135M": 0.135, "Qwen2.5-0.5B": 0.494, "Qwen2.5-1.5B": 1.54, "Llama-3.2-3B": 3.21, "Qwen2.5-7B": 7.62,
    "Qwen2.5-14B": 14.8,
}  # fmt: skip


@pytest.mark.parametrize("name", doctor.BASES)
def test_sizes_are_those_of_the_model_cards(name):
    assert from_config(doctor.BASES[name].config)[1] / 1e9 == pytest.approx(BILLIONS[name], rel=0.01)


def machine(monkeypatch, kind: str, gigabytes: float) -> backend.Device:
    result = backend.Device(kind, "a machine", int(gigabytes * 1e9 / 0.8), "device")
    monkeypatch.setattr(backend, "device", lambda: result)
    return result


def test_more_memory_fits_more_and_a_gpu_keeps_the_base_in_four_bits(monkeypatch):
    counts = []
    for kind, gigabytes in (("metal", 0.1), ("metal", 6), ("metal", 200), ("cpu", 6)):
        fits = doctor.fitting(machine(monkeypatch, kind, gigabytes))
        counts.append(sum(fit.fits for fit in fits))
        assert counts[-1] == sum("too much" not in str(fit) for fit in fits)
    nothing, laptop, everything, cpu = counts
    assert nothing == 0 < cpu < laptop < everything == len(doctor.BASES)


def test_a_gpus_model_is_planned_in_its_own_precision(monkeypatch):
    machine(monkeypatch, "cuda", 10)
    model, _ = from_config(doctor.BASES["SmolLM2-135M"].config)
    dtypes = {x.dtype for _, x in tree_flatten(model.parameters())}
    assert dtypes == {mx.bfloat16, mx.uint32}


def test_what_is_wrong_has_a_command_that_mends_it(monkeypatch):
    monkeypatch.setattr(backend, "device", lambda: backend.Device("cpu", "a machine", 1 << 36, "reference BLAS (slow)"))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    text, healthy = doctor.examine()
    assert not healthy
    assert "mend:     sudo apt-get install libopenblas0-pthread" in text and "mend:     sudo apt-get install g++" in text
    assert "GB, " in text and "tokens at once" in text


def test_a_gpu_beside_mlxs_cpu_build_gets_the_commands_that_write_the_cuda_library_last(monkeypatch):
    monkeypatch.setattr(backend, "device", lambda: backend.Device("cpu", "a machine", 1 << 36, "libopenblas.so.0"))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    text, healthy = doctor.examine()
    mend = next(line for line in text.splitlines() if "cuda" in line)
    assert not healthy and mend.index("pip install -e '.[cuda]'") < mend.index("--force-reinstall --no-deps")


@pytest.mark.parametrize("installed, old", [("0.32.2", True), ("0.9.9", True), ("0.32.3", False), ("0.32.10", False)])
def test_an_mlx_whose_kernels_are_wrong_on_a_mac_is_named(monkeypatch, installed, old):
    monkeypatch.setattr(backend, "versions", lambda: {"mlx": installed})
    monkeypatch.setattr(backend, "sgemm_rate", lambda *_: 1e12)
    monkeypatch.setattr(doctor, "fitting", lambda device: [])
    monkeypatch.setattr(self_test, "compare", lambda: self_test.Differences(0, 1, 0, 0))
    for kind, named in (("metal", old), ("cuda", False)):
        machine(monkeypatch, kind, 200)
        text, _ = doctor.examine()
        assert (f"MLX {installed} has GPU kernels that are wrong; 0.32.3 mends them" in text) == named


def test_the_oldest_mlx_on_a_mac_is_the_one_that_is_installed_there():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    [on_mac] = [line for line in project["project"]["dependencies"] if line.startswith("mlx>") and "Darwin" in line]
    assert f">={backend.OLDEST_ON_METAL}," in on_mac


def test_threads_that_slow_each_other_down_are_named(monkeypatch):
    assert doctor.threads({}) == []
    assert "NUM_THREADS" not in doctor.threads({1: 9e10, 2: 17e10})[0]
    [line] = doctor.threads({1: 9e10, 2: 4e10})
    assert "1: 90 GFLOP/s, 2: 40 GFLOP/s" in line and "OPENBLAS_NUM_THREADS=1" in line


@pytest.mark.skipif(not backend.has_fast_blas(), reason="no OpenBLAS was loaded")
def test_the_trial_of_threads_leaves_their_number_as_it_was(monkeypatch):
    library = backend.ctypes.CDLL(backend._blas)
    before, seen = library.openblas_get_num_threads(), []
    monkeypatch.setattr(backend, "sgemm_rate", lambda: seen.append(library.openblas_get_num_threads()) or 1.0)
    try:
        library.openblas_set_num_threads(1)
        assert backend.thread_rates() == {}
        library.openblas_set_num_threads(2)
        assert backend.thread_rates() == {1: 1.0, 2: 1.0} and seen == [1, 2] and library.openblas_get_num_threads() == 2
    finally:
        library.openblas_set_num_threads(before)


@pytest.mark.parametrize("folder", [None, Path("model")])
def test_the_command_for_sentence_embeddings_stands_where_they_are_missing(monkeypatch, folder):
    monkeypatch.setattr(embedding, "installed", lambda: folder)
    for text in (doctor.search(), init.next_steps(Path("personal.yaml"))):
        assert (embedding.COMMAND in text) == (folder is None)
