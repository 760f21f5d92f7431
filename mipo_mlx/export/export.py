"""Export: the fused MLX folder, GGUF files, the adapters as GGUF, a Modelfile; then how much of the trained change they keep."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from shlex import quote
from typing import Any

from .. import backend
from ..errors import UserError
from ..files import read_json, sha256, write_text
from ..gguf_format import tokenizer, types
from ..gguf_format.file import GGUFFile
from ..gguf_format.names import by_model_type, language
from ..models import load
from ..models.identity import check_adapters
from ..models.prompts import window_of
from ..models.weight_files import vocabulary_rows
from ..progress import Reporter
from ..recipe import Recipe
from . import fidelity, gguf, modelfile, system
from . import fuse as fusing
from .adapter_gguf import NO_DORA, write_adapter
from .card import Card, make_card
from .results import STATE, Exported, Fidelity, read_state, run_name, write_state
from .system import Default, default_system
from .weights import Weights, load_adapters


@dataclass
class Job:
    folder: Path
    recipe: Recipe
    weights: Weights
    tokenizer: Any
    own_template: str | None  # the base's chat template
    template: str | None  # the same with the default system message in it
    system: Default
    card: Card
    generation: dict[str, Any]  # generation_config.json of the base
    inputs: str  # a hash of everything that the files are made from
    keys: dict[str, Any] = field(default_factory=dict)  # the tokenizer as GGUF metadata; read for the first GGUF file

    @property
    def name(self) -> str:
        return run_name(self.folder, self.recipe)


Files = dict[str, list[str]]  # kind (a GGUF type, fused or lora) -> names of files


def run(folder: Path, recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Write everything that the recipe's `export` section names. An earlier file that was made from the same stays.

    Returns {"files": [{"path", "type", "bytes"}, ...], "modelfile": whether there is one, "fidelity": {file: {...}}}. Raises
    UserError for an unknown type or model.
    """
    wanted = [types.check(name) for name in recipe.export.gguf]
    job = prepare(folder, recipe)
    if job.system.missing:
        reporter.say(f"  no default system message: {job.system.missing}")
    written: Files = {}
    if recipe.export.mlx:
        written["fused"] = _once(job, "fused", reporter, partial(_fuse, job, reporter))
    for type_name in dict.fromkeys(wanted):
        written[type_name] = _once(job, type_name, reporter, partial(_gguf, job, type_name, reporter))
    if recipe.export.adapter:
        written["lora"] = _once(job, "lora", reporter, partial(_adapter, job))
    contents = _modelfile(job, written)
    if contents is None:
        (folder / "Modelfile").unlink(missing_ok=True)  # of an earlier export, whose files are gone
        reporter.say("  no Modelfile: Ollama reads a GGUF file in one piece or fused/, and neither is here")
    else:
        text, warnings = modelfile.modelfile(contents, job.tokenizer)
        write_text(folder / "Modelfile", text)
        for warning in warnings:
            reporter.warn(warning)
    files = [
        {"path": str(folder / file), "type": kind, "bytes": (folder / file).stat().st_size}
        for kind, names in written.items()
        for file in names
        if (folder / file).is_file()
    ]
    measured = {name: vars(figures) for name, figures in _fidelity(job, written, reporter).items()}
    if not (folder / STATE).exists():
        write_state(folder, {})  # where the recipe names no file: the run knows by it that export is finished
    return {"files": files, "modelfile": contents is not None, "fidelity": measured}


def fuse(folder: Path, recipe: Recipe, reporter: Reporter) -> str:
    """Write the fused MLX folder alone; where it is quantised, measure what it keeps. Returns the sentence to print."""
    job = prepare(folder, recipe)
    _fidelity(job, {"fused": _once(job, "fused", reporter, partial(_fuse, job, reporter))}, reporter)
    return f"{folder / 'fused'}: load it with `mlx_lm.generate --model {quote(str(folder / 'fused'))}`"


