"""`mipo-mlx notes`: the page and its text, the server that saves a click, and who may not ask it."""

import http.client
import json
import re
import threading
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from mipo_mlx import recipe_loading
from mipo_mlx.cli import main
from mipo_mlx.commands import notes as command
from mipo_mlx.commands import notes_server
from mipo_mlx.progress import Reporter
from mipo_mlx.run import Run
from mipo_mlx.sources.own_choice import FILE, read_choice
from tests.report.browser import measure
from tests.serving.chrome import CHROMIUM, Chrome

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome here: the page is used in a headless one")


@pytest.fixture
def folder(tmp_path):
    notes = tmp_path / "notes"
    for number in range(12):
        file = notes / ("Work/Old" if number % 3 else "Diary") / f"2024-05-{number + 10}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f"I keep {number} bees in the garden of my aunt, and I sing to them on day {number}, </script><b>loud</b>.\n"
        )
    (notes / "links.md").write_text("- [the first link of my long list](a)\n- [the other link of my long list](b)\n")
    (notes / "bad.md").write_bytes(b"\0\1")
    (notes / "photo.png").write_bytes(b"x")
    return notes


@pytest.fixture
def review(tmp_path, folder, tiny_folder):
    sets = [f"sources.notes={folder}", "sources.min_tokens=5", "pairs.contexts_per_grid=2"]
    recipe = recipe_loading.parse(f"model: {tiny_folder}", overrides=sets)
    return command.Review(Run(tmp_path / "runs" / "mine", recipe), Reporter(quiet=True))


@pytest.fixture
def site(review, monkeypatch):
    """The server at work, with the site behind it."""
    sites = []
    original = notes_server.Site.__init__
    ready = threading.Event()

    def remember(self, *given):
        original(self, *given)
        sites.append(self)
        ready.set()

    monkeypatch.setattr(notes_server.Site, "__init__", remember)
    thread = threading.Thread(target=notes_server.serve, args=(review, Reporter(quiet=True), False))
    thread.start()
    assert ready.wait(20)
    sites[0].thread = thread
    yield sites[0]
    sites[0].done.set()
    thread.join(20)


