"""Export: the fused MLX folder, GGUF files, the adapters as GGUF, a Modelfile; then how much of the trained change they keep."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from ..errors import UserError
from ..files import read_json, sha256, write_json, write_text
from ..gguf_format import tokenizer, types
from ..gguf_format.file import GGUFFile
from ..gguf_format.names import by_gguf, by_model_type
from ..gguf_format.to_mlx import read_config
from ..models import load
from ..progress import Reporter
from ..recipe import Recipe
from . import fidelity, gguf, modelfile, system
from . import fuse as fusing
from .gguf import NO_DORA, write_adapter
from .results import STATE
from .system import system_text
from .weights import Weights, load_adapters


@dataclass
class Job:
    """What every export of a run needs."""

    folder: Path
    recipe: Recipe
    weights: Weights
    tokenizer: Any
    template: str | None
    keys: dict[str, Any]  # the tokenizer as GGUF metadata; {} until a GGUF file is wanted
    card: gguf.Card
    generation: dict[str, Any]  # generation_config.json of the base
    print: str  # changes whenever anything that the files are made from changes

    @property
    def name(self) -> str:
        return self.recipe.name or self.folder.name


def check(recipe: Recipe) -> None:
    """Raise UserError for what `run` would refuse whatever was trained; reads the base's configuration and tokenizer alone."""
    export = recipe.export
    for name in export.gguf:
        types.check(name)
    if export.adapter and recipe.training.lora.dora:
        raise UserError(NO_DORA)
    tokens = load.load_tokenizer(recipe.model)
    if export.system.strip() not in ("", "none") and isinstance(tokens.chat_template, str):
        system.with_default(tokens.chat_template, export.system, tokens)
    if load.resolve(recipe.model, weights=False).suffix == ".gguf":
        return  # what was read from a GGUF file can be written to one
    config = load.model_config(recipe.model)
    if export.adapter:
        by_model_type(config["model_type"], "export.adapter")
    if export.gguf:
        try:
            gguf.hyperparameters(config, by_model_type(config["model_type"], "export.gguf"))
            tokenizer.from_transformers(tokens, 1 + max(tokens.get_vocab().values()), export.pretokenizer)
        except UserError as error:
            raise UserError(f"{error}; with gguf: [] under export the result is the adapters and the fused folder") from None


