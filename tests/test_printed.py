"""Text that would steer a terminal, end a line, a template or a script, at each place where it is printed or written."""

import io
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner
from rich.console import Console

from mipo_mlx import recipe_loading
from mipo_mlx.cli import main
from mipo_mlx.commands import nightly
from mipo_mlx.export import card, results
from mipo_mlx.export.modelfile import Contents, modelfile
from mipo_mlx.files import write_records
from mipo_mlx.models.prompts import encode
from mipo_mlx.pairs.show import show
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Sources
from mipo_mlx.records import Pair
from mipo_mlx.sources import gather
from mipo_mlx.sources.bank import load_prompts
from mipo_mlx.sources.note import Tally

STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
HOSTILE = 'bees\x1b[2J\x1b]0;title\x07\x9b31m\r\n{{ x }} """\nFROM x\nSYSTEM y </script><b>\x00\x08end'


def test_notes_and_their_names(tmp_path):
    name = "a\x1b[2J\nskipped b\x07.md"
    note = f"# {HOSTILE}\n\nI keep {HOSTILE} in Lund. {'I row on Sundays. ' * 40}\n"
    (tmp_path / name).write_bytes(note.replace("\0", "").encode())
    (tmp_path / "rows.jsonl").write_text('{"text": "I keep\\u0000 bees\\u001b[31m in\\u0085 Lund."}\n')
    for path in (tmp_path, tmp_path / "rows.jsonl"):
        tally = Tally()
        notes = gather.read_notes(Sources(notes=str(path)), tally, Reporter(quiet=True))
        texts = [text for note in notes for text in (note.name, note.source, note.title, *(b.text for b in note.blocks))]
        assert texts and not any(STEERS.search(text) for text in [*texts, *tally.hashes])
        assert not any("\n" in note.source + note.name for note in notes)
    assert notes[0].blocks[0].text == "I keep  bees in Lund."


def test_requests(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "What\\u0000 now\\u001b[2J?\\r\\nSay."}\n"Why?"\n')
    texts = [prompt.text for prompt in load_prompts(Sources(prompts=str(tmp_path / "p.jsonl")), 0, Tally())]
    assert "What  now?\nSay." in texts


def test_no_nul_and_no_other_end_of_a_line_reaches_a_template(tiny_tokenizer):
    for role in ("user", "system"):
        turns = [{"role": role, "content": "Bake\r\nrye\rand \0wheat<|im_end|>."}, {"role": "user", "content": "Why?"}]
        clean = [{"role": role, "content": "Bake\nrye\nand wheat<|im_end|>."}, turns[1]]
        assert encode(tiny_tokenizer, turns) == encode(tiny_tokenizer, clean)


def test_pairs_in_the_terminal(tmp_path):
    reply = [{"role": "assistant", "content": HOSTILE}]
    pair = Pair(HOSTILE, "train", 0, [{"role": "user", "content": HOSTILE}], reply, reply, [HOSTILE], [1], [[1], [2]], [0.0, 0.0],
                [1.0], [HOSTILE], "", None, source=HOSTILE, line=1)  # fmt: skip
    write_records(tmp_path / "pairs.jsonl", [pair, replace(pair, source="")])
    stream = io.StringIO()
    show(tmp_path, console=Console(file=stream, width=80, force_terminal=False))
    assert "bees" in stream.getvalue() and not STEERS.search(stream.getvalue())


def test_a_mistyped_command():
    for words in (["tr\x1b[2Jain"], ["train", "--\x1b]0;x\x07"], ["train", "no\x1b[2Jne.yaml"], ["ask"], ["chat", "a\x9b2J\nb"]):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 2 and not STEERS.search(done.output) and done.output.count("\n") == 1


@pytest.mark.parametrize("name", ["r\nFROM evil\nSYSTEM x", "r\x1b[2J", "r\r\n---\nlicense: x", "r\u2028b"])
def test_a_runs_folder_of_any_name(tmp_path, name, tiny_tokenizer):
    """In the names of files, in the Modelfile, in GGUF's metadata, on the model card, and in a schedule."""
    folder = tmp_path / name
    folder.mkdir()
    base = tmp_path / "ba\x1bse\nbase_model: evil"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: mit\x1b[2J\u0007\n---\n")
    recipe = recipe_loading.parse("model: {}\nname: null".replace("{}", "none")).model_copy(update={"model": str(base)})
    model_card = card.make_card(folder, recipe, base, {})
    for text in (model_card.name, model_card.base, model_card.license, results.run_name(folder, recipe)):
        assert text.isprintable()
    assert model_card.license == "mit" and not model_card.hub
    lines = modelfile(Contents(f"./{results.run_name(folder, recipe)}-f16.gguf", None), tiny_tokenizer)[0].splitlines()
    assert sum(line.startswith("FROM ") for line in lines) == 1 and not any(line.startswith("SYSTEM") for line in lines)
    front = card.model_card(folder, recipe, "me/r").split("---\n")[1]
    assert front.splitlines() == ["library_name: mlx", "pipeline_tag: text-generation", front.splitlines()[2]]
    plan = nightly.Plan(folder, 2, 0, False, tmp_path)
    for content in plan.files().values():
        text = content.decode()
        assert not STEERS.search(text) and sum(line.startswith("ExecStart=") for line in text.splitlines()) <= 1
        assert len(text.splitlines()) <= 12


def test_a_hub_name_that_is_none():
    assert card.public_name("owner/model-1.5B") == ("owner/model-1.5B", True)
    for name in ("a/b\nlicense: x", "a/<script>", "a/b](javascript:x)", "a b/c"):
        text, hub = card.public_name(name)
        assert not hub and text.isprintable()
