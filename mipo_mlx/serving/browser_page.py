"""The page at `/`, and what it asks of the server beside the endpoint: passages, the profile, the blind test.

The page is one file. It loads nothing, and its token, or the owner's key, goes with each of its calls: another page cannot know it.
"""

import hashlib
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ..errors import Failure, UserError
from ..files import write_text
from ..memory import contexts
from ..recipe import Recipe
from .api import Api, gone, unless_gone
from .assistant import AnswerOptions
from .blind_test import BlindTest
from .guard import bearer, same
from .protocol import Refused
from .web import body_of

LONGEST_PROFILE = 20_000  # characters
PAGE, TOKEN, NONCE = "index.html", "{{token}}", "{{nonce}}"
POLICY = (
    "default-src 'none'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Served:
    folder: Path
    recipe: Recipe
    options: AnswerOptions
    created: int  # when it was trained, in seconds since 1970
    hold: Callable[[], AbstractContextManager[Any]]  # keeps other processes from the run; raises UserError where one works on it


class BrowserPage:
    """The page of one run. key: the owner's, "" for none; then the page brings a token of its own."""

    def __init__(self, api: Api, owned: Served, key: str) -> None:
        self.api, self.owned, self.key = api, owned, key
        self.token = key or secrets.token_urlsafe(32)
        self.trials = BlindTest(api, owned.folder, owned.recipe)
        self._kept_before = False  # whether this server has put the profile aside that it began with

    def routes(self) -> list[Route]:
        return [
            Route("/", self.page),
            Route("/page/state", self.state),
            Route("/page/passages/{key}", self.passage),
            Route("/page/profile", self.profile, methods=["POST"]),
            Route("/page/ask", self.ask, methods=["POST"]),
            Route("/page/vote", self.vote, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        text = resources(__package__).joinpath(PAGE).read_text(encoding="utf-8")
        text = text.replace(TOKEN, "" if self.key else self.token).replace(NONCE, nonce)
        return HTMLResponse(text, headers={"content-security-policy": POLICY.format(nonce)})

    async def state(self, request: Request) -> Response:
        self.admit(request)
        return JSONResponse(
            {
                "run": next(iter(self.api.variants)),
                "models": list(self.api.variants),
                "notes": self.api.worker.assistant.memory is not None,
                "profile": self._profile(),
                "blind": self.trials.state(),
            }
        )

    async def passage(self, request: Request) -> Response:
        self.admit(request)
        shown = self.api.passages.find(request.path_params["key"])
        if shown is None:
            raise Refused(404, "key: this passage is not remembered any more; ask again")
        return JSONResponse({"file": shown.source, "line": shown.line, "text": shown.text})

    async def profile(self, request: Request) -> Response:
        self.admit(request)
        body = await body_of(request)
        text, version = body.get("text"), body.get("version")
        if not isinstance(text, str) or len(text) > LONGEST_PROFILE:
            raise Refused(400, f"text: expected a text of at most {LONGEST_PROFILE:,} characters", "text")
        self.api.check_run()  # first: a lock would be written into the folder
        try:
            with self.owned.hold():
                self._write(text, version)
        except (UserError, Failure) as error:
            raise Refused(409, str(error)) from None
        except FileNotFoundError:
            raise gone() from None
        return JSONResponse(self._profile())

    async def ask(self, request: Request) -> Response:
        self.admit(request)
        body = await body_of(request)
        question = body.get("question")
        if question is not None and not isinstance(question, str):
            raise Refused(400, "question: expected a text, or nothing for a held-out one", "question")
        return JSONResponse(await unless_gone(request, self.trials.ask(question)))

    async def vote(self, request: Request) -> Response:
        self.admit(request)
        body = await body_of(request)
        return JSONResponse(self.trials.vote(body.get("id"), body.get("choice")))

    def admit(self, request: Request) -> None:
        """Raise Refused where a call does not come from the server's own page."""
        if not same(bearer(request.headers), self.token):
            raise Refused(401, "the page is of an earlier server, or the key is wrong; load it again", code="invalid_api_key")

    def _profile(self) -> dict[str, Any]:
        """profile.md as it stands. `trained` says that the run's pairs were sampled with it."""
        path = self.owned.folder / contexts.PROFILE
        text = ""
        with suppress(FileNotFoundError):
            text = path.read_text(encoding="utf-8", errors="replace")
        trained = contexts.uses_profile(self.owned.folder, self.owned.recipe) and (self.owned.folder / "samples.jsonl").exists()
        several = contexts.of_people(self.owned.recipe)
        return {"text": text, "version": version_of(text), "trained": trained, "several": several}

    def _write(self, text: str, version: Any) -> None:
        """Replace profile.md. What somebody wrote by hand before this server is kept beside it, as `mipo-mlx profile` does.

        Raises Refused where the file is not the one that the page showed.
        """
        folder = self.owned.folder
        path = folder / contexts.PROFILE
        if version != self._profile()["version"]:
            raise Refused(409, "profile.md was changed elsewhere; load the page again", code="changed")
        if contexts.edited(folder) and not self._kept_before:
            contexts.put_aside(folder)
        self._kept_before = True
        text = text.replace("\r\n", "\n").strip()
        if text:
            write_text(path, text + "\n")
            path.chmod(0o600)
        else:
            path.unlink(missing_ok=True)


def version_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
