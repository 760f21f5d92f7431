"""Data sets, from local copies in the columns of the real ones."""

import json
import sys
from pathlib import Path

import pytest

from mipo_mlx import recipe_loading
from mipo_mlx.errors import UserError
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Dataset
from mipo_mlx.sources import hub, read
from mipo_mlx.sources.note import Tally

RECIPES = Path(__file__).parents[2] / "recipes"
QUIET = Reporter(quiet=True)

# A row or two of each data set, with its own columns and texts of ours.
PRISM_SURVEY = [
    {
        "user_id": f"user{n}",
        "self_description": f"I mend clock number {n} in town {n * 7}.",
        "system_string": f"Be brief and mention gear {n * 3}.",
    }
    for n in range(12)
]
PRISM_CONVERSATIONS = [{"user_id": f"user{n}", "opening_prompt": f"What should I do on day {n}?"} for n in range(6)]
COMMUNITY = [
    {
        "annotator_id": f"a{n // 2}",
        "assigned_lang": "en" if n < 24 else "fr",
        "first_turn_prompt": f"How do I cook dish number {n}?",
        "annotator_age": ["18-34", "35-44", "55+"][n // 2 % 3],
        "annotator_gender": ["female", "male"][n // 2 % 2],
        "annotator_country": ["italy", "brazil", "india", "france", "united states"][n // 2 % 5],
        "annotator_education_level": "Some post-secondary",
        "annotator_political": None if n == 0 else ["Somewhat left-leaning", "Very right-leaning"][n // 6 % 2],
    }
    for n in range(30)
]
MULTIFACETED = [{"system": f"You write for reader {n}, who likes topic {n * 5}.", "prompt": f"Explain {n}."} for n in range(12)]
GSM8K = [{"question": f"Ana has {n} apples and eats 2. How many are left?", "answer": f"... #### {n - 2}"} for n in range(12)]
SVAMP = [{"Body": f"Ana has {n} pears .", "Question": "How many is that ?", "Answer": f"{n}.0"} for n in range(12)]
ARC = [
    {"question": f"Which is number {n}?", "choices": {"text": ["one", "two", "three"], "label": ["A", "B", "C"]}, "answerKey": "A"}
    for n in range(12)
]
MMLU = [{"question": f"Which is number {n}?", "choices": ["w", "x", "y", "z"], "subject": "sums", "answer": 1} for n in range(12)]


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".parquet":
        datasets = pytest.importorskip("datasets")
        datasets.Dataset.from_list(rows).to_parquet(str(path))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_local_copies_in_each_format(tmp_path, ending):
    path = write(tmp_path / f"arc{ending}", ARC)
    given = Dataset(name=str(path), columns={"prompt": "{question}\n{choices.text}", "topic": "answerKey"})
    found = hub.read_prompts(given, Tally())
    assert found[3] == ("Which is number 3?\nA. one\nB. two\nC. three", "A")
    assert len(found) == 12


def test_a_local_folder(tmp_path):
    (tmp_path / "copy").mkdir()
    write(tmp_path / "copy" / "train.jsonl", GSM8K[:3])
    write(tmp_path / "copy" / "test.jsonl", GSM8K[3:])
    given = {"name": str(tmp_path / "copy"), "columns": {"prompt": "question"}}
    assert len(hub.read_prompts(Dataset(**given), Tally())) == 3
    assert len(hub.read_prompts(Dataset(**given, split="test"), Tally())) == 9


def test_where_note_and_templates(tmp_path):
    path = write(tmp_path / "c.jsonl", COMMUNITY)
    columns = {"context": "I am {annotator_gender}, {annotator_political}.", "note": "annotator_id"}
    tally = Tally()
    notes = hub.read_contexts(Dataset(name=str(path), where={"assigned_lang": "en"}, columns=columns), tally)
    assert len(notes) == 23 and tally.left_alone["rows without a context"] == 1
    assert (notes[0].name, notes[0].blocks[0].text, notes[0].blocks[0].line) == ("a0", "I am female, Somewhat left-leaning.", 2)
    assert len(hub.read_contexts(Dataset(name=str(path), columns=columns), Tally())) == 29
    del columns["note"]
    assert hub.read_contexts(Dataset(name=str(path), columns=columns), Tally())[0].name == f"{path}:2"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"columns": {"prompt": "questoin"}}, "no column questoin; it has question, answer: correct columns"),
        ({"columns": {"prompt": "question.text"}}, "no column question.text"),
        ({"columns": {}}, "key prompt is missing"),
        ({"where": {"answer": "none"}}, "no rows where answer: none"),
        ({"name": "nowhere.jsonl"}, "nowhere.jsonl: cannot be read (No such file"),
        ({"name": "gone/nowhere.parquet"}, "nowhere.parquet: no such file"),
        ({"name": "{folder}/a.xlsx"}, "a data set is a .json, .jsonl, .parquet or .csv file"),
        ({"name": "{folder}/bad.jsonl"}, "bad.jsonl:2: not valid JSON"),
        ({"name": "{folder}/list.jsonl"}, "list.jsonl:1: expected an object"),
        ({"name": "{folder}"}, "no .json, .jsonl, .parquet or .csv file"),
    ],
)
def test_bad_data_sets_end_in_one_line(tmp_path, change, told):
    write(tmp_path / "g.jsonl", GSM8K)
    (tmp_path / "a.xlsx").write_text("x")
    (tmp_path / "bad.jsonl").write_text('\n{"question"\n[\n')
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "empty").mkdir()
    change = {key: value.replace("{folder}", str(tmp_path)) if isinstance(value, str) else value for key, value in change.items()}
    if change.get("name") == str(tmp_path):
        change["name"] = str(tmp_path / "empty")
    given = Dataset(**({"name": str(tmp_path / "g.jsonl"), "columns": {"prompt": "question"}} | change))
    with pytest.raises(UserError) as error:
        hub.read_prompts(given, Tally())
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_without_a_network_the_way_out_is_told(monkeypatch):
    import datasets

    def unreachable(*_args, **_kwargs):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match="local copy"):
        hub.read_prompts(Dataset(name="owner/name", columns={"prompt": "q"}), Tally())


