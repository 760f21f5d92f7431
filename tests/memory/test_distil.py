"""The profile: made of the right notes, of what they support, resumed to the same bytes, left alone once it is there, and told
wherever contexts are."""

import io
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from mipo_mlx import cli, recipe, recipe_loading, run
from mipo_mlx.commands import profile
from mipo_mlx.commands.dry_run import count
from mipo_mlx.engine.logprobs import token_logprobs
from mipo_mlx.errors import Failure, UserError
from mipo_mlx.evaluation import requests
from mipo_mlx.files import read_json, read_records, write_records
from mipo_mlx.memory import contexts, distil, facts, settling
from mipo_mlx.memory.distil import write_profile
from mipo_mlx.models.load import load
from mipo_mlx.pairs import make
from mipo_mlx.progress import Reporter
from mipo_mlx.records import HELDOUT, TRAIN, Answer, Context, Grid, Pair, Prompt
from tests.pairs.helpers import QUIET, THINGS, fill, make_contexts, make_recipe


@pytest.fixture(scope="module")
def loaded(tiny_folder):
    return load(str(tiny_folder))


@pytest.fixture
def writer(monkeypatch, loaded):
    """The model finds two supported facts and an invented one in each note; when asked to condense, it joins two facts.
    Returns the requests that it got, as text."""
    questions = []

    def answer(text):
        if "in at most" in text:
            likes = re.findall(r"- The user likes (\w+)", text)
            return f" likes {likes[0]} and {likes[-1]}.\nThe user owns a yacht."
        first, second = re.findall(r"I like (\w+) and (\w+)", text)[0]
        return f" likes {first}.\nThe user likes {second} most.\nThe user fears lions, and his name is Otto."

    def sample(model, tokenizer, batch, settings, key, finished):
        assert settings.temperature == 0  # the likeliest answer: no chance in it
        questions.extend(tokenizer.decode(tokens) for tokens in batch)
        return [Answer(answer(tokenizer.decode(tokens)), [1, 2], "stop") for tokens in batch]

    monkeypatch.setattr(distil, "sample", sample)
    monkeypatch.setattr(distil, "Prefixes", WholePrompts)
    monkeypatch.setattr(distil, "gains", lambda loaded, facts, without: [1.0] * len(facts))  # no model finds them likely
    return questions


class WholePrompts:
    """Stands in for Prefixes where no model runs."""

    def __init__(self, *args):
        pass

    def starts(self, prompts, labels):
        return prompts


def recipe_of(model, **sources):
    return make_recipe(model, sources={"profile_tokens": 2000, **sources})


def lines(folder: Path) -> list[str]:
    return [line for line in (folder / "profile.md").read_text().splitlines() if line.startswith("- ")]


def test_one_author_is_described_by_training_notes_alone(writer, loaded, tmp_path, tiny_folder):
    folder = fill(tmp_path)
    rows = [replace(c, text=f"{c.text} {c.id}") for c in read_records(folder / "contexts.jsonl", Context)]
    write_records(folder / "contexts.jsonl", rows)
    assert write_profile(folder, recipe_of(tiny_folder), loaded, QUIET)
    read = [c for c in rows if any(f"{c.text}\n" in request for request in writer)]
    assert len(writer) == 24 and {c.split for c in rows} == {TRAIN, HELDOUT}
    assert read == [c for c in rows if c.split == TRAIN]
    assert "heldout" not in (folder / "profile.md").read_text()
    assert all(request.endswith("<|im_start|>assistant\nThe user") for request in writer)


def test_every_line_names_notes_that_say_it_and_the_invented_is_gone(writer, loaded, tmp_path, tiny_folder):
    folder = fill(tmp_path)
    write_profile(folder, recipe_of(tiny_folder), loaded, QUIET)
    places = {f"{c.source}:{c.line}": c.text for c in make_contexts(12)}
    message = {}
    for line in lines(folder):
        fact, sources = re.fullmatch(r"- (.*) <!-- (.*) -->", line).groups()
        thing = re.search(r"likes (\w+)", fact)[1]
        message[thing] = sources.split(", ")
        assert all(thing in places[source] for source in message[thing])
    assert set(message) == set(THINGS)  # each once, though many notes say it
    assert all(len(sources) >= 3 for sources in message.values())
    state = read_json(folder / "profile.json")
    assert state["dropped"]["unsupported"] == 24 and state["lines"] == 12
    assert "Otto" not in (folder / "profile.md").read_text()


