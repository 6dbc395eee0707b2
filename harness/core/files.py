"""Files: written atomically, read up to a size."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harness.core.errors import SetupError


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path, expected: str) -> str:
    """The hash of a file of any size. Raises SetupError: it cannot be read; `expected` says what it should be."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SetupError(f"{path}: expected {expected} ({error.strerror}); run harness check again") from error


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file atomically. Raises SetupError if it cannot be written."""
    write_atomic_together({path: content})


def write_atomic_together(contents: Mapping[Path, bytes]) -> None:
    """Write files completely under other names, then rename them in order. Raises SetupError."""
    partials: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            partials[path] = _write_beside(path, content)
        for path, partial in partials.items():
            partial.replace(path)
    except OSError as error:
        raise SetupError(f"{path}: cannot be written ({error.strerror or error}); name a folder that can") from error
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write in parts, under its final name only when it is complete. Raises SetupError where that fails."""
    partial = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise SetupError(f"{path}: cannot be written ({error.strerror or error}); name a folder that can") from error
    finally:
        partial.unlink(missing_ok=True)


def slug(name: str) -> str:
    """A name, such as a device's address, as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")


def _partial(path: Path) -> Path:
    """Hidden, in the same folder."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _write_beside(path: Path, content: bytes) -> Path:
    """A complete file in the same folder, with the rights that the user's umask gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    with partial.open("xb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            partial.unlink()
            raise
    return partial


def read_capped(path: Path, max_bytes: int, expected: str) -> bytes:
    """A file's content. Raises SetupError: it cannot be read, or is larger; `expected` says what it should be."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise SetupError(f"{path}: expected {expected} ({error.strerror})") from error
    if len(content) > max_bytes:
        raise SetupError(f"{path}: expected {expected}, of at most {max_bytes / 1e6:g} MB")
    return content


def check_writable(folder: Path) -> None:
    """Raise SetupError, before any work is done, if files cannot be written into a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SetupError(f"{folder}: cannot be written to ({error.strerror or error}); name another folder") from error
