"""The one thread that owns the model: it answers several requests in one batch, and hands out their text as it comes.

    requests -> Worker.answer -> mlx-lm's BatchGenerator, one for the trained model and one for its base -> pieces

MLX and the index of the notes belong to the thread that opened them. So all work with them goes through `Worker.call`. Between
two tokens of the batch the thread takes what is new: a further request, a question to the notes, or an answer to be stopped.

Finished prompts and answers are kept in mlx-lm's LRUPromptCache. A later request that begins like one of them, with the same
system message or the same talk, computes only what is new.
"""

import asyncio
import gc
import os
import queue
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import mlx.core as mx
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import LRUPromptCache, make_prompt_cache

from .. import backend
from ..engine import fast
from ..errors import one_line
from ..models import adapters
from ..records import BASE, TUNED
from .answer_text import AnswerText
from .assistant import Assistant
from .protocol import Settings
from .samplers import processors_of, sampler_of, shared_sampler

AT_ONCE = 16  # answers in one batch; further ones wait
MOST_WAITING = 64  # requests that wait; further ones are refused
PROMPT_STEP = 512  # tokens of a prompt between two tokens of the answers that are under way
KEPT_PROMPTS, KEPT_BYTES = 16, 512 << 20  # of the prompt cache
T = TypeVar("T")


class Busy(Exception):
    """Too many requests wait already."""


@dataclass(frozen=True)
class Piece:
    """Some text of an answer. `finish` is set in the last piece: stop, length, or error with `text` as the reason."""

    text: str
    finish: str | None = None


