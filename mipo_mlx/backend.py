"""The only module that knows Metal, CUDA or CPU: a fast BLAS, the device, the compute dtype, memory.

`start()` runs before any code imports `mlx.core`. MLX's Linux CPU wheel links the reference BLAS. An OpenBLAS that is loaded
globally before takes its place, and matrix products are 30 to 50 times faster.
"""

import ctypes
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from . import __version__

BLAS_PACKAGE = "sudo apt-get install libopenblas0-pthread"
# mlx-cpu and mlx-cuda-12 own the same file, and pip may write the CPU's last: the second command writes CUDA's last.
CUDA_PACKAGE = """pip install -e '.[cuda]' && pip install --force-reinstall --no-deps "$(pip freeze | grep mlx-cuda)\""""
PATIENCE = "AGX_RELAX_CDM_CTXSTORE_TIMEOUT"  # not enough on every chip, so `errors.WATCHDOG` is needed too
OLDEST_ON_METAL = "0.32.3"  # of MLX: pyproject.toml names the faults of older kernels
BLAS_NAMES = ("libopenblas.so.0", "libopenblasp.so.0")  # Debian's and Fedora's names
_blas: str | None = None


class UnknownDevice(Exception):
    """As `errors.UserError`, which this module must not import: `errors.one_line` reads the exit code."""

    exit_code = 2


def start() -> None:
    """Load a fast BLAS where MLX has none of its own (Linux); once a process, before `mlx.core` is imported.

    On macOS, ask Metal's driver for patience: it ends long work while the display is on, and reads this setting once.
    With MIPO_DEVICE=cpu in the environment, no GPU is used. Raises UnknownDevice for another one.
    """
    _before_mlx()
    wanted = os.environ.get("MIPO_DEVICE")
    if wanted == "cpu":
        import mlx.core as mx

        mx.set_default_device(mx.cpu)
    elif wanted:
        raise UnknownDevice(f"MIPO_DEVICE={wanted}: expected cpu, or no such variable to compute on the GPU where there is one")


def _before_mlx() -> None:
    global _blas
    if platform.system() == "Darwin":
        os.environ.setdefault(PATIENCE, "1")
    if "mlx.core" not in sys.modules:
        _private_kernels()
    if platform.system() != "Linux" or _blas or "mlx.core" in sys.modules:
        return
    unpacked = Path(sys.prefix, "openblas")  # `make` puts it there without root, beside the libraries that it needs
    if unpacked.exists():
        for library in ("libquadmath.so.0", "libgfortran.so.5"):
            for path in unpacked.rglob(library):
                _load(str(path))
    for name in [*map(str, sorted(unpacked.rglob("libopenblas.so.0"))), *BLAS_NAMES]:
        if _load(name):
            _blas = name
            return


def _private_kernels() -> None:
    """Let MLX compile its kernels into a folder of this user's alone.

    MLX loads libraries that it finds in a folder with a fixed name in the temporary folder, where any local user may put one.
    """
    tempfile.gettempdir()  # Python's own temporary files stay where they were
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mipo-mlx" / "kernels"
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        cache.chmod(0o700)  # fails for a folder of another user
        os.environ["TMPDIR"] = str(cache)
    except OSError:  # a home that cannot be written: a new folder for this process
        os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="mipo-mlx-")


def has_fast_blas() -> bool:
    """Whether `start` loaded one (Linux)."""
    return _blas is not None


def versions() -> dict[str, str]:
    """Versions of everything that can change a result."""
    own = {"mipo-mlx": __version__, "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    return own | {name: version(name) for name in ("mlx", "mlx-lm", "numpy", "transformers", "tokenizers", "gguf")}


def too_old_for_metal(installed: str) -> bool:
    """Whether this version of MLX has kernels on a Mac's GPU that are known to be wrong."""
    return _numbers(installed) < _numbers(OLDEST_ON_METAL)


def _numbers(version_text: str) -> tuple[int, ...]:
    """0.32.3.dev1 -> (0, 32, 3)."""
    return tuple(int(part) for part in version_text.split(".")[:3] if part.isdecimal())


def _load(library: str) -> bool:
    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Device:
    kind: str  # "metal", "cuda" or "cpu"
    name: str
    memory: int  # bytes that the device can use: on Metal, what the system lets one process wire down
    blas: str  # the library of matrix products on the CPU
    whole: int = 0  # bytes of the memory that all programs share; 0: `memory` itself
    others: int = 0  # bytes of it that other programs hold now

    @property
    def budget(self) -> int:
        """Bytes that a plan may count on: the system keeps a fifth.

        On a GPU a fifth of the whole memory also stays free beside what other programs hold now. But half of the device's share
        may always be counted on, since the system pages out programs that rest. The CPU does not count them: a micro-batch would
        depend on them, and with it the last bits of a result.
        """
        share = int(0.8 * self.memory)
        return share if self.kind == "cpu" else max(share // 2, min(share, self.room))

    @property
    def room(self) -> int:
        """Bytes that are left beside other programs now, where a fifth stays free."""
        return int(0.8 * (self.whole or self.memory)) - self.others

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}, {self.memory / 2**30:.0f} GiB)"


