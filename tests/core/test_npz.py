"""Arrays from outside: read as they were written, and refused by one line where they were not."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.core import npz
from harness.core.errors import SetupError

ARRAYS: dict[str, Any] = {
    "int8@gpu.outputs": np.arange(6, dtype=np.int8).reshape(2, 3),
    "names": np.array(["a", "ü"]),
    "turned": np.asfortranarray(np.random.default_rng(0).random((3, 4))),
    "scalar": np.float64(0.25),
    "empty": np.empty((0, 28), np.uint8),
}


@pytest.mark.parametrize("compress", [True, False])
def test_arrays_are_read_back_as_they_were_written(compress: bool) -> None:
    content = npz.encode(ARRAYS, compress=compress)
    stored = npz.read(content, "here")
    assert list(stored) == list(ARRAYS) == npz.names(io.BytesIO(content), "here")
    for name, array in ARRAYS.items():
        assert stored[name].dtype == array.dtype
        assert np.array_equal(stored[name], array)


def archive(change: Callable[[zipfile.ZipFile], None], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        change(file)
    return buffer.getvalue()


def an_array(header: dict[str, Any] | None = None, data: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header or {"descr": "<f8", "fortran_order": False, "shape": (0,)})
    return buffer.getvalue() + data


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], object), allow_pickle=True)
    return buffer.getvalue()


def many(file: zipfile.ZipFile) -> None:
    for number in range(npz.MAX_ARRAYS + 1):
        file.writestr(f"{number}.npy", b"")


def twice(file: zipfile.ZipFile) -> None:
    file.writestr("a.npy", an_array())
    with warnings.catch_warnings(action="ignore"):
        file.writestr("a.npy", an_array())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(content, expected, id=str(number))
        for number, (content, expected) in enumerate(
            [
                (b"", "damaged"),
                (b"PK\3\4" + bytes(100), "damaged"),
                (npz.encode(ARRAYS)[:-200], "damaged"),
                (npz.encode(ARRAYS, compress=False).replace(b"NUMPY", b"NUMPX"), "damaged"),
                (archive(lambda file: file.writestr("../a.npy", an_array())), "expected a plain name"),
                (archive(lambda file: file.writestr("a.txt", "text")), "expected a plain name"),
                (archive(lambda file: file.writestr("a.npy", an_array()), zipfile.ZIP_LZMA), "is compressed in a way"),
                (archive(twice), "of different names"),
                (archive(many), "expected at most"),
                (archive(lambda file: file.writestr("a.npy", pickled())), "damaged"),
                (archive(lambda file: file.writestr("a.npy", b"text")), "damaged"),
            ]
        )
    ],
)
def test_what_is_no_file_of_plain_arrays_is_refused(content: bytes, expected: str) -> None:
    """Cut short, damaged, other names than plain ones, Python objects."""
    with pytest.raises(SetupError, match=expected) as caught:
        npz.read(content, "here")
    assert str(caught.value).startswith("here: ")
    assert "\n" not in str(caught.value)


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    """Five megabytes of zeros in five kilobytes, where four are allowed."""
    bomb = npz.encode({"a": np.zeros(5_000_000, np.uint8)})
    assert len(bomb) < 10_000
    with pytest.raises(SetupError, match="here: 5 MB of arrays, expected at most 4 MB"):
        npz.read(bomb, "here", max_bytes=4_000_000)


@pytest.mark.parametrize("shape", [(10**12,), (-1,), (2**62, 2**62), (0, 10**30), (2,)])
def test_a_header_that_claims_more_than_there_is_takes_no_memory(shape: tuple[int, ...]) -> None:
    """An array of one number whose header says that there are a million million."""
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    with pytest.raises(SetupError, match="here: damaged"):
        npz.read(archive(lambda file: file.writestr("a.npy", an_array(header, bytes(8)))), "here")


def test_python_objects_are_never_written() -> None:
    with pytest.raises(ValueError, match="an array of Python objects"):
        npz.encode({"a": np.array([{}], object)})
