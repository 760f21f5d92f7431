"""What the owner keeps and drops: it is known again after edits, it outranks every other reason, and it travels."""

import pytest

from mipo_mlx import recipe_loading, run
from mipo_mlx.errors import UserError
from mipo_mlx.memory.index import Index
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Sources
from mipo_mlx.records import TRAIN
from mipo_mlx.sources import changes, read
from mipo_mlx.sources.listing import listing
from mipo_mlx.sources.note import Passage, Tally
from mipo_mlx.sources.own_choice import BY_OWNER, FILE, OwnChoice, read_choice

QUIET = Reporter(quiet=True)


def passage(text: str, source: str = "a.md") -> Passage:
    return Passage(f"Title. {text}", source, source, 1, 9, parts=tuple(text.split("\n")))


def words(text: str) -> int:
    return len(text.split())


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    for number in range(12):
        file = folder / ("work" if number % 3 else "home/diary") / f"{number}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"I keep {number} bees in the garden of my aunt, and I sing to them on day {number}.\n")
    (folder / "links.md").write_text("- [the first link of my list](a)\n- [the other link of my list](b)\n")
    return folder


def recipe_for(notes, *sets):
    sets = (f"sources.notes={notes}", "sources.min_tokens=5", "pairs.contexts_per_grid=2", *sets)
    return recipe_loading.parse("model: none", overrides=list(sets))


def test_a_passage_is_known_again_by_its_paragraphs():
    own = OwnChoice()
    own.mark(False, passage=passage("My debts are higher than my house.\nYes."))
    assert own.verdict(passage("I also row on Mondays with Ana.\nMy debts are higher than my house!", "b/c.md")) is False
    assert own.verdict(passage("Yes.\nI row on Mondays with my sister Ana.")) is None  # short paragraphs tell nothing apart
    own.mark(True, passage=passage("I row on Mondays with my sister Ana."))
    both = passage("I row on Mondays with my sister Ana.\nMy debts are higher than my house.")
    assert own.verdict(both) is False  # what was dropped comes in with nothing else
    own.mark(None, passage=both)
    assert not own.rows()


def test_a_passage_of_short_paragraphs_is_known_by_all_of_them():
    own = OwnChoice()
    own.mark(False, passage=passage("- Milk\n- Bread"))
    assert own.verdict(passage("- milk\n- bread!")) is False and own.verdict(passage("- Milk\n- Beer")) is None


def test_passage_before_file_before_folder():
    own, held = OwnChoice(), passage("I sing in the choir on Sundays.", "work/old/a.md")
    own.mark(False, place="work/")
    assert own.verdict(held) is False and own.verdict(passage("I sing in the choir.", "workshop/a.md")) is None
    own.mark(True, place="work/old/")
    assert own.verdict(held) is True
    own.mark(False, place="work/old/a.md")
    assert own.verdict(held) is False
    own.mark(True, passage=held)
    assert own.verdict(held) is True
    own.mark(None, passage=held)
    own.mark(None, place="work/old/a.md")
    assert own.verdict(held) is True


def test_the_file_reads_back_and_a_line_that_is_no_choice_is_named(tmp_path):
    own = OwnChoice()
    own.mark(False, place="Wörk/")
    own.mark(True, passage=passage("I sing in the choir on Sundays."))
    own.write(tmp_path)
    again = read_choice(tmp_path, Sources(notes="n"))
    assert again.rows() == own.rows() and again.digest() == own.digest() != OwnChoice().digest()
    assert (tmp_path / FILE).stat().st_mode & 0o77 == 0
    for line in ('{"keep": "no", "place": "a"}', '{"keep": true}', "[1]"):
        (tmp_path / FILE).write_text(line + "\n")
        with pytest.raises(UserError, match=f"{FILE}:1: no choice"):
            read_choice(tmp_path, Sources(notes="n"))


