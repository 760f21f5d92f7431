"""Heartbeats between the machines of a training. A machine that waits for another one in MLX would wait without an end.

Every machine sends a heartbeat to the first one each second, by UDP to the address and port that MLX uses for TCP. The first one
answers. A process that is stopped, a Mac that sleeps and a cable that is pulled send none. Then each machine ends with one line.
Heartbeats begin before MLX is imported, so that a machine that is lost while it starts is noticed too.
"""

import faulthandler
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError

BEAT = 1.0  # seconds between two heartbeats
SILENT = 30.0  # seconds after which a silent machine is lost
FIRST = 35.0  # seconds that a machine has for its first heartbeat: it is started by ssh
STUCK = 25.0  # seconds after which machines that all wait for each other are stuck
AGAIN = "run the same command again, with any number of machines: it goes on from the last checkpoint"


@dataclass(frozen=True)
class Place:
    """Where this process stands among the machines of a training."""

    rank: int  # 0 leads
    size: int
    host: str  # of the first machine
    port: int
    backend: str  # of MLX: ring or jaccl


def place() -> Place | None:
    """What mlx.launch says of this process; None where it runs alone. Raises UserError for a backend that cannot be used."""
    environment = os.environ
    rank, hostfile = int(environment.get("MLX_RANK", 0)), environment.get("MLX_HOSTFILE")
    if hostfile and (text := Path(hostfile).read_text().strip()):
        ring: Sequence[Sequence[str]] = json.loads(text)
        host, _, port = ring[0][0].rpartition(":")
        return Place(rank, len(ring), host, int(port), "ring") if len(ring) > 1 else None
    if coordinator := environment.get("MLX_JACCL_COORDINATOR"):
        host, _, port = coordinator.rpartition(":")
        size = len(json.loads(Path(environment["MLX_IBV_DEVICES"]).read_text()))
        return Place(rank, size, host, int(port), "jaccl")
    if int(environment.get("MLX_WORLD_SIZE", 1)) > 1 or int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        raise UserError("mlx.launch: a training runs on the backends ring and jaccl; pass --backend ring")
    return None


@contextmanager
def within(seconds: float, line: str) -> Iterator[None]:
    """End this process with `line` where what is inside takes longer.

    MLX holds Python's lock while it connects, so no thread of Python's runs then, and a stopped machine would be waited for without
    an end. faulthandler's thread needs no lock. What it writes makes a shell print the line.
    """
    shell = ["sh", "-c", 'read -r _ && printf "%s\\n" "$1" >&2', "sh", f"error: {line}"]
    speaker = subprocess.Popen(shell, stdin=subprocess.PIPE, stderr=sys.stderr)
    assert speaker.stdin
    faulthandler.dump_traceback_later(seconds, exit=True, file=speaker.stdin)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        speaker.stdin.close()
        speaker.wait()


@dataclass
class Peer:
    last_heartbeat: float  # time
    has_begun: bool = False  # it has sent one
    waits: float = 0.0  # seconds that it has waited for others
    address: Any = None


@dataclass
class Heartbeat:
    """Sends and receives heartbeats in a thread of its own, and ends the process where a machine is lost."""

    place: Place
    peers: dict[int, Peer] = field(init=False)
    _since: float | None = None  # this machine waits for others since then
    _over: bool = False  # nobody is waited for any more
    _ending: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        others = range(1, self.place.size) if self.place.rank == 0 else (0,)
        self.peers = {rank: Peer(time.monotonic()) for rank in others}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        if self.place.rank == 0:
            self.socket.bind((self.place.host, self.place.port))
        self.socket.settimeout(BEAT)
        threading.Thread(target=self._run, daemon=True).start()

    def wait_begins(self) -> None:
        self._since = time.monotonic()

    def wait_ends(self) -> None:
        self._since = None

    def close(self, reason: str | None) -> None:
        """Stop. `reason`: why this machine ends before its time, which the others then name."""
        if not self._over:
            self._over = True
            self._send(reason)

    def _run(self) -> None:
        sent = 0.0
        while not self._over:
            now = time.monotonic()
            if now - sent >= BEAT:
                sent = now
                self._send(None)
                self._check_peers(now)
            self._receive()

    def _send(self, ended: str | None) -> None:
        waits = time.monotonic() - self._since if self._since is not None else 0.0
        message = json.dumps({"rank": self.place.rank, "of": self.place.size, "waits": waits, "ended": ended}).encode()
        first = (self.place.host, self.place.port)
        for address in [first] if self.place.rank else [peer.address for peer in self.peers.values() if peer.address]:
            with suppress(OSError):  # no network for now: the others miss the heartbeat
                self.socket.sendto(message, address)

    def _receive(self) -> None:
        try:
            data, address = self.socket.recvfrom(65536)
            message = json.loads(data)
            peer = self.peers[message["rank"]]
            if message["of"] != self.place.size:
                return
            peer.last_heartbeat, peer.has_begun, peer.address, peer.waits = time.monotonic(), True, address, float(message["waits"])
            ended = message["ended"]
        except TimeoutError:
            return
        except (OSError, ValueError, KeyError, TypeError):  # no network for now, or it was no heartbeat
            time.sleep(BEAT / 10)
            return
        if ended:
            self._end(f"{self._name(message['rank'])} ended: {ended}")

    def _check_peers(self, now: float) -> None:
        for rank, peer in self.peers.items():
            limit = SILENT if peer.has_begun else FIRST
            if now - peer.last_heartbeat > limit:
                self._end(f"{self._name(rank)} is lost: it was silent for {limit:.0f} seconds; {AGAIN}")
        if self._since is not None and now - self._since > STUCK and all(peer.waits > STUCK for peer in self.peers.values()):
            self._end(f"all machines wait for each other since {STUCK:.0f} seconds; {AGAIN}")

    def _name(self, rank: int) -> str:
        return f"machine {rank + 1} of {self.place.size}"

    def _end(self, line: str) -> None:
        """End the process with one line. Its main thread may wait inside MLX, where no exception reaches it."""
        with self._ending:
            if self._over:
                return
            self.close(line)
            print(f"error: {line}", file=sys.stderr, flush=True)
            os._exit(1)
