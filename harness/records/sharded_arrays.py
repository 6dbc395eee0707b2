"""The arrays of a large set: one .npz per shard in a folder beside the record, read as if they were one file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.core import npz
from harness.core.errors import SetupError
from harness.core.files import file_sha256, write_atomic
from harness.core.npz import Array
from harness.core.shapes import Count, FileName, Shape
from harness.judge.predictions import MAX_FLIPPED_KEPT
from harness.records.arrays import IMAGES, INDEX

KEY = "key"  # a hash of all that a shard's arrays depend on
DIGESTS, HASHES, GREY, SKIPPED, SOURCE = "digests", "content_hashes", "grey", "skipped", "source"
ABOUT = {KEY, DIGESTS, HASHES, GREY, SKIPPED, SOURCE}  # not among a record's arrays


def folder_of(record: Path) -> Path:
    """Where a record's shards are kept."""
    return record.with_suffix(".shards")


def write(path: Path, key: str, arrays: Mapping[str, Array]) -> None:
    write_atomic(path, npz.encode({KEY: np.array(key), **arrays}))


def matches(path: Path, key: str) -> bool:
    """Whether a shard's file is there, undamaged, and has this key."""
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
        raise SetupError(f"{path}: expected a shard's arrays ({error.strerror}); run harness check again") from error


class ShardFile(Shape):
    """A shard's file in the shards' folder, and how many images it is about."""

    file: FileName
    sha256: str
    images: Count


@dataclass(frozen=True)
class ShardedArrays(Mapping[str, Array]):
    """A record's arrays: its own, and those that all of its shards have, concatenated when one is asked for.

    files: in the order of the images. Raises SetupError if a shard is missing or damaged.
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
        for shard in self.files:
            (part,) = _read(self.folder / shard.file, (name,)).values()
            if not part.ndim:
                return part
            parts.append(part + start if name == INDEX else part)
            start += shard.images
        try:
            whole = np.concatenate(parts)
        except ValueError as error:
            raise SetupError(f"{self.folder}: {name} differs between shards ({error})") from error
        return whole[:MAX_FLIPPED_KEPT] if name in (INDEX, IMAGES) else whole

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self._listed()

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from self._listed()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def verify(self) -> None:
        """Raise SetupError unless every shard is as it was written."""
        for shard in self.files:
            path = self.folder / shard.file
            if file_sha256(path, "a shard's arrays") != shard.sha256:
                raise SetupError(f"{path}: not the shard that the record was written with; run harness check again")

    def _listed(self) -> list[str]:
        if not self._names:
            common: set[str] | None = None
            for shard in self.files:
                with (self.folder / shard.file).open("rb") as file:
                    names = set(npz.names(file, shard.file))
                common = names if common is None else common & names
            self._names.extend(sorted((common or set()) - ABOUT))
        return self._names
