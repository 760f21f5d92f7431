"""The evaluation with memory, on a tiny model: requests by rule, prompts, comparisons, and retrieval by itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mipo_mlx.evaluation import evaluate, use, with_memory
from mipo_mlx.evaluation import outcome as outcomes
from mipo_mlx.evaluation.about_notes import STRANGERS, about_notes
from mipo_mlx.memory.access import open_memory
from mipo_mlx.models import adapters, load
from mipo_mlx.models.prompts import PromptBuilder
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Recipe
from mipo_mlx.records import Context

from .helpers import FACTS, Steps, bench, make_run, recipe
from .test_use import PROFILE

QUIET = Reporter(quiet=True)


def with_notes(folder: Path, settings: Recipe, **memory) -> Recipe:
    """The recipe of a run whose notes are the run's contexts, one a file, and one more that the run does not have."""
    notes = folder / "notes"
    notes.mkdir(parents=True)
    for number, fact in enumerate([*FACTS, "cook soup tonight, and read about travel every week"]):
        (notes / f"n{number}.md").write_text(f"I {fact}.\n")
    sources = settings.sources.model_copy(update={"notes": str(notes), "min_tokens": 1})
    return settings.model_copy(
        update={"sources": sources, "memory": settings.memory.model_copy(update={"embedder": "words", **memory})}
    )


class Ready:
    """A run with its model, its memory and the requests that memory is asked."""

    def __init__(self, folder: Path, tiny_folder: Path, profile: str = "", spread: float = 0.05, **memory) -> None:
        self.recipe = with_notes(folder, recipe(tiny_folder, answers=2, use=6), **memory)
        self.folder = make_run(folder / "run", self.recipe, spread=spread)
        if profile:
            (self.folder / "profile.md").write_text(profile)
        self.loaded = load.load(self.recipe.model)
        adapters.load(self.loaded.model, self.folder / "adapters")
        self.memory = open_memory(self.folder, self.recipe, self.loaded, QUIET)
        self.ask = PromptBuilder(self.loaded.tokenizer, self.recipe.pairs)
        self.bar = Steps()
        self.bench = bench(self.folder, self.recipe, self.loaded, self.bar)
        self.requests = with_memory.requests_of(self.folder, self.recipe, self.memory, self.ask)


@pytest.fixture(scope="module")
def ready(tmp_path_factory, tiny_folder):
    return Ready(tmp_path_factory.mktemp("ready"), tiny_folder)


@pytest.fixture(scope="module")
def result(ready):
    return use.evaluate(ready.bench, [], ready.requests).memory


def passages(texts: list[str], split: str = "heldout") -> list[Context]:
    return [Context(f"c{n}", text, f"n{n}", f"n{n}.md", 1, split, 9) for n, text in enumerate(texts)]


def test_a_request_names_two_words_of_its_passage_that_few_notes_have():
    texts = [
        f"Every morning I water {plant} beside {tool} before work."
        for plant, tool in zip("abcdefghijklm", "nopqrstuvwxyz", strict=True)
    ]
    texts = [text.replace(" a ", " asters ").replace(" n ", " needles ") for text in texts]
    every = passages([*texts, "Every morning I feed hedgehogs and squirrels."])
    requests = about_notes(every, recipe("none"), 2)
    named = {request.context.id: request.text for request in requests}
    assert set(named) == {"c0", "c13"}  # the others have single letters and common words alone
    assert "asters" in named["c0"] and "needles" in named["c0"]
    assert sum(word in named["c13"] for word in ("feed", "hedgehogs", "squirrels")) == 2
    assert all("morning" not in text for text in named.values())


def test_each_note_has_a_request_before_any_has_two():
    needs = {"wombat": "hay", "zebra": "oats", "okapi": "figs", "tapir": "moss"}
    texts = [f"My {one} needs {other}." for one, other in needs.items()]
    every = [replace(c, note="n0" if n < 3 else "n3") for n, c in enumerate(passages(texts))]
    every += [replace(c, id=f"t{n}", note=f"t{n}") for n, c in enumerate(passages(["Unrelated stuff."] * 40, "train"))]
    requests = about_notes(every, recipe("none"), 4)
    assert len(requests) == 4 and {r.context.note for r in requests[:2]} == {"n0", "n3"}
    assert about_notes(every, recipe("none"), 2) == requests[:2]
    assert all(request.context.split == "heldout" for request in requests)


