"""What a worker needs on another machine: Python, NumPy and an interpreter, made once and cached by what is in it.

A Raspberry Pi has Python: it gets the wheels. A phone has none: it gets glibc's loader, CPython and the wheels, from
Debian's and PyPI's packages by their ordinary clients.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from harness.core.errors import SetupError
from harness.core.files import sha256, write_atomic
from harness.run.devices import shell

try:
    import fcntl
except ImportError:  # not a Unix: one process at a time is not ensured
    fcntl = None  # type: ignore[assignment]

RECIPE = 1  # counted up when bundles are made differently
SUITE, PYTHON = "trixie", "3.13"
PACKAGES = (f"python{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", "libstdc++6")
LIBRARIES = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libgcc_s.so.1",
             "libstdc++.so.6", "libz.so.1", "libexpat.so.1", "libffi.so.8")  # fmt: skip
NOT_NEEDED = (  # folders and files of Python, NumPy and LiteRT, by name
    "test", "tests", "__pycache__", "pydoc_data", "idlelib", "ensurepip", "_pyrepl", "turtledemo", "f2py", "typing",
    "include", "aot", "bin", "sitecustomize.py",
)  # fmt: skip
GPUS = {"gpu", "gpu-fp32"}  # accelerators
GPU_LIBRARY = "libLiteRtWebGpuAccelerator.so"  # not needed without the GPU
NOT_NEEDED_SUFFIXES = (".pyi", ".pxd", ".a", ".h")
MODULES_NOT_NEEDED = ("_test", "xx", "_ctypes_test", "_sqlite3", "_ssl", "_hashlib", "_curses", "_dbm", "_gdbm",
                      "readline", "_lzma", "_bz2", "_uuid", "_codecs_", "_tkinter")  # fmt: skip
# The oldest and newest Python for which there are wheels of ai-edge-litert, on armv7l of tflite-runtime.
PYTHONS = {"aarch64": ((3, 10), (3, 14)), "x86_64": ((3, 10), (3, 14)), "armv7l": ((3, 9), (3, 11))}


@dataclass(frozen=True)
class Machine:
    """Names of one architecture, in Debian and in wheels."""

    debian: str
    libraries: str
    loader: str
    wheels: str


MACHINES = {
    "aarch64": Machine("arm64", "aarch64-linux-gnu", "ld-linux-aarch64.so.1", "aarch64"),
    "x86_64": Machine("amd64", "x86_64-linux-gnu", "ld-linux-x86-64.so.2", "x86_64"),
}


@dataclass(frozen=True)
class Bundle:
    """A .tar.gz, its SHA-256, and that of the list of its files' hashes, as sha256sum writes it."""

    archive: Path
    sha256: str
    tree_sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Runtime:
    """How Python is started on a device, in the folder where the bundle is unpacked.

    All paths are relative: to glibc's loader and Python, colons, semicolons and dollars in a path have a meaning.
    """

    bundle: Bundle | None
    argv: tuple[str, ...]
    environment: Mapping[str, str]