def check(recipe: Recipe) -> None:
    """Raise UserError for what `run` would refuse after the training. Reads the base's configuration and tokenizer alone."""
    export = recipe.export
    for name in export.gguf:
        types.check(name)
    if export.adapter and recipe.training.lora.dora:
        raise UserError(NO_DORA)
    tokens = load.load_tokenizer(recipe.model)
    text = system.clean(export.system)
    if text not in ("", "none", "auto") and isinstance(tokens.chat_template, str):
        system.with_default(tokens.chat_template, text, tokens)
    if load.resolve(recipe.model, weights=False).suffix == ".gguf":
        return  # what was read from a GGUF file can be written to one
    config = language(load.model_config(recipe.model))
    if export.adapter:
        by_model_type(config["model_type"], "export.adapter")
    if export.gguf:
        try:
            gguf.hyperparameters(config, by_model_type(config["model_type"], "export.gguf"))
            rows = vocabulary_rows(load.resolve(recipe.model, weights=False), config)
            tokenizer.from_transformers(tokens, rows, export.pretokenizer)
        except UserError as error:
            raise UserError(f"{error}; with gguf: [] under export the result is the adapters and the fused folder") from None


def prepare(folder: Path, recipe: Recipe) -> Job:
    """Open the base, the adapters and the tokenizer of a run. No weights are read yet."""
    path = load.resolve(recipe.model)
    config = load.model_config(recipe.model)
    tokens = load.load_tokenizer(recipe.model)
    template = own = tokens.chat_template if isinstance(tokens.chat_template, str) else None
    default = default_system(folder, recipe)
    if default.text:
        try:
            template = system.with_default(template or "", default.text, tokens)
        except UserError as error:
            if system.clean(recipe.export.system) != "auto":
                raise
            default = Default("", str(error))
    generation = read_json(path / "generation_config.json", {}) if path.is_dir() else {}
    card = make_card(folder, recipe, path, generation)
    adapters = folder / "adapters"
    trained = adapters / "adapters.safetensors"
    check_adapters(folder, recipe.model)
    digest = sha256(trained) if trained.exists() else ""
    inputs = fingerprint(
        digest,
        path.resolve(), path.stat().st_mtime_ns, template, card, recipe.export.pretokenizer,
    )  # fmt: skip
    weights = Weights(path, config, load_adapters(adapters))
    return Job(folder, recipe, weights, tokens, own, template, default, card, generation, inputs)


def _once(job: Job, kind: str, reporter: Reporter, write: Callable[[], list[str]]) -> list[str]:
    """The files of one kind: those of an earlier export where they are unchanged, else `write` writes them.

    Unchanged means that the hash of each whole file is the recorded one.
    """
    folder, settings = job.folder, job.recipe.export
    made_from = fingerprint(job.inputs, kind, settings.fuse.model_dump() if kind == "fused" else settings.split)
    known = read_state(folder).get(kind, Exported())
    if known.made_from == made_from and all((folder / f).exists() and _size(folder / f) == s for f, s in known.files.items()):
        damaged = [folder / name for name, digest in known.sha256.items() if sha256(folder / name) != digest]
        if not damaged:
            return list(known.files)
        reporter.warn(f"{damaged[0]}: not as export left it (its hash is in {STATE}); it is written again")
    names = write()
    sizes = {name: _size(folder / name) for name in names}
    digests = {name: sha256(folder / name) for name in names if (folder / name).is_file()}
    write_state(folder, {**read_state(folder), kind: Exported(made_from, sizes, digests)})
    return names


def _fuse(job: Job, reporter: Reporter) -> list[str]:
    options = job.recipe.export.fuse
    dtype = _dtype(job.weights) if options.dtype == "auto" else options.dtype
    form = fusing.Form(dtype, None if options.quantize == "none" else options.quantize)
    own_class = read_json(job.weights.path / "tokenizer_config.json", {}).get("tokenizer_class")
    beside = fusing.Beside(job.tokenizer, job.template, job.generation, own_class)
    with reporter.track("fusing", total=_parameters(job.weights), unit="weights") as bar:
        files = fusing.fuse(job.folder / "fused", job.weights, beside, form, bar.advance)
    return [f"fused/{file.name}" for file in files]


def _gguf(job: Job, type_name: str, reporter: Reporter) -> list[str]:
    path = job.folder / f"{job.name}-{type_name}.gguf"
    job.keys = job.keys or _tokenizer_keys(job, reporter)
    content = gguf.Content(job.keys, job.card, job.template)
    with reporter.track(f"writing {path.name}", total=_parameters(job.weights), unit="weights") as bar:
        files = gguf.write(path, job.weights, type_name, content, split_bytes(job.recipe.export.split), bar.advance)
    return [file.name for file in files]


