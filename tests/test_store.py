"""The store of files that tests share."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from tests import store


def make(out: Path) -> None:
    with (store.STORE / "made.log").open("a") as log:
        log.write("made\n")
    (out / "file").write_text("content")


def obtain(folder: Path) -> Path:
    store.STORE = folder
    return store.obtain("thing", ("a",), make) / "file"


def test_several_processes_make_a_thing_once(tmp_path: Path) -> None:
    """Whichever comes first makes it; all get the same files."""
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        paths = pool.map(obtain, [tmp_path] * 3)
    assert {path.read_text() for path in paths} == {"content"}
    assert (tmp_path / "made.log").read_text() == "made\n"


def test_another_content_is_another_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed file, another name in a folder, another instruction set: each is made anew."""
    monkeypatch.setattr(store, "STORE", tmp_path / "store")
    (source := tmp_path / "source").mkdir()
    (source / "a").write_text("1")

    def folder() -> str:
        return store.obtain("thing", (source,), lambda out: None).name

    seen = {folder(), folder()}
    assert len(seen) == 1
    (source / "a").write_text("2")
    seen.add(folder())
    (source / "a").rename(source / "b")
    seen.add(folder())
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    seen.add(folder())
    assert len(seen) == 4


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be made is not kept, and is tried again."""
    monkeypatch.setattr(store, "STORE", tmp_path)

    def fail(out: Path) -> None:
        (out / "half").write_text("")
        raise OSError("disk full")

    for _ in range(2):
        with pytest.raises(OSError, match="disk full"):
            store.obtain("thing", (), fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
