"""Large sets: labelled images in shards, still encoded, so that no more than a few shards are in memory at a time.

Read are folders, as harness.images.dataset reads them and in the same order, and Parquet: a file, or a folder of
files in the order of their names, with the columns `image` (an encoded image's bytes, or a struct that holds them as
`bytes`, as Hugging Face's datasets have it), `label` (a class's number) and, where there is one, `name`. Parquet needs
pyarrow.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar

import numpy as np

from harness.core import extras
from harness.core.errors import SetupError
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.images.spec import ModelSpec

SHARD_BYTES = 24_000_000  # of its images as float input
MOST_IMAGES = 8192  # in a shard
PARQUET = ".parquet"
BATCH = 256  # rows decoded at a time
BUFFER_BYTES = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Some images as they are stored. number: of the shard, from 0. labels: a class each."""

    number: int
    names: tuple[str, ...]
    labels: tuple[int, ...]
    contents: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sha256(self) -> str:
        """Over names, labels and files: an interrupted run goes on where these are the same."""
        digest = hashlib.sha256(repr((self.names, self.labels)).encode())
        for content in self.contents:
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()


class Source(Protocol):
    """A set of images. bad: entries that say no valid class, known from the start."""

    path: Path
    images: int
    bad: list[str]

    def entries(self) -> Iterator[tuple[str, int, bytes]]:
        """Name, label and content of every image, in order. Raises SetupError where one cannot be read."""


