"""What Metal and CUDA say when work was too large or took too long, and what becomes of the work."""

import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from mipo_mlx import backend, errors
from mipo_mlx.engine import logprobs
from mipo_mlx.errors import Failure
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Training
from mipo_mlx.training import step, train
from tests.training.test_step import adapted, distance, make_grid, out_of_memory
from tests.training.test_step import step as one_step

METAL = "[METAL] Command buffer execution failed: "
WATCHDOG = [
    METAL + "Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)",
    METAL + "Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)",
    METAL + "Caused GPU Hang Error (00000003:kIOGPUCommandBufferCallbackErrorHang)",
    METAL + "Ignored (for causing prior/excessive GPU errors) (00000004:kIOGPUCommandBufferCallbackErrorSubmissionsIgnored)",
    METAL + "Discarded (victim of GPU error/recovery) (00000005:kIOGPUCommandBufferCallbackErrorInnocentVictim)",
    "cudaStreamSynchronize(stream) failed: the launch timed out and was terminated",
]
MEMORY = [
    METAL + "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
    "[metal::malloc] Attempting to allocate 25165824000 bytes which is greater than the maximum allowed buffer size of 9534 bytes.",
    "[metal::malloc] Resource limit (499000) exceeded.",
    "[malloc] Unable to allocate 123456 bytes.",
    "cudaMallocAsync(&data, size, stream) failed: out of memory",
    "cudaGraphLaunch(graph_exec, stream_) failed: out of memory",
    "cublasLtMatmul failed: CUBLAS_STATUS_ALLOC_FAILED",
]
OTHERS = [
    METAL + "Caused GPU Address Fault Error (0000000b:kIOGPUCommandBufferCallbackErrorPageFault)",
    "[matmul] Last dimension of first input with shape (1,2) must match second to last dimension of second input.",
    "[ring] connection to a peer was lost",
    "cudaMemcpyAsync(dst, src, size, kind, stream) failed: invalid argument",
]
SHOWN = WATCHDOG[:2]  # the two that are reported from Macs


@pytest.mark.parametrize("text", WATCHDOG + MEMORY + OTHERS)
def test_each_text_of_a_device_is_known_for_what_it_is(text):
    error = RuntimeError(text)
    assert errors.is_watchdog(error) == (text in WATCHDOG)
    assert errors.is_out_of_memory(error) == (text in MEMORY)
    assert errors.is_too_large(error) == (text not in OTHERS)
    line, code = errors.one_line(error)
    assert code == 1 and "\n" not in line
    assert ("let the display sleep" in line) == (text in WATCHDOG) and ("lower pairs.batch" in line) == (text in MEMORY)


def test_words_of_the_watchdog_in_another_kind_of_error_are_not_its_own():
    assert not errors.is_too_large(ValueError(WATCHDOG[0])) and errors.is_out_of_memory(MemoryError())


@pytest.mark.parametrize("objective", ["dpo", "sami"])
@pytest.mark.parametrize("text", SHOWN)
def test_what_the_watchdog_ends_runs_again_in_halves_with_the_same_result(text, objective, monkeypatch):
    model = adapted()
    pairs = make_grid(model, 14, shift=2.0)
    whole = one_step(model, pairs, objective=objective)
    tried = out_of_memory(180, monkeypatch, text=text)
    halved = one_step(model, pairs, objective=objective)
    assert max(tokens for tokens, _ in tried) > 180 and not any(checkpoint for _, checkpoint in tried)
    assert halved.watchdog and not whole.watchdog and halved.token_budget < 100_000
    assert halved.loss == pytest.approx(whole.loss, rel=1e-5)
    assert distance(halved.gradients, whole.gradients) < 1e-4


