"""A judge that drips: whatever comes a byte at a time, the time limit of a call holds. And nothing that a server says is raw."""

import socket
import threading
import time
from contextlib import contextmanager

import pytest

from mipo_mlx.errors import Failure, printable
from mipo_mlx.evaluation import endpoint

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
PARTS = {  # what is sent at once, and what is sent again and again
    "nothing": (b"", b""),
    "status line": (b"HTTP/1.1 2", b"0"),
    "headers": (HEAD, b"X-Drop: a\r\n"),
    "one header": (HEAD + b"X-Long: ", b"a"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": (HEAD + b"Content-Length: 90000\r\n\r\n", b" "),
    "body without a length": (HEAD + b"Connection: close\r\n\r\n", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "size of a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "body of an error": (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4000\r\n\r\n", b"a"),
    "body of a busy server": (b"HTTP/1.1 503 Busy\r\nContent-Length: 4000\r\n\r\n", b"a"),
    "body of a redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 4000\r\n\r\n", b"a"),
}


@contextmanager
def dripping(first: bytes, drop: bytes):
    """A server that sends `first`, then a drop every 20 ms, for as long as anyone listens."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def one(connection):
        try:
            connection.recv(65536)
            connection.sendall(first)
            while not over.wait(0.02):
                connection.sendall(drop)
        except OSError:
            pass
        finally:
            connection.close()

    def accept():
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        over.set()
        listener.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(endpoint, "PAUSE", 0.001)
    monkeypatch.setattr(endpoint, "TRIES", 2)
    monkeypatch.delenv(endpoint.KEY, raising=False)


@pytest.mark.parametrize("part", PARTS)
def test_a_server_that_drips_is_left_in_time(part):
    with dripping(*PARTS[part]) as url:
        begin = time.monotonic()
        with pytest.raises(Failure, match=r"no answer within 0.3 s \(evaluation.judge_timeout\), 2 times"):
            endpoint.ask(endpoint.Endpoint(url, "m", 0.3), "A or B?")
        assert time.monotonic() - begin < 5  # two tries of 0.3 s; without a limit the server never ends


STEERS = "\x1b[2J\x1b]0;owned\x07\x1b[31mred\x1b[0m\x00\x08\u202e"


@pytest.mark.parametrize("place", ["error", "message", "plain"])
def test_a_refusal_shows_neither_escapes_nor_the_key(place, monkeypatch):
    monkeypatch.setenv(endpoint.KEY, "k3y-of-the-owner")
    words = f"{STEERS} no such model for k3y-of-the-owner"
    import json

    body = {"error": json.dumps({"error": {"message": words}}), "message": json.dumps({"message": words}), "plain": words}[place]
    data = body.encode()
    with dripping(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % len(data) + data, b"") as url:
        with pytest.raises(Failure) as error:
            endpoint.ask(endpoint.Endpoint(url, "m", 5), "A or B?")
    text = str(error.value)
    assert "no such model for ***" in text and "k3y" not in text and text == printable(text) and "owned" not in text


def test_a_reply_is_shown_without_escapes():
    shown = endpoint.Reply("".join(f"{STEERS}B"), finish=STEERS + "stop").shown()
    assert shown == printable(shown) and "B" in shown and "owned" not in shown and "\\x1b" not in shown