def run(folder: Path, recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Write everything the recipe's `export` section asks for. What is there already and was made from the same is kept.

    Returns {"files": [{"path", "type", "bytes"}, ...], "modelfile": whether there is one, "fidelity": {file: {...}}}. Raises
    UserError for an unknown type or model.
    """
    wanted = [types.check(name) for name in recipe.export.gguf]
    job = prepare(folder, recipe)
    made: dict[str, Any] = {}
    if recipe.export.mlx:
        made["fused"] = _once(job, "fused", lambda: _fuse(job, reporter))
    for type_name in dict.fromkeys(wanted):
        made[type_name] = _once(job, type_name, lambda t=type_name: _gguf(job, t, reporter))
    if recipe.export.adapter:
        made["lora"] = _once(job, "lora", lambda: _adapter(job))
    text = _modelfile(job, made)
    if text is None:
        (folder / "Modelfile").unlink(missing_ok=True)  # of an earlier export, whose files are gone
        reporter.say("  no Modelfile: Ollama reads a GGUF file in one piece or fused/, and neither is here")
    else:
        write_text(folder / "Modelfile", text)
    files = [
        {"path": str(folder / file), "type": kind, "bytes": (folder / file).stat().st_size}
        for kind, names in made.items()
        for file in names
        if (folder / file).is_file()
    ]
    result = {"files": files, "modelfile": text is not None, "fidelity": _fidelity(job, made, reporter)}
    if not (folder / STATE).exists():
        write_json(folder / STATE, {})  # where nothing was asked for: what tells a finished export
    return result


def fuse(folder: Path, recipe: Recipe, reporter: Reporter) -> str:
    """Write the fused MLX folder alone, and where that was quantised say what it keeps; returns the sentence to print."""
    job = prepare(folder, recipe)
    _fidelity(job, {"fused": _once(job, "fused", lambda: _fuse(job, reporter))}, reporter)
    return f"{folder / 'fused'}: load it with `mlx_lm.generate --model {quote(str(folder / 'fused'))}`"


def prepare(folder: Path, recipe: Recipe) -> Job:
    """Open the base, the adapters and the tokenizer of a run; nothing big is read yet."""
    path = load.resolve(recipe.model)
    if path.suffix == ".gguf":
        file = GGUFFile(path)
        config = read_config(file, by_gguf(file.get("general.architecture", str, "?"), str(path)))
    else:
        config = load.model_config(recipe.model)
    tokens = load.load_tokenizer(recipe.model)
    template = tokens.chat_template if isinstance(tokens.chat_template, str) else None
    text = system_text(folder, recipe)
    if text:
        if template is None:
            raise UserError("export.system: the model has no chat template to put it into; write none")
        template = system.with_default(template, text, tokens)
    generation = read_json(path / "generation_config.json", {}) if path.is_dir() else {}
    resolved = folder / "recipe.yaml"
    recipe_hash = sha256(resolved) if resolved.exists() else None
    card = gguf.Card(recipe.name or folder.name, recipe.model, _license(path), recipe_hash, _sampling(path, generation))
    adapters = folder / "adapters"
    stamp = gguf.fingerprint(
        sha256(adapters / "adapters.safetensors") if (adapters / "adapters.safetensors").exists() else "",
        path.resolve(), path.stat().st_mtime_ns, template, card, recipe.export.pretokenizer,
    )  # fmt: skip
    weights = Weights(path, config, load_adapters(adapters))
    return Job(folder, recipe, weights, tokens, template, {}, card, generation, stamp)


def _once(job: Job, kind: str, make: Any) -> list[str]:
    """The files of one kind, made now or, where they stand unchanged, earlier."""
    path = job.folder / STATE
    state = read_json(path, {})
    settings = job.recipe.export.fuse.model_dump() if kind == "fused" else job.recipe.export.split
    stamp = gguf.fingerprint(job.print, kind, settings)
    known = state.get(kind, {})
    sizes = known.get("files", {})
    if known.get("made_from") == stamp and all((job.folder / f).exists() and _size(job.folder / f) == s for f, s in sizes.items()):
        return list(sizes)
    files = make()
    state = read_json(path, {})
    written = [name for name in files if (job.folder / name).is_file()]
    state[kind] = {
        "made_from": stamp,
        "files": {name: _size(job.folder / name) for name in files},
        "sha256": {name: sha256(job.folder / name) for name in written},
    }
    write_json(path, state)
    return files


def _fuse(job: Job, reporter: Reporter) -> list[str]:
    options = job.recipe.export.fuse
    dtype = _dtype(job.weights) if options.dtype == "auto" else options.dtype
    with reporter.track("fusing", total=_size_of(job.weights), unit="weights") as bar:
        files = fusing.fuse(
            job.folder / "fused", job.weights, job.tokenizer, job.template, dtype=dtype, generation=job.generation,
            quantize=None if options.quantize == "none" else options.quantize, advance=bar.advance,
        )  # fmt: skip
    return [f"fused/{file.name}" for file in files]


def _gguf(job: Job, type_name: str, reporter: Reporter) -> list[str]:
    path = job.folder / f"{job.name}-{type_name}.gguf"
    job.keys = job.keys or _tokenizer_keys(job)
    with reporter.track(f"writing {path.name}", total=_size_of(job.weights), unit="weights") as bar:
        split = split_bytes(job.recipe.export.split)
        files = gguf.write(path, job.weights, type_name, job.keys, job.card, job.template, split=split, advance=bar.advance)
    return [file.name for file in files]


def _adapter(job: Job) -> list[str]:
    return [file.name for file in write_adapter(job.folder / f"{job.name}-lora.gguf", job.weights, job.card)]


def _fidelity(job: Job, made: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """How much of the trained change each file keeps; measured once a file."""
    count = job.recipe.export.fidelity
    bits = job.recipe.export.fuse.quantize
    kinds = [kind for kind in made if kind in types.NAMES or (kind == "fused" and bits != "none")]
    measure = fidelity.measure(job.folder, job.recipe.model, count) if count else None
    if measure is None or not kinds:
        return {}
    found: dict[str, Any] = {}
    with reporter.track("checking the files against the adapters", total=len(kinds), unit="files") as bar:
        for kind in kinds:
            state = read_json(job.folder / STATE, {})
            path = job.folder / ("fused" if kind == "fused" else made[kind][0])
            figures = state[kind].get("fidelity", {})
            if figures.get("answers") != count:
                figures = {**measure(path), "answers": count}
            write_json(job.folder / STATE, {**state, kind: {**state[kind], "fidelity": figures}})
            found[path.name] = figures
            said, warning = fidelity.verdict(path.name, f"fused-{bits}" if kind == "fused" else kind, figures)
            bar.advance(1)
            reporter.say(f"  {said}")
            if warning:
                reporter.warn(warning)
    return found


def _tokenizer_keys(job: Job) -> dict[str, Any]:
    if job.weights.path.suffix == ".gguf":
        return tokenizer.from_gguf(GGUFFile(job.weights.path))
    rows = next(shape[0] for name, (shape, _) in job.weights.stored.items() if name.endswith("embed_tokens.weight"))
    return tokenizer.from_transformers(job.tokenizer, rows, job.recipe.export.pretokenizer)


def _modelfile(job: Job, made: dict[str, Any]) -> str | None:
    """FROM the first GGUF file made now or earlier; else a GGUF base with the adapters on it; else the fused folder; None where
    there is none of them (GGUF files in several parts are nothing that Ollama reads)."""
    earlier = {kind: list(entry.get("files", {})) for kind, entry in read_json(job.folder / STATE, {}).items()}
    kinds = [kind for kind in (*made, *earlier) if kind in types.NAMES]
    files = [{**earlier, **made}[kind] for kind in kinds]
    whole = [names[0] for names in files if len(names) == 1 and (job.folder / names[0]).exists()]
    base = job.weights.path
    adapter = None
    if whole:
        source = f"./{whole[0]}"
    elif "lora" in made and base.suffix == ".gguf":
        source, adapter = str(base.resolve()), made["lora"][0]
    elif (job.folder / "fused").is_dir():
        source = "./fused"
    else:
        return None
    return modelfile.modelfile(source, job.tokenizer, job.template, job.card.sampling, adapter)


def _dtype(weights: Weights) -> str:
    """What the fused folder is stored in: float32 where only a CPU computes (16-bit products crawl there), else the base's own."""
    import mlx.core as mx

    if mx.default_device().type == mx.cpu:
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


def _sampling(path: Path, generation: dict[str, Any]) -> dict[str, float]:
    """The base's own sampling defaults under llama.cpp's names: a GGUF file's, or those of a folder's generation_config.json."""
    if path.suffix == ".gguf":
        prefix, known = "general.sampling.", GGUFFile(path).metadata
        return {k.removeprefix(prefix): v for k, v in known.items() if k.startswith(prefix) and type(v) in (int, float)}
    names = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "repetition_penalty": "penalty_repeat"}
    return {
        ours: int(generation[name]) if ours == "top_k" else float(generation[name])
        for name, ours in names.items()
        if isinstance(generation.get(name), int | float)
    }


def _license(path: Path) -> str | None:
    """The base's licence: a key of a GGUF file, or of the front matter of a folder's README."""
    if path.suffix == ".gguf":
        return GGUFFile(path).get("general.license", str)
    readme = path / "README.md"
    lines = readme.read_text(encoding="utf-8", errors="replace").splitlines()[:40] if readme.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("license:")), None)


def _size_of(weights: Weights) -> int:
    total = 0
    for shape, _ in weights.stored.values():
        count = 1
        for side in shape:
            count *= side
        total += count
    return total


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