def on_cpu() -> bool:
    """Whether MLX computes on the CPU. All that does something else on a GPU asks here."""
    import mlx.core as mx

    return bool(mx.default_device().type == mx.cpu)


def device() -> Device:
    import mlx.core as mx

    whole = machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if on_cpu():
        # In a container its control group's limit counts, not the machine's memory.
        limits = (Path(p) for p in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"))
        texts = (p.read_text().strip() for p in limits if p.exists())
        machine = min([machine, *(int(text) for text in texts if text.isdigit())])
        others = _held_by_others() if machine == whole else 0  # what programs outside of a container hold is no part of its limit
        blas = "Accelerate" if platform.system() == "Darwin" else _blas or "reference BLAS (slow)"
        return Device("cpu", platform.processor() or platform.machine(), machine, blas, machine, others)
    info = mx.device_info()
    kind = "metal" if mx.metal.is_available() else "cuda"
    # Metal: the system lets one process wire down about two thirds to three quarters of the unified memory.
    memory = int(info.get("max_recommended_working_set_size") or info.get("total_memory") or info.get("memory_size") or machine)
    whole = int(info.get("memory_size") or machine) if kind == "metal" else memory
    free = int(info.get("free_memory") or whole) + mx.get_active_memory() + mx.get_cache_memory()  # an NVIDIA GPU's
    others = _held_by_others() if kind == "metal" else max(0, whole - free)
    return Device(kind, str(info.get("device_name", kind)), memory, "device", whole, others)


def _held_by_others() -> int:
    """Bytes of this machine's memory that other programs hold now and do not give back; 0 where nobody says."""
    import mlx.core as mx

    try:
        if platform.system() == "Darwin":
            text = subprocess.run(["/usr/bin/vm_stat"], capture_output=True, text=True, timeout=5, check=True).stdout
            return max(0, held_on_macos(text) - mx.get_active_memory() - mx.get_cache_memory())
        kilobytes = dict(re.findall(r"^(\w+): +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE))
        own = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return max(0, 1024 * (int(kilobytes["MemTotal"]) - int(kilobytes["MemAvailable"])) - own)
    except (OSError, ValueError, LookupError, subprocess.SubprocessError):
        return 0


def held_on_macos(text: str) -> int:
    """Bytes that all programs hold, from what `vm_stat` prints: Activity Monitor's "Memory Used".

    These are the pages of programs that may not be purged, wired pages, and pages in the compressor.
    """
    pages = {name: int(count) for name, count in re.findall(r'^"?([\w -]+)"?: +(\d+)\.', text, re.MULTILINE)}
    size = int(re.findall(r"page size of (\d+) bytes", text)[0])
    kept = pages["Anonymous pages"] - pages["Pages purgeable"]
    return size * (kept + pages["Pages wired down"] + pages["Pages occupied by compressor"])


def peak_memory() -> int:
    """The most bytes that MLX's allocator held since `reset_peak_memory`."""
    import mlx.core as mx

    return int(mx.get_peak_memory())


def reset_peak_memory() -> None:
    import mlx.core as mx

    mx.reset_peak_memory()


CACHE = 256 << 20  # bytes of freed memory that MLX may always keep


def cache_bytes(most: int) -> int:
    """Bytes of keys and values to keep for later: `most`, and on a small machine an eighth of the budget."""
    return min(most, device().budget // 8)


def set_memory_limits(reused: int = 0, peak: int = 0) -> None:
    """What MLX may keep and take, for steps of `peak` bytes, of which `reused` are freed and taken again.

    `models/load.py` calls this for every stage. Training calls it again with what one step needs. Freed memory is kept up to
    `reused`, since every new length leaves buffers of its own size, but not beyond the budget, and CACHE always. On a GPU the
    budget bounds all of MLX's memory: freed memory goes back before the system runs short. On Metal, memory in use is not paged
    out, as in mlx-lm's trainer.
    """
    import mlx.core as mx

    budget = device().budget
    mx.set_cache_limit(max(CACHE, min(reused, budget - peak)))
    if not on_cpu():
        mx.set_memory_limit(budget)
    if mx.metal.is_available():
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))


def sgemm_rate(size: int = 1024) -> float:
    """The measured speed of float32 matrix products on the default device, in FLOP/s (best of three)."""
    import mlx.core as mx

    a, b = mx.random.normal((size, size)), mx.random.normal((size, size))
    mx.eval(a, b, a @ b)
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        mx.eval(a @ b)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def thread_rates() -> dict[int, float]:
    """The measured speed of matrix products, FLOP/s, with one thread and with all threads of the BLAS that `start` loaded.

    Nothing else is measured: {} without such a library, or where it has one thread. The number of threads changes the last bits of
    results, so nothing here changes it for a run.
    """
    library = ctypes.CDLL(_blas) if _blas else None
    threads = library.openblas_get_num_threads() if library else 1
    if library is None or threads < 2:
        return {}
    try:
        library.openblas_set_num_threads(1)
        one = sgemm_rate()
    finally:
        library.openblas_set_num_threads(threads)
    return {1: one, threads: sgemm_rate()}
