"""What goes to a lab worker and what comes back: bytes, never code. A header in JSON and arrays, as one .npz."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

SCHEMA = "harness-lab/1"
HEADER = "header"

Arrays = Mapping[str, npt.NDArray[Any]]


class RefusedError(Exception):
    """A message that is not understood, or not to be obeyed: one line for the person who sent it."""


def pack(header: Mapping[str, Any], arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{HEADER: np.array(json.dumps({"schema": SCHEMA, **header}))}, **arrays)
    return buffer.getvalue()


def unpack(content: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Raises RefusedError: damaged, or of another schema."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(str(arrays.pop(HEADER)))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise RefusedError(f"a damaged message ({error})") from error
    if header.get("schema") != SCHEMA:
        raise RefusedError(
            f"a message of schema {header.get('schema')!r}, expected {SCHEMA!r}: install one version everywhere"
        )
    return header, arrays


def blobs(contents: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Byte strings as one array and the ends of each."""
    return np.frombuffer(b"".join(contents), np.uint8), np.cumsum(
        [len(content) for content in contents], dtype=np.int64
    )


def unblob(joined: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> tuple[bytes, ...]:
    content = joined.tobytes()
    return tuple(content[start:end] for start, end in zip((0, *ends[:-1].tolist()), ends.tolist(), strict=True))
