"""Slow, vanishing and hostile clients get the right answers. Others may ask only from where they are allowed to."""

import json
import socket
import time
from contextlib import suppress

import httpx2 as httpx
import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.serving import api, web
from mipo_mlx.serving.guard import Access, is_loopback
from mipo_mlx.serving.server import check
from mipo_mlx.serving.web import listening

from .conftest import Address, serving

SECRET = "zebra-crossing at the lighthouse"
ASK = {"model": "mine", "messages": [{"role": "user", "content": SECRET}]}


def code(response: httpx.Response) -> tuple[int, str | None]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and SECRET not in response.text
    return response.status_code, error["code"]


@pytest.fixture(scope="module")
def locked(mine):
    """A server with a key, which an app of another origin may ask."""
    with serving(mine, key="s3cret", origins=("app://obsidian.md",)) as address:
        yield address


OTHERS = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.168.1.7", "", "[::2]:80"]
ODD = [  # spellings that a browser, a resolver and a server may read in different ways
    "0.0.0.0", "2130706433", "0x7f.1", "127.1", "::1", "[::1", "localhost:", "localhost:80:80", "localhost@evil.example",
    "evil.example@localhost", "localhost,evil.example", "localhost evil.example", "localhost/..", "[localhost]", "localhost#a",
]  # fmt: skip


@pytest.mark.parametrize("host", [*OTHERS, *ODD])
@pytest.mark.parametrize("path", ["/v1/models", "/health", "/"])
def test_another_host_name_is_misdirected(served, host, path):
    assert code(served.get(path, headers={"host": host})) == (421, "wrong_host")


OWN = ["localhost", "localhost:99", "127.0.0.1", "[::1]:8080", "[::1]", "LOCALHOST", "host.docker.internal:1"]
OWN += ["localhost.:80", "[0:0:0:0:0:0:0:1]", "127.0.0.2:80"]


@pytest.mark.parametrize("host", OWN)
def test_names_of_this_machine_are_known(served, host):
    assert served.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:1", "app://obsidian.md"]
)
def test_a_page_of_another_origin_is_forbidden(served, origin):
    for path in ("/v1/chat/completions", "/v1/completions", "/nothing"):
        assert code(served.post(path, ASK, headers={"origin": origin})) == (403, "wrong_origin")
    assert code(served.get("/v1/models", headers={"origin": origin})) == (403, "wrong_origin")
    answer = httpx.options(f"{served.url}/v1/models", headers={"origin": origin, "access-control-request-method": "GET"})
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


def test_a_page_may_not_load_the_api_as_a_script_or_picture(served):
    for site in ("cross-site", "same-site"):
        headers = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
        assert code(served.get("/v1/models", headers=headers)) == (403, "wrong_origin")


def test_another_site_may_open_a_window_and_send_no_form(served):
    window = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert served.get("/", headers=window).status_code == 200
    assert code(served.post("/v1/chat/completions", ASK, headers={**window, "content-type": "text/plain"})) == (403, "wrong_origin")


def test_of_two_origins_each_must_be_trusted(served):
    for origins in ([served.url, "https://evil.example"], ["https://evil.example", served.url]):
        assert code(served.get("/v1/models", headers=[("origin", origin) for origin in origins])) == (403, "wrong_origin")


def test_the_servers_own_page_may_ask(served):
    assert served.get("/v1/models", headers={"origin": served.url, "sec-fetch-site": "same-origin"}).status_code == 200


