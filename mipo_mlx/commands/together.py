"""`mlx.launch ... mipo-mlx train RUN`: one training on several machines (`training/team.py`).

The first machine runs the whole command. The others have no run: they take part in its trainings, and end when the last one is
done. Stages other than training are the first machine's alone. The others wait, and heartbeats tell them that it is still there.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .. import run as runs
from ..errors import one_line
from ..progress import Reporter
from ..run import Run
from ..training import heartbeat


@contextmanager
def team() -> Iterator[bool]:
    """Join the machines that mlx.launch started, if it did. Yields whether this one leads; one that follows has done its work."""
    place = heartbeat.place()
    if place is None:
        yield True
        return
    _quiet_ring()
    beats = heartbeat.Heartbeat(place)  # before the imports below, which take seconds
    reason: str | None = "it was stopped"
    try:
        from ..training import team, train

        joined = team.join(beats)
        if joined.leads:
            yield True
        else:
            team.follow(joined, train.follow)
            yield False
        reason = None
    except Exception as error:
        reason = one_line(error)[0]
        raise
    finally:
        beats.close(reason)


def _quiet_ring() -> None:
    """Keep what MLX's ring writes about a lost machine off the terminal: a dozen lines, where ours is one."""
    if "MLX_RING_VERBOSE" not in os.environ:
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def train_first(run: Run, reporter: Reporter) -> None:
    """On the first of several machines: do the steps up to the last training, and let the others go."""
    from ..training import team

    joined = team.current()
    if joined.size == 1:
        return
    planned = run.steps()
    if not run.done("pairs"):
        reporter.warn("the other machines wait until the pairs are sampled; `mipo-mlx pairs RUN --with HOSTS` uses them for that")
    reporter.say(f"{joined.size} machines train")
    runs.execute(run, [step for step in planned if runs.parse(step)[0] == "training"][-1], reporter)
    team.release(joined)
