"""The server behind the page of `mipo-mlx notes`: on this machine alone, for one browser, until its owner is done.

The address has a token that works once: whoever opens it first gets a cookie, and nobody else gets the page. A request that
names another host (a page that resolves to 127.0.0.1) or comes from another origin is refused.
"""

import json
import secrets
import socket
import threading
import webbrowser
from importlib.resources import files as resources
from typing import Any

import uvicorn
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from .. import report
from ..progress import Reporter
from .notes_review import Review

LARGEST = 10_000  # bytes of a request
USED = "This address has been used. Run `mipo-mlx notes` again for a new one.\n"


def page(review: Review, nonce: str = "") -> str:
    """The page as text: one file that loads nothing. All text of the notes is data, which the script shows as text."""
    listed = review.listing()
    own, shared = resources(__package__), resources(report.__package__ or "")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    data = {"rows": review.rows(), **review.marks()}
    skipped = [{"file": file, "why": why} for file, why in listed.skipped]
    alone = sorted(listed.alone.items(), key=lambda item: -len(item[1]))
    return environment.from_string(own.joinpath("notes.html").read_text(encoding="utf-8")).render(
        name=review.run.folder.name,
        css=Markup(shared.joinpath("page.css").read_text(encoding="utf-8") + own.joinpath("notes.css").read_text(encoding="utf-8")),
        script=Markup(own.joinpath("notes.js").read_text(encoding="utf-8")),
        # No `<` in the data can end the script that holds it.
        data=Markup(json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")),
        nonce=nonce,
        problem=listed.problem,
        skipped=skipped,
        alone=[(why, names[:200], len(names)) for why, names in alone],
        used=sum(row.used for row in listed.rows),
        left=sum(not row.used for row in listed.rows),
        files=len({row.passage.source for row in listed.rows}),
    )


class Site:
    """The two addresses of the page: the page itself, and /choice, which takes a change."""

    def __init__(self, review: Review, port: int) -> None:
        self.review, self.port = review, port
        self.token, self.session = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self.token_used = False
        self.done = threading.Event()
        self.lock = threading.Lock()
        self.app = Starlette(
            routes=[
                Route("/", self._page, methods=["GET"]),
                Route("/choice", self._choice, methods=["POST"]),
                Route("/done", self._done, methods=["POST"]),
            ]
        )

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that is not the owner's browser's; None for one that is."""
        hosts = {f"127.0.0.1:{self.port}", f"localhost:{self.port}"}
        origin = request.headers.get("origin")
        if request.headers.get("host") not in hosts:
            return PlainTextResponse("no such host here\n", 421)
        if (origin is not None or request.method == "POST") and origin not in {f"http://{host}" for host in hosts}:
            return PlainTextResponse("only this page itself may ask\n", 403)
        cookie = request.cookies.get(f"mipo-notes-{self.port}", "")
        if not secrets.compare_digest(cookie.encode(), self.session.encode()):
            return PlainTextResponse(USED, 403)
        return None

    async def _page(self, request: Request) -> Response:
        given = request.query_params.get("token")
        if given is not None and request.headers.get("host") == f"127.0.0.1:{self.port}" and not self.token_used:
            if secrets.compare_digest(given.encode(), self.token.encode()):
                self.token_used = True
                answer = RedirectResponse("/", 303, {"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"})
                answer.set_cookie(f"mipo-notes-{self.port}", self.session, httponly=True, samesite="strict")
                return answer
        if refusal := self._refusal(request):
            return refusal
        nonce = secrets.token_urlsafe(16)
        policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; connect-src 'self'"
        headers = {
            "Content-Security-Policy": f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        return HTMLResponse(await run_in_threadpool(page, self.review, nonce), headers=headers)

    async def _choice(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        body = await _body(request)
        place, number, keep = body.get("place"), body.get("passage"), body.get("keep", "")
        named = isinstance(place, str) or isinstance(number, int) and 0 <= number < len(self.review.passages)
        if not named or keep not in (True, False, None):
            return PlainTextResponse("expected keep, and a place or a passage\n", 400)
        with self.lock:
            await run_in_threadpool(self.review.mark, keep, place, None if isinstance(place, str) else number)
            return JSONResponse(self.review.marks())

    async def _done(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        self.done.set()
        return JSONResponse({})


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request; {} for anything else."""
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > LARGEST:
            return {}
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def serve(review: Review, reporter: Reporter, browser: bool) -> None:
    """Serve the page until its owner is done, or until Ctrl-C. browser: open one."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        site = Site(review, listening.getsockname()[1])
        config = uvicorn.Config(site.app, log_level="error", lifespan="off", timeout_graceful_shutdown=1, server_header=False)
        server = uvicorn.Server(config)

        def stop() -> None:
            site.done.wait()
            server.should_exit = True

        threading.Thread(target=stop, daemon=True).start()
        print(site.address, file=reporter.stream, flush=True)
        reporter.say("Ctrl-C ends this; what you choose is written at once")
        if browser:
            threading.Timer(0.3, webbrowser.open, [site.address]).start()
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:  # the way to end it
            pass
