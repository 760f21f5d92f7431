"""Tiny models as run folders, made once a session, and whether llama.cpp is here to judge the files."""

import pytest

from mipo_mlx.export import llamacpp

from .helpers import MODELS, Tiny, make_tiny


@pytest.fixture(scope="session", params=list(MODELS))
def tiny(request, tmp_path_factory) -> Tiny:
    config, pre = MODELS[request.param]
    return make_tiny(request.param, config, pre, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> Tiny:
    return make_tiny("llama", *MODELS["llama"], tmp_path_factory.mktemp("one-llama"))


@pytest.fixture(scope="session")
def needs_llamacpp() -> None:
    if not llamacpp.available():
        pytest.skip("xllamacpp is not installed: this test asks the real llama.cpp")


@pytest.fixture
def gelu_of_llamacpp(monkeypatch) -> None:
    """On a CPU llama.cpp looks GELU up in a table of half-precision numbers, which moves Gemma's logits by some 0.01. With MLX
    rounding the same way what is left is what the file does, and that must be nothing."""
    import mlx.core as mx
    import mlx.nn

    exact = mlx.nn.gelu_approx

    def rounded(x):
        looked_up = exact(x.astype(mx.float16).astype(mx.float32)).astype(mx.float16).astype(mx.float32)
        return mx.where(x <= -10, 0, mx.where(x >= 10, x, looked_up))

    monkeypatch.setattr(mlx.nn, "gelu_approx", rounded)
