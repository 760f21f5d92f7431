"""mlx-lm-lora: its own loading, data set, batching and `train_dpo`. Its progress callback waits between two steps.

It takes one rejected answer a pair. One thing is changed: it reads a working-set size from `mx.device_info`, which has none on a
CPU. Its compiled step stays as it is. An optimizer that keeps the gradients reads them.
"""

import itertools
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from protocol import Session, Stop, peak_resident, reset_peak

session = Session()

import mlx.core as mx  # noqa: E402  (after the session has loaded a fast BLAS)
import mlx.optimizers as optimizers  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.tuner.callbacks import TrainingCallback  # noqa: E402
from mlx_lm_lora.trainer.datasets import CacheDataset, DPODataset  # noqa: E402
from mlx_lm_lora.trainer.dpo_trainer import DPOTrainingArgs, train_dpo  # noqa: E402
from mlx_lm_lora.utils import from_pretrained  # noqa: E402

if "max_recommended_working_set_size" not in mx.device_info():
    known = mx.device_info
    mx.device_info = lambda *args: {"max_recommended_working_set_size": 0, **known(*args)}

config = session.config
lora = {"rank": 8, "dropout": 0.0, "scale": 20.0, "num_layers": -1}
model, _, adapter_file = from_pretrained(config["model"], new_adapter_path=tempfile.mkdtemp(), lora_config=lora)
reference, _, _ = from_pretrained(config["model"])
reference.freeze()
prompt, answers = session.prompt_and_answers()
data = DPODataset([], None)
for rejected in answers[1:]:
    data._chosen_data.append(prompt + answers[0])
    data._rejected_data.append(prompt + rejected)
    data._prompt_lengths.append(len(prompt))
batch = len(data) if config["batched"] else 1


class Keep(optimizers.Optimizer):
    """Keeps the gradients in its state and leaves the parameters unchanged."""

    def __init__(self) -> None:
        super().__init__()
        self._maybe_schedule("learning_rate", 0.0)

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["gradient"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        state["gradient"] = gradient
        return parameter


def train(optimizer: optimizers.Optimizer, steps: int, callback: TrainingCallback) -> None:
    optimizer.init(model.trainable_parameters())
    args = DPOTrainingArgs(
        batch_size=batch, iters=steps, steps_per_report=1, steps_per_save=sys.maxsize, adapter_file=str(adapter_file)
    )
    train_dpo(model, reference, optimizer, CacheDataset(data), None, args, training_callback=callback)


class Check(TrainingCallback):
    def __init__(self) -> None:
        self.begin = time.perf_counter()

    def on_train_loss_report(self, info: dict) -> None:
        self.seconds, self.loss = time.perf_counter() - self.begin, info["train_loss"]


class Timed(TrainingCallback):
    """Called after every step; waits for the next word of the benchmark."""

    def __init__(self) -> None:
        self.next()

    def next(self) -> None:
        session.wait(trim=mx.clear_cache)
        self.begin = time.perf_counter()

    def on_train_loss_report(self, info: dict) -> None:
        seconds = time.perf_counter() - self.begin
        session.send(event="step", seconds=seconds, loss=info["train_loss"], resident=peak_resident(), mlx=mx.get_peak_memory())
        self.next()


weights = mx.load(config["adapters"])
model.load_weights(list(weights.items()), strict=False)
# Each step draws a random batch. The first draw of this seed is the first pair.
batches = len(data) // batch
np.random.seed(next(s for s in itertools.count() if np.random.RandomState(s).permutation(batches)[0] == 0))
keep, check = Keep(), Check()
train(keep, 1, check)
found = {k.removesuffix(".gradient"): np.array(v) for k, v in tree_flatten(keep.state) if k.endswith(".gradient")}
np.savez(config["gradients"], **found)
session.send(event="checked", seconds=check.seconds, loss=check.loss, version=f"{version('mlx-lm-lora')}, mlx {mx.__version__}")

zeroed = [(k, mx.zeros_like(v) if k.endswith("lora_b") else v) for k, v in weights.items()]
model.load_weights(zeroed, strict=False)
mx.eval(model.parameters())
del keep, found, weights
mx.clear_cache()
reset_peak()
mx.reset_peak_memory()
try:
    train(optimizers.Adam(1e-6), sys.maxsize, Timed())
except Stop:
    pass
Path(adapter_file).unlink(missing_ok=True)
