"""Files are written whole or not at all, with the rights that the user wants."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.core import files
from harness.core.errors import SetupError


@pytest.fixture(params=[0o077, 0o022, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_new_file_follows_the_users_umask(umask: int, tmp_path: Path) -> None:
    """Records hold images of people's handwriting: who asks for private files gets them."""
    files.write_atomic(tmp_path / "check.json", b"{}")
    assert (tmp_path / "check.json").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "a", b"before")
    with pytest.raises(SetupError, match="cannot be written"):
        files.write_atomic_together({tmp_path / "a": b"after", tmp_path / "a" / "b": b""})
    assert (tmp_path / "a").read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_file_beyond_its_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(11))
    assert files.read_capped(tmp_path / "a", 11, "a record") == bytes(11)
    with pytest.raises(SetupError, match=r"a: expected a record, of at most 1e-05 MB"):
        files.read_capped(tmp_path / "a", 10, "a record")
