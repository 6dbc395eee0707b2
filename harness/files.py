"""Files that are whole or absent."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from harness.errors import SetupError


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file under its final name only when it is complete. Raises SetupError where that fails."""
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
        ) as file:
            partial = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    except OSError as error:
        raise SetupError(f"{path}: cannot be written ({error.strerror or error}); name a folder that can") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raise SetupError, before any work is done, where files could not be written into a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SetupError(f"{folder}: cannot be written to ({error.strerror or error}); name another folder") from error
