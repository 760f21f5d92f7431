"""Ours: one `training.step.gradient_step` over the row, clipping and AdamW, as in `training/train.py`."""

import time

from protocol import Session, Stop, peak_resident, reset_peak

session = Session()

import mlx.core as mx  # noqa: E402  (after the session has loaded a fast BLAS)
import mlx.optimizers as optimizers  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from mipo_mlx.engine.logprobs import token_logprobs  # noqa: E402
from mipo_mlx.models import adapters, load  # noqa: E402
from mipo_mlx.recipe import Lora, Training  # noqa: E402
from mipo_mlx.records import Pair  # noqa: E402
from mipo_mlx.training import memory_plan  # noqa: E402
from mipo_mlx.training.step import gradient_step  # noqa: E402

config = session.config
settings = Training(learning_rate=1e-6, checkpoint_gradients=config["checkpointing"])
model = load.load(config["model"]).model
adapters.attach(model, Lora(), seed=0)
prompt, answers = session.prompt_and_answers()
with adapters.disabled(model):
    scores = [float(each.sum()) for each in token_logprobs(model, [prompt], [answers])[0]]


def pair(candidates: list[int]) -> Pair:
    """The answers with those numbers as one pair, the chosen one first."""
    unused = [{"role": "assistant", "content": ""}]
    wrong = len(candidates) - 1
    return Pair(
        id=str(candidates), split="train", grid=0, prompt=unused, chosen=unused, rejected=unused, negatives=[""] * wrong,
        prompt_tokens=prompt, tokens=[answers[c] for c in candidates], reference=[scores[c] for c in candidates],
        pmi=[0.0] * wrong, kinds=["random_context"] * wrong,
    )  # fmt: skip


def planned() -> int:
    """The planner's peak of a step over the row, in bytes. Lengths are rounded up as in batches."""
    shape = memory_plan.Shape.of_pair(len(prompt), len(answers), len(answers[0]))
    return memory_plan.predict(model, settings, shape, 1 << 60).peak_bytes


row = pair(list(range(len(answers))))
budget = config["token_budget"]


def step(pairs: list[Pair]):
    return gradient_step(model, pairs, settings, token_budget=budget, pad_id=0)


def save(found, name: str) -> None:
    np.savez(config["gradients"] + name, **{k: np.array(v) for k, v in tree_flatten(found.gradients)})


model.load_weights(config["adapters"], strict=False)
begin = time.perf_counter()
found = step([row])
mx.eval(found.gradients)
seconds = time.perf_counter() - begin
save(found, "")
losses = {"": found.loss}
# For a side with one rejected answer a pair: the loss of the row's first pair, or the mean over all its pairs.
for name, pairs in (("-pair", [[0, 1]]), ("-pairs", [[0, j] for j in range(1, len(answers))])):
    if name in config["also"]:
        found = step([pair(candidates) for candidates in pairs])
        save(found, name)
        losses[name] = found.loss
version = f"mlx {mx.__version__}"
session.send(event="checked", seconds=seconds, loss=losses[""], losses=losses, version=version, planned=planned())

weights = [(k, mx.zeros_like(v) if k.endswith("lora_b") else v) for k, v in adapters.weights(model).items()]
model.load_weights(weights, strict=False)
optimizer = optimizers.AdamW(1e-6, betas=settings.betas, weight_decay=0.0, bias_correction=True)
optimizer.init(model.trainable_parameters())
mx.eval(model.parameters(), optimizer.state)
del found
mx.clear_cache()
reset_peak()
mx.reset_peak_memory()
try:
    while True:
        session.wait(trim=mx.clear_cache)
        begin = time.perf_counter()
        found = step([row])
        update, norm = optimizers.clip_grad_norm(found.gradients, settings.clip)
        optimizer.update(model, update)
        mx.eval(model.trainable_parameters(), optimizer.state, norm)
        seconds = time.perf_counter() - begin
        session.send(event="step", seconds=seconds, loss=found.loss, resident=peak_resident(), mlx=mx.get_peak_memory())
except Stop:
    pass
