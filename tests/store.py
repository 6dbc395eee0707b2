"""Files that tests share but are slow to make: made once, for all processes of pytest-xdist and for later runs.

Each is kept in .pytest_cache under the hash of everything that it is made from: files, this project's sources, package
versions, the processor and what limits its instructions. Tests of the making itself make their own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
STORE = ROOT / ".pytest_cache" / "made"
MODEL_SOURCES = (ROOT / "models" / "resnet.py", ROOT / "models" / "config.py")
CONVERTER_SOURCES = (
    ROOT / "converters",
    ROOT / "harness" / "artifacts",
    ROOT / "harness" / "core",
    ROOT / "harness" / "images",
    ROOT / "harness" / "run" / "runtimes.py",
    ROOT / "harness" / "run" / "worker.py",
)
PACKAGES = ("ai-edge-litert", "keras", "litert-quantizer", "numpy", "pillow", "tensorflow-cpu", "tensorflow")
INSTRUCTIONS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS")
DAY_S = 86_400


def obtain(name: str, parts: Iterable[str | Path], make: Callable[[Path], object]) -> Path:
    """The folder that `make` filled, now or before. Read-only: copy what a test changes.

    parts: all that the content depends on besides the environment; of a path, its files count.
    """
    digest = hashlib.sha256(_environment().encode())
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else _content(part))
    folder = STORE / f"{name}-{digest.hexdigest()[:16]}"
    STORE.mkdir(parents=True, exist_ok=True)
    with (STORE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _remove_unused(name)
            unfinished = Path(tempfile.mkdtemp(dir=STORE, prefix=f".{name}-"))
            try:
                make(unfinished)
                unfinished.replace(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        os.utime(folder)
    return folder


def _environment() -> str:
    versions = []
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions.append(f"{package} {metadata.version(package)}")
    limits = [f"{variable}={os.environ.get(variable)}" for variable in INSTRUCTIONS]
    return "\n".join([platform.python_version(), _processor(), *versions, *limits])


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _content(path: Path) -> bytes:
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(file.relative_to(path).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()


def _remove_unused(name: str) -> None:
    """Of the same name, what no run used for a day."""
    for folder in STORE.glob(f"{name}-*"):
        if time.time() - folder.stat().st_mtime > DAY_S:
            shutil.rmtree(folder)
