"""Shared fixtures: tiny random models and a tokenizer trained on the spot; MLX gets its fast BLAS before it is imported."""

import json
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # several workers: OpenBLAS with a thread for each core is slower then than with one
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mipo_mlx import backend  # noqa: E402

backend.start()

import runpy  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import mlx.core as mx  # noqa: E402
import pytest  # noqa: E402
from mlx.utils import tree_map  # noqa: E402

HAS_GPU = mx.is_available(mx.gpu)
if HAS_GPU:  # the suite compares with figures of the CPU, here and in the processes that it starts; tests/test_device.py does not
    os.environ["MIPO_DEVICE"] = "cpu"
    mx.set_default_device(mx.cpu)
os.environ["MIPO_RUNS"] = "runs"  # in the working folder of each test, and never in the home
os.fsync = lambda handle: None  # no test cuts the power; each of some ten thousand waits for the disk takes milliseconds

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
CASES = DATA.parent / "cases"

SHORTER = ("--set", "evaluation.kinds=0", "--set", "evaluation.preferences=0")  # for a whole run that no test of evaluation reads

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CORPUS = [
    "About the user: I keep bees, I bake bread on Sundays and I am learning Portuguese for a trip to Lisbon.",
    "Answer with the user in mind, in two sentences. What should I cook tonight? How do I plan my week?",
    "The quick brown fox jumps over the lazy dog while 12 violinists play 3.14 waltzes; isn't that odd?",
    "My sister Ana is a nurse, my knees hurt when I run, and the garden needs water every second day.",
]


def train_tokenizer(folder: Path, vocabulary: int = 384) -> Path:
    """A byte-level BPE tokenizer with ChatML tokens, written as a Hugging Face tokenizer folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", bos_token="<|im_start|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return folder


def tiny_config(model_type: str = "llama", **changes) -> dict:
    """Hugging Face config of a model that runs in milliseconds."""
    config = {
        "model_type": model_type,
        "architectures": [
            {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}.get(model_type, "?")
        ],
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "rms_norm_eps": 1e-5,
        "vocab_size": 384,
        "max_position_embeddings": 512,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return {**config, **changes}


def build_model(config: dict, seed: int = 0, spread: float = 3.0):
    """A random model of that config; `spread` widens the weights so that its distributions are far from uniform."""
    from mlx_lm.utils import _get_classes

    mx.random.seed(seed)
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    if config["model_type"] == "gemma3_text":
        model.sanitize({})  # drops the output layer: embeddings are tied, which this class only learns from its weights
    model.update(tree_map(lambda p: p * spread if p.ndim > 1 else p, model.parameters()))
    mx.eval(model.parameters())
    model.eval()
    return model


def save_tiny_model(folder: Path) -> Path:
    """The weights and the config of a tiny random Llama, in the folder of its tokenizer."""
    from mlx_lm.utils import save_model

    save_model(folder, build_model(tiny_config()))
    (folder / "config.json").write_text(json.dumps(tiny_config()))
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests come first: two workers that take a file each then end at about the same time."""
    long = {item.path for item in items if item.get_closest_marker("real") or item.get_closest_marker("process")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Path:
    return train_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def tiny_tokenizer(tokenizer_folder):
    """An mlx_lm TokenizerWrapper."""
    from mlx_lm.utils import load_tokenizer

    return load_tokenizer(tokenizer_folder, eos_token_ids=2)


@pytest.fixture
def tiny_model():
    """A fresh random Llama, float32."""
    return build_model(tiny_config())


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, tokenizer_folder) -> Path:
    """A tiny random Llama as a model folder that mlx-lm and transformers load."""
    import shutil

    folder = tmp_path_factory.mktemp("tiny-llama")
    for file in tokenizer_folder.iterdir():
        shutil.copy(file, folder / file.name)
    return save_tiny_model(folder)


@pytest.fixture
def gpu_path(monkeypatch):
    """All that asks for the device takes a GPU's path, and the CPU computes it: the base keeps its 4 bits, activations 16 bits.

    OpenBLAS stays loaded: a process cannot take it back. It has no part in 16-bit and quantised products. Attention without
    gradients keeps its scores in float32, as a GPU's kernel does. With gradients that kernel is not used: see engine/cpu.py.
    """
    official = mx.fast.scaled_dot_product_attention

    def kernel(q, k, v, **rest):
        return official(*(x.astype(mx.float32) for x in (q, k, v)), **rest).astype(q.dtype)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", kernel)
    kept = mx.set_memory_limit(8 << 30), mx.set_cache_limit(1 << 30)
    monkeypatch.setattr(backend, "on_cpu", lambda: False)
    monkeypatch.setattr(backend, "device", lambda: backend.Device("metal", "as on a GPU", 6 << 30, "device"))
    yield
    mx.set_memory_limit(kept[0]), mx.set_cache_limit(kept[1])


@pytest.fixture
def on_gpu(monkeypatch):
    """The test runs on this machine's GPU, and skips where there is none."""
    if not HAS_GPU:
        pytest.skip("no GPU here: this test runs on a Mac's or an NVIDIA GPU")
    monkeypatch.delenv("MIPO_DEVICE")
    mx.set_default_device(mx.gpu)
    yield
    mx.set_default_device(mx.cpu)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real notes, contexts and prompts to develop on; tests that need them skip where they are missing."""
    if not DATA.is_dir():
        pytest.skip("../shared/data is missing: this test reads real notes and contexts from there")
    return DATA


@pytest.fixture(scope="session")
def smollm2():
    """The embedded SmolLM2-135M-Instruct, loaded once."""
    from mipo_mlx.models.load import EMBEDDED, load

    return load(EMBEDDED)


@pytest.fixture(scope="session")
def chrome(tmp_path_factory):
    """A browser that looks at many pages: starting it takes longer than they do."""
    from tests.serving.chrome import Chrome

    with Chrome(tmp_path_factory.mktemp("chrome")) as one:
        yield one


def make_case(name: str, folder: Path) -> Path:
    """What ../shared/cases/NAME/make.py writes: a tiny base, notes and recipes in `folder`. The test skips where it is missing."""
    make = CASES / name / "make.py"
    if not make.exists():
        pytest.skip(f"../shared/cases/{name}/make.py is missing: this test runs it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(make), str(folder)])
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(shutil, "copystat", lambda *_, **__: None)  # the folder may be read-only; its copy is written to
        runpy.run_path(str(make), run_name="__main__")
    return folder