def test_an_origin_that_was_let_in_is_told_so(locked):
    app, key = "app://obsidian.md", {"authorization": "Bearer s3cret"}
    preflight = {"origin": app, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    answer = httpx.options(f"{locked.url}/v1/chat/completions", headers=preflight)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == app
    answer = locked.get("/v1/models", headers={"origin": app, **key})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == app
    for name, path in (({"authorization": "Bearer wrong"}, "/v1/models"), (key, "/v1/models/nobody")):  # it may read errors too
        answer = locked.get(path, headers={"origin": app, **name})
        assert answer.status_code in (401, 404) and answer.headers.get_list("access-control-allow-origin") == [app]
    other = locked.get("/v1/models", headers={"origin": "app://other", **key})
    assert code(other) == (403, "wrong_origin") and "access-control-allow-origin" not in other.headers


def test_the_key_is_asked_for_everywhere(locked):
    wrong = ("Basic s3cret", "s3cret", "Bearer s3cre", "Bearer s3cret2", "s3cret é".encode(), "Bearer")
    for given in ({}, *({"authorization": value} for value in wrong)):
        for path in ("/v1/models", "/v1/models/mine", "/nothing"):
            answer = locked.get(path, headers=given)
            assert code(answer) == (401, "invalid_api_key") and answer.headers["www-authenticate"] == "Bearer"
        assert code(locked.post("/v1/chat/completions", ASK, headers=given)) == (401, "invalid_api_key")
    assert locked.get("/health").json() == {"status": "ok"}
    for right in ("Bearer s3cret", "bearer s3cret", "BEARER  s3cret"):
        assert locked.get("/v1/models", headers={"authorization": right}).status_code == 200


def test_bodies_that_are_no_request(served):
    def send(data: bytes) -> tuple[int, str | None]:
        return code(httpx.post(f"{served.url}/v1/chat/completions", content=data, timeout=30))

    for data in (b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"null", b"[" * 100_000, b'{"model": NaN}', b"{}"):
        assert send(data)[0] == 400, data[:20]
    whole = json.dumps({**ASK, "max_tokens": 2, "stop": "x", "tools": [{"note": "y"}]})
    for part in ('"x"', '"y"', '"user"', '"mine"', f'"{SECRET}"', '"stop"'):  # half of a surrogate pair, by its number and raw
        for data in (whole.replace(part, '"\\udc80"').encode(), whole.encode().replace(part.encode(), b'"\xed\xa0\x80"')):
            assert send(data)[0] == 400, data
    assert send(json.dumps({**ASK, "model": "nobody"}).encode()) == (404, "model_not_found")
    long = httpx.post(f"{served.url}/v1/completions", json={"model": "n" * 500_000, "prompt": "x"}, timeout=30)
    assert code(long) == (404, "model_not_found") and len(long.text) < 400
    assert send(json.dumps({**ASK, "temperature": float("nan")}).encode())[0] == 400
    assert code(served.get("/nothing"))[0] == 404 and code(served.get("/v1/chat/completions"))[0] == 405


def test_a_body_of_ten_megabytes_is_too_large(served):
    large = b"x" * (10 << 20)
    for sent in (large, iter([large[:100_000]] * 100)):  # with its size in front, and without
        try:
            assert code(httpx.post(f"{served.url}/v1/completions", content=sent, timeout=30))[0] == 413
        except (httpx.WriteError, httpx.RemoteProtocolError):
            pass  # the server closed the connection while the client still wrote
    assert served.get("/health").status_code == 200


def test_a_body_that_never_ends_is_given_up(served, monkeypatch):
    monkeypatch.setattr(web, "SLOWEST_BODY", 0.2)
    with socket.create_connection(("127.0.0.1", served.port)) as slow:
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        slow.settimeout(20)
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("line", "host", "status"),
    [
        ("POST /v1/completions", "localhost", 413),
        ("POST /v1/completions", "evil.example", 421),
        ("POST /nothing", "localhost", 404),
        ("GET /health", "localhost", 200),
        ("PUT /v1/models", "localhost", 405),
    ],
)
def test_a_body_without_an_end_is_not_read_on(served, line, host, status):
    """The answer comes, and the connection ends."""
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sender:
        sender.sendall(f"{line} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        sent, until = 0, time.monotonic() + 20
        with pytest.raises(OSError):
            while time.monotonic() < until:
                sender.sendall(chunk)
                sent += len(chunk)
        assert sent < 64 << 20
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sender:
        begun = f"{line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {2 << 20}\r\n\r\n"
        sender.sendall(begun.encode())
        answer = b"".join(iter(lambda: sender.recv(4096), b""))
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()) and b"connection: close" in answer


