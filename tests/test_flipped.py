"""One bit of each kind of file changes: each command that reads it names it and a remedy, or makes it again with the same bytes."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from mipo_mlx import run as runs
from mipo_mlx.cli import main
from mipo_mlx.errors import Failure, UserError
from mipo_mlx.export import install, publish, results
from mipo_mlx.files import append_jsonl, read_jsonl, write_jsonl
from mipo_mlx.progress import Reporter
from mipo_mlx.training import checkpoints
from tests.commands.test_update import RECIPE
from tests.test_kill import write_notes

ADAPTERS = "adapters/adapters.safetensors"


@pytest.fixture(scope="module")
def whole(tiny_folder, tmp_path_factory) -> Path:
    """A finished run with every kind of file."""
    from mipo_mlx import recipe_loading

    home = tmp_path_factory.mktemp("flipped")
    write_notes(home / "notes")
    text = RECIPE.format(model=tiny_folder, notes=home / "notes").replace("mlx: false", "mlx: true, adapter: true")
    opened = runs.open_run(recipe_loading.parse(text), "finished", home / "runs")
    runs.prepare(opened, fresh=False)
    runs.execute(opened, "report", Reporter(quiet=True))
    return opened.folder


@pytest.fixture
def run(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "finished")


def flip(path: Path, place: float = 0.6) -> bytes:
    """Change one bit; returns the bytes as they were."""
    sound = path.read_bytes()
    data = bytearray(sound)
    data[int(place * len(data))] ^= 1
    path.write_bytes(bytes(data))
    return sound


def command(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(words), input="")
    assert "Traceback" not in result.output
    return result.exit_code, result.output


@pytest.mark.parametrize("name", [ADAPTERS, "adapters/adapter_config.json"])
def test_no_command_takes_flipped_adapters(run, name):
    flip(run / name)
    report = (run / "report.html").read_bytes()
    target = str(run)
    short = ["--max-tokens", "2"]
    for words in (
        ["eval", target], ["export", target], ["fuse", target], ["ask", target, "What now?", *short], ["chat", target, *short],
        ["update", target, "--train"], ["train", target],
    ):  # fmt: skip
        code, output = command(*words)
        assert code == 2 and f"{run / name}: not the adapters that training left" in output and "mipo-mlx train" in output, (
            words,
            output,
        )
    assert (run / "report.html").read_bytes() == report
    recipe = runs.existing_run(run, run.parent).recipe
    with pytest.raises(UserError, match=f"{name}: not as the run wrote it.*`mipo-mlx train "):
        publish.push(publish.Upload(run, recipe, "me/mine", ("adapter",)), lambda question: True, SimpleNamespace())


@pytest.mark.parametrize("name", ["finished-f16.gguf", "fused/model.safetensors", "finished-lora.gguf"])
def test_a_flipped_export_is_written_again_and_goes_nowhere(run, name, tmp_path, monkeypatch):
    sound = flip(run / name)
    recipe = runs.existing_run(run, run.parent).recipe
    part = "mlx" if name.startswith("fused") else "gguf"
    if "lora" not in name:
        with pytest.raises(UserError, match=f"{name}: not as the run wrote it.*`mipo-mlx export "):
            publish.push(publish.Upload(run, recipe, "me/mine", (part,)), lambda question: True, SimpleNamespace())
    with pytest.raises(UserError, match=f"{name}: not as the run wrote it.*`mipo-mlx export "):
        results.check(run, results.hashes(run))
    assert dict(results.compared(run))[name].endswith(" (changed since)")
    code, output = command("export", str(run))
    assert code == 0 and f"{run / name}: not as export left it" in output, output
    assert (run / name).read_bytes() == sound and not dict(results.compared(run))[name].endswith(")")
    assert "not as export left it" not in command("export", str(run))[1]


def test_a_flipped_gguf_is_not_installed(run, tmp_path, monkeypatch):
    flip(run / "finished-f16.gguf")
    monkeypatch.setattr(install, "lmstudio_folder", lambda: tmp_path / "lmstudio" / "models")
    (tmp_path / "lmstudio").mkdir()
    monkeypatch.setattr(install.shutil, "which", lambda program: "/bin/true")
    recipe = runs.existing_run(run, run.parent).recipe
    for enter in (lambda: install.install_lmstudio(run, recipe, "mine"), lambda: install.install_ollama(run, "mine")):
        with pytest.raises(UserError, match="finished-f16.gguf: not as the run wrote it"):
            enter()


@pytest.mark.parametrize(
    ("name", "away", "words"),
    [("samples.jsonl", ["pairs.jsonl"], ["train"]), ("eval-samples.jsonl", ["eval.json"], ["eval"])],
)
def test_a_flipped_row_is_named_and_made_again(run, whole, name, away, words):
    for gone in away:
        (run / gone).unlink()
    sound = (run / name).read_bytes()
    lines = sound.split(b"\n")
    place = len(lines) // 2
    digit = next(at for at in range(len(lines[place]) // 2, len(lines[place])) if lines[place][at : at + 1].isdigit())
    damaged = bytearray(lines[place])
    damaged[digit] ^= 1  # another digit: still JSON
    (run / name).write_bytes(b"\n".join([*lines[:place], bytes(damaged), *lines[place + 1 :]]))
    code, output = command(*words, str(run))
    assert code == 1 and f"{run / name}:{place + 1}: damaged" in output and "remove this line and those after it" in output, output
    (run / name).write_bytes(b"\n".join(lines[:place]) + b"\n")  # as the message says
    assert command("train", str(run), "--quiet")[0] == 0
    for kept in (name, *away, ADAPTERS):
        assert (run / kept).read_bytes() == (whole / kept).read_bytes(), kept


@pytest.mark.parametrize("name", ["adapters.safetensors", "optimizer.safetensors", "state.json"])
def test_a_flipped_checkpoint_is_named(run, whole, name):
    shutil.rmtree(run / "adapters")
    newest = sorted((run / "checkpoints").iterdir())[-1]
    sound = flip(newest / name, 0.2 if name == "state.json" else 0.9)
    code, output = command("train", str(run))
    assert code == 1 and f"{newest}: damaged; remove it and run the same command" in output, output
    (newest / name).write_bytes(sound)
    assert command("train", str(run), "--quiet")[0] == 0
    assert (run / ADAPTERS).read_bytes() == (whole / ADAPTERS).read_bytes()


def test_every_bit_of_a_state_counts(run):
    newest = sorted((run / "checkpoints").iterdir())[-1]
    sound, state = (newest / "state.json").read_bytes(), checkpoints.latest(run / "checkpoints")
    for place in range(len(sound)):
        data = bytearray(sound)
        data[place] ^= 1
        (newest / "state.json").write_bytes(bytes(data))
        try:
            assert checkpoints.latest(run / "checkpoints") == state  # a bit of the seal's own name
        except Failure as error:
            assert "damaged" in str(error)


@pytest.mark.parametrize("name", ["pairs.jsonl", "contexts.jsonl", "prompts.jsonl"])
def test_a_text_that_differs_is_named_and_taken_since_its_owner_may_edit_it(run, name):
    text = (run / name).read_text()
    (run / name).write_text(text.replace(" the ", " our ", 1))
    assert (run / name).read_text() != text
    code, output = command("eval", str(run))
    assert code == 0 and f"{run / name} is not as" in output and "remove it and run `mipo-mlx train`" in output, output


def test_the_adapters_that_an_update_begins_with_are_compared(run):
    shutil.copytree(run / "adapters", run / "adapters-1")
    flip(run / "adapters-1" / "adapters.safetensors")
    notes = Path(runs.existing_run(run, run.parent).recipe.sources.notes)
    (notes / "new.md").write_text(
        "# New\n\nI have begun to keep a hedgehog under the shed, and she comes out at nine each evening.\n"
    )
    try:
        code, output = command("update", str(run), "--train")
    finally:
        (notes / "new.md").unlink()
    assert code == 2 and f"{run / 'adapters-1'}: not the adapters that this update begins with" in output, output


def test_rows_carry_their_hash_and_old_rows_without_one_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"a": 1.5, "b": ["\u00e9", None]}, {"a": -0.0, "b": {"1": [1e-300, 10**20]}}]
    append_jsonl(path, rows[:1])
    append_jsonl(path, rows[1:])
    assert read_jsonl(path) == rows
    sound = path.read_bytes()
    for place in range(sound.index(b"\n")):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 2]) + sound[place + 1 :])
        try:
            assert [row["a"] for row in read_jsonl(path)] == [1.5, -0.0]  # a bit of the hash's own name
        except Failure as error:
            assert "rows.jsonl:1: " in str(error) and "remove this line" in str(error)
    write_jsonl(path, rows)
    assert read_jsonl(path) == rows and b"seal" not in path.read_bytes()
