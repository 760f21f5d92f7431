"""The versions that a run's manifest tells."""

import platform
from importlib.metadata import PackageNotFoundError, version

from . import __version__


def versions() -> dict[str, str]:
    """Versions of everything that can change a result."""
    found = {"mipo-mlx": __version__, "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in ("mlx", "mlx-lm", "numpy", "transformers", "tokenizers", "gguf"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
