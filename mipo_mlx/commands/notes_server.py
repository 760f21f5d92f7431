"""The server behind the page of `mipo-mlx notes`: on this machine alone, for one browser, until its owner is done.

The address has a token that works once: whoever opens it first gets a cookie, and nobody else gets the page. A request that
names another host (a page that resolves to 127.0.0.1) or comes from another origin is refused by the guard of `mipo-mlx serve`.
"""

import json
import secrets
import threading
import webbrowser
from contextlib import suppress
from importlib.resources import files as resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from .. import report
from ..progress import Reporter
from ..serving.guard import Access, Guard, same
from ..serving.protocol import Refused
from ..serving.web import HANDLERS, body_of, listening, server
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
        routes = [
            Route("/", self._page, methods=["GET"]),
            Route("/choice", self._choice, methods=["POST"]),
            Route("/done", self._done, methods=["POST"]),
        ]
        hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))
        self.app = Guard(Starlette(routes=routes, exception_handlers=HANDLERS), Access("127.0.0.1", port, hosts=hosts))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that is not the owner's browser's, beside what the guard refuses; None for one that is."""
        if request.method == "POST" and "origin" not in request.headers:
            return PlainTextResponse("only this page itself may ask\n", 403)
        if not same(request.cookies.get(f"mipo-notes-{self.port}", ""), self.session):
            return PlainTextResponse(USED, 403)
        return None

    async def _page(self, request: Request) -> Response:
        given = request.query_params.get("token")
        if given is not None and request.headers.get("host") == f"127.0.0.1:{self.port}" and not self.token_used:
            if same(given, self.token):
                self.token_used = True
                answer = RedirectResponse("/", 303)
                answer.set_cookie(f"mipo-notes-{self.port}", self.session, httponly=True, samesite="strict")
                return answer
        if refusal := self._refusal(request):
            return refusal
        nonce = secrets.token_urlsafe(16)
        policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; connect-src 'self'"
        headers = {"Content-Security-Policy": f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}
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
    try:
        return await body_of(request, LARGEST)
    except Refused:
        return {}


def serve(review: Review, reporter: Reporter, browser: bool) -> None:
    """Serve the page until its owner is done, or until Ctrl-C. browser: open one."""
    with listening("127.0.0.1", 0) as bound:
        site = Site(review, bound.getsockname()[1])
        running = server(site.app)

        def stop() -> None:
            site.done.wait()
            running.should_exit = True

        threading.Thread(target=stop, daemon=True).start()
        print(site.address, file=reporter.stream, flush=True)
        reporter.say("Ctrl-C ends this; what you choose is written at once")
        if browser:
            threading.Timer(0.3, webbrowser.open, [site.address]).start()
        with suppress(KeyboardInterrupt):  # the way to end it
            running.run([bound])