def test_a_passage_that_says_much_has_up_to_three_requests_of_other_words():
    plenty = "Wombats, zebras, okapis, tapirs, lemurs, badgers, otters and ferrets."
    requests = about_notes(passages([plenty, "Herrings."]), recipe("none"), 99)
    assert [request.context.id for request in requests].count("c0") == 3 and len(requests) == 4
    assert {request.context.id for request in requests[:2]} == {"c0", "c1"}
    every = "wombats zebras okapis tapirs lemurs badgers otters ferrets".split()
    words = [word for request in requests for word in every if word in request.text]
    assert len(words) == len(set(words)) == 6 and len({request.id for request in requests}) == 4


@pytest.mark.parametrize("text", ["Ich habe gestern mit dem Nachbarn Erdbeeren gepflanzt.", "\u6628\u65e5\u5e84\u53cb\u82b1\u56ed"])
def test_other_languages_are_asked_by_words_alone(text):
    [request] = about_notes(passages([text]), recipe("none"), 1)
    assert request.text.endswith("?") and all(word in text.lower() for word in request.text.strip("?").split(", "))


def test_memory_is_told_as_chat_tells_it(ready, monkeypatch, result):
    """The same prompts for both models: passages best last, in the one frame."""
    sent = []
    original = type(ready.bench).sample_now
    monkeypatch.setattr(
        type(ready.bench), "sample_now", lambda self, prompts, *others: sent.extend(prompts) or original(self, prompts, *others)
    )
    again, folder = Steps(), ready.folder / "again"
    folder.mkdir()
    here = replace(ready.bench, journal=bench(folder, ready.recipe, ready.loaded).journal, bar=again)
    use.evaluate(here, [], ready.requests)
    texts = [ready.loaded.tokenizer.decode(prompt) for prompt in sent]
    count = len(ready.requests.all)
    for one in ready.requests.all:
        passages = "\n\n".join(match.entry.text for match in reversed(one.matches))
        system = f"About the user: {passages}" if passages else "Answer."
        assert sum(system in text and one.text in text for text in texts) >= 2
    assert len(texts) == 3 * count + len(ready.requests.about)
    assert again.done == with_memory.bar_total(ready.folder, ready.recipe, ready.requests, False)


def test_the_comparisons(ready, result):
    assert result.requests == len(ready.requests.about) == 6
    assert set(result.ways) == {"memory", "alone", "by_hand", "retrieval"}  # no profile
    for opinion in result.ways.values():
        assert opinion.win + opinion.tie + opinion.loss == 6 and opinion.win_rate.interval is not None


def test_with_a_profile_it_is_told_to_both_and_compared_with(tmp_path, tiny_folder):
    ready = Ready(tmp_path, tiny_folder, PROFILE)
    measured = use.evaluate(ready.bench, [], ready.requests)
    assert set(measured.memory.ways) == {"memory", "alone", "profile", "by_hand", "retrieval"}
    assert set(measured.ways) == {"alone", "profile"}
    expected = use.bar_total(ready.folder, ready.recipe, [], False)
    assert ready.bar.done == expected + with_memory.bar_total(ready.folder, ready.recipe, ready.requests, False)


def test_retrieval_counts_the_right_passage(ready, result):
    """Against a plain loop over what memory ranks."""
    ranks = []
    for one in ready.requests.about:
        files = [match.entry.source for match in ready.memory.ranked(one.text, 10)]
        ranks.append(files.index(one.context.source) if one.context.source in files else 99)
    for depth in (1, 3, 10):
        assert result.retrieval.recall[str(depth)].value == pytest.approx(np.mean([rank < depth for rank in ranks]))
    given = [one.context.source in [match.entry.source for match in one.matches] for one in ready.requests.about]
    assert result.retrieval.given.value == pytest.approx(np.mean(given)) and any(given)
    none = [not ready.memory.search(stranger) for stranger in STRANGERS]
    assert result.retrieval.none_given.value == pytest.approx(np.mean(none))
    assert result.retrieval.passages == 9 and result.retrieval.strangers == len(set(STRANGERS))


