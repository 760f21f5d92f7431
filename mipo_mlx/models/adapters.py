"""LoRA adapters on a frozen base: attach, save and load in mlx-lm's own layout, and switch off for the reference."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.tuner.dora import DoRALinear
from mlx_lm.tuner.lora import LoRALinear, LoRASwitchLinear
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters

from ..engine.tables import replaced
from ..errors import UserError, first_line
from ..files import replacing, write_json
from ..recipe import Lora


def effective_scale(lora: Lora) -> float:
    """The factor of A @ B. rank_stabilized: scale / sqrt(rank) in place of scale (Kalajdzievski 2023, rsLoRA)."""
    return lora.scale / math.sqrt(lora.rank) if lora.rank_stabilized else lora.scale


def layout(model: Any, lora: Lora) -> dict[str, Any]:
    """The contents of adapter_config.json, in mlx-lm's words. Raises UserError for layers or keys that the model does not have."""
    layers = len(model.layers) if lora.layers == "all" else lora.layers
    if layers > len(model.layers):
        raise UserError(f"training.lora.layers: the model has {len(model.layers)} layers, not {layers}; lower it, or write all")
    parameters: dict[str, Any] = {"rank": lora.rank, "scale": effective_scale(lora), "dropout": lora.dropout}
    if lora.keys != "all":
        names = {name for layer in model.layers for name, module in layer.named_modules() if hasattr(module, "weight")}
        for key in lora.keys:
            if key not in names:
                linear = sorted(name for name in names if "proj" in name or "fc" in name)
                raise UserError(f"training.lora.keys: the model's layers have no {key!r}; expected some of {', '.join(linear)}")
        parameters["keys"] = list(lora.keys)
    return {"fine_tune_type": "dora" if lora.dora else "lora", "num_layers": layers, "lora_parameters": parameters}


def attach(model: Any, lora: Lora, seed: int) -> dict[str, Any]:
    """Freeze the base and put fresh adapters (B = 0: the base's own outputs) on it. Returns their layout."""
    config = layout(model, lora)
    mx.random.seed(seed)
    model.freeze()
    linear_to_lora_layers(model, config["num_layers"], dict(config["lora_parameters"]), use_dora=lora.dora)
    model.eval()  # new layers begin in training mode, but dropout is for the training step alone, which switches it on itself
    return config


def weights(model: Any) -> dict[str, mx.array]:
    """The adapter's arrays by their full names."""
    return dict(tree_flatten(model.trainable_parameters()))


def save(model: Any, folder: Path, config: dict[str, Any]) -> None:
    """Write adapters.safetensors and adapter_config.json; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = weights(model)
    with replacing(folder / "adapters.safetensors") as temporary:
        named = temporary.with_suffix(".safetensors")  # mx.save_safetensors insists on the ending
        mx.save_safetensors(str(named), dict(sorted(arrays.items())))
        named.rename(temporary)
    write_json(folder / "adapter_config.json", config)


def load(model: Any, folder: Path) -> Any:
    """Put the adapters of `folder` on a base model. Raises UserError where there are none, or where they do not fit."""
    if not (folder / "adapters.safetensors").exists():
        raise UserError(f"{folder}: no adapters there; run `mipo-mlx train` to the end first")
    model.freeze()
    try:
        model = load_adapters(model, str(folder))
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{folder}: these adapters do not fit the model ({first_line(error)})") from None
    mx.eval(model.parameters())
    model.eval()  # dropout off: a loaded adapter is measured and used
    return model


def restore(model: Any, folder: Path) -> None:
    """Put the weights of `folder` on adapters that are attached already, to go on with training from there."""
    model.load_weights(str(folder / "adapters.safetensors"), strict=False)


def exchange(model: Any, folder: Path) -> None:
    """Put the adapters of `folder` in the place of the model's own. Raises UserError where they have another layout."""
    if not (folder / "adapters.safetensors").exists():
        raise UserError(f"{folder}: no adapters there")
    own, other = weights(model), mx.load(str(folder / "adapters.safetensors"))
    if {name: value.shape for name, value in other.items()} != {name: value.shape for name, value in own.items()}:
        raise UserError(f"{folder}: these adapters have another layout than the model's own")
    mx.eval(other)  # a file that cannot be read leaves the model as it was
    model.load_weights(list(other.items()), strict=False)


@contextmanager
def swapped(model: Any, folder: Path) -> Iterator[Any]:
    """Within this, the model has the adapters of `folder`, which must have the same layout; afterwards it has its own again."""
    own = weights(model)
    try:
        exchange(model, folder)
        yield model
    finally:
        model.load_weights(list(own.items()), strict=False)


def are_idle(model: Any) -> bool:
    """Whether no adapter changes anything: every B is 0, as in fresh ones. DoRA's rounding differs from the base's even then."""
    parts = [part for _, part in model.named_modules()]
    idle = not any(isinstance(part, DoRALinear) for part in parts)
    return idle and not any(part.lora_b.any().item() for part in parts if isinstance(part, (LoRALinear, LoRASwitchLinear)))


@contextmanager
def disabled(model: Any) -> Iterator[Any]:
    """Within this, the adapters are off, so the model is the base: the reference, without a second model in memory."""
    magnitudes = [m for _, m in model.named_modules() if isinstance(m, DoRALinear)]
    saved = [(m, m.scale, m.m) for m in magnitudes]
    with ExitStack() as stack:
        for _, owner in list(model.named_modules()):
            bases = {name: part.linear for name, part in owner.items() if isinstance(part, (LoRALinear, LoRASwitchLinear))}
            stack.enter_context(replaced(owner, bases))  # not a scale of 0, whose products would be computed
        try:
            for module in magnitudes:
                module.scale = 0.0
                module.m = mx.linalg.norm(module._dequantized_weight().astype(mx.float32), axis=1).astype(module.m.dtype)
            yield model
        finally:
            for module, scale, magnitude in saved:
                module.scale, module.m = scale, magnitude
