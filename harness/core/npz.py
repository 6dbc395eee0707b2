"""Arrays of .npz files. What comes from outside is checked before it is unpacked: names, sizes, no pickled objects."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Collection, Mapping
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from harness.core.errors import SetupError

MAX_BYTES = 2**32  # of all arrays of a file, unpacked
MAX_ARRAYS = 10_000
_NAME = re.compile(r"[A-Za-z0-9_@+-][A-Za-z0-9_.@+-]{0,199}\.npy")

Array = npt.NDArray[Any]


def encode(arrays: Mapping[str, Any], *, compress: bool = True) -> bytes:
    """The content of a file. Raises ValueError for Python objects, which a reader would have to execute."""
    if objects := [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]:
        raise ValueError(f"{objects[0]}: an array of Python objects")
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def read(
    source: bytes | IO[bytes], where: str, *, only: Collection[str] | None = None, max_bytes: int = MAX_BYTES
) -> dict[str, Array]:
    """The arrays of a file, read-only, or those of some names. where: what an error calls the file.

    Raises SetupError: damaged, too large, other than plain arrays of plain names.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            names = [name for name in _names(archive, where, max_bytes) if only is None or name in only]
            return {name: _array(archive.read(f"{name}.npy")) for name in names}
    except (OSError, ValueError, OverflowError, EOFError, NotImplementedError, RuntimeError) as error:
        raise SetupError(f"{where}: damaged, or no arrays ({error})") from error
    except (zipfile.BadZipFile, zlib.error, SyntaxError, TypeError, KeyError) as error:
        raise SetupError(f"{where}: damaged, or no arrays ({error})") from error


def names(source: IO[bytes], where: str) -> list[str]:
    """The names of a file's arrays, which are not read. Raises SetupError as `read` does."""
    try:
        with zipfile.ZipFile(source) as archive:
            return _names(archive, where, MAX_BYTES)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise SetupError(f"{where}: damaged, or no arrays ({error})") from error


def _names(archive: zipfile.ZipFile, where: str, max_bytes: int) -> list[str]:
    entries = archive.infolist()
    if len(entries) > MAX_ARRAYS or len({entry.filename for entry in entries}) < len(entries):
        raise SetupError(f"{where}: {len(entries)} arrays, expected at most {MAX_ARRAYS} of different names")
    for entry in entries:
        if not _NAME.fullmatch(entry.filename):
            raise SetupError(f"{where}: an array is called {entry.filename[:80]!r}, expected a plain name")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise SetupError(f"{where}: {entry.filename} is compressed in a way that NumPy does not write")
    if (size := sum(entry.file_size for entry in entries)) > max_bytes:
        raise SetupError(f"{where}: {size / 1e6:,.0f} MB of arrays, expected at most {max_bytes / 1e6:,.0f} MB")
    return [entry.filename.removesuffix(".npy") for entry in entries]


def _array(content: bytes) -> Array:
    """An array in NumPy's own format, over the bytes: a header that claims more than there is takes no memory."""
    file = io.BytesIO(content)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(file)]
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError("Python objects, or a negative size")
    return np.ndarray(shape, dtype, content, file.tell(), order="F" if fortran else "C")
