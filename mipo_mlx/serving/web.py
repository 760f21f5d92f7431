"""What the server of a run and the page of `mipo-mlx notes` share: a socket, the program that answers, bodies and refusals.

Nothing here needs the model, so a page without one starts at once.
"""

import asyncio
import json
import socket
from typing import Any

import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from ..errors import UserError
from .protocol import FAILED, Refused

CONNECTIONS = 256  # at once; further ones get 503
LARGEST_BODY = 1 << 20  # bytes
SLOWEST_HEAD, SLOWEST_BODY = 10.0, 30.0  # seconds
GONE = 499  # nobody reads this status: the client has left


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UserError where the port is taken, or the address is not one of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(128)
    except OSError as error:
        bound.close()
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{host}:{port}: {reason}; name another one with --port or --host") from None
    return bound


class ClosesIdle(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
    """A connection that is closed where no request begins for SLOWEST_HEAD seconds.

    uvicorn limits only the time between two requests. Connections that send a byte a minute would leave no place for others.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._check(self)

    def _check(self, before: Any) -> None:
        """before: the answer that was over at the last check; None before the first one, this connection while one is made."""
        cycle = self.cycle
        now = self if cycle is not None and not cycle.response_complete else cycle
        if now is before and now is not self:
            self.transport.abort()
        elif not self.transport.is_closing():
            self.loop.call_later(SLOWEST_HEAD, self._check, now)


def server(app: ASGIApp) -> uvicorn.Server:
    """A server that writes no log of requests."""
    config = uvicorn.Config(
        app, http=ClosesIdle, log_level="critical", access_log=False, server_header=False, ws="none", lifespan="off",
        limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=2,
    )  # fmt: skip
    return uvicorn.Server(config)


async def body_of(request: Request, largest: int = LARGEST_BODY) -> dict[str, Any]:
    """The JSON object of a request. Raises Refused where it is too large, too slow or something else. largest: bytes."""
    size = request.headers.get("content-length", "0")
    if size.isdigit() and int(size) > largest:
        raise Refused(413, f"the body has more than {largest:,} bytes")
    data = bytearray()
    try:
        async with asyncio.timeout(SLOWEST_BODY):
            async for piece in request.stream():
                data += piece
                if len(data) > largest:
                    raise Refused(413, f"the body has more than {largest:,} bytes")
    except TimeoutError:
        raise Refused(408, f"the body did not come within {SLOWEST_BODY:g} seconds") from None
    try:
        body = json.loads(data)
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # JSON can hold half of a surrogate pair, which is no character
        raise Refused(400, "the body is not valid Unicode (half of a surrogate pair)") from None
    except (ValueError, RecursionError):
        raise Refused(400, "the body is no JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "the body is no JSON object")
    return body


async def refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.body, error.status)


async def unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = {404: "no such path here", 405: "this path takes another method"}.get(error.status_code, error.detail)
    return JSONResponse(Refused(error.status_code, message).body, error.status_code, error.headers)


async def failed(request: Request, error: Exception) -> Response:
    return JSONResponse(FAILED.body, FAILED.status)


async def gone(request: Request, error: Exception) -> Response:
    return Response(status_code=GONE)


HANDLERS = {Refused: refused, HTTPException: unknown, ClientDisconnect: gone, Exception: failed}
