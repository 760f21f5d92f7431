"""TensorBoard files and a stand-in for wandb: every step once, also after an interruption; a missing package ends early."""

import importlib.util
import shutil
import struct
import sys
import types

import pytest

from mipo_mlx import recipe_loading
from mipo_mlx import run as runs
from mipo_mlx.commands import preflight
from mipo_mlx.errors import UserError
from mipo_mlx.files import read_json
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Training
from mipo_mlx.training import metrics, monitor
from tests.training.test_train import Killed, die_at, run

SETTINGS = Training(learning_rate=1e-3, epochs=2.0, checkpoint_every=3, evaluate_every=4, max_kl=None, min_chosen_reward=None)


def recipe(*names):
    return recipe_loading.parse("model: x\n").model_copy(update={"training": SETTINGS.model_copy(update={"loggers": list(names)})})


def train(folder, *names, **options):
    folder.mkdir(exist_ok=True)
    kill = options.pop("kill", None)
    with monitor.opened(recipe(*names), folder) as watchers:
        run(folder, SETTINGS, watchers=[*watchers, *([die_at(kill, options.get("round_number", 1))] if kill else [])], **options)


def expected(folder):
    """{(curve, step): value} of metrics.jsonl."""
    rows = metrics.read(folder)
    return {(name, row["step"]): value for row in rows for name, value in monitor.scalars(row).items()}


def events(folder):
    """[(curve, step, value)] of all event files: records of length, checksum, protobuf, checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    result = []
    for path in folder.glob("events.*"):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
            result += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            at += 16 + size
    return result


def test_tensorboard_has_every_step_once_also_after_a_kill(tmp_path):
    pytest.importorskip("tensorboardX")
    with pytest.raises(Killed):
        train(tmp_path, "tensorboard", kill=9)
    train(tmp_path, "tensorboard")
    result = events(tmp_path / "tensorboard")
    assert len(result) == len({(name, step) for name, step, _ in result})
    rows = metrics.read(tmp_path)
    assert {(name, step): pytest.approx(value, rel=1e-5) for name, step, value in result} == expected(tmp_path)
    assert {step for name, step, _ in result if name == "train/loss"} == set(range(1, 13))
    assert {step for name, step, _ in result if name == "validation/kl"} == {row["step"] for row in rows if "validation_kl" in row}


class Wandb(types.ModuleType):
    """The part of wandb that is used: init, and runs that log in ascending steps; online runs go on where the server has them."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = importlib.util.spec_from_loader("wandb", None)
        self.server: dict[str, list] = {}
        self.calls = []

    Settings = types.SimpleNamespace

    def init(self, **options):
        self.calls.append(options)
        rows = self.server.setdefault(options["id"], []) if options["mode"] == "online" else []
        self.run = types.SimpleNamespace(rows=rows, step=max((step for step, _ in rows), default=-1) + 1, finished=[])
        self.run.log = lambda values, step: rows.append((step, values))
        self.run.finish = lambda exit_code=0: self.run.finished.append(exit_code)
        return self.run


@pytest.fixture
def wandb(monkeypatch):
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return module


def logged(rows):
    flat = [((name, step), value) for step, values in rows for name, value in values.items()]
    assert len(flat) == len(dict(flat))
    return dict(flat)


def test_wandb_is_offline_and_one_folder_holds_every_step(tmp_path, wandb):
    with pytest.raises(Killed):
        train(tmp_path, "wandb", kill=9)
    assert wandb.run.finished == [1]
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "offline-run-1").touch()
    train(tmp_path, "wandb")
    assert logged(wandb.run.rows) == expected(tmp_path) and wandb.run.finished == [0]
    assert not (tmp_path / "wandb" / "offline-run-1").exists()
    assert [call["mode"] for call in wandb.calls] == ["offline"] * 2 and wandb.calls[0]["id"] == wandb.calls[1]["id"]
    assert wandb.calls[0]["settings"].console == "off" and wandb.calls[0]["settings"].x_disable_meta
    assert wandb.calls[0]["config"]["beta"] == SETTINGS.beta and "sources" not in wandb.calls[0]["config"]


def test_online_a_run_goes_on_and_a_fresh_one_is_another(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(Killed):
        train(tmp_path, "wandb", kill=9)
    train(tmp_path, "wandb")
    [rows] = wandb.server.values()
    assert [step for step, values in rows if "train/loss" in values] == list(range(1, 13))
    untimed = [{k: v for k, v in result.items() if "second" not in k[0]} for result in (logged(rows), expected(tmp_path))]
    assert untimed[0] == untimed[1]  # steps 7 to 9 were done twice: their times differ
    shutil.rmtree(tmp_path / "checkpoints")
    train(tmp_path, "wandb")
    assert len(wandb.server) == 2 and read_json(tmp_path / "wandb.json")["id"] == wandb.calls[-1]["id"]


def test_steps_go_on_over_rounds_online_offline_and_after_a_kill(tmp_path, wandb, monkeypatch):
    """12 steps a round. What the second round logs at its step 0 are the weights that the first one ended with."""
    for mode in ("offline", "online"):
        monkeypatch.setenv("WANDB_MODE", mode)
        folder = tmp_path / mode
        train(folder, "wandb")
        with pytest.raises(Killed):
            train(folder, "wandb", round_number=2, kill=9)
        train(folder, "wandb", round_number=2)
        rows = wandb.run.rows
        steps = [step for step, values in rows if "train/loss" in values]
        assert steps == list(range(1, 25)), mode
        assert [step for step, _ in rows] == sorted(step for step, _ in rows)
        rates = {step: values["train/learning_rate"] for step, values in rows if "train/loss" in values}
        assert [rates[step] for step in range(13, 25)] == [rates[step] for step in range(1, 13)]  # each round has its own schedule


def test_a_missing_package_ends_the_run_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tensorboard is not installed; .* run: pip install -e '\.\[tensorboard\]'") as error:
        preflight.check(runs.Run(tmp_path, recipe("tensorboard")), "training", False, Reporter(quiet=True))
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
    monitor.check([])  # nothing named, nothing needed


def test_nothing_is_imported_unless_it_is_named(tmp_path):
    before = {name for name in ("tensorboardX", "wandb") if name in sys.modules}
    train(tmp_path)
    assert {name for name in ("tensorboardX", "wandb") if name in sys.modules} == before
    assert not (tmp_path / "tensorboard").exists() and not (tmp_path / "wandb.json").exists()
