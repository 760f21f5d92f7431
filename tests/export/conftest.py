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