def cache() -> Path:
    """Where bundles and virtual devices are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tflite-harness"


def complete(machine: str, accelerators: Collection[str] = ()) -> Runtime:
    """For a machine without Python. Raises SetupError: another architecture, or what must be installed here."""
    if machine not in MACHINES:
        raise SetupError(
            f"a device of {machine}: runtimes are made for {' and '.join(MACHINES)} only; use another device"
        )
    names = MACHINES[machine]
    packages = _packages(machine, accelerators)
    fill = partial(_fill_complete, names=names, packages=packages)
    bundle = _cached(f"complete-{machine}", packages, fill, accelerators)
    return Runtime(
        bundle,
        (f"lib/{names.loader}", "--library-path", "lib", "./python3"),
        {"PYTHONHOME": "python", "PYTHONPATH": "site"},
    )


def wheels(machine: str, python: str, program: str, accelerators: Collection[str] = ()) -> Runtime:
    """For a machine in PYTHONS that has Python. python: as 3.13; program: its path there. Raises SetupError."""
    packages = _packages(machine, accelerators)

    def fill(root: Path) -> None:
        _install(packages, machine, python, root / "site")

    bundle = _cached(f"wheels-{machine}-{python}", packages, fill, accelerators)
    return Runtime(bundle, (program,), {"PYTHONPATH": "site"})


def installed(program: str) -> Runtime:
    """For a Python there that has all it needs."""
    return Runtime(None, (program,), {})


def _packages(machine: str, accelerators: Collection[str]) -> tuple[str, ...]:
    if machine == "armv7l":
        return ("tflite-runtime==2.14.0",)  # the last one; NumPy is the device's own
    packages = (f"ai-edge-litert=={_version('ai-edge-litert', '2.3.0')}", "numpy>=2,<3")
    return (*packages, "ml-dtypes") if {*accelerators} - {"cpu"} else packages  # LiteRT's CompiledModel imports it


def _version(package: str, default: str) -> str:
    """The one installed here, so that both sides run the same code."""
    try:
        return version(package)
    except PackageNotFoundError:
        return default


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process and thread at a time, for making what a cache lacks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _cached(
    name: str, packages: tuple[str, ...], fill: Callable[[Path], None], accelerators: Collection[str]
) -> Bundle:
    """The bundle of that name and content, from the cache or made for it."""
    not_needed = NOT_NEEDED if GPUS & {*accelerators} else (*NOT_NEEDED, GPU_LIBRARY)
    key = hashlib.sha256(repr((RECIPE, SUITE, PACKAGES, packages, not_needed)).encode()).hexdigest()[:12]
    folder = cache() / "runtime" / f"{name}-{key}"
    about = folder / "bundle.json"
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not about.exists():
            with tempfile.TemporaryDirectory(prefix="harness-runtime-") as work:
                root = Path(work) / "root"
                root.mkdir()
                fill(root)
                _trim(root, not_needed)
                content, tree = _pack(root)
            write_atomic(folder / "bundle.tar.gz", content)
            bundle = Bundle(folder / "bundle.tar.gz", sha256(content), tree, len(content))
            write_atomic(about, json.dumps(asdict(bundle), default=str, indent=1).encode())
        stored = json.loads(about.read_text())
    return Bundle(folder / "bundle.tar.gz", stored["sha256"], stored["tree_sha256"], stored["size_bytes"])


def _fill_complete(root: Path, names: Machine, packages: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(prefix="harness-debian-") as debian:
        system = Path(debian) / "root"
        extract(system, names.debian, PACKAGES)
        library = root / "lib"
        library.mkdir()
        for name in (*LIBRARIES, names.loader):
            shutil.copy(system / "usr" / "lib" / names.libraries / name, library / name)
        shutil.copy(system / "usr" / "bin" / f"python{PYTHON}", root / "python3")
        library = Path("lib") / f"python{PYTHON}"
        shutil.copytree(system / "usr" / library, root / "python" / library, ignore_dangling_symlinks=True)
    _install(packages, names.wheels, PYTHON, root / "site")


def extract(root: Path, architecture: str, packages: tuple[str, ...]) -> None:
    """Unpack Debian packages of an architecture and what they need; nothing of them is run. Raises SetupError."""
    if not shutil.which("mmdebstrap"):
        raise SetupError(
            "mmdebstrap, which fetches Debian's packages for a device without Python, is not installed: apt-get "
            "install mmdebstrap debian-archive-keyring; on another system run the harness in a Debian container"
        )
    command = ["mmdebstrap", "--quiet", "--variant=extract", f"--architectures={architecture}",
               f"--include={','.join(packages)}", SUITE, str(root)]  # fmt: skip
    done = shell.local(command, 900)
    if done is None or done.code:
        reason = (shell.plain(done.error) or "no reason given") if done else "not done within 15 minutes"
        raise SetupError(
            f"mmdebstrap cannot get {', '.join(packages)} for {architecture} ({reason}); check the network"
        )


def _install(packages: tuple[str, ...], machine: str, python: str, target: Path) -> None:
    """Unpack wheels for another machine. Raises SetupError."""
    common = ["install", "--quiet", "--target", str(target), "--no-deps", "--python-version", python]
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv and machine in MACHINES:
        command = [uv, "pip", *common, "--only-binary", ":all:", "--python-platform", f"{machine}-manylinux_2_28"]
    else:
        tags = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
        platforms = [word for tag in tags for word in ("--platform", f"{tag}_{machine}")]
        pip = [sys.executable, "-m", "pip"] if find_spec("pip") or not uv else [uv, "tool", "run", "pip"]
        command = [*pip, *common, "--only-binary=:all:", "--no-compile", *platforms]
    done = shell.local([*command, *packages], 900)
    if done is None or done.code:
        reason = " ".join(done.error.split())[-200:] if done else "not done within 15 minutes"
        raise SetupError(
            f"no wheels of {', '.join(packages)} for {machine}, Python {python} ({reason}); install uv or pip"
        )


def _trim(root: Path, not_needed: Collection[str]) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        module = path.parent.name == "lib-dynload" and path.name.startswith(MODULES_NOT_NEEDED)
        if path.name in not_needed or path.name.endswith(NOT_NEEDED_SUFFIXES) or module:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _pack(root: Path) -> tuple[bytes, str]:
    """A .tar.gz that is the same for the same files, and the hash of its files' hashes."""
    packed, lines = io.BytesIO(), []
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for path, name in _files(root):
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if os.access(path, os.X_OK) else 0o644
            archive.addfile(entry, io.BytesIO(content))
            lines.append(f"{sha256(content)}  {name}\n")
    return packed.getvalue(), sha256("".join(lines).encode())


def _files(root: Path) -> Iterator[tuple[Path, str]]:
    """Files and their names, as `find . -type f | LC_ALL=C sort` lists them; links become the files they point to."""
    named = {f"./{path.relative_to(root)}": path for path in root.rglob("*") if path.is_file()}
    for name in sorted(named, key=os.fsencode):
        if any(letter.isspace() or letter in "'\"\\" for letter in name):
            continue  # no module has such a name
        yield named[name], name