@pytest.mark.parametrize("text", SHOWN)
def test_a_single_pair_is_tried_again_and_then_says_what_to_do(text, monkeypatch):
    """Gradient checkpointing would not help: it makes the work longer."""
    model = adapted()
    pairs = make_grid(model, 15, contexts=2)[:1]
    tried = out_of_memory(1, monkeypatch, text=text)
    with pytest.raises(Failure, match="let the display sleep"):
        one_step(model, pairs)
    assert [checkpoint for _, checkpoint in tried] == [False] * (step.ALONE + 1)


@pytest.mark.parametrize("text", [*SHOWN, MEMORY[0]])
def test_scoring_halves_what_was_too_large_with_the_same_result(text, monkeypatch):
    model, rng = adapted(), np.random.default_rng(2)
    prompts = [rng.integers(3, 380, n).tolist() for n in (9, 4, 17, 6, 2)]
    answers = [[rng.integers(3, 380, n).tolist() for n in (3, 7)] for _ in prompts]
    whole = logprobs.token_logprobs(model, prompts, answers)
    real, sizes = logprobs.batch_logprobs, []

    def limited(model, batch, **options):
        sizes.append(batch.prompts.shape[0])
        if sizes[-1] > 2:
            raise RuntimeError(text)
        return real(model, batch, **options)

    monkeypatch.setattr(logprobs, "batch_logprobs", limited)
    for some, others in zip(logprobs.token_logprobs(model, prompts, answers), whole, strict=True):
        for mine, other in zip(some, others, strict=True):
            np.testing.assert_allclose(mine, other, atol=1e-4)
    assert sizes[0] == 5 and max(sizes[1:]) < 5
    monkeypatch.setattr(logprobs, "batch_logprobs", lambda *_, **__: (_ for _ in ()).throw(RuntimeError(text)))
    with pytest.raises(RuntimeError):
        logprobs.token_logprobs(model, prompts[:1], answers[:1])


def test_training_says_once_to_let_the_display_sleep(tmp_path, monkeypatch, capsys):
    model = adapted()
    pairs = [pair for number in range(3) for pair in make_grid(model, number)]
    real, calls = step.batch_logprobs, []

    def now_and_then(*arguments, **options):
        calls.append(1)
        if len(calls) % 5 == 1:
            raise RuntimeError(WATCHDOG[0])
        return real(*arguments, **options)

    monkeypatch.setattr(step, "batch_logprobs", now_and_then)
    job = train.Job(pairs, [], Training(epochs=1), tmp_path, 0, budget=100_000, pad=0)
    assert train.train(model, job, train.Watch(Reporter(quiet=True))).steps == 3
    assert capsys.readouterr().err.count("let the display sleep") == 1


def test_metals_driver_is_asked_for_patience_before_mlx_comes(monkeypatch):
    name = "AGX_RELAX_CDM_CTXSTORE_TIMEOUT"
    monkeypatch.setenv(name, "")  # so that the end of this test takes away what `start` sets
    monkeypatch.delenv(name)
    monkeypatch.setenv("TMPDIR", tempfile.gettempdir())  # `start` moves the folder of MLX's kernels
    monkeypatch.delitem(sys.modules, "mlx.core")
    monkeypatch.setattr(backend.platform, "system", lambda: "Linux")
    backend.start()
    assert name not in os.environ
    monkeypatch.setattr(backend.platform, "system", lambda: "Darwin")
    backend.start()
    assert os.environ[name] == "1"
    monkeypatch.setenv(name, "0")  # the owner's own setting stays
    backend.start()
    assert os.environ[name] == "0"


def test_the_engine_asks_before_it_imports_mlx():
    code = (
        "import importlib, os, platform, sys\n"
        "platform.system = lambda: 'Darwin'\n"
        "class Watch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'mlx.core': sys.exit(os.environ.get('AGX_RELAX_CDM_CTXSTORE_TIMEOUT'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "importlib.import_module(sys.argv[1])\n"
    )
    for module in ("mipo_mlx.engine.cpu", "mipo_mlx.models.load"):
        shown = subprocess.run([sys.executable, "-c", code, module], capture_output=True, text=True)
        assert shown.stderr.split() == ["1"], module
