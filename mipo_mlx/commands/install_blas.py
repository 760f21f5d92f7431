"""`python -m mipo_mlx.commands.install_blas`: see to a fast BLAS on Linux; MLX's CPU wheel has only the reference one.

Nothing to do where one is there, or where MLX has a GPU. As root the distribution's package is installed; otherwise it is
unpacked into the virtual environment; where neither can be done, one line says what to install.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .. import backend

PACKAGES = ("libopenblas0-pthread", "libgfortran5", "libquadmath0")


def _quiet(*command: str, cwd: str | None = None) -> bool:
    return subprocess.run(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def _install() -> bool:
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    install = ("apt-get", "-o", "DPkg::Lock::Timeout=120", "install", "-y", "-q", PACKAGES[0])  # another one may be at work
    return _quiet(*install) or (_quiet("apt-get", "update", "-q") and _quiet(*install))


def _unpack(folder: Path) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        if not _quiet("apt-get", "download", *PACKAGES, cwd=scratch):
            return False
        return all(_quiet("dpkg", "-x", str(deb), str(folder)) for deb in Path(scratch).glob("*.deb"))


def main() -> None:
    backend.start()
    if platform.system() != "Linux" or backend.has_fast_blas():
        return
    import mlx.core as mx

    if mx.default_device().type == mx.gpu:
        return
    done = bool(shutil.which("apt-get")) and (_install() if os.geteuid() == 0 else _unpack(Path(sys.prefix, "openblas")))
    if done:
        print("installed OpenBLAS: MLX multiplies matrices 30 times faster with it")
    else:
        print(f"matrix products will be 30 times slower than they could be; mend it with: {backend.BLAS_PACKAGE}")


if __name__ == "__main__":
    main()
