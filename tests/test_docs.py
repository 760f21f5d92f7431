"""What the documents name exists: files, headings, commands, options, recipe keys. Generated parts are what the code says."""

import re
import struct
import sys
import tomllib
import zlib
from pathlib import Path
from urllib.parse import unquote

import click
import numpy as np
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import generate  # noqa: E402
import picture  # noqa: E402

from mipo_mlx import cli  # noqa: E402
from mipo_mlx.recipe import Dataset, Recipe  # noqa: E402

PAGES = [path for path in sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")))]
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
KEY = re.compile(r"(?<![\w/.])(?:sources|pairs|training|evaluation|memory|export)\.[a-z_.]*[a-z_]")
PLACE = re.compile(r"(?<![\w/.])(?:mipo_mlx|tests|benchmarks|recipes|docs|examples)/[\w./-]*\w")
UNMADE = ("/.cache", "NAME")  # made by a command, or a placeholder
FILES = (".json", ".jsonl", ".py", ".sqlite")  # pairs.jsonl is no key
OTHERS = {"--lora", "--no-deps", "--adapter-path", "--force-reinstall", "--hostfile", "--backend"}  # options of other programs


@pytest.fixture(params=PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def page(request) -> Path:
    return request.param


def code(page: Path) -> list[str]:
    """The lines of a page's code blocks without their comments, and its code spans."""
    text = page.read_text(encoding="utf-8")
    lines = [line.split(" #")[0].strip() for block in FENCE.findall(text) for line in block.splitlines()[1:-1]]
    return [*lines, *SPAN.findall(FENCE.sub("", text))]


def headings(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", title).strip().lower() for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def missing_links(page: Path) -> list[str]:
    result = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or anchor and anchor not in headings(target):
            result.append(link)
    return result


def unknown_commands(page: Path) -> list[str]:
    """What a page calls `mipo-mlx` with and click does not know."""
    result = []
    for text in code(page):
        for call in re.findall(r"\bmipo-mlx ([^|&>\\]*)", text):
            words = call.split()
            names = [word for word in words if not word.startswith("-")]
            command: click.Command = cli.main
            if names and names[0] != "COMMAND":
                if names[0] not in cli.main.commands:
                    result.append(call)
                    continue
                command = cli.main.commands[names[0]]
            known = options(command) | options(cli.main)
            result += [f"{call}: {word}" for word in words if word.startswith("--") and word.split("=")[0] not in known]
    return result


def options(command: click.Command) -> set[str]:
    return {"--help", *(name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))}


def unknown_options(page: Path) -> list[str]:
    """Options that stand alone in a code span and belong to no command."""
    known = set().union(*(options(command) for command in (cli.main, *cli.main.commands.values()))) | OTHERS
    return [
        text for text in SPAN.findall(page.read_text(encoding="utf-8")) if text.startswith("--") and text.split()[0] not in known
    ]


def unknown_keys(page: Path) -> list[str]:
    """Recipe keys, as a.b, that the schema does not have."""
    named = [key for text in code(page) for key in KEY.findall(text) if not key.endswith(FILES)]
    return [key for key in named if not exists(Recipe, key.split("."))]


def missing_files(page: Path) -> list[str]:
    """Files of the repository that a page names in code and that are not there."""
    named = [name for text in code(page) for name in PLACE.findall(text)]
    return [name for name in named if not (ROOT / name).exists() and not any(part in name for part in UNMADE)]


def unknown_targets(page: Path) -> list[str]:
    """What a page calls `make` with and the Makefile does not have."""
    known = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = [match[1] for text in code(page) if (match := re.match(r"make ([a-z]+)\b", text))]
    return [target for target in named if target not in known]


def exists(section, path: list[str]) -> bool:
    if path[0] not in section.model_fields:
        return False
    held = section.model_fields[path[0]].annotation
    inner = next(iter(generate.sections(held)), None)
    if len(path) == 1:
        return True
    return exists(inner, path[1:]) if inner else path[0] == "negatives"


def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    assert not missing_links(page)


def test_every_command_and_option_exists(page):
    if page.name != "CHANGELOG.md":  # which also names what is gone
        assert not unknown_commands(page)
        assert page.parent == ROOT / "benchmarks" or not unknown_options(page)
        assert not unknown_targets(page)


def test_the_help_lists_the_commands_in_their_order_and_cuts_no_line():
    text = CliRunner().invoke(cli.main, ["--help"], terminal_width=80).output.partition("Commands:")[2]
    assert "..." not in text
    assert [line.split()[0] for line in text.splitlines() if line] == list(cli.main.commands)
    assert text.index("  init ") < text.index("  train ") < text.index("  serve ")


def test_every_recipe_key_exists(page):
    assert not unknown_keys(page)


def test_every_extra_of_the_package_is_explained():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    table = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").partition("## Extras")[2].partition("\n## ")[0]
    assert set(extras) == {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in SPAN.findall(row)}


def test_every_named_file_exists(page):
    if page.name != "CHANGELOG.md":
        assert not missing_files(page)


def test_what_does_not_exist_is_noticed(tmp_path):
    wrong = tmp_path / "page.md"
    wrong.write_text(
        "# A title\n[a](nowhere.md) [b](#a-title) [c](#other) `mipo-mlx trian x` `--nonsense` `pairs.grids` `pairs.gridz=3`\n"
        "`memory.sqlite` `memory.embeder`\n"
        "```\nmipo-mlx train x --fast   # mipo-mlx nothing\nmipo-mlx eval RUN --set training.lora.rank=3\n```\n"
    )
    assert missing_links(wrong) == ["nowhere.md", "#other"]
    assert unknown_commands(wrong) == ["train x --fast: --fast", "trian x"]
    assert unknown_options(wrong) == ["--nonsense"]
    assert unknown_keys(wrong) == ["pairs.gridz", "memory.embeder"]
    wrong.write_text("`mipo_mlx/cli.py` `tests/nothing.py` `make demo PYTHON=python3.12` `make tea`\n")
    assert missing_files(wrong) == ["tests/nothing.py"] and unknown_targets(wrong) == ["tea"]


def test_the_readme_is_one_page():
    assert (ROOT / "README.md").stat().st_size <= 7000


def test_the_generated_parts_are_fresh():
    assert not [path.name for path in generate.stale()], "run `python docs/generate.py`"


def test_every_block_of_the_generator_is_in_a_page():
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    assert all(f"<!-- generated: {name} -->" in text and f"<!-- end of {name} -->" in text for name in generate.BLOCKS)


def test_every_key_stands_in_the_generated_table():
    table = generate.keys_block()
    keys = {f"sources.dataset.{name}" for name in Dataset.model_fields}
    keys |= {
        f"training.lora.{name}" for name in Recipe.model_fields["training"].annotation.model_fields["lora"].annotation.model_fields
    }
    keys |= {f"pairs.{name}" for name in Recipe.model_fields["pairs"].annotation.model_fields if name != "filters"}
    assert all(f"| `{key}` |" in table for key in keys | {"model", "seed", "rounds", "name", "pairs.filters.refusals"})
    assert "| `training.beta` | `0.1` | number, above 0 | lower follows" in table
    assert "| `pairs.negatives.no_context` |" in table and "`{context}`" not in table


def test_comments_are_read_above_behind_and_below_a_key(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "# A head.\n\n# Above.\nmodel: x    # behind\n# model: y    # an example\n\npairs:\n  # me: z     # unset\n"
        "  grids: 3                  # first\n                            # 0: second\n  file: null\n"
    )
    result = generate.comments(tmp_path / "r.yaml")
    assert result["model"].text == "Above. behind" and result["model"].examples == [("y", "an example")]
    assert result["pairs.me"] == generate.Explained("unset", [("z", "")])
    assert result["pairs.grids"].text == "first 0: second" and result["pairs.file"].text == ""


def test_the_picture_is_small():
    assert (ROOT / "docs" / "report.png").stat().st_size < 150_000


def test_a_picture_keeps_its_pixels_and_many_colours_become_256(tmp_path):
    pixels = np.zeros((5, 7, 3), np.uint8)
    pixels[1:3, 2:6] = (255, 128, 3)
    picture.write_png(tmp_path / "p.png", pixels)
    data = (tmp_path / "p.png").read_bytes()
    size, colours, rows = (data[data.index(kind) + 4 :] for kind in (b"IHDR", b"PLTE", b"IDAT"))
    assert struct.unpack(">IIBB", size[:10]) == (7, 5, 8, 3)
    assert colours[:6] == bytes([0, 0, 0, 255, 128, 3])
    indices = np.frombuffer(zlib.decompressobj().decompress(rows), np.uint8).reshape(5, 8)
    assert not indices[:, 0].any() and np.array_equal(indices[:, 1:], pixels[..., 0] // 255)
    many = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    colours, indices = picture.palette(many)
    assert len(colours) <= 256 and np.abs(colours[indices].astype(int) - many).max() <= 32