def test_a_passage_that_memory_has_no_more_counts_as_not_found(tmp_path, tiny_folder):
    ready = Ready(tmp_path, tiny_folder)
    gone = ready.requests.about[0].context
    (tmp_path / "notes" / gone.source).unlink()
    memory = open_memory(ready.folder, ready.recipe, ready.loaded, QUIET)
    requests = with_memory.requests_of(ready.folder, ready.recipe, memory, ready.ask)
    measured = use.evaluate(ready.bench, [], requests).memory
    assert measured.retrieval.passages == 8
    assert measured.retrieval.recall["10"].value == pytest.approx(5 / 6)


def test_scenes_are_everyday_requests_for_which_memory_finds_notes(ready, result):
    assert ready.requests.everyday and len(result.scenes) == 3
    first = ready.requests.everyday[0]
    assert result.scenes[0].request == first.text and result.scenes[0].passages == [m.entry.text for m in first.matches]
    notes = [one.matches[0].entry.note for one in ready.requests.everyday]
    assert len(set(notes)) == len(notes)


def test_passages_that_fit_least_go_where_the_window_is_small(ready):
    request = max(ready.requests.all, key=lambda one: len(one.matches))
    request = replace(request, matches=tuple(ready.memory.ranked("bees bread soup", 3)))
    whole, kept = with_memory._within_window(ready.bench, request, "")
    assert kept == request.matches and len(kept) == 3
    less, kept = with_memory._within_window(replace(ready.bench, window=len(whole) - 1), request, "")
    assert kept == request.matches[:2] and len(less) < len(whole)


def test_an_embedder_judges_without_scores(ready):
    """A stand-in that knows a text by the sum of its characters; nothing is scored."""

    def embed(texts):
        return np.array([[np.cos(sum(map(ord, text))), np.sin(sum(map(ord, text)))] for text in texts])

    bar, folder = Steps(), ready.folder / "embedded"
    folder.mkdir()
    here = replace(bench(folder, ready.recipe, ready.loaded, bar), embedder=embed)
    measured = use.evaluate(here, [], ready.requests).memory
    assert {opinion.judge for opinion in measured.ways.values()} == {"embedding"}
    assert bar.done == with_memory.bar_total(ready.folder, ready.recipe, ready.requests, True)
    assert b"scored" not in (folder / "journal.jsonl").read_bytes()


def test_no_memory_no_part(ready, tiny_folder):
    assert with_memory.requests_of(ready.folder, ready.recipe, None, ready.ask) is None
    off = ready.recipe.model_copy(update={"evaluation": ready.recipe.evaluation.model_copy(update={"use": 0})})
    assert with_memory.requests_of(ready.folder, off, ready.memory, ready.ask) is None
    assert with_memory.bar_total(ready.folder, ready.recipe, None, False) == 0


def test_a_whole_evaluation_says_so_and_goes_on_after_a_kill(tmp_path, tiny_folder):
    settings = with_notes(tmp_path, recipe(tiny_folder, answers=4, choices=[4], use=6))
    folder = make_run(tmp_path / "run", settings)  # adapters without effect
    summary = evaluate.run(folder, settings, QUIET)
    measured = outcomes.read(folder)
    assert measured.use.memory.ways["memory"].win_rate.value == 0.5
    assert summary["comparisons_won_with_notes"]["after"] == 0.5
    assert measured.verdict.startswith("No effect can be shown: its answers with your notes")
    whole, lines = (folder / "eval.json").read_bytes(), (folder / "eval-samples.jsonl").read_bytes().splitlines(keepends=True)
    first = next(place for place, line in enumerate(lines) if b'"use-tuned' in line)
    (folder / "eval.json").unlink()
    (folder / "eval-samples.jsonl").write_bytes(b"".join(lines[: first + 2]) + lines[first + 2][:25])
    evaluate.run(folder, settings, QUIET)
    assert (folder / "eval.json").read_bytes() == whole
