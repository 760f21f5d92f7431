"""A trained tiny run with notes behind a real socket."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx
import pytest

from mipo_mlx.progress import Reporter
from mipo_mlx.run import existing_run, locked
from mipo_mlx.serving.assistant import AnswerOptions, Assistant
from mipo_mlx.serving.guard import Access
from mipo_mlx.serving.server import Served, application
from mipo_mlx.serving.watch import watching
from mipo_mlx.serving.web import listening, server
from mipo_mlx.serving.worker import Worker
from tests.commands.test_chat import run_with_notes


@dataclass
class Address:
    """A server that runs in a thread of the test."""

    folder: Path
    port: int
    worker: Worker
    key: str = ""
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.folder.name

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, path: str, body: object = None, **more) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=60, **more)

    def get(self, path: str, **more) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=60, **more)

    @property
    def busy(self) -> int:
        """Answers that the model is writing."""
        return sum(len(side.orders) for side in self.worker._sides.values())


@contextmanager
def serving(
    folder: Path, *, key: str = "", origins: tuple[str, ...] = (), watch: list[str] | None = None, **wishes
) -> Iterator[Address]:
    """watch: gets the lines of `--watch`; None: without it."""
    recipe = existing_run(folder, folder.parent).recipe
    wanted = AnswerOptions(**{"max_tokens": 8, "temperature": 0.0, **wishes})
    worker = Worker(lambda: Assistant(folder, recipe, wanted, Reporter(quiet=True)))
    worker.ready.result()
    bound = listening("127.0.0.1", 0)
    access = Access.of("127.0.0.1", bound.getsockname()[1], key, origins)
    running = server(
        application(Served(folder, recipe, wanted, 1_700_000_000, lambda: locked(folder, Reporter(quiet=True))), worker, access)
    )
    thread = threading.Thread(target=running.run, args=([bound],))
    thread.start()
    follow = nullcontext() if watch is None else watching(folder, recipe.sources, worker, watch.append, every=0.05)
    try:
        while not running.started:
            time.sleep(0.01)
        with follow:
            yield Address(folder, access.port, worker, key)
    finally:
        running.should_exit = True
        thread.join()
        worker.close()


@pytest.fixture(scope="package")
def mine(tiny_folder, tmp_path_factory) -> Path:
    """A run's folder."""
    return run_with_notes(tmp_path_factory.mktemp("served"), tiny_folder)


@pytest.fixture(scope="package")
def served(mine) -> Iterator[Address]:
    with serving(mine) as address:
        yield address
