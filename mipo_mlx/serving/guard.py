"""Who may ask `mipo-mlx serve` and `notes`: the Host, Origin and key of every request are checked before anything else sees it.

- Host: a page of another site can point its own name at this machine (DNS rebinding). Its requests carry that name.
- Origin: a browser names the page that asks. Only the server's own page, and origins that the owner names, may ask.
- Key: where the owner gives one, every request except the page's own text carries it.

Nothing of a request is logged, not even where the server fails: an error's text may hold words of the owner.
"""

import hmac
import ipaddress
import re
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .protocol import FAILED, Refused

LOCAL = ("localhost", "127.0.0.1", "::1", "host.docker.internal")  # the last: how programs in Docker name this machine
SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s\[\]:/@]+))(?::\d{1,5})?")  # an address of IPv6, or another name; a port
OPEN = ("/", "/health")  # paths that need no key: they hold nothing of the owner's


@dataclass(frozen=True)
class Access:
    """Who may ask. key: "" for none. origins: of other pages and programs, beside the server's own.

    hosts: the only Host headers to be known, with their ports; without any, all names of this machine are, with any port.
    """

    host: str
    port: int
    key: str = ""
    origins: tuple[str, ...] = ()
    names: frozenset[str] = field(default_factory=frozenset)  # further names of this machine
    hosts: frozenset[str] = field(default_factory=frozenset)

    @staticmethod
    def of(host: str, port: int, key: str = "", origins: Iterable[str] = ()) -> "Access":
        own = socket.gethostname().lower()
        names = set() if is_loopback(host) else {host.lower(), own, f"{own.partition('.')[0]}.local"}
        return Access(host, port, key, tuple(origin.rstrip("/") for origin in origins), frozenset(names))

    def knows(self, host: str) -> bool:
        """Whether a Host header names this machine."""
        if self.hosts:
            return host in self.hosts
        named = HOST.fullmatch(host.lower())
        name = (named[1] or named[2]).removesuffix(".") if named else ""
        if name in LOCAL or name in self.names:
            return True
        return is_loopback(name) or (not is_loopback(self.host) and is_address(name))  # no other can point an address here

    def trusts(self, origin: str, host: str) -> bool:
        """Whether an Origin header names the server's own page, by the Host header of the same request, or one of `origins`."""
        return origin.lower() == f"http://{host.lower()}" or origin.rstrip("/") in self.origins

    def admits(self, headers: Headers) -> bool:
        return not self.key or same(bearer(headers) or headers.get("x-api-key", ""), self.key)


def bearer(headers: Headers) -> str:
    """The key or token in a request's Authorization header; "" without one."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def same(given: str, secret: str) -> bool:
    """Whether they are equal, in a time that does not say how much of them is."""
    return hmac.compare_digest(given.encode(), secret.encode())


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


class Guard:
    """Around the whole application."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, headers = False, Headers(scope=scope)
        read = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"  # the whole body, or there is none

        async def heard() -> Message:
            nonlocal read
            message = await receive()
            read = read or (message["type"] == "http.request" and not message.get("more_body"))
            return message

        async def safe(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                kept = {name for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in SAFE.items() if name.encode() not in kept]
                if not read:  # uvicorn would read the rest of it, without an end
                    more.append((b"connection", b"close"))
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            self.check(headers, scope["method"], scope["path"])
            await self.app(scope, heard, safe)
        except Refused as error:
            more = {"www-authenticate": "Bearer"} if error.status == 401 else {}
            origin = headers.get("origin", "")
            if origin.rstrip("/") in self.access.origins:  # a page that was let in may read why, such as a wrong key
                more |= {"access-control-allow-origin": origin, "vary": "Origin"}
            await JSONResponse(error.body, error.status, more)(scope, receive, safe)
        except Exception as error:
            at = error.__traceback__
            while at and at.tb_next:
                at = at.tb_next
            where = f" ({at.tb_frame.f_code.co_filename}:{at.tb_lineno})" if at else ""
            print(f"error: {type(error).__name__}{where}", file=sys.stderr)  # never its text
            if not begun:
                await JSONResponse(FAILED.body, FAILED.status)(scope, receive, safe)

    def check(self, headers: Headers, method: str, path: str) -> None:
        """Raise Refused where the request is not one of this machine's, of its page, or of a holder of the key."""
        host = headers.get("host", "")
        if not self.access.knows(host):
            raise Refused(421, "Host: not a name of this server; ask it by its address", code="wrong_host")
        origins, site = headers.getlist("origin"), headers.get("sec-fetch-site", "none")
        if not all(self.access.trusts(origin, host) for origin in origins):
            remedy = "" if self.access.hosts else "; --allow-origin lets it"
            raise Refused(403, f"Origin: this page may not ask here{remedy}", code="wrong_origin")
        opened = method == "GET" and headers.get("sec-fetch-mode") == "navigate"  # in the browser's window: no page reads it
        if not origins and site not in ("none", "same-origin") and not opened:
            raise Refused(403, "another page may not load this", code="wrong_origin")
        if method != "OPTIONS" and path not in OPEN and not self.access.admits(headers):
            raise Refused(401, "the API key is missing or wrong", code="invalid_api_key")
