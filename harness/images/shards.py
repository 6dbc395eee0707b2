"""Sets of images, still encoded, read one by one.

A set is Parquet (harness.images.parquet) or a folder in either of two layouts, which may be mixed:
`<folder>/<class>_<n>.<ext>` and `<folder>/<class>/<any path>`, a class written as its name or its number. In an
unlabelled set names say nothing, and every label is UNLABELLED. Hidden files and folders, those that operating systems
leave behind, and the folder's tables (harness.images.tables) are left out.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Protocol

from harness.core.errors import SetupError
from harness.images import parquet, tables, tensors
from harness.images.parquet import Parquet
from harness.images.spec import UNLABELLED, ModelSpec

SHARD_BYTES = 24_000_000  # of its images as float input
MAX_IMAGES = 8192  # in a shard
EXPECTED = f"expected images named <class>_<n>.jpg or <class>/<name>.jpg, or {parquet.SUFFIX} files"
_NO_CLASS = "name is not <class>_<n>.<ext>"
_FLAT_NAME = re.compile(r"(.+)_(\d+)\.[A-Za-z0-9]+")
# Besides hidden files; by Windows, macOS, Synology and Linux.
_LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "__macosx", "icon\r", "@eadir", "lost+found"}


Entry = tuple[str, int, bytes]  # an image's name, label and content as it is stored


class Source(Protocol):
    """A set of images. bad: entries that cannot be used, as far as known from the start; left_out: hidden files."""

    path: Path
    images: int
    bad: list[str]
    left_out: tuple[str, ...]

    def names(self) -> Iterator[str]:
        """Of every image, in order."""

    def entries(self) -> Iterator[Entry]:
        """Every image, in order. Raises SetupError where one cannot be read."""


def usual_size(spec: ModelSpec) -> int:
    """How many images make a shard."""
    numbers = sum(output.size for output in spec.outputs)
    return max(64, min(MAX_IMAGES, SHARD_BYTES // (4 * (prod(spec.shape) + numbers))))


def open_source(path: Path, spec: ModelSpec, *, labelled: bool = True) -> Source:
    """A folder or Parquet; for a model that gives no classes always unlabelled.

    Raises SetupError: nothing there, no images, no pyarrow, other columns, another class.
    """
    labelled = labelled and bool(spec.class_names)
    if spec.input or path.suffix == tensors.SUFFIX:
        return tensors.Tensors(path, spec, labelled=labelled)
    return (Parquet if parquet.files(path) else Folder)(path, spec, labelled=labelled)


class Subset:
    """Some of a set's images, at even distances in its order."""

    def __init__(self, source: Source, images: int) -> None:
        self._source = source
        self.images = min(images, source.images)
        self._chosen = {number * source.images // self.images for number in range(self.images)}
        self.path, self.bad, self.left_out = source.path, source.bad, source.left_out

    def names(self) -> Iterator[str]:
        return (name for number, name in enumerate(self._source.names()) if number in self._chosen)

    def entries(self) -> Iterator[Entry]:
        return (entry for number, entry in enumerate(self._source.entries()) if number in self._chosen)


def cannot_be_used(path: Path, bad: list[str]) -> str:
    """In one line, the files that cannot be used, and what to do."""
    shown = ", ".join(bad[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    count = f"{len(bad)} file{'s' if len(bad) > 1 else ''}"
    unnamed = "; if nobody knows their classes, --unlabelled" if all(_NO_CLASS in reason for reason in bad) else ""
    return f"{path}: {count}: {shown}{more} cannot be used; mend or remove them, or pass --skip-bad{unnamed}"


class Folder:
    """A folder in either layout, sorted by path. Only the names of its files are held in memory."""

    def __init__(self, path: Path, spec: ModelSpec, *, labelled: bool = True) -> None:
        if not path.is_dir():
            raise SetupError(
                f"{path}: expected a folder of images or a {parquet.SUFFIX} file; there is none (make one, or name "
                "another with --data)"
            )
        self.path = path
        self.bad: list[str] = []
        self._spec, self._labelled = spec, labelled
        self._hidden: Counter[str] = Counter()
        self._keys = sorted(self._list())
        self.bad.sort()
        self.images = len(self._keys)
        self.left_out = tuple(
            f"{name} ({count} times)" if count > 1 else name for name, count in self._hidden.most_common()
        )
        if not self.images and not self.bad:
            raise SetupError(f"{path}: {EXPECTED if labelled else 'expected images'}; there is none")

    def names(self) -> Iterator[str]:
        return (os.fsdecode(key.replace(b"\0", b"/")) for key in self._keys)

    def entries(self) -> Iterator[Entry]:
        for name, key in zip(self.names(), self._keys, strict=True):
            label = self._label(name.partition("/")[0], b"\0" in key)
            assert isinstance(label, int)
            try:
                yield name, label, (self.path / name).read_bytes()
            except OSError as error:
                raise SetupError(f"{self.path / name}: cannot be read ({error.strerror}); run again") from error

    def _list(self) -> Iterator[bytes]:
        """A key for each image. Keys sort as paths do: part by part."""
        for entry in self._visible(self.path):
            name, is_folder = entry.name, entry.is_dir()
            if tables.is_table(name) and not is_folder:
                self._hidden[name] += 1
                continue
            label = self._label(name, is_folder)
            files = self._files(entry) if is_folder else iter([entry])
            if isinstance(label, str):
                self.bad.append(
                    f"{name}/ ({sum(1 for _ in files)} files, {label})" if is_folder else f"{name} ({label})"
                )
                continue
            for file in files:
                path = os.path.relpath(file.path, self.path)
                if file.is_file():
                    yield os.fsencode(path).replace(b"/", b"\0")
                else:
                    self.bad.append(f"{path} (not a regular file, or a broken link)")

    def _label(self, name: str, is_folder: bool) -> int | str:
        """As `_label` does."""
        return _label(name, is_folder, self._spec) if self._labelled else UNLABELLED

    def _files(self, folder: os.DirEntry[str]) -> Iterator[os.DirEntry[str]]:
        for entry in self._visible(folder):
            if entry.is_dir(follow_symlinks=False):
                yield from self._files(entry)
            else:
                yield entry

    def _visible(self, folder: os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.casefold() in _LITTER:
                    self._hidden[entry.name + "/" * entry.is_dir()] += 1
                else:
                    yield entry


def _label(name: str, is_folder: bool, spec: ModelSpec) -> int | str:
    """The class that a folder's or a file's name says, or in a few words why it says none."""
    match = None if is_folder else _FLAT_NAME.fullmatch(name)
    if not is_folder and not match:
        return _NO_CLASS
    text = match[1] if match else name
    label = spec.label(text)
    return f"{'folder ' * is_folder}name says class {text}; {spec.nearest(text)}" if label is None else label
