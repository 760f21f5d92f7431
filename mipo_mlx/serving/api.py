"""The endpoint: /v1/models, /v1/chat/completions, /v1/completions and /health, as OpenAI's clients ask them.

A run answers under three names: RUN with the notes, RUN:no-notes with the profile alone, RUN:base as RUN but without what training
changed. What memory told with a question comes back as `mipo_sources`: in the reply, and in the first event of a stream.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from jinja2 import TemplateError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ..errors import UserError
from ..memory.index import Entry
from ..memory.retrieve import Match
from ..models.prompts import encode_text
from ..records import BASE, TUNED
from .assistant import Assistant, Background
from .protocol import DONE, TEXT, CompletionRequest, Refused, Reply, event, read_chat, read_text
from .renewal import is_removed
from .web import body_of
from .worker import Busy, Order, Worker

SEARCHED = 4_000  # characters at the end of a question by which notes are found
LONGEST_NAME = 100  # characters of an unknown model that are said back
MOST_PASSAGES = 1_000  # that can be opened; the oldest go first
T = TypeVar("T")


@dataclass(frozen=True)
class Variant:
    """One of the names under which a run answers."""

    side: str
    notes: bool = True


def variants(run: str) -> dict[str, Variant]:
    """The names under which a run answers."""
    return {run: Variant(TUNED), f"{run}:no-notes": Variant(TUNED, notes=False), f"{run}:base": Variant(BASE)}


class Passages:
    """The last passages that went with answers. Clients get their places and keys, and the page opens the text by its key."""

    def __init__(self) -> None:
        self._shown: OrderedDict[str, Entry] = OrderedDict()

    def remember(self, matches: Iterable[Match]) -> list[dict[str, Any]]:
        """Sources for a reply, the best first: file, line, score, and the key of the text."""
        rows = []
        for match in matches:
            entry = match.entry
            key = hashlib.sha256(f"{match.place}\n{entry.text}".encode()).hexdigest()[:16]
            self._shown[key] = entry
            self._shown.move_to_end(key)
            rows.append({"file": entry.source, "line": entry.line, "score": round(float(match.score), 4), "key": key})
        while len(self._shown) > MOST_PASSAGES:
            self._shown.popitem(last=False)
        return rows

    def find(self, key: str) -> Entry | None:
        """The passage of that key, None where none was shown or too many have been since."""
        return self._shown.get(key)


class Api:
    def __init__(self, run: str, worker: Worker, created: int) -> None:
        self.worker, self.created, self.passages = worker, created, Passages()
        self.variants = variants(run)

    def routes(self) -> list[Route]:
        return [
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.text, methods=["POST"]),
            Route("/health", self.health),
            *(Route(path, self.without_v1, methods=["GET", "POST"]) for path in ("/models", "/chat/completions", "/completions")),
        ]

    async def health(self, request: Request) -> Response:
        status = "failed" if not self.worker.alive else "gone" if is_removed(self.worker.assistant.folder) else "ok"
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    async def without_v1(self, request: Request) -> Response:
        """The base URL of a client lacks /v1."""
        raise Refused(404, "no such path here; the base URL of a client ends in /v1")

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._listed(name) for name in self.variants]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not name:  # the list, with a slash behind it
            return await self.models(request)
        self._variant(name)
        return JSONResponse(self._listed(name))

    async def chat(self, request: Request) -> Response:
        return await self._reply(request, read_chat(await body_of(request)))

    async def text(self, request: Request) -> Response:
        return await self._reply(request, read_text(await body_of(request)))

    def check_run(self) -> None:
        """Raise Refused where the run was removed."""
        if is_removed(self.worker.assistant.folder):
            raise gone()

    async def prepare(self, wanted: CompletionRequest, variant: Variant) -> tuple[Order, Background]:
        """The order for an answer, and what the model is told. Raises Refused where they do not fit into its window.

        A run that its owner removed answers nothing more, although its notes are still in memory.
        """
        self.check_run()
        try:
            return await self.worker.call(lambda: order_of(self.worker.assistant, wanted, variant))
        except UserError as error:
            key = "prompt" if wanted.kind == TEXT else "messages"
            raise Refused(400, f"{key}: {error}", key, "context_length_exceeded") from None
        except TemplateError as error:
            raise Refused(400, f"messages: the model's chat template refuses these turns ({error})", "messages") from None

    async def whole(self, order: Order) -> tuple[str, str]:
        """The whole answer, and why it ended. Raises Refused where the model fails or too many requests wait."""
        parts, finish = [], ""
        try:
            async with aclosing(self.worker.answer(order)) as pieces:
                async for piece in pieces:
                    if piece.finish == "error":
                        raise Refused(500, piece.text)
                    parts.append(piece.text)
                    finish = piece.finish or finish
        except Busy:
            raise busy() from None
        return "".join(parts), finish

    async def _reply(self, request: Request, wanted: CompletionRequest) -> Response:
        order, background = await unless_gone(request, self.prepare(wanted, self._variant(wanted.model)))
        reply = Reply(wanted, self.passages.remember(background.matches))
        if not wanted.settings.stream:
            text, finish = await unless_gone(request, self.whole(order))
            return JSONResponse(reply.whole(text, finish, order.usage))
        if self.worker.full:
            raise busy()
        return StreamingResponse(self._events(reply, order), media_type="text/event-stream")

    async def _events(self, reply: Reply, order: Order) -> AsyncIterator[str]:
        yield reply.opening()
        async with aclosing(self.worker.answer(order)) as pieces:
            async for piece in pieces:
                if piece.finish == "error":
                    yield event(Refused(500, piece.text).body)
                    return
                if piece.text:
                    yield reply.piece(piece.text)
                if piece.finish:
                    yield reply.closing(piece.finish)
        if reply.wanted.settings.include_usage:
            yield reply.usage(order.usage)
        yield DONE

    def _variant(self, name: str) -> Variant:
        if name not in self.variants:
            known = ", ".join(self.variants)
            raise Refused(404, f"model: no {name[:LONGEST_NAME]!r} here; there are {known}", "model", "model_not_found")
        return self.variants[name]

    def _listed(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.created, "owned_by": "mipo-mlx"}


def gone() -> Refused:
    return Refused(409, "the run is gone: it was removed, so this server answers nothing; end it", code="run_gone")


def busy() -> Refused:
    return Refused(429, "too many requests wait already; ask again later", code="rate_limit_exceeded")


def order_of(assistant: Assistant, wanted: CompletionRequest, variant: Variant) -> tuple[Order, Background]:
    """What the model is to write, and what it is told. This runs in the thread of the model."""
    options = assistant.options
    settings = wanted.settings.with_defaults(assistant.temperature, assistant.recipe.pairs.top_p)
    most = assistant.affordable(settings.max_tokens or options.max_tokens)
    window = assistant.longest and assistant.longest - most
    if wanted.kind == TEXT:
        background, tokenizer = Background(""), assistant.loaded.tokenizer
        tokens = [*tokenizer.encode(""), *encode_text(tokenizer, wanted.text)]  # of "": what opens every text, if anything
        if window and len(tokens) > window:
            raise UserError(f"{len(tokens)} tokens, and {window} fit into the model's window beside the answer; shorten them")
    else:
        background = assistant.background(wanted.question[-SEARCHED:], variant.notes, wanted.system)
        tokens, background = assistant.prompt(wanted.talk, background, window)
    return Order(tokens, variant.side, most, settings), background


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. It is stopped when the client leaves. Raises ClientDisconnect then."""
    task, departure = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, departure}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, departure):
            each.cancel()


async def _left(request: Request) -> None:
    receive: Callable[[], Any] = request.receive
    while (await receive())["type"] != "http.disconnect":
        pass
