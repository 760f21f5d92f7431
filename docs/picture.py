"""Draw docs/report.png: the top of a finished run's report, as a headless Chromium shows it, with few colours and so few bytes.

python docs/picture.py runs/demo/report.html docs/report.png
"""

import argparse
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.report import browser  # noqa: E402
from tests.serving.chrome import CHROMIUM, Chrome  # noqa: E402

COLOURS = 256  # of a PNG with a palette: one byte a pixel
PNG = b"\x89PNG\r\n\x1a\n"


def palette(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(colours, 3) uint8 and (height, width) uint8 indices: the finest rounding of (height, width, 3) that leaves 256 colours."""
    for bits in range(8, 0, -1):
        step = 1 << (8 - bits)
        rounded = np.minimum((pixels.astype(int) + step // 2) // step * step, 255)
        colours, indices = np.unique(rounded.reshape(-1, 3), axis=0, return_inverse=True)
        if len(colours) <= COLOURS:
            break
    return colours.astype(np.uint8), indices.reshape(pixels.shape[:2]).astype(np.uint8)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """An 8-bit PNG with a palette (PNG specification, section 11: IHDR, PLTE, IDAT, IEND)."""
    colours, indices = palette(pixels)
    height, width = indices.shape
    rows = b"".join(b"\0" + row.tobytes() for row in indices)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", colours.tobytes()),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    packed = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(PNG + packed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="report.html of a finished run")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    parser.add_argument("--width", type=int, default=1100, help="of the page, in pixels")
    parser.add_argument("--height", type=int, default=900, help="of the part that is shown, in pixels")
    options = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("no Chromium here; install one (Debian: sudo apt-get install chromium fonts-dejavu-core)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, Chrome(Path(scratch)) as chrome:
        pixels = browser.screenshot(chrome, options.report.resolve(), options.width, options.height, dark=False)
    write_png(options.picture, pixels)
    print(f"{options.picture}: {options.picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
