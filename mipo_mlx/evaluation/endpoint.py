"""A judge behind an OpenAI-compatible endpoint: chat completions over HTTP, one question at a time.

    mipo-mlx eval RUN --set evaluation.judge=http://127.0.0.1:8080/v1 --set evaluation.judge_model=NAME

Questions go to the host that the user names and nowhere else: redirects are not followed, and this machine is never reached
through a proxy. The API key comes from the environment variable MIPO_JUDGE_KEY and is written nowhere.
"""

import http.client
import ipaddress
import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import Failure, printable
from ..recipe import Evaluation

KEY = "MIPO_JUDGE_KEY"
TRIES = 3
PAUSE = 2.0  # seconds before the second try; twice as long before the next
LONGEST_PAUSE = 60.0  # seconds, whatever a server asks for
LONGEST_REPLY = 1 << 20  # bytes; a verdict is one letter, and even a thinking judge writes less
REPLY_TOKENS = 1024  # room for judges that think before they answer
THINKING = re.compile(r"<think>.*?(?:</think>|\Z)|\A(?:(?!<think>).)*?</think>", re.DOTALL)  # some templates open it themselves


def is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


class _Passing(Exception):
    """Another try may mend it: no connection, no answer in time, a server that is busy or broken."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause  # seconds that the server asks to wait


@dataclass(frozen=True)
class Reply:
    text: str  # without what the judge writes while it thinks; '' for nothing
    finish: str | None = None  # the server's reason for its end

    def shown(self) -> str:
        """For a message: its beginning, or why it may be empty. The key is left out if the server echoes it."""
        why = f" (finish_reason {_short(self.finish, 40)})" if self.finish else ""
        if not self.text:
            cut = f": cut at {REPLY_TOKENS} tokens, before or while it thought" if self.finish == "length" else ""
            return f"empty{cut}{why}"
        text = _short(self.text, 80)
        return f"{text!r}{why}"


@dataclass(frozen=True)
class Endpoint:
    url: str  # up to and including /v1
    model: str
    seconds: float  # time limit of one call

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def local(self) -> bool:
        name = urlsplit(self.url).hostname or ""
        try:
            return name == "localhost" or ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def warning(self) -> str:
        """Who gets to see what, in one line."""
        sent = f"evaluation.judge: held-out contexts, requests and both models' answers are sent to {self.host}"
        if self.local:
            return f"{sent} (a server on this machine; where it sends them is its own affair)"
        plain = ", unencrypted" if self.url.startswith("http:") else ""
        return f"{sent}: they leave this machine{plain}"


def endpoints(settings: Evaluation) -> list[Endpoint]:
    """Those that a recipe names as judges: none or one."""
    return [Endpoint(name, settings.judge_model or "", settings.judge_timeout) for name in settings.judges if is_url(name)]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """No request for one host goes to another."""

    def redirect_request(self, *args: Any) -> None:
        return None


def ask(endpoint: Endpoint, question: str) -> Reply:
    """The judge's whole reply to one question.

    There are TRIES tries of `endpoint.seconds` each. Raises Failure, in one line, where none gets an answer, the endpoint refuses,
    or the answer is no chat completion.
    """
    key = api_key()
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    content = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": REPLY_TOKENS,
    }
    address = endpoint.url.rstrip("/") + "/chat/completions"
    request = urllib.request.Request(address, json.dumps(content).encode(), headers)
    reason = ""
    for attempt in range(TRIES):
        try:
            return _content(_post(request, endpoint), endpoint)
        except _Passing as error:
            reason, pause = str(error), error.pause or PAUSE * 2**attempt
        if attempt + 1 < TRIES:
            time.sleep(min(pause, LONGEST_PAUSE))
    raise Failure(f"evaluation.judge: {endpoint.url}: {reason}, {TRIES} times in a row")


def api_key() -> str:
    """The API key, '' without one. http.client would print one that no header can hold."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise Failure(f"evaluation.judge: the environment variable {KEY} is no API key: it should be one line of ASCII characters")
    return key


