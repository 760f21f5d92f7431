"""Whether the machine runs on its battery, by what macOS and Linux say of it, and what a run does then."""

from types import SimpleNamespace

import pytest

from mipo_mlx.commands import power
from tests.test_bad_input import home, refused  # noqa: F401

ON_MAINS = "Now drawing from 'AC Power'\n -InternalBattery-0 (id=4653155)\t80%; charging; 1:02 remaining present: true\n"
BATTERY = "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=4653155)\t80%; discharging; 6:02 remaining present: true\n"


@pytest.mark.parametrize("text, expected", [(ON_MAINS, False), (BATTERY, True), (ON_MAINS[:28], False), ("", False)])
def test_macos_says_it_in_its_first_line(text, expected, monkeypatch):
    monkeypatch.setattr(power.sys, "platform", "darwin")
    monkeypatch.setattr(power.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=text))
    assert power.on_battery() is expected


def test_a_mac_without_the_program_is_on_mains(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError("pmset")

    monkeypatch.setattr(power.sys, "platform", "darwin")
    monkeypatch.setattr(power.subprocess, "run", missing)
    assert power.on_battery() is False


LAPTOP = {"type": "Battery", "status": "Discharging", "scope": "System"}
MOUSE = {"type": "Battery", "status": "Discharging", "scope": "Device"}


@pytest.mark.parametrize(
    "supplies, expected",
    [
        ([], False),
        ([LAPTOP], True),
        ([{"type": "Battery", "status": "Discharging"}], True),
        ([LAPTOP, {"type": "Mains", "online": "0"}], True),
        ([LAPTOP, {"type": "Mains", "online": "1"}], False),  # it still loses charge under load
        ([LAPTOP, {"type": "USB", "online": "1"}], False),
        ([{**LAPTOP, "status": "Charging"}], False),
        ([{**LAPTOP, "status": "Not charging"}], False),
        ([MOUSE], False),
    ],
)
def test_linux_has_a_folder_for_each_supply(supplies, expected, tmp_path, monkeypatch):
    for number, supply in enumerate(supplies):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        for name, text in supply.items():
            (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(power.sys, "platform", "linux")
    monkeypatch.setattr(power, "SUPPLIES", tmp_path if supplies else tmp_path / "none")
    assert power.on_battery() is expected


@pytest.mark.parametrize("command", ["train", "pairs"])
def test_a_run_asks_on_a_battery_and_leaves_no_folder(command, home, monkeypatch):  # noqa: F811
    monkeypatch.setattr(power, "on_battery", lambda: True)
    assert "plug it in, or pass --on-battery" in refused(command, "r.yaml")
    assert not list(home.glob("runs/*"))
    # Allowed, it goes on: to the next thing that is wrong.
    assert "no such model folder" in refused(command, "r.yaml", "--on-battery", "--set", "model=./nowhere")
