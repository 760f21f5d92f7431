"""Sampling on several machines: a share by hand (`pairs RUN --part 2/3`), or shares over ssh (`pairs RUN --with HOST,HOST`).

Over ssh, a machine reads the run's files in SENT as one line of JSON from its standard input. It writes the rows of its part to
its standard output. It keeps the files in a temporary folder, which goes when it is done, or when its standard input ends. The rows
arrive in parts/ of the run as they are made. So a machine that is lost costs the chunk that it was working on.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from .. import run as runs
from ..errors import UserError
from ..files import append_jsonl, dump, make_private, sealed
from ..memory import contexts
from ..progress import Reporter
from ..run import Run
from . import preflight, start
from .options import RunOptions

STREAM = "-"  # in place of a run: its files come from standard input, and the part goes to standard output
SENT = ("recipe.yaml", "contexts.jsonl", "prompts.jsonl", contexts.PROFILE, contexts.PROFILE_STATE, contexts.CHOSEN)
# No password can be typed there. A connection that says nothing for a minute is lost.
SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3")
PATIENCE = 5.0  # seconds that a machine has to end after its standard input did


def part(options: RunOptions, text: str) -> str:
    """Compute one share of a run's sampling into its folder parts/; returns what there is to say of it."""
    from ..pairs import make, parts

    own = parts.Share.parse(text)
    if options.target == STREAM:
        _stream(own)
        return f"part {own}: sent"
    run = start.open_target(options)
    make.check_samples(run.recipe)
    with start.checked_and_locked(run, "pairs", options) as reporter:
        runs.execute(run, "sources", reporter)
        path = run.folder / parts.FOLDER / own.file
        make_private(path.parent)
        parts.keep_whole_lines(path)
        with reporter.stage(f"part {own}"):
            make.share(run.folder, run.recipe, own, parts.known_ids(run.folder, run.recipe), partial(append_jsonl, path))
    return f"{path}: done; copy it into {parts.FOLDER}/ of the run on your own machine, and run `mipo-mlx pairs` there"


def _stream(own: Any) -> None:
    """Compute a share of the run that standard input brings, and write its rows to standard output."""
    from ..pairs import make

    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no row
    order = json.loads(sys.stdin.buffer.readline())

    def send(rows: list[dict[str, Any]]) -> None:
        out.write("".join(dump(sealed(row)) + "\n" for row in rows).encode())
        out.flush()

    with tempfile.TemporaryDirectory(prefix="mipo-mlx-") as scratch:  # its owner alone may enter it
        for name in SENT:
            if name in order["files"]:
                Path(scratch, name).write_bytes(order["files"][name].encode("utf-8", "surrogateescape"))
        threading.Thread(target=_end_with_input, args=(scratch,), daemon=True).start()
        run = runs.existing_run(Path(scratch), Path(scratch))
        preflight.check(run, "pairs", False, Reporter(quiet=True))
        make.share(run.folder, run.recipe, own, order["have"], send)


def _end_with_input(scratch: str) -> None:
    """End this process with its standard input: the machine that wants the part is gone."""
    while os.read(0, 4096):
        pass
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)


@contextmanager
def helping(run: Run, hosts: str | None, reporter: Reporter) -> Iterator[None]:
    """Let other machines compute shares of a run's pairs while the body samples; `hosts`: their names for ssh, between commas."""
    if not hosts:
        yield
        return
    names = _hosts(hosts)
    from ..pairs import make, parts

    make.check_samples(run.recipe)
    runs.execute(run, "sources", reporter)
    if run.done("pairs"):
        yield
        return
    make.write_missing(run.folder, run.recipe, reporter)
    files = {
        name: (run.folder / name).read_bytes().decode("utf-8", "surrogateescape") for name in SENT if (run.folder / name).exists()
    }
    order = json.dumps({"files": files, "have": parts.known_ids(run.folder, run.recipe)}).encode() + b"\n"
    make_private(run.folder / parts.FOLDER)
    helpers = []
    try:
        for number, host in enumerate(names, 2):
            share = parts.Share(number, len(names) + 1)
            path = run.folder / parts.FOLDER / share.file
            parts.keep_whole_lines(path)
            helpers.append(Helper(host, str(share), order, path, reporter))
        yield
    finally:
        for helper in helpers:
            helper.end()


def _hosts(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if odd := [name for name in names if not re.fullmatch(r"[\w.@:%\[\]][\w.@:%\[\]-]*", name)]:
        raise UserError(
            f"--with {text}: {odd[0]!r} is no host; expected names as for ssh, between commas, as in studio.local,me@mini"
        )
    return names


class Helper:
    """One other machine at work. Its rows go into `path`, whole lines alone."""

    def __init__(self, host: str, share: str, order: bytes, path: Path, reporter: Reporter) -> None:
        self.host, self.share, self.order, self.path, self.reporter = host, share, order, path, reporter
        self.over = False  # its work is no longer wanted
        self.errors: IO[bytes] = tempfile.TemporaryFile()
        try:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
            self.process = subprocess.Popen([*SSH, host, _command(share)], **pipes)  # type: ignore[call-overload]
        except FileNotFoundError:
            raise UserError("--with: ssh is not installed here; install it, or compute parts by hand with --part") from None
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with suppress(BrokenPipeError, ValueError):  # ended early: its exit code tells
            self.process.stdin.write(self.order)
            self.process.stdin.flush()
        with open(self.path, "ab") as part:
            for line in self.process.stdout:
                if line.startswith(b"{") and line.endswith(b"\n"):  # else a greeting of its shell, or torn
                    part.write(line)
                    part.flush()
        code = self.process.wait()
        if code and not self.over:
            self.errors.seek(0)
            lines = self.errors.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit code {code}"
            self.reporter.warn(f"{self.host}: part {self.share} ended early ({reason}); this machine makes what is missing")

    def end(self) -> None:
        self.over = True
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.thread.join(PATIENCE)
        self.errors.close()


def _command(share: str) -> str:
    """What a machine's shell is to run: the same Python where it is there, else `mipo-mlx` as its owner's login finds it."""
    python, words = shlex.quote(sys.executable), f"pairs {STREAM} --part {share}"
    same = f"if {python} -c 'import mipo_mlx' 2>/dev/null; then exec {python} -m mipo_mlx {words}; fi"
    login = f'exec "${{SHELL:-/bin/sh}}" -lc {shlex.quote(f"exec mipo-mlx {words}")}'
    return shlex.join(["sh", "-c", f"{same}; {login}"])