def _post(request: urllib.request.Request, endpoint: Endpoint) -> bytes:
    """The body of the reply. The time limit is for the whole call, whatever comes in drops: headers, errors, chunks.

    A socket's own time limit begins anew with every piece. So a thread waits for the pieces, and is left alone when it is late.
    """
    reply: Future[bytes] = Future()

    def exchange() -> None:
        try:
            reply.set_result(_exchanged(request, endpoint))
        except Exception as error:
            reply.set_exception(error)

    threading.Thread(target=exchange, daemon=True).start()
    try:
        return reply.result(endpoint.seconds)
    except TimeoutError:
        raise _Passing(f"no answer within {endpoint.seconds:g} s (evaluation.judge_timeout)") from None


def _exchanged(request: urllib.request.Request, endpoint: Endpoint) -> bytes:
    handlers = [_NoRedirects(), *([urllib.request.ProxyHandler({})] if endpoint.local else [])]
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=endpoint.seconds) as response:
            reply = b""
            while piece := response.read1(65536):
                reply += piece
                if len(reply) > LONGEST_REPLY:
                    raise Failure(f"evaluation.judge: {endpoint.url}: a reply of more than {LONGEST_REPLY:,} bytes")
            if response.length:  # read1 ends without an error where the connection does, before Content-Length
                raise _Passing("the connection broke in mid-reply")
            return reply
    except urllib.error.HTTPError as error:
        after = error.headers.get("Retry-After", "")
        pause = float(after) if after.isascii() and after.isdigit() else None
        raise _refused(error.code, _message(error), endpoint, pause) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise error.reason from None
        reason = _short(str(getattr(error.reason, "strerror", None) or error.reason), 120)
        raise _Passing(f"cannot be reached ({reason})") from None
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise _Passing(f"the connection broke ({type(error).__name__})") from None


def _refused(code: int, words: str, endpoint: Endpoint, pause: float | None = None) -> Exception:
    """What a server's refusal ends in: another try, or one line."""
    reason = f"HTTP {code} {words}".strip()
    if code in (408, 425, 429) or code >= 500:
        return _Passing(reason, pause)
    hint = {
        401: f"; put the key into the environment variable {KEY}",
        403: f"; put the key into the environment variable {KEY}",
        404: "; the URL should end in /v1, and judge_model be one that it serves",
    }.get(code, "")
    return Failure(f"evaluation.judge: {endpoint.url}: {reason}{hint}")


def _message(error: urllib.error.HTTPError) -> str:
    """The server's own words in brackets; '' without any."""
    try:
        text = error.read(4096).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
    try:
        row = json.loads(text)
        return _words(row.get("error", row.get("message", "")))
    except (ValueError, RecursionError, AttributeError):
        return "" if "<" in text else _words(text)  # a page of HTML explains nothing


def _words(error: Any) -> str:
    text = _short(str(error.get("message", "") if isinstance(error, dict) else error), 200)
    return f"({text})" if text else ""


def _short(text: str, length: int) -> str:
    """A server's own words in one line, without the key."""
    key, text = api_key(), printable(text)
    return " ".join((text.replace(key, "***") if key else text).split())[:length]


def _content(reply: bytes, endpoint: Endpoint) -> Reply:
    """A chat completion's text, which some servers send in parts. Raises what `_refused` does for an error sent as HTTP 200."""
    try:
        row = json.loads(reply)
        if isinstance(row, dict) and (error := row.get("error")) and not row.get("choices"):
            code = str(error.get("code")) if isinstance(error, dict) else ""
            raise _refused(int(code) if code.isascii() and code.isdigit() else 200, _words(error), endpoint)
        choice = row["choices"][0]
        content, finish = choice["message"].get("content"), choice.get("finish_reason")
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError):
        raise Failure(
            f"evaluation.judge: {endpoint.url}: the reply is no chat completion; the URL should end in /v1, as in "
            "http://127.0.0.1:8080/v1"
        ) from None
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    text = THINKING.sub("", content).strip() if isinstance(content, str) else ""
    return Reply(text, finish if isinstance(finish, str) else None)
