"""The stage from a folder of notes to contexts.jsonl, prompts.jsonl and sources.json."""

import json
import os
import time

import pytest

from mipo_mlx import recipe_loading
from mipo_mlx.errors import UserError
from mipo_mlx.files import read_records
from mipo_mlx.progress import Reporter
from mipo_mlx.records import HELDOUT, TRAIN, Context, Prompt
from mipo_mlx.sources import read

QUIET = Reporter(quiet=True)
SUBJECTS = "bees bread boats birds books bikes bells bonsai baking banjo biology bowls".split()


def words(text: str) -> int:
    return len(text.split())


def made(notes, *overrides: str, model: str = "none"):
    return recipe_loading.parse(f"model: {model}", overrides=[f"sources.notes={notes}", "sources.min_tokens=5", *overrides])


def collect(notes, *overrides: str):
    return read.collect(made(notes, *overrides), words, QUIET)


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    for number, subject in enumerate(SUBJECTS):
        file = folder / ("deep/er" if number % 3 else "") / f"{subject}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# My {subject}\n\nI care about {subject} more than anything, {number} days a week.\n")
    return folder


def test_run_writes_its_files_and_keeps_them(tmp_path, notes, tiny_folder):
    run = tmp_path / "run"
    run.mkdir()
    resolved = made(notes, "pairs.contexts_per_grid=3", model=str(tiny_folder))
    row = read.run(run, resolved, QUIET)
    contexts, prompts = read_records(run / "contexts.jsonl", Context), read_records(run / "prompts.jsonl", Prompt)
    assert {c.source: c.line for c in contexts} == {f"{'deep/er/' if n % 3 else ''}{s}.md": 3 for n, s in enumerate(SUBJECTS)}
    assert row == json.loads((run / "sources.json").read_text())
    assert row[TRAIN]["contexts"] + row[HELDOUT]["contexts"] == len(contexts) == row["passages"]["kept"] == 12
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    before = {name: (run / name).read_bytes() for name in ("contexts.jsonl", "prompts.jsonl", "sources.json")}
    (notes / "bees.md").write_text("changed")
    read.run(run, resolved, QUIET)  # samples refer to these contexts, so a finished stage stays as it is
    assert before == {name: (run / name).read_bytes() for name in before}
    (run / "sources.json").unlink()
    read.run(run, resolved, QUIET)
    assert before["contexts.jsonl"] != (run / "contexts.jsonl").read_bytes()


def test_every_passage_is_kept_or_dropped_under_a_reason(notes):
    (notes / "links.md").write_text("- [one link here](a)\n- [another link there](b)\n")
    (notes / "scrap.md").write_text("Too short\n")
    (notes / "twin.md").write_text((notes / "bees.md").read_text())
    (notes / "photo.png").write_bytes(b"\x89PNG\0")
    (notes / "binary.md").write_bytes(b"\0\1\2")
    (notes / "old.txt").write_bytes("Das Café gehört mir und meiner Schwester, schon seit Jahren".encode("cp1252"))
    contexts, _, row = collect(notes, "pairs.contexts_per_grid=3", "sources.max_contexts=10")
    passages = row["passages"]
    assert passages["dropped"] == {"duplicate": 1, "link list": 1, "over max_contexts": 3, "too short": 1}
    assert passages["all"] == 16 == passages["kept"] + sum(passages["dropped"].values())
    assert row["files"] == {
        "read": 16,
        "skipped": [{"file": "binary.md", "why": "not text (binary)"}],
        "left_alone": {".png files": 1},
        "recoded": [{"file": "old.txt", "as": "windows-1252"}],
    }


ODD = {
    b"date.md": "---\ndate: 2024-99-99\n---\nI keep the odd dates of all my letters.\n",
    b"deep.md": f"---\na: {'[' * 5000}\n---\nI dig deep holes for all of my roses.\n",
    b"tag.md": "---\na: !!timestamp x\n---\nI tag all of the birds in my garden.\n",
    b"twice.md": "---\na: 1\na: 2\n---\nI say all of my better jokes twice.\n",
    b"caf\xe9.md": "I drink my coffee at the bar on the corner.\n",
    b"chats/conversations.json": json.dumps(
        [{"name": "\udfff", "chat_messages": [{"sender": "human", "text": "I half \ud800 like pairs of old shoes"}]}]
    ),
    b"broken/conversations.json": '[{"mapping": {"a": 3}, "current_node": "a"}]',
    b"broken/conversations-2.json": '[{"mapping": ' + '{"a":' * 100_000,
}


def test_odd_notes_are_read_or_skipped_and_end_nothing(tmp_path, notes, tiny_folder):
    for name, text in ODD.items():
        path = notes / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "run").mkdir()
    row = read.run(tmp_path / "run", made(notes, "pairs.contexts_per_grid=3", model=str(tiny_folder)), QUIET)
    assert row["files"]["skipped"] == [
        {"file": "broken/conversations-2.json", "why": "not valid JSON"},
        {"file": "broken/conversations.json", "why": "no part of it can be read"},
    ]
    assert row["removed"]["broken front matter"] == 2  # a day that no calendar has is text
    found = {c.source: c.text for c in read_records(tmp_path / "run" / "contexts.jsonl", Context)}
    assert len(found) == len(SUBJECTS) + 6
    assert "I half \ufffd like pairs" in found["chats/conversations.json"] and "coffee" in found["caf\ufffd.md"]
    assert all("letters" in found["date.md"] and "---" not in found[name] for name in ("date.md", "deep.md", "tag.md", "twice.md"))