def test_a_profile_that_is_there_is_left_alone(writer, loaded, tmp_path, tiny_folder):
    folder = fill(tmp_path)
    write_profile(folder, recipe_of(tiny_folder), loaded, QUIET)
    assert not contexts.edited(folder)
    written = (folder / "profile.md").read_bytes()
    assert not write_profile(folder, recipe_of(tiny_folder), loaded, QUIET)
    (folder / "profile.md").write_text("- My own words.\n")
    assert not write_profile(folder, recipe_of(tiny_folder), loaded, QUIET)
    assert (folder / "profile.md").read_text() == "- My own words.\n" and contexts.edited(folder)
    questions = len(writer)
    (folder / "profile.md").unlink()  # what was sampled is kept, so it comes back at once
    assert write_profile(folder, recipe_of(tiny_folder), loaded, QUIET)
    assert (folder / "profile.md").read_bytes() == written and len(writer) == questions


def test_a_long_profile_is_condensed_and_then_cut(writer, loaded, tmp_path, tiny_folder):
    long, short = fill(tmp_path / "long"), fill(tmp_path / "short")
    write_profile(long, recipe_of(tiny_folder), loaded, QUIET)
    whole = contexts.plain((long / "profile.md").read_text())
    assert not any("in at most" in request for request in writer)
    write_profile(short, recipe_of(tiny_folder, profile_tokens=60), loaded, QUIET)
    reply = contexts.plain((short / "profile.md").read_text())
    assert 0 < len(loaded.tokenizer.encode(reply, add_special_tokens=False)) <= 60 < len(loaded.tokenizer.encode(whole))
    assert any("in at most" in request for request in writer)
    dropped = read_json(short / "profile.json")["dropped"]
    assert dropped["condensed"] > 0 and "yacht" not in reply
    for line in lines(short):  # condensed lines still name every note behind them
        assert len(re.search("<!-- (.*) -->", line)[1].split(", ")) >= 3


def test_people_are_described_by_their_own_rows(writer, loaded, tmp_path, tiny_folder):
    folder = fill(tmp_path)
    values = recipe_of(tiny_folder, columns={"note": "user"})
    write_profile(folder, values, loaded, QUIET)
    rows = make_contexts(12) + make_contexts(5, split=HELDOUT)
    message = contexts.sections((folder / "profile.md").read_text())
    assert set(message) == {c.note for c in rows}
    for note, text in message.items():
        own = " ".join(c.text for c in rows if c.note == note)
        assert all(thing in own for thing in re.findall(r"likes (\w+)", text))


