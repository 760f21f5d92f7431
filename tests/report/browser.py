"""What the layout of a page says in a headless Chromium, and what it draws."""

import json
import zlib
from pathlib import Path

import numpy as np

from tests.serving.chrome import Chrome

# What a page is seen in: `behind` is the colour behind a text, `contrast` that of two colours by WCAG 2.1.
COLOURS = """
const parts = c => { const p = c.match(/[\\d.]+/g).map(Number); return [p[0], p[1], p[2], p.length > 3 ? p[3] : 1]; };
const behind = e => {  // what is seen behind a text: the backgrounds of its ancestors, one over the other
  const found = []; for (; e; e = e.parentElement) found.push(parts(getComputedStyle(e).backgroundColor));
  return found.reverse().reduce((b, [r, g, bl, a]) => [r, g, bl].map((v, i) => v * a + b[i] * (1 - a)), [255, 255, 255]); };
const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
"""  # noqa: E501

PROBE = """
document.querySelectorAll('details').forEach(d => d.open = true);
const wide = document.documentElement.clientWidth;
const box = e => e.getBoundingClientRect();
const visible = e => e.getClientRects().length > 0;
const name = e => e.tagName + '.' + (e.getAttribute('class') || '') + ' ' + e.textContent.trim().slice(0, 30);
const over = [...document.querySelectorAll('body *')].filter(e => visible(e) && box(e).right > wide + 1);
const svgs = [...document.querySelectorAll('svg')].filter(visible);
const marks = s => [...s.querySelectorAll('polyline, circle, rect')].filter(m => box(m).width + box(m).height > 1);
const within = (a, b) => a.left > b.left - 1 && a.right < b.right + 1 && a.top > b.top - 1 && a.bottom < b.bottom + 1;
const outside = svgs.flatMap(s => [...marks(s), ...s.querySelectorAll('text')].filter(t => !within(box(t), box(s))));
const hit = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom - 1 && b.top < a.bottom - 1;
const overlaps = svgs.flatMap(s => { const t = [...s.querySelectorAll('text')];
  return t.flatMap((a, i) => t.slice(i + 1).filter(b => hit(box(a), box(b))).map(b => a.textContent + ' on ' + b.textContent)); });
const says = e => [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
const texts = [...document.querySelectorAll('body *')].filter(e => visible(e) && says(e) && e.tagName != 'SCRIPT' && e.tagName != 'title');
const drawn = e => e.namespaceURI.endsWith('svg');
const seen = e => contrast(parts(getComputedStyle(e)[drawn(e) ? 'fill' : 'color']), behind(drawn(e) ? e.closest('figure, td') : e));
const size = e => parseFloat(getComputedStyle(e).fontSize) * (drawn(e) ? box(e.closest('svg')).width / e.closest('svg').viewBox.baseVal.width : 1);
const inked = m => { const s = getComputedStyle(m); return m.tagName == 'polyline' ? s.stroke : s.fill; };
const faint = svgs.flatMap(s => marks(s).filter(m => contrast(parts(inked(m)), behind(s.parentElement)) < 3));
return {
  wide, over: over.map(name), page: document.documentElement.scrollWidth, drawings: svgs.length, texts: texts.length,
  empty: svgs.filter(s => box(s).height < 8 || box(s).width < 60 || !marks(s).length).map(s => s.getAttribute('aria-label')),
  outside: outside.map(name), overlaps, faint: faint.map(name), paper: light(behind(document.body)),
  pale: texts.filter(e => seen(e) < 4.5).map(e => name(e) + ' ' + seen(e).toFixed(2)),
  labels: Math.min(...[...document.querySelectorAll('.measures td:first-child')].map(e => box(e).width)),
  keys: [...document.querySelectorAll('#results .key')].filter(visible).map(e => e.textContent),
  printed: getComputedStyle(document.querySelector('mark, body')).printColorAdjust,
  small: texts.filter(e => size(e) < 9).map(e => name(e) + ' ' + size(e).toFixed(1)),
};
"""  # noqa: E501


def measure(chrome: Chrome, page: Path, width: int, dark: bool) -> dict:
    """What PROBE finds out about the page at that width."""
    show(chrome, page, width, dark)
    return chrome.run(f"(() => {{ {COLOURS} {PROBE} }})()")


def screenshot(chrome: Chrome, page: Path, width: int, height: int, dark: bool) -> np.ndarray:
    """(height, width, 3) pixels of the top of the page."""
    show(chrome, page, width, dark)
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    return read_png(chrome.picture(clip=clip, optimizeForSpeed=True))


def show(chrome: Chrome, page: Path, width: int, dark: bool) -> None:
    """The address has the look in it, so that a page that is there already is not taken for the new one."""
    chrome.size(width, dark)
    address = f"{page.as_uri()}?{width}-{dark}"
    chrome.open(address, f"location.href == {json.dumps(address)} && document.readyState == 'complete'")


def read_png(data: bytes) -> np.ndarray:
    """(height, width, 3) of an 8-bit RGB or RGBA file without interlacing (PNG specification, section 9: filters)."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[24] == 8 and data[25] in (2, 6) and data[28] == 0
    width, height, channels = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"), 3 if data[25] == 2 else 4
    packed, at = b"", 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += 12 + length
    raw, stride = zlib.decompress(packed), width * channels
    rows, above = [], [0] * stride
    for y in range(height):
        kind, data = raw[y * (stride + 1)], np.frombuffer(raw, np.uint8, stride, y * (stride + 1) + 1)
        if kind == 1:
            line = data.reshape(width, channels).cumsum(axis=0, dtype=np.uint8).reshape(-1)
        elif kind == 2:
            line = data + np.asarray(above, np.uint8)
        else:
            line = data.tolist()
            above = list(map(int, above)) if kind else above
            for i in range(stride if kind else 0):
                left = line[i - channels] if i >= channels else 0
                if kind == 3:
                    line[i] = (line[i] + (left + above[i]) // 2) & 255
                else:
                    corner = above[i - channels] if i >= channels else 0
                    p, q, r = abs(above[i] - corner), abs(left - corner), abs(left + above[i] - 2 * corner)
                    line[i] = (line[i] + (left if p <= q and p <= r else above[i] if q <= r else corner)) & 255
        rows.append(line)
        above = line
    return np.array(rows, np.uint8).reshape(height, width, channels)[..., :3]
