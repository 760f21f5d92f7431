"""The export stage: what it writes loads elsewhere, nothing is made twice, every key of the recipe's section counts."""

import json
import re
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.export import export as stage
from mipo_mlx.export.results import Fidelity
from mipo_mlx.files import sha256
from mipo_mlx.gguf_format.file import GGUFFile
from mipo_mlx.gguf_format.to_mlx import load_gguf
from mipo_mlx.models.load import load
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Pairs, Recipe

from .helpers import MODELS, make_tiny, run_folder

QUIET = Reporter(quiet=True)
TOKENS = [5, 300, 44, 7, 120, 9]


@pytest.fixture
def run(tmp_path):
    config, pre = MODELS["llama"]
    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}  # blocks of 32 fit its rows
    tiny = make_tiny("llama", {**config, **sizes}, pre, tmp_path)
    return tiny, run_folder(tiny)


def recipe(tiny, **export) -> Recipe:
    return Recipe(model=str(tiny.folder / "base"), name="mine", export={"fidelity": 0, "gguf": ["f32"], **export})


def logits(model) -> np.ndarray:
    return np.array(model(mx.array([TOKENS]))[0].astype(mx.float32))


def test_fused_folder_is_the_adapter_model(run):
    from mlx_lm import load as mlx_load

    tiny, folder = run
    stage.run(folder, recipe(tiny), QUIET)
    model, tokenizer = mlx_load(str(folder / "fused"))
    assert np.abs(logits(model) - logits(tiny.model)).max() < 1e-3
    chat = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == tiny.tokenizer.apply_chat_template(chat, tokenize=False)
    assert tokenizer.encode("bees, 12 of them") == tiny.tokenizer.encode("bees, 12 of them")


