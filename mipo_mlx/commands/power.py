"""Whether this machine runs on its battery, which a run of hours would empty: `train` and `pairs` ask before they compute."""

import subprocess
import sys
from pathlib import Path

from ..errors import UserError

SUPPLIES = Path("/sys/class/power_supply")  # Linux's batteries and chargers, a folder each


def require_mains(allowed: bool) -> None:
    if not allowed and on_battery():
        raise UserError(
            "this machine runs on its battery, which a run of hours would empty; plug it in, or pass --on-battery to begin all the "
            "same"
        )


def on_battery() -> bool:
    """False on mains power, without a battery, and where the system does not say."""
    if sys.platform == "darwin":
        try:
            text = subprocess.run(["pmset", "-g", "batt"], capture_output=True, text=True, timeout=10).stdout
        except (OSError, subprocess.SubprocessError):
            return False
        return "'Battery Power'" in text.partition("\n")[0]  # Now drawing from 'Battery Power'
    return _discharging(SUPPLIES)


def _discharging(supplies: Path) -> bool:
    """Whether no charger gives power and a battery of the machine itself loses it. A mouse has a battery too."""
    folders = sorted(supplies.iterdir()) if supplies.is_dir() else []
    if any(_read(folder / "type") in ("Mains", "USB") and _read(folder / "online") == "1" for folder in folders):
        return False
    own = [folder for folder in folders if _read(folder / "type") == "Battery" and _read(folder / "scope") != "Device"]
    return any(_read(folder / "status") == "Discharging" for folder in own)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