def test_nothing_that_the_notes_support(loaded, tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setattr(distil, "sample", lambda *args: [Answer(" is a pilot.", [1, 2], "stop") for _ in args[2]])
    with pytest.raises(Failure, match=r"profile.md: not written.*dropped: 24 unsupported.*by hand") as error:
        write_profile(fill(tmp_path), recipe_of(tiny_folder), loaded, QUIET)
    assert "\n" not in str(error.value) and not (tmp_path / "profile.md").exists()
    monkeypatch.setattr(distil, "sample", lambda *args: [Answer("", [2], "stop") for _ in args[2]])
    (tmp_path / "profile-samples.jsonl").unlink()
    with pytest.raises(Failure, match="not written"):
        write_profile(tmp_path, recipe_of(tiny_folder), loaded, QUIET)


def test_a_fact_that_its_note_makes_no_likelier_is_dropped(writer, loaded, tmp_path, tiny_folder, monkeypatch):
    folder = fill(tmp_path)

    def gains(loaded, written, without):
        assert "I like" not in loaded.tokenizer.decode(without)
        assert all("I like" in loaded.tokenizer.decode(tokens) for _, tokens in written)
        return [distil.LEAST_GAIN - 0.01 if " most" in text else distil.LEAST_GAIN for text, _ in written]

    monkeypatch.setattr(distil, "gains", gains)
    write_profile(folder, recipe_of(tiny_folder), loaded, QUIET)
    assert lines(folder) and not any(" most" in line for line in lines(folder))
    assert read_json(folder / "profile.json")["dropped"]["unlikely"] == 24


def test_gains_are_means_of_differences(loaded):
    facts, without = [("The user keeps bees.", [5, 6, 7]), ("The user sings.", [8, 9])], [5, 9]
    got = distil.gains(loaded, [*facts, ("The user keeps bees.", without)], without)
    tokens = [loaded.tokenizer.encode(text, add_special_tokens=False) for text in (" keeps bees.", " sings.")]
    for gain, (_, prompt), some in zip(got, facts, tokens, strict=False):
        (own,), (bare,) = token_logprobs(loaded.model, [prompt, without], [[some], [some]])
        assert gain == pytest.approx(float(own.mean() - bare.mean()), abs=1e-4)
    assert got[2] == pytest.approx(0, abs=1e-5) and distil.gains(loaded, [], without) == []


def test_no_notes_to_train_on(loaded, tmp_path, tiny_folder):
    with pytest.raises(UserError, match="no notes to train on"):
        write_profile(tmp_path, recipe_of(tiny_folder), loaded, QUIET)


class Killed(BaseException):
    pass


@pytest.fixture
def lenient(monkeypatch):
    """The tiny model's sentences are noise: all are taken, so that its profile has lines, and condenses them."""
    for module in (distil, facts):
        monkeypatch.setattr(module, "unfit", lambda fact, source: None)
        monkeypatch.setattr(module, "sentences", lambda text, finished: [" ".join(text.split())])
    monkeypatch.setattr(distil, "LEAST_GAIN", -1e9)


def test_killed_anywhere_it_ends_with_the_same_bytes(lenient, loaded, tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setattr(distil, "TOKENS", 12)
    values, real = make_recipe(tiny_folder, sources={"profile_tokens": 30}, batch=4), distil.sample
    batches = []
    monkeypatch.setattr(distil, "sample", lambda *args: batches.append(1) or real(*args))
    write_profile(fill(tmp_path / "whole", notes=5), values, loaded, QUIET)
    wanted = {name: (tmp_path / "whole" / name).read_bytes() for name in ("profile.md", "profile.json", "profile-samples.jsonl")}
    total = len(batches)
    assert total > 3 and lines(tmp_path / "whole")
    for point in range(total):
        folder, left = fill(tmp_path / str(point), notes=5), point

        def dying(*args):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real(*args)

        monkeypatch.setattr(distil, "sample", dying)
        with pytest.raises(Killed):
            write_profile(folder, values, loaded, QUIET)
        if point:  # and the last line torn
            samples = (folder / "profile-samples.jsonl").read_bytes()
            (folder / "profile-samples.jsonl").write_bytes(samples[: len(samples) - random.Random(point).randrange(2) * 7])
        left = 10**6
        write_profile(folder, values, loaded, QUIET)
        assert {name: (folder / name).read_bytes() for name in wanted} == wanted
        assert 10**6 - left <= total - point + 1  # what was sampled is not sampled again, but for the torn line


@pytest.fixture
def both(writer, tiny_folder, tmp_path):
    """(folder, recipe) of pairs that were sampled with a profile before each passage; the window takes both."""
    values = recipe_of(tiny_folder, context="both", profile_tokens=60)
    folder = fill(tmp_path / "both")
    make.run(folder, values, QUIET)
    return folder, values


def test_pairs_are_told_profile_and_passage(both):
    folder, _ = both
    reply = contexts.plain((folder / "profile.md").read_text())
    texts = {c.id: c.text for c in read_records(folder / "contexts.jsonl", Context)}
    pairs = read_records(folder / "pairs.jsonl", Pair)
    assert pairs
    for pair in pairs:
        facts = f"These are facts about the user:\n{reply}"
        assert pair.prompt[0]["content"] == f"{facts}\n\n{texts[pair.context_id]} In two sentences."
        assert texts[pair.wrong_context_ids[0]] != texts[pair.context_id]  # the passage is what is wrong


def test_the_profile_is_run_once(both, loaded):
    folder, values = both
    ask = make.PromptBuilder(loaded.tokenizer, values.pairs)
    message = contexts.read_contexts(folder, values)
    prompts = read_records(folder / "prompts.jsonl", Prompt)
    result = make.Prefixes(loaded.model, [ask(prompts[0], c)[1] for c in message[:4]], [(c.id,) for c in message[:4]])
    assert contexts.plain((folder / "profile.md").read_text()) in loaded.tokenizer.decode(result.opening)


def test_an_edited_profile_is_another_run(both):
    folder, values = both
    (folder / "profile.md").write_text("- The user likes tea.\n")
    with pytest.raises(UserError, match=r"samples.jsonl:1: .*another profile.*--fresh"):
        make.run(folder, values, QUIET)


def test_evaluation_asks_with_the_profile(both, loaded):
    folder, values = both
    reply = contexts.plain((folder / "profile.md").read_text())
    groups = requests.groups_of(folder, values, make.PromptBuilder(loaded.tokenizer, values.pairs))
    assert groups
    for group in groups:
        assert group.contexts == [f"{reply}\n\n{text}" for text in group.apart]
        assert all(
            context in loaded.tokenizer.decode(tokens) for context, tokens in zip(group.contexts, group.prompts, strict=True)
        )


def test_people_told_by_profile_alone(writer, tiny_folder, tmp_path):
    values = recipe_of(tiny_folder, context="profile", columns={"note": "user"})
    folder = fill(tmp_path)
    make.run(folder, values, QUIET)
    message = contexts.sections((folder / "profile.md").read_text())
    grids = read_records(folder / "samples.jsonl", Grid)
    used = {name for grid in grids for name in grid.contexts}
    assert used <= {c.id for c in contexts.read_contexts(folder, values)} and len(used) > 10
    for pair in read_records(folder / "pairs.jsonl", Pair):
        facts = message[pair.context_id.rpartition("-")[0]]
        assert pair.prompt[0]["content"] == values.pairs.profile_system.replace("{profile}", facts)


def test_dry_run_counts_the_profile(tiny_folder):
    rows, prompts = make_contexts(12), []
    without_use = {"evaluation": recipe.Evaluation(use=0)}  # with a profile, that part answers twice more
    passage, profiled = (
        count(recipe_of(tiny_folder, context=mode).model_copy(update=without_use), rows, prompts) for mode in ("passage", "both")
    )
    assert profiled.prompt_tokens == passage.prompt_tokens + 2000 and profiled.sampled == passage.sampled + 24 * 64


def test_train_makes_the_profile_where_the_base_is_large_enough(writer, loaded, tiny_folder, tmp_path, monkeypatch):
    """And goes on without one where the notes support no fact."""

    def pairs(name, **sources):
        folder = fill(tmp_path / name, notes=4)
        values = make_recipe(tiny_folder, sources={"notes": "some", "profile_tokens": 60, **sources})
        settling.settle_contexts(folder, values, loaded, QUIET)
        first, *_ = contexts.read_contexts(folder, values)
        return (folder / "profile.md").exists(), bool(first.profile), read_json(folder / "context.json", {})

    assert pairs("small") == (False, False, {"context": "passage"})
    assert pairs("asked", profile=True) == (True, True, {"context": "both"})
    assert pairs("for-export", profile=True, context="passage") == (True, False, {})
    monkeypatch.setattr(settling, "LARGE", 1)
    assert pairs("large") == (True, True, {"context": "both"})
    assert pairs("off", profile=False) == (False, False, {"context": "passage"})
    assert pairs("people", columns={"note": "user"}) == (False, False, {"context": "passage"})
    monkeypatch.setattr(distil, "gains", lambda loaded, facts, without: [-1.0] * len(facts))
    assert pairs("unfit") == (False, False, {"context": "passage"})


@pytest.fixture
def command(tiny_folder, tmp_path, writer):
    """Runs `mipo-mlx` on twelve notes; returns what it printed."""
    notes = tmp_path / "notes"
    notes.mkdir()
    for context in make_contexts(12, 1):
        (notes / Path(context.source).name).write_text(f"{context.text} Call me at 020 7946 0958.\n")
    values = make_recipe(tiny_folder, sources={"notes": str(notes), "min_tokens": 4, "context": "passage"})
    (tmp_path / "r.yaml").write_text(recipe_loading.dump(values))

    def invoke(*arguments, code=0):
        result = CliRunner().invoke(cli.main, [*arguments, "--runs", str(tmp_path / "runs")])
        assert result.exit_code == code, result.output
        return result.output

    return invoke


def test_the_command_prints_the_profile_and_where_it_is(command, tmp_path, writer):
    message = command("profile", str(tmp_path / "r.yaml"))
    path = tmp_path / "runs" / "r" / "profile.md"
    assert path.read_text().rstrip() in message and message.rstrip().endswith(str(path))
    questions = "\n".join(writer)
    assert "[phone number]" in questions and "7946" not in questions  # secrets are gone before the model reads
    held = {c.text for c in read_records(path.parent / "contexts.jsonl", Context) if c.split == HELDOUT}
    assert held and not any(text in questions for text in held)


def test_only_fresh_replaces_what_was_edited(command, tmp_path):
    target, folder = str(tmp_path / "r.yaml"), tmp_path / "runs" / "r"
    command("profile", target, "--quiet")
    made_of_notes = (folder / "profile.md").read_text()
    (folder / "profile.md").write_text("- My own words.\n")
    message = command("profile", target)
    assert "left as it is; --fresh writes a new one" in message and "My own words." in message
    command("pairs", target, "--fresh", "--quiet")  # starts the run over, and keeps the author's own words
    assert (folder / "profile.md").read_text() == "- My own words.\n"
    rest = [folder / name for name in ("samples.jsonl", "pairs.jsonl", "contexts.jsonl", "manifest.json")]
    before = [path.read_bytes() for path in rest]
    for _ in range(2):
        command("profile", target, "--fresh", "--quiet")
        assert (folder / "profile.md").read_text() == made_of_notes and not contexts.edited(folder)
        assert (folder / "profile.old.md").read_text() == "- My own words.\n"
        assert [path.read_bytes() for path in rest] == before  # they were told without it
    (folder / "profile.md").write_text("- My second thoughts.\n")
    assert "moved to profile.old-2.md" in command("profile", target, "--fresh")
    assert (folder / "profile.old.md").read_text() == "- My own words.\n"
    assert (folder / "profile.old-2.md").read_text() == "- My second thoughts.\n"
    assert run.BESIDE.fullmatch("profile.old-2.md") and not run.BESIDE.fullmatch("profile.old-mine.md")
    other = command("profile", target, "--fresh", "--quiet", "--set", "seed=5", code=2)
    assert "made from another recipe (seed: 0 -> 5)" in other and (folder / "profile.md").read_text() == made_of_notes


def test_a_profile_that_pairs_were_sampled_with_is_not_made_anew(command, tmp_path):
    target, folder = str(tmp_path / "r.yaml"), tmp_path / "runs" / "r"
    sets = ("--set", "sources.context=both", "--set", "sources.profile_tokens=60", "--quiet")
    command("profile", target, *sets)
    command("profile", target, *sets, "--fresh")  # no pairs yet
    command("pairs", target, *sets)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    message = command("profile", target, *sets, "--fresh", code=2)
    assert "profile.md: the pairs of this run were sampled with it" in message and message.count("\n") == 1
    message = command("profile", str(folder), "--fresh", "--quiet", code=2)  # by its folder as well
    assert "profile.md: the pairs of this run were sampled with it" in message
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}.items() <= before.items()


def test_after_a_new_profile_the_export_is_told_to_be_older(tmp_path, monkeypatch):
    values = make_recipe("none").model_copy(update={"export": recipe.Export(system="profile")})
    opened = run.open_run(values, "r", tmp_path, fresh=False)
    run.prepare(opened, fresh=False)
    output = io.StringIO()
    for done in ({}, {"export": {"state": "done"}}):
        run._update(opened, stages=done)
        (opened.folder / "export.json").write_text("{}")
        (opened.folder / "profile.md").write_text("- My own words.\n")
        assert "mipo-mlx export" not in output.getvalue()
        profile._put_aside(opened, opened.folder / "profile.md", Reporter(stream=output))
    assert f"`mipo-mlx export {opened.folder}` makes them anew" in output.getvalue()


def test_pairs_are_done_for_their_profile_only(command, tmp_path):
    target, folder = str(tmp_path / "r.yaml"), tmp_path / "runs" / "r"
    sets = ("--set", "sources.context=both", "--set", "sources.profile_tokens=60", "--quiet")
    command("pairs", target, *sets)
    text = (folder / "profile.md").read_text()
    (folder / "profile.md").write_text(f"<!-- mine -->\n{text}")
    command("pairs", target, *sets)  # comments are not told
    (folder / "profile.md").write_text(text + "- The user likes tea.\n")
    before = (folder / "manifest.json").read_bytes()
    message = command("pairs", target, *sets, code=2)
    assert "profile.md: changed since the pairs were sampled" in message and message.count("\n") == 1
    assert (folder / "manifest.json").read_bytes() == before  # what was done still counts
    command("pairs", target, *sets, "--fresh")
    assert "The user likes tea." in read_records(folder / "pairs.jsonl", Pair)[0].prompt[0]["content"]