def test_a_head_that_never_ends_is_given_up(served, monkeypatch):
    monkeypatch.setattr(web, "SLOWEST_HEAD", 0.05)
    for begun in (b"", b"GET /health HTTP/1.1\r\nHo", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea"):
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as slow:
            slow.sendall(begun)
            with suppress(ConnectionResetError):
                answer = b"".join(iter(lambda slow=slow: slow.recv(4096), b""))
                assert (b'{"status":"ok"}' in answer) == (b"localhost" in begun)
    body = {**ASK, "max_tokens": 60, "stop": ["\0"]}
    with httpx.Client(timeout=60) as kept:  # an answer that takes longer than that is not cut, nor is the next one
        assert [kept.post(f"{served.url}/v1/chat/completions", json=body).status_code for _ in range(2)] == [200, 200]


def test_a_client_that_does_not_read_holds_nobody(served):
    body = json.dumps({**ASK, "stream": True, "max_tokens": 200}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    slow = socket.create_connection(("127.0.0.1", served.port))
    slow.sendall(head + body)
    assert served.post("/v1/chat/completions", ASK).status_code == 200
    slow.close()
    until = time.monotonic() + 20
    while (served.busy or served.worker._waiting) and time.monotonic() < until:
        time.sleep(0.02)
    assert not served.busy


def test_too_many_requests_are_refused(served, monkeypatch):
    monkeypatch.setattr(type(served.worker), "full", True)
    for stream in (False, True):
        assert code(served.post("/v1/chat/completions", {**ASK, "stream": stream})) == (429, "rate_limit_exceeded")


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_of_the_model_is_an_error_and_the_next_request_is_answered(served, monkeypatch, stream):
    def broken(side):
        raise RuntimeError("[malloc] Unable to allocate")

    monkeypatch.setattr(served.worker, "_step_of", broken)
    answer = served.post("/v1/chat/completions", {**ASK, "stream": stream})
    if stream:
        events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        assert "out of memory" in json.loads(events[-1])["error"]["message"]
    else:
        assert answer.status_code == 500 and "out of memory" in answer.json()["error"]["message"]
    monkeypatch.undo()
    assert served.post("/v1/chat/completions", ASK).status_code == 200


def test_nothing_of_a_talk_is_written_anywhere(served, monkeypatch, capfd):
    assert SECRET not in served.post("/v1/chat/completions", {**ASK, "n": 2}).text
    served.post("/v1/chat/completions", ASK)

    def broken(*args):
        raise ValueError(SECRET)

    monkeypatch.setattr(api, "order_of", broken)
    assert code(served.post("/v1/chat/completions", ASK))[0] == 500
    out, err = capfd.readouterr()
    until = time.monotonic() + 20
    while not err and time.monotonic() < until:  # the line follows the answer
        time.sleep(0.02)
        more = capfd.readouterr()
        out, err = out + more.out, err + more.err
    assert out == "" and SECRET not in err and err.startswith("error: ValueError (") and len(err.splitlines()) == 1
    kept = [path for path in served.folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert kept == []


def test_replies_are_not_kept_by_browsers(served: Address):
    headers = served.get("/v1/models").headers
    assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff" and "server" not in headers


def test_other_addresses_need_a_key():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.0.0.2")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.7", "my-mac.local")))
    with pytest.raises(UserError, match="give a key"):
        check(Access.of("0.0.0.0", 0))
    with pytest.raises(UserError, match="one line of ASCII"):
        check(Access.of("127.0.0.1", 0, "a\nb"))
    open_to_all = Access.of("0.0.0.0", 0, "key")
    assert open_to_all.knows("192.168.1.7") and open_to_all.knows(socket.gethostname()) and not open_to_all.knows("evil.example")
    assert open_to_all.knows("[fe80::1]:80") and not open_to_all.knows("fe80::1") and not open_to_all.knows("[fe80::1]evil:80")


def test_a_port_that_is_taken_or_an_address_of_others_ends_in_one_line():
    with listening("127.0.0.1", 0) as bound:
        with pytest.raises(UserError, match="address already in use; name another one with --port"):
            check(Access.of("127.0.0.1", bound.getsockname()[1]))
    with pytest.raises(UserError, match="203.0.113.1:8080: .*--host"):
        check(Access.of("203.0.113.1", 8080, "key"))
