"""A model's layers without its weights: as many bytes of every array as the model itself has, loaded."""

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mipo_mlx import backend
from mipo_mlx.gguf_format.to_mlx import load_gguf
from mipo_mlx.models import load
from mipo_mlx.models.skeleton import skeleton
from tests.export.helpers import MODELS, make_tiny

SIZES = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}


def sizes(model) -> dict[str, int]:
    return {name: array.nbytes for name, array in tree_flatten(model.parameters())}


def written(folder, type_name: str, base: str = "llama"):
    config, pre = MODELS[base]
    return make_tiny(base, {**config, **SIZES}, pre, folder).write(folder / "model.gguf", type_name)


@pytest.mark.parametrize("base", ["llama", "qwen2-untied"])
@pytest.mark.parametrize("type_name", ["f16", "bf16", "q8_0", "q4_0", "q4_k_m", "q6_k"])
def test_a_gguf_takes_on_a_gpu_what_is_planned(type_name, base, tmp_path, monkeypatch):
    if "_k" in type_name:
        pytest.importorskip("libgguf")
    path = written(tmp_path, type_name, base)
    monkeypatch.setattr(backend, "device", lambda: backend.Device("metal", "a machine", 1 << 34, "device"))
    planned = sizes(skeleton(str(path))[0])
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu, 0))
    assert planned == sizes(load_gguf(path)[0])


@pytest.mark.skipif(mx.default_device().type != mx.cpu, reason="what the CPU keeps")
@pytest.mark.parametrize("type_name", ["f16", "q8_0", "q4_0"])
def test_a_gguf_takes_on_the_cpu_what_is_planned(type_name, tmp_path):
    path = written(tmp_path, type_name)
    assert sizes(skeleton(str(path))[0]) == sizes(load.load(str(path)).model)
