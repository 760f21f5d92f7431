"""`mipo-mlx schedule RUN --at 02:00`: `mipo-mlx update RUN --train` each night, on mains power alone.

macOS gets a launchd agent in ~/Library/LaunchAgents, Linux a systemd timer of the user in ~/.config/systemd/user. Both make up
for a time at which the machine slept. launchd knows no condition for mains power, so a line of shell asks `pmset`.
"""

import hashlib
import os
import plistlib
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import join, quote

from .. import run as runs
from ..errors import UserError, printable
from ..export.results import ollama_name
from ..memory.contexts import LOG
from ..sources.gather import places
from .options import RunOptions
from .start import require

ON_MAINS = """pmset -g batt | head -n 1 | grep -q "AC Power" && exec caffeinate -i "$@" """.strip()
SYSTEMS = ("darwin", "linux")  # those with launchd or systemd
TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
Call = Callable[[list[str]], bool]  # starts a program; whether it succeeded


@dataclass(frozen=True)
class Plan:
    """What is to happen: for which run, when, on which system."""

    folder: Path  # of the run, absolute
    hour: int
    minute: int
    mac: bool
    home: Path  # of the user's agents (macOS) or units (Linux)

    @property
    def label(self) -> str:
        """The name of the agent or unit. Runs of one name in two places have different ones."""
        return f"mipo-mlx.update.{ollama_name(self.folder.name)}.{hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:8]}"

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "mipo_mlx", "update", str(self.folder), "--train", "--quiet"]

    def files(self) -> dict[Path, bytes]:
        if self.mac:
            return {self.home / f"{self.label}.plist": self._agent()}
        return {self.home / f"{self.label}.service": self._service(), self.home / f"{self.label}.timer": self._timer()}

    @property
    def link(self) -> Path:
        """What makes systemd start the timer with each login, as `systemctl enable` does."""
        return self.home / "timers.target.wants" / f"{self.label}.timer"

    def _agent(self) -> bytes:
        log = str(self.folder / LOG)
        content = {
            "Label": self.label,
            "ProgramArguments": ["/bin/sh", "-c", ON_MAINS, "sh", *self.command],
            "StartCalendarInterval": {"Hour": self.hour, "Minute": self.minute},
            "ProcessType": "Background",
            "LowPriorityIO": True,
            "StandardOutPath": log,
            "StandardErrorPath": log,
        }
        return plistlib.dumps(content)

    def _service(self) -> bytes:
        command = " ".join(map(_quoted, self.command))
        return (
            f"[Unit]\nDescription=Train {_plain(self.folder.name)} on new notes (mipo-mlx)\nConditionACPower=true\n\n"
            # The colon: systemd replaces no $NAME in the arguments.
            f"[Service]\nType=oneshot\nNice=10\nIOSchedulingClass=idle\nExecStart=:{command}\n"
        ).encode("utf-8", "surrogateescape")

    def _timer(self) -> bytes:
        return (
            f"[Unit]\nDescription=Train {_plain(self.folder.name)} on new notes each night (mipo-mlx)\n\n"
            f"[Timer]\nOnCalendar=*-*-* {self.hour:02}:{self.minute:02}:00\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n"
        ).encode("utf-8", "surrogateescape")

    def there(self) -> list[Path]:
        """What `put` has written for this run, at whatever time of day."""
        return [path for path in (*self.files(), self.link) if path.is_symlink() or path.exists()]

    def begins(self) -> list[list[str]]:
        """The programs that make the system notice the files."""
        if self.mac:
            return [["launchctl", "bootstrap", f"gui/{os.getuid()}", str(self.home / f"{self.label}.plist")]]
        return [["systemctl", "--user", "daemon-reload"], ["systemctl", "--user", "restart", f"{self.label}.timer"]]

    def ends(self) -> list[list[str]]:
        """The programs that make the system forget them."""
        if self.mac:
            return [["launchctl", "bootout", f"gui/{os.getuid()}/{self.label}"]]
        return [["systemctl", "--user", "stop", f"{self.label}.timer"]]


def schedule(options: RunOptions, at: str, show: bool, remove: bool) -> str:
    """Write, show or remove the files; returns what there is to say. Raises UserError for a time or a system that is none."""
    plan = plan_of(options, at)
    if remove:
        return take_away(plan)
    run = runs.existing_run(plan.folder, options.root)
    places(run.recipe.sources)  # without notes there is nothing to update
    if show:
        return "\n".join(f"{path}\n{content.decode('utf-8', 'replace')}" for path, content in plan.files().items())
    require(run, "training")
    return put(plan)


def plan_of(options: RunOptions, at: str, platform: str = sys.platform) -> Plan:
    clock = TIME.fullmatch(at.strip())
    if not clock:
        raise UserError(f"--at {at}: expected a time of day of 24 hours, such as 02:00")
    if platform not in SYSTEMS:
        raise UserError(f"schedule: neither launchd nor systemd is on {platform}; start `mipo-mlx update RUN --train` yourself")
    mac = platform == "darwin"
    units = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"
    home = Path.home() / "Library" / "LaunchAgents" if mac else units
    folder = runs.folder_of(Path(options.target or ""), options.root).resolve()
    return Plan(folder, int(clock[1]), int(clock[2]), mac, home)


def put(plan: Plan, call: Call | None = None) -> str:
    """Write the files and make the system notice them. The same plan twice changes nothing."""
    call = call or _call
    plan.home.mkdir(parents=True, exist_ok=True)
    if plan.mac:
        call(plan.ends()[0])  # launchd keeps an agent as it was when it was entered
    for path, content in plan.files().items():
        path.write_bytes(content)
    if not plan.mac:
        plan.link.parent.mkdir(exist_ok=True)
        plan.link.unlink(missing_ok=True)
        plan.link.symlink_to(plan.home / plan.link.name)
    begun = all([call(command) for command in plan.begins()])
    written = " and ".join(str(path) for path in plan.files())
    when = f"{plan.hour:02}:{plan.minute:02}"
    later = "" if begun else f"\nit begins with your next login; now with: {' && '.join(map(join, plan.begins()))}"
    log = f"{plan.folder / LOG}" if plan.mac else f"journalctl --user -u {quote(plan.label)}"
    return f"each night at {when}, on mains power: {join(plan.command[2:])}\nwritten: {written}{later}\nwhat it says: {log}"


def take_away(plan: Plan, call: Call | None = None) -> str:
    """Remove what `put` has written; no other file."""
    there = plan.there()
    if not there:
        return f"{plan.folder}: nothing is scheduled"
    for command in plan.ends():
        (call or _call)(command)
    for path in there:
        path.unlink()
    if not plan.mac:
        (call or _call)(plan.begins()[0])
    return f"{plan.folder}: no longer scheduled; removed {' and '.join(map(str, there))}"


def end_with(options: RunOptions) -> list[str]:
    """End what is scheduled for a run that is being removed: the line to say, or no line where nothing is scheduled."""
    if sys.platform not in SYSTEMS:
        return []
    plan = plan_of(options, "02:00")
    return [take_away(plan)] if plan.there() else []


def _call(command: list[str]) -> bool:
    try:
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _quoted(text: str) -> str:
    """An argument as systemd reads it: between quotes, with C's escapes; a percent sign stands twice."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("%", "%%")
    return '"' + re.sub(r"[\x01-\x1f\x7f]", lambda control: f"\\x{ord(control[0]):02x}", escaped) + '"'


def _plain(text: str) -> str:
    """A name on one line of a unit."""
    return " ".join(printable(text).split()).replace("\\", "").replace("%", "%%")
