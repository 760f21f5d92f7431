"""The plain way in our own code: a copy of the prompt for every answer, logits everywhere, a reference forward pass a step."""

import time

from protocol import Session, Stop, peak_resident, reset_peak

session = Session()

import mlx.core as mx  # noqa: E402  (after the session has loaded a fast BLAS)
import mlx.nn as nn  # noqa: E402
import mlx.optimizers as optimizers  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from mipo_mlx.models import adapters, load  # noqa: E402
from mipo_mlx.recipe import Lora  # noqa: E402

BETA = 0.1
config = session.config
model = load.load(config["model"]).model
adapters.attach(model, Lora(), seed=0)
model.train()
prompt, answers = session.prompt_and_answers()
rows = mx.array([prompt + answer for answer in answers])


def scores() -> mx.array:
    """Summed log-probabilities of the answers, (answers,)."""
    logits = model(rows[:, :-1]).astype(mx.float32)
    each = -nn.losses.cross_entropy(logits, rows[:, 1:])
    return each[:, len(prompt) - 1 :].sum(-1)


def loss(_) -> mx.array:
    with adapters.disabled(model):
        reference = mx.stop_gradient(scores())
    rewards = BETA * (scores() - reference)
    return mx.logsumexp(rewards) - rewards[0]


loss_and_gradients = nn.value_and_grad(model, loss)


def step() -> tuple[mx.array, dict]:
    return loss_and_gradients(model)


model.load_weights(config["adapters"], strict=False)
begin = time.perf_counter()
value, found = step()
mx.eval(value, found)
seconds = time.perf_counter() - begin
np.savez(config["gradients"], **{k: np.array(v) for k, v in tree_flatten(found)})
session.send(event="checked", seconds=seconds, loss=value.item(), version=f"mlx {mx.__version__}")

weights = [(k, mx.zeros_like(v) if k.endswith("lora_b") else v) for k, v in adapters.weights(model).items()]
model.load_weights(weights, strict=False)
optimizer = optimizers.AdamW(1e-6, weight_decay=0.0)
optimizer.init(model.trainable_parameters())
mx.eval(model.parameters(), optimizer.state)
del value, found
mx.clear_cache()
reset_peak()
mx.reset_peak_memory()
try:
    while True:
        session.wait(trim=mx.clear_cache)
        begin = time.perf_counter()
        value, found = step()
        optimizer.update(model, found)
        mx.eval(value, model.trainable_parameters(), optimizer.state)
        seconds = time.perf_counter() - begin
        del found
        session.send(event="step", seconds=seconds, loss=value.item(), resident=peak_resident(), mlx=mx.get_peak_memory())
except Stop:
    pass