def usual_size(spec: ModelSpec) -> int:
    """How many images make a shard."""
    height, width, channels = spec.shape
    return max(64, min(MOST_IMAGES, SHARD_BYTES // (4 * height * width * channels)))


def open_source(path: Path, spec: ModelSpec) -> Source:
    """A folder or Parquet. Raises SetupError: nothing there, no images, no pyarrow, other columns, another class."""
    if path.suffix == PARQUET or (path.is_dir() and any(_visible(path, f"*{PARQUET}"))):
        return Parquet(path, spec)
    return Folder(path, spec)


def shards(source: Source, size: int) -> Iterator[Shard]:
    """All images, `size` in each shard."""
    entries = source.entries()
    number = 0
    while part := list(islice(entries, size)):
        names, labels, contents = zip(*part, strict=True)
        yield Shard(number, names, labels, contents)
        number += 1


def decode(shard: Shard, spec: ModelSpec) -> Dataset:
    """The images of a shard that can be used; the others are listed in `skipped`."""
    good: list[tuple[Any, int, str]] = []
    bad: list[str] = []
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(partial(dataset.try_read, spec=spec), shard.contents, chunksize=64)
        for name, label, outcome in zip(shard.names, shard.labels, decoded, strict=True):
            if isinstance(outcome, str):
                bad.append(f"{name} ({outcome})")
            else:
                good.append((outcome, label, name))
    images = np.empty((len(good), *spec.shape), np.uint8)
    for i, (image, _, _) in enumerate(good):
        images[i] = image
    return dataset.build(images, [label for _, label, _ in good], [name for _, _, name in good], spec, skipped=bad)


class Folder:
    """A folder in either layout of harness.images.dataset. Its listing is sorted on disk, not in memory."""

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        if not path.is_dir():
            raise SetupError(
                f"{path}: expected a folder of images or a {PARQUET} file; there is none (make one, or name another "
                "with --data)"
            )
        self.path = path
        self.bad: list[str] = []
        self._index = sqlite3.connect("")  # a temporary file, gone when closed
        self._index.execute("CREATE TABLE files (key BLOB PRIMARY KEY, label INTEGER) WITHOUT ROWID")
        self._index.executemany("INSERT INTO files VALUES (?, ?)", self._list(spec))
        (self.images,) = self._index.execute("SELECT count(*) FROM files").fetchone()
        if not self.images and not self.bad:
            raise SetupError(f"{path}: {dataset.EXPECTED}, or {PARQUET} files; there is none")

    def entries(self) -> Iterator[tuple[str, int, bytes]]:
        for key, label in self._index.execute("SELECT key, label FROM files ORDER BY key"):
            name = os.fsdecode(key.replace(b"\0", b"/"))
            try:
                yield name, label, (self.path / name).read_bytes()
            except OSError as error:
                raise SetupError(f"{self.path / name}: cannot be read ({error.strerror}); run again") from error

    def _list(self, spec: ModelSpec) -> Iterator[tuple[bytes, int]]:
        """Keys sort as paths do, part by part."""
        with os.scandir(self.path) as found:
            for entry in found:
                if entry.name.startswith("."):
                    continue
                label = dataset.label_of(entry.name, entry.is_dir(), spec)
                if isinstance(label, str):
                    inner = sum(1 for _ in _visible(Path(entry.path), "**/*")) if entry.is_dir() else 0
                    what = f"{entry.name}/ ({inner} files, {label})" if entry.is_dir() else f"{entry.name} ({label})"
                    self.bad.append(what)
                    continue
                inside = _visible(Path(entry.path), "**/*") if entry.is_dir() else (Path(entry.path),)
                for file in inside:
                    yield os.fsencode(file.relative_to(self.path)).replace(b"/", b"\0"), label


class Parquet:
    """One Parquet file, or a folder of them; read a few rows at a time."""

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        self.path = path
        self.bad: list[str] = []
        self._classes = len(spec.class_names)
        self._files = sorted(_visible(path, f"*{PARQUET}")) if path.is_dir() else [path]
        self.images = 0
        for file in self._files:
            with _opened(file) as table:
                self._check(file, table.schema_arrow)
                self.images += table.metadata.num_rows
        if not self.images:
            raise SetupError(f"{path}: no rows; expected images")

    def entries(self) -> Iterator[tuple[str, int, bytes]]:
        seen = sqlite3.connect("")
        seen.execute("CREATE TABLE names (name TEXT PRIMARY KEY) WITHOUT ROWID")
        for file in self._files:
            row = 0
            for table in self._batches(file):
                for entry in table.to_pylist():
                    where = f"{file}, row {row} (counted from 0)"
                    name, label, content = self._entry(entry, f"{file.stem}/{row}", where)
                    if not seen.execute("INSERT OR IGNORE INTO names VALUES (?)", (name,)).rowcount:
                        raise SetupError(f"{where}: a second image is named {name!r}; expected names that differ")
                    yield name, label, content
                    row += 1

    def _batches(self, file: Path) -> Iterator[Any]:
        import pyarrow

        try:
            with _opened(file) as table:
                columns = [name for name in ("image", "label", "name") if name in table.schema_arrow.names]
                for group in range(table.num_row_groups):  # one reader for all of them holds more and more
                    yield from table.iter_batches(batch_size=BATCH, row_groups=[group], columns=columns)
        except (pyarrow.ArrowException, OSError) as error:
            raise SetupError(f"{file}: cannot be read to its end ({_first_line(error)}); write it again") from error

    def _check(self, file: Path, schema: Any) -> None:
        from pyarrow import types

        for name, what in (("image", "encoded images, as bytes"), ("label", "a class's number")):
            if name not in schema.names:
                raise SetupError(f"{file}: has columns {', '.join(schema.names)}; expected {name}: {what}")
        if not types.is_integer(schema.field("label").type):
            raise SetupError(f"{file}: label is {schema.field('label').type}; expected integers: a class's number")
        image = schema.field("image").type
        if types.is_struct(image) and image.get_field_index("bytes") >= 0:
            image = image.field("bytes").type
        if not (types.is_binary(image) or types.is_large_binary(image)):
            raise SetupError(f"{file}: image is {schema.field('image').type}; expected encoded images, as bytes")

    def _entry(self, entry: dict[str, Any], usual_name: str, where: str) -> tuple[str, int, bytes]:
        label, image = entry["label"], entry["image"]
        content = image["bytes"] if isinstance(image, dict) else image
        if content is None or label is None:
            raise SetupError(f"{where}: no {'label' if label is None else 'image'}; expected one in every row")
        if not 0 <= label < self._classes:
            raise SetupError(f"{where}: says class {label}, the classes are 0-{self._classes - 1}")
        return str(entry.get("name") or usual_name), label, content


def _opened(file: Path) -> Any:
    """A pyarrow.parquet.ParquetFile."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise extras.missing("parquet", f"{file}: Parquet needs pyarrow") from error
    try:
        return ParquetFile(file, buffer_size=BUFFER_BYTES)  # mapped files would count as memory
    except (pyarrow.ArrowException, OSError) as error:
        raise SetupError(f"{file}: expected a whole Parquet file ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _visible(folder: Path, pattern: str) -> Iterator[Path]:
    return (file for file in folder.glob(pattern) if file.is_file() and not PurePosixPath(file).name.startswith("."))