def ask(site, method, path, body=None, **headers):
    """(status, headers, text) of a request; the cookie and the origin are the caller's."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    for _ in range(100):
        try:
            connection.connect()
            break
        except ConnectionRefusedError:
            threading.Event().wait(0.05)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, given)
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read().decode()


def enter(site) -> str:
    status, headers, _ = ask(site, "GET", f"/?{urlsplit(site.address).query}")
    assert status == 303 and headers["location"] == "/"
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
    return cookie.partition(";")[0]


def test_the_text_has_every_passage_and_what_is_left_out(folder, tiny_folder, tmp_path):
    sets = [f"--set=model={tiny_folder}", "--set=sources.min_tokens=5", "--set=pairs.contexts_per_grid=2"]
    result = CliRunner().invoke(main, ["notes", "personal", "--notes", str(folder), "--runs", str(tmp_path), *sets, "--text"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("13 passages: 12 used, 1 left out\n")
    place = re.search(
        r"^\+(\d\.\d)  Diary/2024-05-10.md:1, (to train on|held out): first person, its note in the first person, the name",
        result.stdout,
        re.M,
    )
    other = re.search(r"^\+(\d\.\d)  Work/Old/2024-05-11.md:1, ", result.stdout, re.M)
    assert place and other
    assert "left out: link list (1)" in result.stdout and "bad.md: not text (binary)" in result.stdout
    assert "left alone: .png files (1)\n      photo.png" in result.stdout and "7 bees in the garden" in result.stdout
    assert not (tmp_path / "personal").exists()  # looking writes nothing


def test_a_file_of_pairs_has_no_notes(tiny_folder, tmp_path):
    sets = [f"--set=model={tiny_folder}", "--set=pairs.file=pairs.jsonl", "--set=export.system=none", "--set=sources.notes=null"]
    result = CliRunner().invoke(main, ["notes", "personal", "--runs", str(tmp_path), *sets, "--text"])
    assert result.exit_code == 2 and "reads no notes" in result.output


def test_the_token_works_once_and_the_cookie_after_it(site):
    assert ask(site, "GET", "/?token=wrong")[0] == 403 and ask(site, "GET", "/")[0] == 403
    cookie = enter(site)
    assert ask(site, "GET", f"/?{urlsplit(site.address).query}")[0] == 403  # no second browser
    status, headers, text = ask(site, "GET", "/", cookie=cookie)
    assert status == 200 and "7 bees in the garden" in text
    policy = headers["content-security-policy"]
    nonce = re.search(r"'nonce-([\w-]+)'", policy)[1]
    assert "default-src 'none'" in policy and text.count(f'nonce="{nonce}"') == 2 and headers["cache-control"] == "no-store"


def test_other_hosts_origins_and_strangers_are_refused(site, review):
    cookie, own = enter(site), f"http://127.0.0.1:{site.port}"
    body = json.dumps({"place": "Work/", "keep": False})
    assert ask(site, "POST", "/choice", body, cookie=cookie)[0] == 403  # no origin
    assert ask(site, "POST", "/choice", body, cookie=cookie, origin="http://evil.example")[0] == 403
    assert ask(site, "POST", "/choice", body, cookie=cookie, origin="null")[0] == 403
    assert ask(site, "POST", "/choice", body, origin=own)[0] == 403  # no cookie
    assert ask(site, "POST", "/choice", body, cookie=cookie[:-1] + ("x" if cookie[-1] != "x" else "y"), origin=own)[0] == 403
    assert ask(site, "POST", "/choice", body, cookie=cookie, origin=own, host=f"evil.example:{site.port}")[0] == 421
    for host in ("evil.example", "127.0.0.1", "127.0.0.1:1", f"host.docker.internal:{site.port}"):
        assert ask(site, "GET", "/", cookie=cookie, host=host)[0] == 421
    assert ask(site, "GET", "/", cookie=cookie, origin="http://evil.example")[0] == 403
    assert not review.own.rows() and not review.run.folder.exists()
    for wrong in (
        "",
        "[]",
        "{}",
        '{"keep": 3, "place": "a"}',
        '{"keep": true, "passage": 99}',
        '{"keep": true, "passage": "0"}',
        "x" * 20_000,
    ):
        assert ask(site, "POST", "/choice", wrong, cookie=cookie, origin=own)[0] == 400
    status, _, answer = ask(site, "POST", "/choice", body, cookie=cookie, origin=own)
    assert status == 200 and json.loads(answer) == {"places": {"Work/": False}, "passages": {}}
    assert (review.run.folder / FILE).exists() and review.run.folder.stat().st_mode & 0o77 == 0


def test_a_click_is_written_at_once_and_taken_back(site, review):
    cookie, origin = enter(site), f"http://127.0.0.1:{site.port}"

    def post(**change):
        return json.loads(ask(site, "POST", "/choice", json.dumps(change), cookie=cookie, origin=origin)[2])

    number = next(n for n, passage in enumerate(review.passages) if "7 bees" in passage.text)
    assert post(passage=number, keep=False)["passages"] == {str(number): False}
    assert len(read_choice(review.run.folder, review.run.recipe.sources).passages) == 1
    _, _, text = ask(site, "GET", "/", cookie=cookie)
    row = json.loads(re.search(r'id="data"[^>]*>(.*?)</script>', text, re.S)[1])["rows"][number]
    assert row["state"] == "dropped by you" and not row["used"] and "</script><b>" not in text.partition('id="data"')[2][:9000]
    assert post(passage=number, keep=None)["passages"] == {}
    assert read_choice(review.run.folder, review.run.recipe.sources).rows() == []
    assert ask(site, "POST", "/done", "{}", cookie=cookie, origin=origin)[0] == 200
    site.thread.join(20)
    assert not site.thread.is_alive()


@needs_browser
@pytest.mark.parametrize("width, dark", [(360, False), (360, True), (1400, False), (1400, True)])
def test_the_page_can_be_read_narrow_and_wide_light_and_dark(review, chrome, tmp_path, width, dark):
    review.mark(False, "Work/", None)
    review.mark(True, None, 0)
    (tmp_path / "page.html").write_text(notes_server.page(review), encoding="utf-8")
    layout = measure(chrome, tmp_path / "page.html", width, dark)
    assert layout["wide"] == width == layout["page"] and layout["over"] == []
    assert layout["texts"] > 60 and layout["pale"] == [] and layout["small"] == []
    assert (layout["paper"] < 0.1) is dark


@needs_browser
def test_everything_works_by_keyboard(site, review, tmp_path):
    def choice():
        return read_choice(review.run.folder, review.run.recipe.sources)

    with Chrome(tmp_path) as page:
        page.open(site.address, "document.querySelector('.passage')")
        assert page.run("location.search") == "" and page.run("document.querySelectorAll('.passage').length") == 13
        page.tab_to("document.activeElement.matches('.passage')")
        page.press("j")
        second = page.run("document.activeElement.querySelector('h3').textContent")
        page.press("x")
        page.until("document.getElementById('status').textContent.startsWith('Saved: dropped the passage')")
        assert list(choice().files.values()) == [second.rpartition(":")[0]]
        assert page.run("document.activeElement.querySelector('.drop').getAttribute('aria-pressed')") == "true"
        assert page.run("document.activeElement.className") == "passage out"
        page.press("a")
        page.until("document.getElementById('status').textContent.startsWith('Saved: kept the passage')")
        assert list(choice().passages.values()) == [True]
        page.press("a")
        page.until("document.getElementById('status').textContent.startsWith('Saved: no choice')")
        assert choice().rows() == []
        page.press("Tab")
        assert page.run("document.activeElement.getAttribute('aria-label')") == f"Keep the passage at {second}"
        page.run("document.getElementById('places-title').scrollIntoView(); document.activeElement.blur()")
        page.tab_to("document.activeElement.matches('.tree summary') && document.activeElement.textContent.startsWith('Work')")
        page.press("Enter")
        page.tab_to("document.activeElement.getAttribute('aria-label') == 'Drop the folder Work/'")
        page.press("Enter")
        page.until("document.getElementById('status').textContent == 'Saved: dropped Work/.'")
        assert choice().places == {"Work/": False}
        assert page.run("document.querySelectorAll('.passage.out').length") == 9
        page.run("document.getElementById('again').click()")
        page.until("document.querySelector('.verdict')?.textContent.startsWith('4 passages')")
        page.run("document.getElementById('done').focus()")
        page.press("Enter")
        page.until("document.getElementById('status').textContent.startsWith('Done')")
    site.thread.join(20)
    assert not site.thread.is_alive()
