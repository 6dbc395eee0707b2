"""Evidence of a large set: one .npz for each shard in a folder beside the record, read as if they were one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.core import npz
from harness.core.errors import SetupError
from harness.core.files import sha256, write_atomic
from harness.core.npz import Array
from harness.core.shapes import Count, FileName, Shape
from harness.records.arrays import IMAGES, INDEX

KEY = "key"  # what a shard's evidence was made of
DIGESTS, HASHES, GREY, SKIPPED, SOURCE = "digests", "content_hashes", "grey", "skipped", "source"
ABOUT = {KEY, DIGESTS, HASHES, GREY, SKIPPED, SOURCE}  # not among a record's arrays
MOST_FLIPPED = 500  # of all shards


def folder_of(record: Path) -> Path:
    """Where a record's shards are kept."""
    return record.with_suffix(".shards")


def write(path: Path, key: str, arrays: Mapping[str, Array]) -> None:
    write_atomic(path, npz.encode({KEY: np.array(key), **arrays}))


def matches(path: Path, key: str) -> bool:
    """Whether a shard's evidence is there, whole, and made of the same things."""
    try:
        return str(_read(path, (KEY,)).get(KEY)) == key
    except SetupError:
        return False


def read(path: Path) -> dict[str, Array]:
    """Raises SetupError: missing or damaged."""
    stored = _read(path)
    stored.pop(KEY, None)
    return stored


def _read(path: Path, only: tuple[str, ...] | None = None) -> dict[str, Array]:
    try:
        with path.open("rb") as file:
            return npz.read(file, str(path), only=only)
    except OSError as error:
        raise SetupError(f"{path}: expected a shard's evidence ({error.strerror}); run harness check again") from error


class ShardFile(Shape):
    """One shard's evidence: its file, in the shards' folder, and what it holds."""

    file: FileName
    sha256: str
    images: Count


@dataclass(frozen=True)
class ShardedArrays(Mapping[str, Array]):
    """A record's arrays: its own, and those of its shards put together when one is asked for.

    files: in order. Arrays that not every shard has are not there.
    """

    own: Mapping[str, Array]
    folder: Path
    files: tuple[ShardFile, ...]
    _names: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Array:
        if name in self.own:
            return self.own[name]
        if name not in self._listed():
            raise KeyError(name)
        parts, start = [], 0
        for one in self.files:
            (part,) = _read(self.folder / one.file, (name,)).values()
            if not part.ndim:
                return np.asarray(part)
            parts.append(part + start if name == INDEX else part)
            start += one.images
        whole = np.concatenate(parts)
        return whole[:MOST_FLIPPED] if name in (INDEX, IMAGES) else whole

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self._listed()

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from self._listed()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def verify(self) -> None:
        """Raise SetupError unless every shard is there, as it was written."""
        for one in self.files:
            path = self.folder / one.file
            try:
                content = path.read_bytes()
            except OSError as error:
                raise SetupError(f"{path}: expected a shard's evidence ({error.strerror}); run again") from error
            if sha256(content) != one.sha256:
                raise SetupError(f"{path}: not the shard that the record was written with; run harness check again")

    def _listed(self) -> list[str]:
        if not self._names:
            common: set[str] | None = None
            for one in self.files:
                with (self.folder / one.file).open("rb") as file:
                    names = set(npz.names(file, one.file))
                common = names if common is None else common & names
            self._names.extend(sorted((common or set()) - ABOUT))
        return self._names