@pytest.mark.parametrize(
    ("name", "contexts", "prompts"),
    [
        ("prism", PRISM_SURVEY, PRISM_CONVERSATIONS),
        ("paper", PRISM_SURVEY, PRISM_CONVERSATIONS),
        ("community-alignment", COMMUNITY, COMMUNITY),
        ("multifaceted", MULTIFACETED, MULTIFACETED),
        ("gsm8k", None, GSM8K),
        ("svamp", None, SVAMP),
        ("arc", None, ARC),
        ("mmlu", None, MMLU),
    ],
)
def test_shipped_recipes_on_local_copies(tmp_path, name, contexts, prompts):
    overrides = [f"sources.prompt_dataset.name={write(tmp_path / 'prompts.jsonl', prompts)}", "sources.min_tokens=4"]
    if contexts:
        overrides += [f"sources.dataset.name={write(tmp_path / 'contexts.jsonl', contexts)}"]
    made = recipe_loading.load(RECIPES / f"{name}.yaml", overrides)
    found, asked, row = read.collect(made, lambda text: len(text.split()), QUIET)
    assert len(asked) > 1 and all(prompt.text and "{" not in prompt.text for prompt in asked)
    if contexts:
        assert len({context.note for context in found}) >= 8
        assert not any("{" in context.text for context in found)
    else:
        assert found == [] and set(made.pairs.negatives) == {"random_prompt"}
    assert row["prompts"] == str(tmp_path / "prompts.jsonl")


def test_notes_and_a_data_set_at_once():
    with pytest.raises(recipe_loading.RecipeError, match="both are named"):
        recipe_loading.parse("model: a\nsources:\n  notes: b\n  dataset: {name: c}\n")
    with pytest.raises(recipe_loading.RecipeError, match="both are named"):
        recipe_loading.parse("model: a\nsources:\n  prompts: b\n  prompt_dataset: {name: c}\n")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_local_table_is_read_without_the_hubs_library(tmp_path, monkeypatch, ending):
    """That library asks a host before it reads a local file, and keeps a copy in its cache."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    rows = [{"text": "I keep bees, and\nI mend clocks.", "day": "2024-03-01", "n": 3}, {"text": None, "day": "12:30", "n": 4}]
    path = tmp_path / f"rows.{ending}"
    if ending == "csv":
        path.write_text('text,day,n\n"I keep bees, and\nI mend clocks.",2024-03-01,3\n,12:30,4\n')
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    for name in (path, tmp_path):
        read_rows = [row for _, row in hub.rows(Dataset(name=str(name), columns={"context": "text"}), Tally())]
        assert [(row["text"] or None, str(row["day"]), row["n"]) for row in read_rows] == [tuple(row.values()) for row in rows]
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.csv", b"a,b\n1\n"), ("a.csv", b""), ("a.csv", b"\xff\xfe\n\x00"), ("a.parquet", b"PAR1 no"), ("a.parquet", b"")],
)
def test_a_broken_table_ends_in_one_line(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=name) as error:
        list(hub.rows(Dataset(name=str(tmp_path / name), columns={"context": "a"}), Tally()))
    assert "\n" not in str(error.value)


def test_the_files_of_a_split_are_read(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text(f"text\n{name}\n")
    rows = hub.rows(Dataset(name=str(tmp_path), split="test", columns={"context": "text"}), Tally())
    assert [row["text"] for _, row in rows] == ["test"]
