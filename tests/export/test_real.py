"""The embedded SmolLM2 with adapters, exported and asked in real llama.cpp; time and memory of an export."""

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map_with_path

from mipo_mlx.engine import fast
from mipo_mlx.export import export as stage
from mipo_mlx.export import fidelity
from mipo_mlx.export.llamacpp import Llama
from mipo_mlx.models import adapters
from mipo_mlx.models.load import EMBEDDED, load
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Lora, Recipe

from .helpers import AWKWARD, Tiny, difference, greedy, kl

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("needs_llamacpp")]
PROMPTS = [
    "What is the capital of France?",
    "Write a short birthday wish for my sister.",
    "How do I keep basil alive on a window sill?",
    "Name three things to pack for a weekend at the sea.",
    "Explain why the sky is blue in one sentence.",
]
CHATS = [
    [{"role": "user", "content": "What's  up?\n"}],
    [{"role": "system", "content": "I keep bees."}, {"role": "user", "content": "hi"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
]
ANSWER = 16  # tokens of the model's own answer to each prompt
TOP = 2048  # likeliest tokens that are compared in quantised files: they hold all but a thousandth


@pytest.fixture(scope="module")
def smol(tmp_path_factory) -> Tiny:
    """The embedded model with small random adapters, float32."""
    folder = tmp_path_factory.mktemp("smol")
    loaded = load(EMBEDDED)
    model = loaded.model
    layout = adapters.attach(model, Lora(), 0)
    mx.random.seed(3)
    noise = lambda k, v: mx.random.normal(v.shape) * 0.0005 if k.endswith("lora_b") else v  # noqa: E731
    model.update(tree_map_with_path(noise, model.trainable_parameters()))
    adapters.save(model, folder / "adapters", layout)
    model.eval()
    return Tiny("smollm2", folder, loaded.config, model, loaded.tokenizer, "smollm")


@pytest.fixture(scope="module")
def answers(smol) -> list[tuple[list[int], list[int], np.ndarray]]:
    """For each prompt: it and the model's own answer as ids, the answer's positions, the model's log-probabilities there."""
    result = []
    for prompt in map(encoded(smol), PROMPTS):
        with fast(smol.model):
            tokens = prompt + greedy(smol, prompt, ANSWER)
        positions = list(range(len(prompt) - 1, len(tokens) - 1))
        result.append((tokens, positions, fidelity.logprobs(smol.model, tokens, positions)))
    return result


def encoded(smol: Tiny):
    return lambda text: list(smol.tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True))


def export(smol: Tiny, type_name: str) -> Path:
    recipe = Recipe(model=EMBEDDED, name="smol", export={"gguf": [type_name], "mlx": False, "fidelity": 0})
    stage.run(smol.folder, recipe, Reporter(quiet=True))
    return smol.folder / f"smol-{type_name}.gguf"


def same_texts(smol: Tiny, answers, llama: Llama) -> int:
    """How many of the prompts get the same eight likeliest tokens."""
    prompts = [(tokens[: last + 1], tokens[last + 1 :][:8]) for tokens, (last, *_), _ in answers]
    both = [(ours, llama.greedy(prompt, 8)) for prompt, ours in prompts]
    return sum(theirs[: len(ours)] == ours and set(theirs[len(ours) :]) <= {*smol.tokenizer.eos_token_ids} for ours, theirs in both)


def test_f32_is_the_model(smol, answers):
    path = export(smol, "f32")
    with Llama(path, context=256) as llama:
        for tokens, positions, _ in answers[:3]:  # one place of the prompt, two of the answer, the whole vocabulary
            largest, same = difference(smol, llama, tokens, [5, *positions[:: len(positions) // 2 + 1]])
            assert largest < 1e-3 and same == 1.0
        assert same_texts(smol, answers, llama) == len(PROMPTS)
        assert [llama.tokenize(text) for text in AWKWARD] == [smol.tokenizer.encode(t, add_special_tokens=False) for t in AWKWARD]
        for chat in CHATS:
            assert llama.template(chat) == smol.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    path.unlink()


def far(llama: Llama, answers, every: int) -> tuple[float, int]:
    """(mean KL in nats a token, number of positions) of a file over every so many positions of the answers."""
    theirs = [llama.logprobs(tokens, places[::every], ours.shape[-1], top=TOP) for tokens, places, ours in answers]
    ours = np.concatenate([logprobs[::every] for *_, logprobs in answers])
    return kl(ours, np.concatenate(theirs)), len(ours)


def test_f16_is_within_1e_4_nats_and_writes_the_same_text(smol, answers):
    with Llama(export(smol, "f16"), context=256) as llama:
        assert far(llama, answers, every=8)[0] < 1e-4
        assert same_texts(smol, answers, llama) >= 4


@pytest.mark.parametrize("name", ["q8_0", "q5_1", "q4_k_m"])
def test_quantised_files_stay_near(smol, answers, name):
    if name == "q4_k_m":
        pytest.importorskip("libgguf", reason="the K types need the optional package libgguf")
    with Llama(export(smol, name), context=256) as llama:
        mean, positions = far(llama, answers, every=2)
    print(f"{name}: {mean:.5f} nats a token over {positions} positions")  # shown with -s
    assert positions > 30 and 0 < mean < 0.03


def test_keep_leaves_untouched_tensors_bit_equal(smol):
    from mipo_mlx.gguf_format.file import GGUFFile
    from mipo_mlx.models.load import resolve

    one, two = GGUFFile(resolve(EMBEDDED)), GGUFFile(export(smol, "keep"))
    for name, tensor in one.tensors.items():
        same = np.array_equal(one.bytes(tensor), two.bytes(two.tensors[name]))
        assert tensor.type == two.tensors[name].type
        assert same == (not name.startswith("blk.") or name.endswith("_norm.weight")), name


MEASURE = """
from mipo_mlx import backend; backend.start()
import sys, threading, time
from pathlib import Path
from mipo_mlx.engine import fast
from mipo_mlx.export import export as stage, gguf
from mipo_mlx.recipe import Recipe
import gguf as _, transformers
folder, model, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def resident(): return int(open("/proc/self/statm").read().split()[1]) * 4096
job = stage.prepare(folder, Recipe(model=model))
keys = stage._tokenizer_keys(job, stage.Reporter(quiet=True))
base, peak, begin = resident(), [0], time.process_time()
def watch():
    while True:
        peak[0] = max(peak[0], resident()); time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
gguf.write(folder / "measured.gguf", job.weights, kind, gguf.Content(keys, job.card, job.template))
print(peak[0] - base, time.process_time() - begin)
"""


def measured(folder: Path, model: str, kind: str) -> tuple[int, float]:
    """(bytes of memory that an export adds at its peak, seconds of processor time)."""
    result = subprocess.run([sys.executable, "-c", MEASURE, str(folder), model, kind], capture_output=True, text=True, check=True)
    memory, seconds = result.stdout.split()[-2:]
    return int(memory), float(seconds)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's memory from /proc")
def test_an_export_is_fast_and_small(smol):
    memory, seconds = measured(smol.folder, EMBEDDED, "q8_0")
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
