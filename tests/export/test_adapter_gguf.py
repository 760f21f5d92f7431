"""Adapters as GGUF over the base GGUF: in llama.cpp the same model as the fused file."""

import numpy as np
import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.export import gguf
from mipo_mlx.export.adapter_gguf import write_adapter
from mipo_mlx.export.gguf import Card, Content
from mipo_mlx.export.llamacpp import Llama
from mipo_mlx.export.weights import Adapters, Weights, load_adapters
from mipo_mlx.gguf_format import tokenizer

from .helpers import MODELS, Tiny, make_tiny


def base_file(tiny: Tiny, path):
    keys = tokenizer.from_transformers(tiny.tokenizer, tiny.config["vocab_size"])
    bare = Weights(tiny.folder / "base", tiny.config, Adapters(1.0, {}))
    return gguf.write(path, bare, "f32", Content(keys, Card("base", "tiny/base")))[0]


def test_adapter_over_base_equals_the_fused_file(tiny: Tiny, tmp_path, needs_llamacpp, gelu_of_llamacpp):
    base = base_file(tiny, tmp_path / "base.gguf")
    if "num_experts" in tiny.config:
        with pytest.raises(UserError, match="adapters on experts"):
            write_adapter(tmp_path / "lora.gguf", tiny.weights(), Card("lora", "tiny/base"))
        return
    lora = write_adapter(tmp_path / "lora.gguf", tiny.weights(), Card("lora", "tiny/base"))[0]
    tokens = tiny.tokenizer.encode("The quick brown fox jumps over the lazy dog")
    positions = list(range(0, len(tokens), 2))
    with Llama(base, context=128, lora=lora) as llama:
        theirs = llama.logprobs(tokens, positions, tiny.config["vocab_size"])
    with Llama(tiny.write(tmp_path / "fused.gguf"), context=128) as llama:
        fused = llama.logprobs(tokens, positions, tiny.config["vocab_size"])
    with Llama(base, context=128) as llama:
        plain = llama.logprobs(tokens, positions, tiny.config["vocab_size"])
    assert np.abs(theirs - fused).max() < 1e-2
    assert np.abs(theirs - tiny.logprobs(tokens)[positions]).max() < 1e-2
    assert np.abs(plain - fused).max() > 0.1  # without the adapters the check would fail


def test_the_stage_writes_it_when_asked(tiny_llama: Tiny, tmp_path):
    from mipo_mlx.export import export
    from mipo_mlx.progress import Reporter
    from mipo_mlx.recipe import Recipe

    wanted = {"fidelity": 0, "gguf": [], "mlx": False, "adapter": True}
    recipe = Recipe(model=str(tiny_llama.folder / "base"), name="mine", export=wanted)
    result = export.run(tiny_llama.folder, recipe, Reporter(quiet=True))
    assert [f["type"] for f in result["files"]] == ["lora"]
    path = tiny_llama.folder / "mine-lora.gguf"
    assert 0 < path.stat().st_size < 200_000


def test_dora_is_refused(tmp_path):
    import mlx.core as mx

    from mipo_mlx.models import adapters
    from mipo_mlx.recipe import Lora
    from tests.conftest import build_model

    config, pre = MODELS["llama"]
    tiny = make_tiny("llama", config, pre, tmp_path)
    model = build_model(config)
    layout = adapters.attach(model, Lora(dora=True), 0)
    adapters.save(model, tmp_path / "dora", layout)
    weights = Weights(tiny.folder / "base", config, load_adapters(tmp_path / "dora"))
    with pytest.raises(UserError, match="no DoRA"):
        write_adapter(tmp_path / "lora.gguf", weights, Card("x", "y"))
    mx.clear_cache()


def test_dora_fuses_as_mlx_does(tmp_path):
    import mlx.core as mx
    from mlx.utils import tree_map_with_path

    from mipo_mlx.models import adapters
    from mipo_mlx.recipe import Lora

    config, pre = MODELS["llama"]
    tiny = make_tiny("llama", config, pre, tmp_path)
    from mlx_lm.utils import load_model

    model, _ = load_model(tiny.folder / "base")
    layout = adapters.attach(model, Lora(rank=4, scale=2.0, dora=True), 0)
    noise = lambda k, v: mx.random.normal(v.shape) * 0.05 if k.endswith("lora_b") else v * 1.1 if k.endswith(".m") else v  # noqa: E731
    model.update(tree_map_with_path(noise, model.trainable_parameters()))
    adapters.save(model, tmp_path / "dora", layout)
    weights = Weights(tiny.folder / "base", config, load_adapters(tmp_path / "dora"))
    layer = model.model.layers[1].self_attn.q_proj.fuse()
    for piece in weights.base:
        if piece.name == "model.layers.1.self_attn.q_proj.weight":
            assert np.allclose(np.array(weights.fused(piece)), np.array(layer.weight), atol=1e-5)