def _adapter(job: Job) -> list[str]:
    return [file.name for file in write_adapter(job.folder / f"{job.name}-lora.gguf", job.weights, job.card)]


def _fidelity(job: Job, written: Files, reporter: Reporter) -> dict[str, Fidelity]:
    """How much of the trained change each file keeps, by the file's name. Each file is measured once."""
    count = job.recipe.export.fidelity
    bits = job.recipe.export.fuse.quantize
    kinds = [kind for kind in written if kind in types.NAMES or (kind == "fused" and bits != "none")]
    measure = fidelity.measure(job.folder, job.recipe.model, count) if count else None
    if measure is None or not kinds:
        return {}
    measured: dict[str, Fidelity] = {}
    with reporter.track("checking the files against the adapters", total=len(kinds), unit="files") as bar:
        for kind in kinds:
            state = read_state(job.folder)
            path = job.folder / ("fused" if kind == "fused" else written[kind][0])
            figures = state[kind].fidelity
            if figures is None or figures.answers != count:
                figures = measure(path)
            write_state(job.folder, {**state, kind: replace(state[kind], fidelity=figures)})
            measured[path.name] = figures
            line, warning = fidelity.verdict(path.name, f"fused-{bits}" if kind == "fused" else kind, figures)
            bar.advance(1)
            reporter.conclude(f"  {line}")
            if warning:
                reporter.warn(warning)
    return measured


def _tokenizer_keys(job: Job, reporter: Reporter) -> dict[str, Any]:
    if job.weights.path.suffix == ".gguf":
        return tokenizer.from_gguf(GGUFFile(job.weights.path))
    rows = next(shape[0] for name, (shape, _) in job.weights.stored.items() if name.endswith("embed_tokens.weight"))
    absent = tokenizer.without_row(job.tokenizer, rows)
    if absent:
        reporter.conclude(f"  not in the GGUF files: {', '.join(absent)}, for which the model has no row of embeddings")
    return tokenizer.from_transformers(job.tokenizer, rows, job.recipe.export.pretokenizer)


def _modelfile(job: Job, written: Files) -> modelfile.Contents | None:
    """What the Modelfile says. It starts from the first GGUF file of this or an earlier export; else from a GGUF base with the
    adapters on it; else from the fused folder. None where there is none of them: Ollama reads no GGUF file in several parts."""
    earlier = {kind: list(entry.files) for kind, entry in read_state(job.folder).items()}
    kinds = [kind for kind in (*written, *earlier) if kind in types.NAMES]
    files = [{**earlier, **written}[kind] for kind in kinds]
    whole = [names[0] for names in files if len(names) == 1 and (job.folder / names[0]).exists()]
    base = job.weights.path
    adapter = None
    if whole:
        source = f"./{whole[0]}"
    elif "lora" in written and base.suffix == ".gguf" and str(base.resolve()).isprintable():
        source, adapter = str(base.resolve()), written["lora"][0]
    elif (job.folder / "fused").is_dir():
        source = "./fused"
    else:
        return None
    window = window_of(job.weights.config, 0)
    return modelfile.Contents(source, job.own_template, job.system.text, window, job.card.sampling, adapter)


def _dtype(weights: Weights) -> str:
    """The dtype of the fused folder: float32 where only a CPU computes (16-bit products are slow there), else the base's own."""
    if backend.on_cpu():
        return "float32"
    kinds = [kind for shape, kind in weights.stored.values() if len(shape) > 1]
    own = str(weights.config.get("torch_dtype") or weights.config.get("dtype") or "bfloat16")
    plain = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(max(sorted(set(kinds)), key=kinds.count))
    return plain or (own if own in fusing.DTYPES else "bfloat16")


def split_bytes(text: str | None) -> int:
    """'4GB' -> 4,000,000,000; None -> 0 (one file)."""
    if text is None:
        return 0
    number = text.rstrip("B").rstrip()
    return int(float(number[:-1]) * {"M": 10**6, "G": 10**9}[number[-1]])


def _parameters(weights: Weights) -> int:
    return sum(prod(shape) for shape, _ in weights.stored.values())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def fingerprint(*parts: Any) -> str:
    """A short hash of what a file is made from; it changes where the file has to be written again."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]
