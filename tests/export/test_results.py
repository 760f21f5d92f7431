"""What exports left: the models to run, and how much of the training each keeps, in the terminal and on the page."""

import re

import pytest

from mipo_mlx.commands.summary import usage
from mipo_mlx.export import fidelity, results
from mipo_mlx.files import write_json
from mipo_mlx.recipe import Recipe
from mipo_mlx.report import page as report
from mipo_mlx.report import record
from mipo_mlx.run import Run

NAMES = ("r-q8_0.gguf", "r-q2_k.gguf", "r-lora.gguf", "r-f16-00001-of-00002.gguf", "r-f16-00002-of-00002.gguf")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "it's a run"
    (folder / "fused").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_bytes(b"GGUF")
    (folder / "Modelfile").write_text("# x\nFROM ./r-q2_k.gguf\n")
    measured = {
        "q8_0": {"files": {NAMES[0]: 4}, "fidelity": {"lost": 0.07}, "sha256": {NAMES[0]: "ab", "gone.gguf": "cd"}},
        "q2_k": {"files": {NAMES[1]: 4}, "fidelity": {"lost": 1.53}},
        "fused": {"files": {"fused/model.safetensors": 4}, "fidelity": {"lost": 0.4}},
    }
    write_json(folder / "export.json", measured)
    return folder


def test_a_model_is_named_once_and_adapters_are_none(folder):
    assert [path.name for path in results.exported_models(folder)] == [NAMES[3], NAMES[1], NAMES[0]]
    assert {path.name for path in results.exported_models(folder, shards=True)} == {*NAMES} - {"r-lora.gguf"}


def test_what_a_file_keeps_stands_beside_its_command(folder):
    ways = {way.command.split("/")[-1].split(" --")[0].rstrip("'"): way for way in record.ways(folder)}
    assert ways[NAMES[0]].kept == "keeps 93% of what was trained" and not ways[NAMES[0]].bad
    assert ways[NAMES[1]].kept == "keeps nothing of what was trained" and ways[NAMES[1]].bad
    assert ways[NAMES[3]].kept == ""  # not measured
    assert {way.what: way.bad for way in ways.values()} == {
        "Talk to it here": False, "llama.cpp": True, "Ollama": True, "MLX": True
    }  # fmt: skip
    page = report.render(folder, Recipe(model="x"))
    assert "This file keeps nothing of what was trained." in page and page.count(">too little<") == 3


def test_the_terminal_names_the_file_that_keeps_most_and_warns_of_others(folder):
    lines = usage(Run(folder, Recipe(model="x"))).splitlines()
    best, *others = [line for line in lines if "llama-cli" in line]
    assert (NAMES[3] in best or NAMES[0] in best) and others[-1].endswith("# keeps nothing of what was trained")
    [ollama] = [line for line in lines if "ollama create" in line]
    assert ollama.endswith("# keeps nothing of what was trained")
    assert all("it's a run" not in line or '"\'"' in line for line in lines)  # quoted for a shell


def test_more_than_all_is_all():
    figures = results.Fidelity(kl=3.0, moved=2.0, lost=1.53, argmax=0.5)
    result, warning = fidelity.verdict("x.gguf", "q2_k", figures)
    assert "0% of the trained change survives" in result and "x.gguf loses all of what was trained" in warning
    assert results.percent(0.004) == "nothing" and results.percent(0.2) == "20%" and results.percent(-1) == "nothing"


def test_hashes_are_those_of_files_that_are_there(folder):
    assert results.hashes(folder) == {NAMES[0]: "ab"}


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("demo", "demo"), ("two words", "two-words"), ("v1.2_x-3", "v1.2_x-3"), ("Notizen ü", r"Notizen-u-[0-9a-f]{6}"),
        ("日記", r"run-[0-9a-f]{6}"), ("_x.", r"_x-[0-9a-f]{6}"), ("a" * 200, r"a{70}-[0-9a-f]{6}"),
    ],
)  # fmt: skip
def test_a_name_as_ollama_takes_it(name, taken):
    entered = results.ollama_name(name)
    assert re.fullmatch(taken, entered) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}", entered)


def test_names_of_other_scripts_stay_apart():
    names = ["日記", "笔记", "заметки", "café", "cafe", "a" * 200, "a" * 201]
    assert len({results.ollama_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["../mine", "a/b", "", ".hidden", None, "x\ny"])
def test_a_recipes_name_cannot_leave_the_runs_folder(tmp_path, name):
    assert results.run_name(tmp_path / "folder", Recipe(model="x", name=name)) == "folder"
