"""Training on several machines, over `mx.distributed`: what they compute together.

    mlx.launch --hostfile hosts.json -- python -m mipo_mlx train RUN    # every machine runs this

The first machine has the run: it reads, validates, draws and writes. The others get the recipe, the pairs and the weights from it.
Each computes the gradient of its share of a step's pairs. One sum over the machines makes all of them take the same step.
A collective runs on the CPU's stream: on a GPU's, macOS ends what takes long.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from ..errors import Failure, first_line
from . import heartbeat
from .heartbeat import AGAIN, BEAT, Heartbeat
from .step import Step


@dataclass
class Team:
    """The machines of a training; by default this one alone, for which nothing is sent."""

    rank: int = 0
    size: int = 1
    heartbeat: Heartbeat | None = None
    group: Any = None  # of mx.distributed

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def combined(self, step: Step) -> Step:
        """The step of all machines, from this one's share of it."""
        if self.size == 1:
            return step
        names, leaves = list(step.metrics), tree_flatten(step.gradients)
        own = np.zeros((2, self.size), np.float32)  # what fitted into the memory of each machine
        own[:, self.rank] = step.token_budget, step.checkpointed
        figures = [step.loss, *(step.metrics[name] for name in names), float(step.watchdog), *own.reshape(-1).tolist()]
        flat = [mx.array(figures, dtype=mx.float32), *(leaf.reshape(-1).astype(mx.float32) for _, leaf in leaves)]
        summed = self.all_sum(mx.concatenate(flat))
        loss, *values = np.array(summed[: len(figures)]).tolist()
        budgets, checkpointed = values[len(names) + 1 :][: self.size], values[len(names) + 1 :][self.size :]
        gradients, at = [], len(figures)
        for name, leaf in leaves:
            gradients.append((name, summed[at : at + leaf.size].reshape(leaf.shape).astype(leaf.dtype)))
            at += leaf.size
        metrics = dict(zip(names, values, strict=False))
        watchdog = values[len(names)] > 0
        return Step(loss, tree_unflatten(gradients), metrics, int(min(budgets)), any(checkpointed), watchdog)

    def all_sum(self, values: mx.array) -> mx.array:
        """The sum over the machines, the same bits on each. Raises Failure where one of them is lost."""
        if self.size == 1 or self.heartbeat is None:
            return values
        mx.eval(values)
        self.heartbeat.wait_begins()
        try:
            total = mx.distributed.all_sum(values, group=self.group, stream=mx.cpu)
            mx.eval(total)
            return total
        except RuntimeError as error:
            time.sleep(3 * BEAT)  # the other one may say why it ended, which ends this process
            raise Failure(f"another machine is lost ({first_line(error)}); {AGAIN}") from None
        finally:
            self.heartbeat.wait_ends()

    def broadcast(self, value: Any) -> Any:
        """The first machine's `value`, through JSON, on all."""
        if self.size == 1:
            return value
        data = json.dumps(value).encode() if self.leads else b""
        length = int(self.all_sum(mx.array([len(data)] * self.size, dtype=mx.int32))[0].item())
        return json.loads(bytes(np.array(self._bytes_of_first(np.frombuffer(data, np.uint8), length))))

    def broadcast_arrays(self, tree: Any) -> Any:
        """The first machine's arrays, bit for bit, in a tree that has the same shapes on all."""
        if self.size == 1:
            return tree
        named = dict(tree_flatten(tree))  # a tree that was loaded has another order than a fresh one
        leaves = [(name, named[name]) for name in sorted(named) if isinstance(named[name], mx.array)]
        data = [np.array(leaf.reshape(-1).view(mx.uint8)) for _, leaf in leaves]
        whole, at, result = self._bytes_of_first(np.concatenate(data), sum(map(len, data))), 0, []
        for (name, leaf), own in zip(leaves, data, strict=True):
            result.append((name, whole[at : at + len(own)].view(leaf.dtype).reshape(leaf.shape)))
            at += len(own)
        mx.eval(result)
        return tree_unflatten(result)

    def _bytes_of_first(self, data: np.ndarray, length: int) -> mx.array:
        """`length` bytes of the first machine on all; padded, since a short array has no share for each machine."""
        own = np.zeros(length + 16 * self.size, np.uint8)
        if self.leads:
            own[:length] = data
        return self.all_sum(mx.array(own))[:length]

    def require_same(self, text: str, what: str) -> None:
        """Raise Failure on all machines where `text` is not the same on all."""
        if self.size > 1:
            first = self.broadcast(text)
            if int(self.all_sum(mx.array([int(text != first)] * self.size, dtype=mx.int32))[0].item()):
                raise Failure(f"{what}: not the same on all machines (here: {text[:80]}); {AGAIN}")

    def require_same_weights(self, weights: dict[str, mx.array]) -> None:
        """Raise Failure where the machines' weights differ in a bit: machines of another kind compute otherwise."""
        if self.size > 1:
            digest = hashlib.sha256(b"".join(np.array(weights[name].view(mx.uint8)).tobytes() for name in sorted(weights)))
            self.require_same(digest.hexdigest()[:16], "the adapters, which only machines of one kind keep alike")


_team = Team()


def current() -> Team:
    return _team


def join(beats: Heartbeat) -> Team:
    """Connect the machines; returns the team that `current` gives from now on."""
    global _team
    place = beats.place
    lost = f"the machines were not connected within {heartbeat.SILENT:.0f} seconds, so one of them is lost; {AGAIN}"
    try:
        with heartbeat.within(heartbeat.SILENT, lost):
            group = mx.distributed.init(strict=True, backend=place.backend)
    except RuntimeError as error:
        raise Failure(f"the machines cannot be connected ({first_line(error)}); {AGAIN}") from None
    _team = Team(place.rank, place.size, beats, group)
    return _team


def leave() -> None:
    """From now on this machine works alone."""
    global _team
    beats, _team = _team.heartbeat, Team()
    if beats:
        beats.close(None)


def follow(team: Team, train: Callable[[Any], None]) -> None:
    """On a machine that follows: take part in each training of the first one, until it has no more."""
    while (order := team.broadcast(None)) is not None:
        train(order)


def release(team: Team) -> None:
    """On the first machine: there is no more training, and the others end."""
    team.broadcast(None)
    leave()