def test_the_choice_of_another_run_counts_below_that_of_the_run(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, keep in ((one, False), (two, True)):
        folder.mkdir()
        own = OwnChoice()
        own.mark(keep, place="a.md")
        own.mark(False, place=f"{folder.name}.md")
        own.write(folder)
    both = read_choice(two, Sources(notes="n", choice=str(one / FILE)))
    assert both.places == {"a.md": True, "one.md": False, "two.md": False}
    with pytest.raises(UserError, match="sources.choice: .*no such file"):
        read_choice(two, Sources(notes="n", choice=str(tmp_path / "none.jsonl")))


def test_what_is_dropped_is_no_context_and_what_is_kept_is_one_whatever_it_is(notes):
    own = OwnChoice()
    own.mark(False, place="home/")
    own.mark(True, place="links.md")
    contexts, _, row = read.collect(recipe_for(notes, "sources.max_contexts=5"), words, QUIET, own)
    assert not any(c.source.startswith("home/") for c in contexts) and "links.md" in {c.source for c in contexts}
    assert row["passages"]["dropped"] == {BY_OWNER: 4, "over max_contexts": 4}
    plain, _, row = read.collect(recipe_for(notes), words, QUIET)
    assert "links.md" not in {c.source for c in plain} and row["passages"]["dropped"] == {"link list": 1}


def test_the_listing_says_of_every_passage_what_becomes_of_it(notes):
    recipe, tally, own = recipe_for(notes, "sources.max_contexts=6"), Tally(), OwnChoice()
    (notes / "work" / "copy.md").write_text((notes / "work" / "1.md").read_text())
    (notes / "photo.png").write_bytes(b"x")
    (notes / "bad.md").write_bytes(b"\0\1")
    every = read.pieces(recipe, words, QUIET, tally)
    own.mark(False, place="work/2.md")
    result = listing(recipe, every, own, tally)
    states = {row.passage.source: row.state for row in result.rows}
    assert states["work/2.md"] == BY_OWNER and states["links.md"] == "link list" and states["work/copy.md"] == "near-duplicate"
    assert sum(row.used for row in result.rows) == 6 and not result.problem
    contexts, _, _ = read.collect(recipe, words, QUIET, own)
    used = {row.passage.source: row.state for row in result.rows if row.used}
    assert used == {c.source: "to train on" if c.split == TRAIN else "held out" for c in contexts}
    assert result.skipped == [("bad.md", "not text (binary)")] and result.alone == {".png files": ["photo.png"]}
    ranks = [row.passage.rank for row in result.best if row.used]
    assert ranks == sorted(ranks, reverse=True) and not any(row.used for row in result.best[6:])


def test_too_few_notes_are_listed_with_the_problem(notes):
    recipe, tally, own = recipe_for(notes), Tally(), OwnChoice()
    every = read.pieces(recipe, words, QUIET, tally)
    own.mark(False, place="work/")
    result = listing(recipe, every, own, tally)
    assert "a grid needs" not in result.problem and sum(row.used for row in result.rows) == 4
    own.mark(False, place="home/diary/0.md")
    result = listing(recipe, every, own, tally)
    assert "a grid needs" in result.problem and sum(row.used for row in result.rows) == 3


def test_memory_does_not_remember_what_is_dropped(tmp_path, notes):
    folder, recipe = tmp_path / "run", recipe_for(notes)
    folder.mkdir()
    index = Index(folder / "memory.sqlite")
    index.refresh(recipe, words, QUIET)
    assert index.count() == 13  # the list of links is no context, but ask and chat find it
    own = OwnChoice()
    own.mark(False, place="work/")
    own.mark(True, place="links.md")
    own.write(folder)
    index.refresh(recipe, words, QUIET)
    known = {entry.source for entry in index.entries(range(1, 30)).values()}
    assert len(known) == 5 and "links.md" in known and not any(source.startswith("work/") for source in known)
    words_of_files = index.connection.execute("SELECT text FROM file_words").fetchall()
    assert not any("1 bees" in text and "10 bees" not in text for (text,) in words_of_files)


def test_a_rerun_warns_of_another_choice_and_fresh_keeps_it(tmp_path, notes, tiny_folder, capsys):
    recipe = recipe_for(notes)
    recipe = recipe.model_copy(update={"model": str(tiny_folder)})
    held = run.open_run(recipe, "mine", tmp_path)
    run.prepare(held, fresh=False)
    own = OwnChoice()
    own.mark(False, place="home/")
    own.write(held.folder)
    row = read.run(held.folder, recipe, QUIET)
    assert row["passages"]["dropped"][BY_OWNER] == 4
    changes.warn(held.folder, recipe.sources, row, Reporter(quiet=True))
    own.mark(False, place="work/1.md")
    own.write(held.folder)
    assert "choice" not in capsys.readouterr().err
    changes.warn(held.folder, recipe.sources, row, Reporter(quiet=True))
    assert "your choice of notes has changed" in capsys.readouterr().err
    run.prepare(run.open_run(recipe, "mine", tmp_path, fresh=True), fresh=True)
    assert read_choice(held.folder, recipe.sources).places == {"home/": False, "work/1.md": False}
    assert not (held.folder / "sources.json").exists()
