"""The server: the endpoint and the page behind one guard, on one port, with one model.

mipo-mlx serve RUN -> serve() -> Guard -> Api and BrowserPage -> Worker
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from ..errors import UserError
from ..progress import Reporter
from .api import Api
from .assistant import Assistant
from .browser_page import BrowserPage, Served
from .guard import Access, Guard, is_loopback
from .watch import watching
from .web import HANDLERS, listening, server
from .worker import Worker


def check(access: Access) -> None:
    """Raise UserError where other machines could ask without a key, or where the port is taken."""
    if not is_loopback(access.host) and not access.key:
        raise UserError(f"--host {access.host}: other machines can ask there; give a key with --api-key or MIPO_API_KEY")
    if not (access.key.isascii() and access.key.isprintable()):
        raise UserError("--api-key: expected one line of ASCII characters")
    listening(access.host, access.port).close()


def serve(served: Served, access: Access, reporter: Reporter, started: Callable[[int], None], watch: bool = False) -> None:
    """Answer until Ctrl-C. `started` is called with the port once the model is loaded and clients can ask.

    watch: memory follows the notes by itself.
    """
    check(access)
    worker = Worker(lambda: Assistant(served.folder, served.recipe, served.options, reporter))
    worker.ready.result()
    try:
        bound = listening(access.host, access.port)
        started(bound.getsockname()[1])
        follow = watching(served.folder, served.recipe.sources, worker, reporter.conclude) if watch else nullcontext()
        with suppress(KeyboardInterrupt), follow:
            server(application(served, worker, access)).run([bound])
    finally:
        worker.close()


def application(served: Served, worker: Worker, access: Access) -> ASGIApp:
    api = Api(served.folder.resolve().name, worker, served.created)
    page = BrowserPage(api, served, access.key)
    app = Starlette(routes=[*api.routes(), *page.routes()], exception_handlers=HANDLERS)
    return Guard(shared(app, access.origins), access)


def shared(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application, which tells browsers that pages of these other origins may ask."""
    methods = ["GET", "POST"]
    allowed = CORSMiddleware(app, origins, allow_methods=methods, allow_headers=["*"], allow_private_network=True)
    return allowed if origins else app