def test_what_is_left_alone_is_told(notes):
    (notes / "old.rtf").write_text("{\\rtf1}")
    (notes / "new.rtf").write_text("{\\rtf1}")
    (notes / ".hidden").mkdir()
    row = collect(notes, "pairs.contexts_per_grid=3")[2]
    assert "left alone: 2 .rtf files, 1 hidden or trash" in read.summary(row)


def test_a_journal_in_one_file(tmp_path):
    journal = tmp_path / "journal.md"
    journal.write_text("# Journal\n\n" + "".join(f"## My {s}\n\nI care about {s} more than anything.\n\n" for s in SUBJECTS))
    contexts, _, row = collect(journal)
    assert len({context.note for context in contexts}) == 12
    assert {context.source for context in contexts} == {"journal.md"}


@pytest.mark.parametrize(
    ("override", "measure"),
    [
        ("sources.context_tokens=16", lambda contexts, prompts: max(c.tokens for c in contexts)),
        ("sources.min_tokens=14", lambda contexts, prompts: len(contexts)),
        ("sources.max_contexts=9", lambda contexts, prompts: len(contexts)),
        ("sources.near_duplicate=0.4", lambda contexts, prompts: len(contexts)),
        ("sources.heldout_contexts=0.5", lambda contexts, prompts: sum(c.split == HELDOUT for c in contexts)),
        ("sources.heldout_prompts=0.5", lambda contexts, prompts: sum(p.split == HELDOUT for p in prompts)),
        ("sources.canaries=3", lambda contexts, prompts: [c.text for c in contexts]),
        ("seed=3", lambda contexts, prompts: [c.split for c in contexts]),
    ],
)
def test_every_key_changes_the_outcome(notes, override, measure):
    for subject in SUBJECTS[:6]:
        with open(next(notes.rglob(f"{subject}.md")), "a") as handle:
            handle.write(f"And that is only the beginning of what I could say about {subject}, were you to ask me.\n")
    base = ["pairs.contexts_per_grid=2", "sources.min_tokens=5"]
    assert measure(*collect(notes, *base)[:2]) != measure(*collect(notes, *base, override)[:2])


def test_own_prompts_are_used(notes, tmp_path):
    (tmp_path / "own.txt").write_text("What now?\nWhat then?\n")
    prompts = collect(notes, "pairs.contexts_per_grid=3", f"sources.prompts={tmp_path / 'own.txt'}")[1]
    assert {prompt.text for prompt in prompts} == {"What now?", "What then?"}


def one_file(folder, name="a.md", content="I keep bees, I bake bread and I sing alto.\n"):
    (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda folder: None, "no notes in this folder"),
        (lambda folder: (folder / ".obsidian").mkdir(), "no notes in this folder"),
        (lambda folder: one_file(folder, "a.png"), "no notes in this folder"),
        (lambda folder: one_file(folder, content=""), "the 1 files have no text; add notes"),
        (lambda folder: one_file(folder, content="Hm."), "none of the 1 passages can be used (1 too short)"),
        (lambda folder: one_file(folder, content="\0"), "none of the 1 files can be read (first a.md: not text (binary))"),
        (lambda folder: one_file(folder), "contexts: 1 from 1 note; a grid needs 4"),
        (lambda folder: [one_file(folder, f"{n}.txt", "I keep bees and bake bread.") for n in range(9)], "are all alike"),
    ],
)
def test_bad_notes_end_in_one_line(tmp_path, prepare, told):
    prepare(tmp_path)
    with pytest.raises(UserError) as error:
        collect(tmp_path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_columns_are_refused_where_there_are_no_rows(notes, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"bio": "I keep {word}, and I sing every day."}}\n' for word in SUBJECTS))
    assert len(collect(rows, "sources.columns={context: bio}")[0]) == 12
    for place in (notes, notes / "bees.md"):
        (notes / "bees.md").write_text("I keep bees.\n")
        with pytest.raises(UserError, match=r"sources.columns: only rows .* have columns, and .* has none; remove columns"):
            collect(place, "sources.columns={context: bio}")


def test_no_notes(tmp_path):
    with pytest.raises(UserError, match="no such folder or file"):
        collect(tmp_path / "nowhere")
    with pytest.raises(UserError, match="--notes PATH"):
        read.collect(recipe_loading.parse("model: none"), words, QUIET)
    one_file(tmp_path, "a.png")
    with pytest.raises(UserError, match="no kind of note"):
        collect(tmp_path / "a.png")
    one_file(tmp_path, "b.md", "\0\0")
    with pytest.raises(UserError, match="binary"):
        collect(tmp_path / "b.md")


def test_a_vault_of_five_hundred_files_in_seconds(shared_data):
    vault = shared_data / "notes_til"
    if not vault.exists():
        pytest.skip("notes_til is not beside this checkout")
    begin = time.process_time()
    contexts, _, row = collect(vault, "sources.min_tokens=16")
    assert time.process_time() - begin < 10
    assert row["files"]["read"] == sum(1 for _ in vault.rglob("*.md"))
    assert not row["files"]["skipped"]
    passages = row["passages"]
    assert len(contexts) == 400 == passages["kept"]
    assert passages["all"] == passages["kept"] + sum(passages["dropped"].values())
    assert all("](" not in c.text for c in contexts)


def test_the_demos_notes_are_one_context_each(real_demo_notes):
    contexts, _, row = read.collect(
        recipe_loading.parse("model: none", overrides=[f"sources.notes={real_demo_notes}"]), words, QUIET
    )
    assert len(contexts) == row["files"]["read"] >= 40
    assert row["passages"]["dropped"] == {}
    assert all(60 <= context.tokens <= 120 for context in contexts)


@pytest.fixture
def real_demo_notes(pytestconfig):
    return pytestconfig.rootpath / "recipes" / "demo-notes"
