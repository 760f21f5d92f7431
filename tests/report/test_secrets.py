"""From notes with secrets to the page: they are counted there and stand nowhere, in no file of the run."""

import pytest

pytest.importorskip("detect_secrets")
pytest.importorskip("phonenumbers")

from mipo_mlx import (
    recipe_loading,
)
from mipo_mlx.files import (  # noqa: E402
    read_json,
    write_json,
    write_records,  # noqa: E402
)
from mipo_mlx.progress import Reporter  # noqa: E402
from mipo_mlx.report import page as report  # noqa: E402
from mipo_mlx.sources import read as sources  # noqa: E402

from .helpers import make_finished  # noqa: E402

# Made up, and put together here, so that no scanner takes this file for a leak.
MAIL, PHONE, CARD = "nell.hartigan@mail.skerry.example", "+49 30 901820", "4111 1111 1111 1111"
KEY = "ghp" + "_16C7e42F292c6912E7710c838347Ae178B4a"
HOBBIES = ("bees", "bread", "boats", "beans", "clocks", "choirs", "trains", "tides", "walls", "wool", "maps", "moss")


def test_secrets_are_counted_on_the_page_and_printed_nowhere(tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    for number, hobby in enumerate(HOBBIES):
        secret = (f"Write to {MAIL}.", f"Ring {PHONE} at eight.", f"The card is {CARD}.", f"I use {KEY} daily.")[number % 4]
        (notes / f"{hobby}.md").write_text(f"I care about {hobby} more than about anything else. {secret}\n")
    (notes / f"letters to {MAIL}.md").write_bytes(b"\0\1")  # cannot be read, and is named on the page
    (notes / f"old {PHONE}.txt").write_bytes("Das Café gehört mir und meiner Schwester, schon seit Jahren.".encode("cp1252"))
    values = recipe_loading.parse(
        f"model: none\nsources: {{notes: '{notes}', min_tokens: 5, canaries: 2}}\npairs: {{contexts_per_grid: 2}}"
    )
    contexts, prompts, row = sources.collect(values, lambda text: len(text.split()), Reporter(quiet=True))

    folder = make_finished(tmp_path / "run", hostile=False)
    write_json(folder / "sources.json", row)
    write_records(folder / "contexts.jsonl", contexts)
    result = read_json(folder / "eval.json")
    reply = [{**result["gallery"][0], "context": context.text} for context in contexts]
    write_json(folder / "eval.json", {**result, "gallery": reply})
    page = report.render(folder, values)

    assert page.count("[e-mail address]") >= 3 and "[card number]" in page and "[phone number]" in page
    counted = {"card number": 3, "e-mail address": 3, "key or token": 3, "phone number": 4}  # one in a title
    assert "Secrets redacted" in page and row["redacted"] == counted and row["files"]["recoded"]
    for kind, count in counted.items():
        assert f"<td>{kind}</td><td>{count}</td>" in page
    files = [path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix in (".json", ".jsonl")]
    for secret in (MAIL, PHONE, CARD, KEY):
        assert secret not in page and not any(secret in text for text in files)
