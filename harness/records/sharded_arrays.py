"""Evidence of a large set: one .npz for each shard in a folder beside the record, read as if they were one."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from harness.core.errors import SetupError
from harness.core.files import sha256, write_atomic

Array = npt.NDArray[Any]

KEY = "key"  # what a shard's evidence was made of
DIGESTS, SKIPPED, MACHINE = "digests", "skipped", "machine"
ABOUT = {KEY, DIGESTS, SKIPPED, MACHINE}  # not among a record's arrays
INDEX, IMAGES = "flipped.index", "flipped.images"
MOST_FLIPPED = 500  # of all shards


def folder_of(record: Path) -> Path:
    """Where a record's shards are kept."""
    return record.with_suffix(".shards")


def write(path: Path, key: str, arrays: Mapping[str, Array]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{KEY: np.array(key)}, **arrays)
    write_atomic(path, buffer.getvalue())


def matches(path: Path, key: str) -> bool:
    """Whether a shard's evidence is there, whole, and made of the same things."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return str(stored[KEY]) == key and DIGESTS in stored.files
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return False


def read(path: Path) -> dict[str, Array]:
    """Raises SetupError: missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise SetupError(f"{path}: expected a shard's evidence ({error}); run harness check again") from error


@dataclass(frozen=True)
class ShardFile:
    """One shard's evidence: its file, beside the record, and what it holds."""

    file: str
    sha256: str
    images: int


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
            with np.load(self.folder / one.file, allow_pickle=False) as stored:
                part = stored[name]
            if not part.ndim:
                return np.asarray(part)
            parts.append(part + start if name == INDEX else part)
            start += one.images
        whole = np.concatenate(parts)
        return whole[:MOST_FLIPPED] if name in (INDEX, IMAGES) else whole

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
                with np.load(self.folder / one.file, allow_pickle=False) as stored:
                    common = set(stored.files) if common is None else common & set(stored.files)
            self._names.extend(sorted((common or set()) - ABOUT))
        return self._names