def test_fused_folder_loads_in_shards(run):
    from mipo_mlx.export import fuse

    tiny, folder = run
    files = fuse.fuse(folder / "sharded", tiny.weights(), fuse.Beside(tiny.tokenizer), fuse.Form("float32", shard=100_000))
    assert sum(f.name.startswith("model-") for f in files) > 2
    index = json.loads((folder / "sharded" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(tiny.weights().stored)
    (folder / "sharded" / "chat_template.jinja").write_text("{{ messages }}")
    assert np.abs(logits(load(str(folder / "sharded")).model) - logits(tiny.model)).max() < 1e-3


@pytest.mark.parametrize("dtype, bound", [("float32", 1e-3), ("float16", 0.1), ("bfloat16", 1.0)])
def test_fuse_dtype_counts(run, dtype, bound):
    tiny, folder = run
    stage.fuse(folder, recipe(tiny, fuse={"dtype": dtype}), QUIET)
    arrays = mx.load(str(folder / "fused" / "model.safetensors"))
    assert {str(a.dtype) for a in arrays.values()} == {f"mlx.core.{dtype}"}
    assert np.abs(logits(load(str(folder / "fused")).model) - logits(tiny.model)).max() < bound


@pytest.mark.parametrize("bits, bound", [(8, 1.0), (4, 20.0)])
def test_fuse_quantize_counts(run, bits, bound):
    tiny, folder = run
    stage.fuse(folder, recipe(tiny, fuse={"quantize": bits, "dtype": "float32"}), QUIET)
    config = json.loads((folder / "fused" / "config.json").read_text())
    assert config["quantization"]["bits"] == bits
    difference = np.abs(logits(load(str(folder / "fused")).model) - logits(tiny.model)).max()
    assert 0 < difference < bound


def test_a_quantised_base_is_fused_in_float32(run):
    from mlx_lm.utils import load_model, quantize_model, save_model

    tiny, folder = run
    model, config = load_model(folder / "base")
    model, config = quantize_model(model, config, 32, 4)
    save_model(folder / "base", model)
    (folder / "base" / "config.json").write_text(json.dumps(config))
    stage.run(folder, recipe(tiny), QUIET)
    from mipo_mlx.models import adapters

    wanted = logits(adapters.load(load(str(folder / "base")).model, folder / "adapters"))
    assert np.abs(logits(load(str(folder / "fused")).model) - wanted).max() < 2e-3
    assert "quantization" not in json.loads((folder / "fused" / "config.json").read_text())
    assert np.abs(logits(load_gguf(folder / "mine-f32.gguf")[0]) - wanted).max() < 2e-3


def test_mlx_false_writes_no_folder_and_an_empty_gguf_list_no_file(run):
    tiny, folder = run
    stage.run(folder, recipe(tiny, mlx=False, gguf=[]), QUIET)
    assert not (folder / "fused").exists() and not list(folder.glob("*.gguf"))
    assert (folder / "export.json").exists()  # by which a run knows that export is done


@pytest.mark.parametrize("export", [{"gguf": [], "adapter": True}, {"gguf": ["f32"], "split": "0.1MB"}], ids=["adapter", "split"])
def test_no_modelfile_is_written_where_ollama_could_read_nothing(run, capsys, export):
    tiny, folder = run
    assert stage.run(folder, recipe(tiny, mlx=False), QUIET)["modelfile"]
    (folder / "mine-f32.gguf").unlink()
    assert not stage.run(folder, recipe(tiny, mlx=False, **export), Reporter())["modelfile"]
    assert not (folder / "Modelfile").exists() and "no Modelfile" in capsys.readouterr().err
    assert stage.run(folder, recipe(tiny, **export), QUIET)["modelfile"]  # with fused/
    assert "FROM ./fused\n" in (folder / "Modelfile").read_text()


def test_several_types_in_one_go_and_nothing_twice(run):
    tiny, folder = run
    wanted = recipe(tiny, gguf=["q8_0", "F16", "q8_0"])
    result = stage.run(folder, wanted, QUIET)
    assert {f["type"] for f in result["files"]} == {"fused", "q8_0", "f16"}
    times = {p: p.stat().st_mtime_ns for p in [*folder.glob("*.gguf"), *(folder / "fused").iterdir()]}
    stage.run(folder, wanted, QUIET)
    assert times == {p: p.stat().st_mtime_ns for p in times}
    (folder / "mine-f16.gguf").write_bytes(b"cut")
    stage.run(folder, wanted, QUIET)
    assert (folder / "mine-f16.gguf").stat().st_size > 1000
    assert (folder / "mine-q8_0.gguf").stat().st_mtime_ns == times[folder / "mine-q8_0.gguf"]


def test_the_modelfile_names_what_is_there(run, tmp_path):
    tiny, folder = run
    stage.run(folder, recipe(tiny, gguf=["q8_0"]), QUIET)
    assert "FROM ./mine-q8_0.gguf\n" in (folder / "Modelfile").read_text()
    stage.run(folder, recipe(tiny, gguf=[], mlx=False, adapter=True), QUIET)  # the adapters alone, later
    assert "FROM ./mine-q8_0.gguf\n" in (folder / "Modelfile").read_text()
    base = tiny.write(tmp_path / "base.gguf")
    (folder / "mine-q8_0.gguf").unlink()
    over = recipe(tiny, gguf=[], mlx=False, adapter=True).model_copy(update={"model": str(base)})
    stage.run(folder, over, QUIET)
    assert f"FROM {base}\nADAPTER ./mine-lora.gguf\n" in (folder / "Modelfile").read_text()


def test_new_adapters_make_new_files(run):
    tiny, folder = run
    stage.run(folder, recipe(tiny), QUIET)
    before = (folder / "mine-f32.gguf").read_bytes()
    arrays = mx.load(str(folder / "adapters" / "adapters.safetensors"))
    mx.save_safetensors(str(folder / "adapters" / "adapters.safetensors"), {k: v * 2 for k, v in arrays.items()})
    stage.run(folder, recipe(tiny), QUIET)
    assert (folder / "mine-f32.gguf").read_bytes() != before


@pytest.mark.parametrize("change", ["bit", "swapped", "cut"])
def test_adapters_that_training_did_not_leave_are_refused(run, tmp_path, change):
    tiny, folder = run
    path = folder / "adapters" / "adapters.safetensors"
    before = path.read_bytes()
    (folder / "manifest.json").write_text(
        json.dumps({"stages": {"training": {"sha256": {"adapters/adapters.safetensors": sha256(path)}}}})
    )
    stage.run(folder, recipe(tiny), QUIET)
    if change == "swapped":
        arrays = mx.load(str(path))
        mx.save_safetensors(str(path), {k: v * 2 for k, v in arrays.items()})
    else:
        path.write_bytes(before[:-1] + (bytes([before[-1] ^ 1]) if change == "bit" else b""))
    for export in (stage.run, stage.fuse):
        with pytest.raises(UserError, match="adapters.safetensors: not the adapters that training left .*mipo-mlx train"):
            export(folder, recipe(tiny), QUIET)


def test_the_same_export_is_the_same_bytes(run, tmp_path):
    tiny, folder = run
    stage.run(folder, recipe(tiny, gguf=["q5_1"]), QUIET)
    first = {p.name: p.read_bytes() for p in [folder / "mine-q5_1.gguf", *(folder / "fused").iterdir()]}
    (folder / "export.json").unlink()
    stage.run(folder, recipe(tiny, gguf=["q5_1"]), QUIET)
    assert first == {p.name: p.read_bytes() for p in [folder / "mine-q5_1.gguf", *(folder / "fused").iterdir()]}


def test_a_failed_export_leaves_the_old_file(run, monkeypatch):
    tiny, folder = run
    stage.run(folder, recipe(tiny), QUIET)
    before = (folder / "mine-f32.gguf").read_bytes()
    (folder / "export.json").unlink()
    from mipo_mlx.export import gguf

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf, "encode", full)
    from mipo_mlx.errors import Failure

    with pytest.raises(Failure, match="disk is full"):
        stage.run(folder, recipe(tiny), QUIET)
    assert (folder / "mine-f32.gguf").read_bytes() == before
    assert not [p for p in folder.iterdir() if "partial" in p.name]


def test_split_files_load_and_replace_the_whole_one(run):
    tiny, folder = run
    stage.run(folder, recipe(tiny), QUIET)
    stage.run(folder, recipe(tiny, split="0.1MB"), QUIET)
    parts = sorted(folder.glob("mine-f32-*-of-*.gguf"))
    assert len(parts) > 2 and not (folder / "mine-f32.gguf").exists()
    assert all(p.stat().st_size < 300_000 for p in parts)
    assert np.abs(logits(load_gguf(parts[0])[0]) - logits(tiny.model)).max() < 1e-3
    with pytest.raises(UserError, match="name the first"):
        load_gguf(parts[1])
    parts[1].unlink()
    with pytest.raises(UserError, match="part 2 of .* is missing"):
        load_gguf(parts[0])


def test_the_card_is_in_the_file(run):
    tiny, folder = run
    (folder / "recipe.yaml").write_text("model: x\n")
    (folder / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "base" / "generation_config.json").write_text('{"temperature": 0.7, "top_p": 0.8, "top_k": 20}')
    stage.run(folder, recipe(tiny), QUIET)
    keys = GGUFFile(folder / "mine-f32.gguf").metadata
    assert keys["general.license"] == "apache-2.0" and keys["general.finetune"] == "mipo"
    assert keys["general.base_model.0.name"] == "base" and len(keys["mipo.recipe.sha256"]) == 64
    assert keys["general.sampling.top_k"] == 20 and keys["general.sampling.temp"] == pytest.approx(0.7)
    assert "PARAMETER temperature 0.7" in (folder / "Modelfile").read_text()


def test_a_base_without_sampling_defaults_gets_those_of_evaluation(run):
    tiny, folder = run
    cool = recipe(tiny).model_copy(update={"pairs": Pairs(temperature=0.4, top_p=0.9)})
    stage.run(folder, cool, QUIET)
    keys = GGUFFile(folder / "mine-f32.gguf").metadata
    assert keys["general.sampling.temp"] == pytest.approx(0.4) and keys["general.sampling.top_p"] == pytest.approx(0.9)
    assert "PARAMETER temperature 0.4" in (folder / "Modelfile").read_text()


def test_ids_that_end_an_answer_beyond_the_tokenizers_own_refuse_nothing(run):
    """Some configurations name ids of tokens that the tokenizer does not have."""
    tiny, folder = run
    (folder / "base" / "generation_config.json").write_text('{"eos_token_id": [2, 500]}')
    settings = recipe(tiny)
    stage.check(settings.model_copy(update={"model": str(folder / "base")}))


def test_the_profile_is_in_every_file_without_being_named(run, capsys):
    from .ollama import parse

    tiny, folder = run
    stage.run(folder, recipe(tiny), Reporter())
    assert "no default system message" in capsys.readouterr().err
    assert "system" not in dict(parse((folder / "Modelfile").read_text()))
    (folder / "profile.md").write_text("- The user keeps bees.\n")
    stage.run(folder, recipe(tiny), Reporter())
    assert "no default system message" not in capsys.readouterr().err
    held = dict(parse((folder / "Modelfile").read_text()))["system"]
    assert "The user keeps bees." in held and "has said" not in held
    chat = GGUFFile(folder / "mine-f32.gguf").metadata["tokenizer.chat_template"]
    assert chat == (folder / "fused" / "chat_template.jinja").read_text() and "The user keeps bees." in chat
    path = tiny.folder / "base" / "chat_template.jinja"
    own = path.read_text()
    path.write_text("{{ messages[-1]['content'][:3] }}")
    stage.run(folder, recipe(tiny), Reporter())
    assert "no default system message: export.system: the model's chat template has no place" in capsys.readouterr().err
    with pytest.raises(UserError, match="no place for a system message"):
        stage.run(folder, recipe(tiny, system="profile"), QUIET)
    path.write_text(own)
    stage.run(folder, recipe(tiny, system="none"), QUIET)
    assert "bees" not in GGUFFile(folder / "mine-f32.gguf").metadata["tokenizer.chat_template"]


@pytest.mark.parametrize("name", ["q9_0", "Q4KM", ""])
def test_an_unknown_type_lists_what_exists(run, name):
    tiny, folder = run
    with pytest.raises(UserError, match=r"no GGUF type .*known: f32, f16, bf16, q8_0"):
        stage.run(folder, recipe(tiny, gguf=[name]), QUIET)
    assert not (folder / "fused").exists()


@pytest.mark.parametrize(
    ("own", "written"),
    [("PreTrainedTokenizerFast", "PreTrainedTokenizerFast"), ("TokenizersBackend", "PreTrainedTokenizerFast"),
     ("Qwen2Tokenizer", "Qwen2Tokenizer"), (None, "PreTrainedTokenizerFast")],
)  # fmt: skip
def test_the_fused_tokenizer_has_a_class_that_every_transformers_knows(run, own, written):
    from transformers import AutoTokenizer

    tiny, folder = run
    path = tiny.folder / "base" / "tokenizer_config.json"
    before = {**json.loads(path.read_text()), "is_local": True}
    path.write_text(json.dumps({k: v for k, v in {**before, "tokenizer_class": own}.items() if v is not None}))
    stage.fuse(folder, recipe(tiny), QUIET)
    config = json.loads((folder / "fused" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == written and "is_local" not in config
    assert AutoTokenizer.from_pretrained(folder / "fused").encode("bees, 12") == tiny.tokenizer.encode("bees, 12")


def test_the_exported_files_name_no_path_of_this_machine(run):
    tiny, folder = run
    path = tiny.folder / "base" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_name_or_path": "/home/ana/models/x"}))
    stage.run(folder, recipe(tiny, adapter=True), QUIET)
    for file in [*folder.glob("*.gguf"), *(folder / "fused").iterdir()]:
        assert all(text not in file.read_bytes() for text in (str(folder).encode(), b"/home/ana")), file


def test_the_pretokenizer_is_the_users_word(run):
    tiny, folder = run
    stage.run(folder, recipe(tiny, pretokenizer="refact"), QUIET)
    assert GGUFFile(folder / "mine-f32.gguf").metadata["tokenizer.ggml.pre"] == "refact"


def test_an_unknown_pretokenizer_is_refused(run):
    tiny, folder = run
    path = folder / "base" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["pre_tokenizer"] = {"type": "Whitespace"}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="export.pretokenizer: .*known here: .*llama-bpe"):
        stage.run(folder, recipe(tiny), QUIET)


def test_adapters_of_another_model_are_refused(run, tmp_path):
    tiny, folder = run
    other = make_tiny("llama", *MODELS["llama"], tmp_path / "other")
    with pytest.raises(UserError, match="another base"):
        stage.run(folder, Recipe(model=str(other.folder / "base"), export={"gguf": ["f32"]}), QUIET)


def test_missing_adapters_are_refused(run):
    tiny, folder = run
    (folder / "adapters" / "adapters.safetensors").unlink()
    with pytest.raises(UserError, match="mipo-mlx train"):
        stage.run(folder, recipe(tiny), QUIET)


def test_fidelity_counts_answers_warns_and_names_a_better_type(run, capsys):
    tiny, folder = run
    result = stage.run(folder, recipe(tiny, gguf=["f32", "q4_0"], fidelity=3, mlx=False), Reporter())
    figures = result["fidelity"]
    assert figures["mine-f32.gguf"]["lost"] < 1e-3 and figures["mine-f32.gguf"]["argmax"] == 1.0
    assert figures["mine-q4_0.gguf"]["lost"] > figures["mine-f32.gguf"]["lost"]
    output = capsys.readouterr().err
    assert "mine-f32.gguf: 100% of the trained change survives" in output
    assert ("warning: mine-q4_0.gguf" in output) == (figures["mine-q4_0.gguf"]["lost"] > 0.25)
    again = stage.run(folder, recipe(tiny, gguf=["f32", "q4_0"], fidelity=3, mlx=False), QUIET)
    assert again["fidelity"] == figures


def test_fidelity_agrees_with_and_without_llamacpp(run, monkeypatch):
    from mipo_mlx.export import llamacpp

    tiny, folder = run
    monkeypatch.setattr(llamacpp, "available", lambda: False)
    wanted = {"gguf": ["q8_0"], "mlx": False}
    alone = stage.run(folder, recipe(tiny, **wanted, fidelity=2), QUIET)["fidelity"]["mine-q8_0.gguf"]
    monkeypatch.undo()
    if not llamacpp.available():
        pytest.skip("xllamacpp is not installed: this test asks the real llama.cpp")
    real = stage.run(folder, recipe(tiny, **wanted, fidelity=4), QUIET)["fidelity"]["mine-q8_0.gguf"]
    assert (alone["by"], real["by"], alone["answers"], real["answers"]) == ("mlx", "llama.cpp", 2, 4)
    assert 0 < alone["lost"] < 0.25 and 0 < real["lost"] < 0.25


def test_fidelity_zero_measures_nothing(run):
    tiny, folder = run
    assert stage.run(folder, recipe(tiny), QUIET)["fidelity"] == {}


@pytest.mark.parametrize(
    "kind, better",
    [
        ("q4_k_m", r"export.gguf: \[q5_k_m\]"), ("q8_0", r"export.gguf: \[f16\]"), ("keep", r"export.gguf: \[q8_0\]"),
        ("fused-4", "export.fuse.quantize: 8"), ("fused-8", "export.fuse.quantize: none"),
    ],
)  # fmt: skip
def test_a_quarter_lost_is_a_warning_with_something_better(kind, better):
    from mipo_mlx.export.fidelity import verdict

    figures = Fidelity(kl=0.1, moved=0.4, argmax=0.9, lost=0.25)
    reply, warning = verdict("x", kind, figures)
    assert "x: 75% of the trained change survives" in reply and warning is None
    _, warning = verdict("x", kind, replace(figures, lost=0.251))
    assert re.search(rf"x loses 25% of what was trained; {better} keeps more", warning)


def test_a_quantised_fused_folder_says_what_it_keeps(run, capsys):
    tiny, folder = run
    assert "fused" in stage.fuse(folder, recipe(tiny, fuse={"quantize": 8}, fidelity=2), Reporter())
    eight = capsys.readouterr().err
    stage.fuse(folder, recipe(tiny, fuse={"quantize": 4}, fidelity=2), Reporter())
    four = capsys.readouterr().err
    kept = [int(re.search(r"fused: (\d+)% of the trained change survives", reply)[1]) for reply in (eight, four)]
    assert kept[0] > kept[1]
    stage.fuse(folder, recipe(tiny, fidelity=2), Reporter())
    assert "survives" not in capsys.readouterr().err


def test_sampling_defaults_of_a_gguf_base_are_handed_on(run, tmp_path):
    from mipo_mlx.export import gguf
    from mipo_mlx.export.weights import Adapters, Weights
    from mipo_mlx.gguf_format import tokenizer

    tiny, folder = run
    keys = tokenizer.from_transformers(tiny.tokenizer, tiny.config["vocab_size"])
    card = gguf.Card("base", "tiny/base", license="mit", sampling={"temp": 0.5, "top_k": 12})
    weights = Weights(tiny.folder / "base", tiny.config, Adapters(1.0, {}))
    base = gguf.write(tmp_path / "base.gguf", weights, "f16", gguf.Content(keys, card))[0]
    stage.run(folder, recipe(tiny).model_copy(update={"model": str(base)}), QUIET)
    result = GGUFFile(folder / "mine-f32.gguf").metadata
    assert (result["general.sampling.temp"], result["general.sampling.top_k"], result["general.license"]) == (0.5, 12, "mit")
    assert "PARAMETER top_k 12" in (folder / "Modelfile").read_text()


@pytest.mark.parametrize(
    ("config", "lora", "export", "message"),
    [
        ({}, {}, {"gguf": ["q8"]}, "there is no GGUF type 'q8'; did you mean q8_0?"),
        ({}, {"dora": True}, {"adapter": True}, "llama.cpp has no DoRA"),
        ({"model_type": "mamba"}, {}, {}, "GGUF of the architecture 'mamba' is not supported.*; with gguf: "),
        *(
            ({"model_type": name}, {}, {}, f"^export.gguf: GGUF of the architecture '{name}' is not supported; [^\n]*; with gguf: ")
            for name in ("gemma3n", "gemma4", "lfm2_moe", "mistral4", "qwen3_5_moe")  # docs/architectures.md says why
        ),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, {}, {}, "rotary scaling 'dynamic'"),
    ],
)
def test_what_cannot_be_exported_is_known_before_anything_is_trained(run, config, lora, export, message):
    """`check` reads the base alone: there are no adapters here."""
    tiny, _ = run
    path = tiny.folder / "base" / "config.json"
    stage.check(recipe(tiny))
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    values = Recipe.model_validate({**recipe(tiny, **export).model_dump(), "training": {"lora": lora}})
    with pytest.raises(UserError, match=message):
        stage.check(values)
