"""The embedded SmolLM2 with adapters, exported and asked in real llama.cpp; time and memory of an export."""

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map_with_path

from mipo_mlx.export import fidelity, stage
from mipo_mlx.export.llamacpp import Llama
from mipo_mlx.models import adapters
from mipo_mlx.models.loading import EMBEDDED, load
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Lora, Recipe

from .helpers import kl

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("needs_llamacpp")]
PROMPTS = [
    "What is the capital of France?",
    "Write a short birthday wish for my sister.",
    "How do I keep basil alive on a window sill?",
    "Name three things to pack for a weekend at the sea.",
    "Explain why the sky is blue in one sentence.",
]


@pytest.fixture(scope="module")
def smol(tmp_path_factory):
    """(run folder, adapter model in float32, tokenizer, texts as token ids, the adapter model's log-probabilities)."""
    folder = tmp_path_factory.mktemp("smol")
    loaded = load(EMBEDDED)
    model, tokenizer = loaded.model, loaded.tokenizer
    layout = adapters.attach(model, Lora(), 0)
    mx.random.seed(3)
    noise = lambda k, v: mx.random.normal(v.shape) * 0.0005 if k.endswith("lora_b") else v  # noqa: E731
    model.update(tree_map_with_path(noise, model.trainable_parameters()))
    adapters.save(model, folder / "adapters", layout)
    model.eval()
    text = list(tokenizer.apply_chat_template([{"role": "user", "content": PROMPTS[2]}], add_generation_prompt=True))
    text += greedy(model, text, 60)
    positions = list(range(24, len(text) - 1, 4))  # of the question and of the model's own answer
    return folder, model, tokenizer, text, positions, fidelity.logprobs(model, text, positions)


def export(smol, type_name: str) -> Path:
    recipe = Recipe(model=EMBEDDED, name="smol", export={"gguf": [type_name], "mlx": False, "fidelity": 0})
    stage.run(smol[0], recipe, Reporter(quiet=True))
    return smol[0] / f"smol-{type_name}.gguf"


def greedy(model, tokens: list[int], count: int) -> list[int]:
    from mlx_lm.generate import generate_step

    return [int(token) for (token, _), _ in zip(generate_step(mx.array(tokens), model), range(count), strict=False)]


def test_f32_is_the_model(smol):
    folder, _, tokenizer, text, positions, ours = smol
    path = export(smol, "f32")
    with Llama(path, context=256) as llama:
        theirs = llama.logprobs(text, positions[-2:], ours.shape[-1])
        assert np.abs(theirs - ours[-2:]).max() < 1e-3
        rest = llama.logprobs(text, positions, ours.shape[-1], top=64)
        assert (rest.argmax(-1) == ours.argmax(-1)).all()
        for sample in ("Hello  world 123\n\n\tx", "naïve 🙂 你好", "<|im_start|>user\nhi<|im_end|>"):
            assert llama.tokenize(sample) == tokenizer.encode(sample)
        chat = [{"role": "user", "content": "hi"}]
        assert llama.template(chat) == tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    path.unlink()


def test_f16_is_within_1e_4_nats_and_writes_the_same_text(smol):
    _, model, tokenizer, text, positions, ours = smol
    equal = 0
    with Llama(export(smol, "f16"), context=256) as llama:
        assert kl(ours, llama.logprobs(text, positions, ours.shape[-1], top=2048)) < 1e-4
        for prompt in PROMPTS:
            tokens = list(tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True))
            theirs = llama.greedy(tokens, 20)
            wanted = greedy(model, tokens, 20)
            wanted = wanted[: wanted.index(2)] if 2 in wanted else wanted
            equal += theirs[: len(wanted)] == wanted
    assert equal >= 4


@pytest.mark.parametrize("name", ["q8_0", "q5_1", "q4_k_m"])
def test_quantised_files_stay_near(smol, name):
    if name == "q4_k_m":
        pytest.importorskip("libgguf", reason="the K types need the optional package libgguf")
    *_, text, positions, ours = smol
    with Llama(export(smol, name), context=256) as llama:
        theirs = llama.logprobs(text, positions, ours.shape[-1], top=2048)
    print(f"{name}: {kl(ours, theirs):.5f} nats a token over {len(positions)} positions")  # shown with -s
    assert 0 < kl(ours, theirs) < 0.02


def test_keep_leaves_untouched_tensors_bit_equal(smol):
    from mipo_mlx.models.gguf_file import GGUFFile
    from mipo_mlx.models.loading import resolve

    one, two = GGUFFile(resolve(EMBEDDED)), GGUFFile(export(smol, "keep"))
    for name, tensor in one.tensors.items():
        same = np.array_equal(one.bytes(tensor), two.bytes(two.tensors[name]))
        assert tensor.type == two.tensors[name].type
        assert same == (not name.startswith("blk.") or name.endswith("_norm.weight")), name


MEASURE = """
from mipo_mlx import backend; backend.start()
import sys, threading, time
from pathlib import Path
from mipo_mlx.export import stage, gguf
from mipo_mlx.recipe import Recipe
import gguf as _, transformers
folder, model, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def resident(): return int(open("/proc/self/statm").read().split()[1]) * 4096
job = stage.prepare(folder, Recipe(model=model))
keys = stage._tokenizer_keys(job)
base, peak, begin = resident(), [0], time.process_time()
def watch():
    while True:
        peak[0] = max(peak[0], resident()); time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
gguf.write(folder / "measured.gguf", job.weights, kind, keys, job.card, job.template)
print(peak[0] - base, time.process_time() - begin)
"""


def measured(folder: Path, model: str, kind: str) -> tuple[int, float]:
    """(bytes of memory that an export adds at its peak, seconds of processor time)."""
    result = subprocess.run([sys.executable, "-c", MEASURE, str(folder), model, kind], capture_output=True, text=True, check=True)
    memory, seconds = result.stdout.split()[-2:]
    return int(memory), float(seconds)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's memory from /proc")
def test_an_export_is_fast_and_small(smol):
    memory, seconds = measured(smol[0], EMBEDDED, "q8_0")
    assert seconds < 10
    assert memory < 1.3 * 270_886_048  # bytes of the F16 file


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's memory from /proc")
def test_memory_is_flat_in_the_number_of_layers(tmp_path):
    from tests.conftest import tiny_config

    from .helpers import VOCABULARY, make_tiny

    peaks = {}
    for layers in (4, 40):
        config = tiny_config(
            hidden_size=512, intermediate_size=2048, num_attention_heads=8, num_key_value_heads=8, head_dim=64,
            num_hidden_layers=layers, vocab_size=VOCABULARY,
        )  # fmt: skip
        tiny = make_tiny(f"deep-{layers}", config, "smollm", tmp_path / str(layers))
        peaks[layers], _ = measured(tiny.folder, str(tiny.folder / "base"), "q8_0")
    weights = 36 * (4 * 512 * 512 + 3 * 512 * 2048) * 4  # what 36 further layers take in float32
    assert peaks[40] - peaks[4] < weights / 10
