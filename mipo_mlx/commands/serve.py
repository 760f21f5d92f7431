"""`mipo-mlx serve RUN`: the result behind an OpenAI-compatible endpoint, and a page, on this machine."""

import os
from collections.abc import Callable
from datetime import datetime

from ..errors import UserError
from ..progress import Reporter
from ..run import Run, locked
from ..serving.assistant import AnswerOptions
from ..serving.browser_page import Served
from ..serving.guard import Access, is_loopback
from ..serving.server import serve as run_server

KEY = "MIPO_API_KEY"
ALL = ("0.0.0.0", "::")  # every address of this machine


def serve(run: Run, access: Access, options: AnswerOptions, say: Callable[[str], None], watch: bool = False) -> None:
    """Serve a trained run until Ctrl-C. watch: memory follows the notes. Raises UserError where there are none in files."""
    if watch and not run.recipe.sources.notes:
        raise UserError(f"--watch: {run.folder} has no notes in files; leave it out")
    created = run.manifest.get("created", "")
    seconds = int(datetime.fromisoformat(created).timestamp()) if created else 0
    served = Served(run.folder, run.recipe, options, seconds, lambda: locked(run.folder, Reporter(quiet=True)))
    run_server(served, access, Reporter(), lambda port: say(started(run.folder.name, access, port)), watch)


def key_of(given: str | None) -> str:
    """The key of the command line, else that of the environment; "" for none. Raises UserError for an empty one."""
    if given is not None and not given.strip():
        raise UserError("--api-key: expected a key, not an empty text")
    return (os.environ.get(KEY, "") if given is None else given).strip()


def started(name: str, access: Access, port: int) -> str:
    host = "127.0.0.1" if access.host in ALL else access.host
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    lines = [f"{name} answers at {address}/v1 (model: {name}), and on a page at {address}; Ctrl-C ends it"]
    if access.key:
        lines.append("every request needs the API key")
    if not is_loopback(access.host):
        lines.append("the connection is not encrypted: serve it on a network that you trust")
    return "\n".join(lines)
