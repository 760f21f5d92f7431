"""The adapters that an assistant answers with, and those that its run has by now.

An update that was taken puts other adapters into the run, and so does a training anew. A server that goes on takes them, where they
were trained by the same recipe on the same base. The batch must be empty of answers by the adapters before (`worker.py`).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import recipe_loading
from ..errors import Failure, UserError, first_line
from ..evaluation import blind_votes
from ..files import read_json
from ..models import adapters
from ..models.identity import ADAPTERS
from ..progress import Reporter
from ..recipe import Recipe

Stamps = tuple[tuple[int, int, int], ...]  # inode, size, and time of the last change in ns, of each file


@dataclass(frozen=True)
class Taken:
    """What an assistant has taken of a run's adapters."""

    stamps: Stamps | None
    digest: str  # as votes name them
    layout: dict[str, Any]  # adapter_config.json: rank, scale, base

    @staticmethod
    def of(folder: Path) -> "Taken":
        stamps = stamps_of(folder)  # first: what is written meanwhile differs from them
        return Taken(stamps, blind_votes.adapters_of(folder) if stamps else "", read_json(folder / ADAPTERS[1], {}))

    def is_old(self, folder: Path) -> bool:
        """Whether the run has other files of adapters. While they are made, or once the run is gone, it has none."""
        now = stamps_of(folder)
        return now is not None and now != self.stamps


def stamps_of(folder: Path) -> Stamps | None:
    """The files of the adapters as they lie there; None where one is missing."""
    try:
        files = [(folder / name).stat() for name in ADAPTERS]
    except OSError:
        return None
    return tuple((file.st_ino, file.st_size, file.st_mtime_ns) for file in files)


def is_removed(folder: Path) -> bool:
    """Whether the run was removed. A training that starts it over holds its lock meanwhile."""
    return not any((folder / name).exists() for name in ("recipe.yaml", ".lock"))


def renewed(taken: Taken, folder: Path, recipe: Recipe, model: Any, reporter: Reporter) -> Taken:
    """Put the adapters of the run on the model. Where they do not belong to it, it keeps its own and a warning says so once."""
    stamps = stamps_of(folder)
    try:
        now = Taken.of(folder)
        if now.digest == taken.digest:
            return now
        if now.layout != taken.layout or recipe_loading.load(folder / "recipe.yaml") != recipe:
            raise UserError("another recipe or base trained them")
        adapters.exchange(model, folder / "adapters")
    except OSError:  # the run is removed, or trained anew, at this moment
        return taken
    except (UserError, Failure, RuntimeError) as error:  # the last: from MLX, for a file that is none of its own
        reporter.warn(f"{folder / 'adapters'} is new: {first_line(error)}; start the server anew to use it")
        return replace(taken, stamps=stamps)
    reporter.conclude("new adapters are taken: the next answers are theirs")
    return now
