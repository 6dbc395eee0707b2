"""Files that are whole or absent."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from harness.core.errors import SetupError


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file under its final name only when it is complete. Raises SetupError where that fails."""
    write_atomic_together({path: content})


def write_atomic_together(contents: Mapping[Path, bytes]) -> None:
    """Write files under their final names only when all are complete; renamed in order. Raises SetupError."""
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


def _write_beside(path: Path, content: bytes) -> Path:
    """A complete hidden file in the same folder; none where that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False) as file:
        partial = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            partial.chmod(0o644)
        except BaseException:
            partial.unlink()
            raise
    return partial


def check_writable(folder: Path) -> None:
    """Raise SetupError, before any work is done, where files could not be written into a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SetupError(f"{folder}: cannot be written to ({error.strerror or error}); name another folder") from error