@dataclass
class Order:
    """One answer that is wanted. The fields below `settings` are the worker's."""

    prompt: list[int]
    side: str
    max_tokens: int
    settings: Settings
    adapters: str = ""  # those that write it, as votes name them
    cached: int = 0  # tokens of the prompt that the prompt cache had
    written: int = 0  # tokens of the answer
    stopped: bool = False  # nobody waits for it any more
    deliver: Callable[[Piece], None] = lambda piece: None
    answer_text: AnswerText | None = None

    @property
    def usage(self) -> dict[str, Any]:
        """In OpenAI's words."""
        return {
            "prompt_tokens": len(self.prompt),
            "completion_tokens": self.written,
            "total_tokens": len(self.prompt) + self.written,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass
class Side:
    """One of the two models: its batch, and the orders in it."""

    name: str
    generator: BatchGenerator
    orders: dict[int, Order] = field(default_factory=dict)

    def remove(self, numbers: list[int]) -> None:
        """Take orders out of the batch."""
        if numbers:
            self.generator.remove(numbers)
        for number in numbers:
            del self.orders[number]


class Worker:
    """Starts its thread; `ready` ends when the model is loaded, or with what stopped it."""

    def __init__(self, load: Callable[[], Assistant]) -> None:
        self._load = load
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._sides: dict[str, Side] = {}
        self._waiting = 0
        self._held: list[Order] = []  # for the adapters that the run has now: answers by those before end first
        self._kept = LRUPromptCache(KEPT_PROMPTS, backend.cache_bytes(KEPT_BYTES))
        self.assistant: Assistant
        self.ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def full(self) -> bool:
        """Whether a further request is refused."""
        return self._waiting >= AT_ONCE + MOST_WAITING

    def close(self) -> None:
        """End the thread; answers that are under way are not finished."""
        self._jobs.put(None)
        self._thread.join()

    async def call(self, function: Callable[[], T]) -> T:
        """What `function` returns in the thread of the model."""
        return await asyncio.wrap_future(self.submit(function))

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Let the thread of the model run `function`; callers of other threads wait for the result."""
        result: Future[T] = Future()

        def job() -> None:
            if result.set_running_or_notify_cancel():
                try:
                    result.set_result(function())
                except Exception as error:
                    result.set_exception(error)

        self._jobs.put(job)
        return result

    async def answer(self, order: Order) -> AsyncGenerator[Piece, None]:
        """The pieces of an answer. When the caller stops to read, the model stops to write. Raises Busy."""
        if self.full:
            raise Busy
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Piece]()
        order.deliver = lambda piece: loop.call_soon_threadsafe(pieces.put_nowait, piece)  # type: ignore[assignment]
        self._waiting += 1
        self._jobs.put(lambda: self._begin(order))
        try:
            while True:
                piece = await pieces.get()
                yield piece
                if piece.finish is not None:
                    return
        finally:
            order.stopped = True
            self._waiting -= 1

    # What follows runs in the worker's own thread.

    def _run(self) -> None:
        try:
            self.assistant = self._load()
            mx.random.seed(int.from_bytes(os.urandom(8)))  # of this thread: each start draws other answers
            self._open()
        except BaseException as error:
            self.ready.set_exception(error)
            return
        self.ready.set_result(None)
        while self._work(self._jobs.get()):
            pass
        # MLX aborts the process at its end where a thread that is gone has left streams, or arrays on them.
        self._sides.clear()
        self._kept = LRUPromptCache(0)
        del self.assistant
        shared_sampler.cache_clear()
        gc.collect()
        mx.clear_streams()

    def _open(self) -> None:
        """Empty batches of both models."""
        ends = [[token] for token in sorted(self.assistant.loaded.tokenizer.eos_token_ids)]
        self._sides = {
            name: Side(
                name,
                BatchGenerator(
                    self.assistant.loaded.model,
                    stop_tokens=ends,
                    completion_batch_size=AT_ONCE,
                    prefill_batch_size=4,
                    prefill_step_size=PROMPT_STEP,
                ),
            )
            for name in (TUNED, BASE)
        }

    def _work(self, job: Callable[[], None] | None) -> bool:
        """A job and all answers that it leads to; further jobs are taken on the way. False at the end of the server."""
        with ExitStack() as stack:
            entered = False
            while True:
                if job is None:
                    return False
                job()
                while self._jobs.empty():
                    if not any(side.orders for side in self._sides.values()):
                        return True
                    if not entered:  # it costs a float32 table on the CPU: not for a question to the notes alone
                        stack.enter_context(fast(self.assistant.loaded.model))
                        entered = True
                    self._step()
                job = self._jobs.get()
                if entered and job is not None:
                    self._step()

    def _begin(self, order: Order) -> None:
        if order.stopped:
            return
        if order.side == TUNED and (self._held or self.assistant.outdated):
            if self._sides[TUNED].orders:
                self._held.append(order)
                return
            self.assistant.take_adapters()
            self._kept.trim_to(n_sequences=0)
        order.adapters = self.assistant.taken.digest
        side, loaded = self._sides[order.side], self.assistant.loaded
        try:
            order.answer_text = AnswerText(loaded.tokenizer, order.settings.stop)
            cache, rest = self._kept.fetch_nearest_cache(order.side, order.prompt[:-1])
            order.cached = len(order.prompt) - 1 - len(rest)
            (number,) = side.generator.insert(
                [order.prompt[order.cached :]],
                [order.max_tokens],
                caches=[cache or make_prompt_cache(loaded.model)],
                all_tokens=[order.prompt[: order.cached]],
                samplers=[sampler_of(order.settings)],
                logits_processors=[processors_of(order.settings, len(order.prompt))],
            )
            side.orders[number] = order
        except Exception as error:
            self._deliver(order, Piece(one_line(error)[0], "error"))

    def _step(self) -> None:
        """One more token for every answer; then those that were held begin, where the answers before them have ended."""
        self._step_sides()
        if self._held and not self._sides[TUNED].orders:
            held, self._held = self._held, []
            for order in held:
                self._begin(order)

    def _step_sides(self) -> None:
        for side in self._sides.values():
            if side.orders:
                try:
                    with adapters.disabled(self.assistant.loaded.model) if side.name == BASE else nullcontext():
                        self._step_of(side)
                except Exception as error:  # out of memory, for example: these answers are lost, the server goes on
                    lost = [order for each in self._sides.values() for order in each.orders.values()]
                    self._open()
                    self._kept.trim_to(n_sequences=0)
                    for order in lost:
                        self._deliver(order, Piece(one_line(error)[0], "error"))
                    return

    def _step_of(self, side: Side) -> None:
        side.remove([number for number, order in side.orders.items() if order.stopped])
        _, responses = side.generator.next() if side.orders else ([], [])
        ended = []
        for response in responses:
            order = side.orders[response.uid]
            order.written += 1
            assert order.answer_text is not None
            text = "" if response.finish_reason == "stop" else order.answer_text.add(response.token)
            finish = response.finish_reason
            if finish is not None:
                text += order.answer_text.finish()
                self._kept.insert_cache(side.name, response.all_tokens, response.prompt_cache)
                del side.orders[response.uid]
            elif order.answer_text.ended:
                ended.append(response.uid)
            if order.answer_text.ended:
                finish = "stop"
            if text or finish:
                self._deliver(order, Piece(text, finish))
        side.remove(ended)

    def _deliver(self, order: Order, piece: Piece) -> None:
        try:
            order.deliver(piece)
        except RuntimeError:  # the server's loop has ended
            order.stopped = True
