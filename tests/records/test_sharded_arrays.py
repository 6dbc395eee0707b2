"""The arrays of a large set: shards beside the record are read as one, and refused if they are others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from harness.cli import main
from harness.core import npz
from harness.core.errors import SetupError
from harness.core.files import sha256
from harness.records import record, sharded_arrays
from harness.records.arrays import RecordArrays
from harness.records.rejudge import rejudge
from harness.records.sharded_arrays import ShardedArrays, ShardFile
from tests.records.sample import IMAGES, a_run, edit_json

CUT = 1000  # images of the first of two shards


def stored(folder: Path, change: Callable[[dict[str, Any]], None] = lambda second: None) -> Path:
    """A record in two shards. change: of the arrays of the second."""
    path = folder / "check.json"
    run = a_run(broken=3)
    whole = run.arrays.stored
    files = []
    for number, part in enumerate((slice(0, CUT), slice(CUT, IMAGES))):
        index, inside = whole["flipped.index"], np.zeros(IMAGES, bool)
        inside[part] = True
        arrays = {name: array[part] if np.ndim(array) else array for name, array in whole.items()}
        arrays["flipped.index"] = index[inside[index]] - part.start
        arrays["flipped.images"] = whole["flipped.images"][inside[index]]
        if number:
            change(arrays)
        file = sharded_arrays.folder_of(path) / f"{number}.npz"
        sharded_arrays.write(file, "a key", arrays)
        files.append(ShardFile(file.name, sha256(file.read_bytes()), len(arrays["labels"])))
    shards = ShardedArrays({}, sharded_arrays.folder_of(path), tuple(files))
    record.write(replace(run, arrays=RecordArrays(shards)), path)
    return path


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    """Every array, the numbers of the changed images counted through; the verdict is the whole set's."""
    read, whole = record.read(stored(tmp_path)).arrays.stored, a_run(broken=3).arrays.stored
    assert set(read) == set(whole)
    for name, array in whole.items():
        if name != "flipped.images":
            assert np.array_equal(read[name], array), name
    assert rejudge(tmp_path / "check.json").body == a_run(broken=3).body


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda second: second.update(reference=second["reference"][:, :5]), "reference differs between shards"),
        (lambda second: second.update(labels=second["labels"][:-1]), "2199 labels for 2200 images"),
        (lambda second: second.pop("reference"), "expected 'reference', there is none"),
    ],
)
def test_shards_that_do_not_fit_together_are_refused(
    change: Callable[[dict[str, Any]], None], says: str, tmp_path: Path
) -> None:
    with pytest.raises(SetupError, match=says) as caught:
        rejudge(stored(tmp_path, change))
    assert "\n" not in str(caught.value)
    assert main(["verdict", str(tmp_path)]) == 2


@pytest.mark.parametrize("name", ["../0.npz", "/etc/passwd", "a/b", ".."])
def test_names_that_leave_the_records_folder_are_refused(name: str, tmp_path: Path) -> None:
    """Of shards, and of the record's own arrays."""
    edit_json(stored(tmp_path), lambda content: content["shards"][1].update(file=name))
    with pytest.raises(SetupError, match=r"shards\[1\]\.file = .*: expected a plain file name without a folder"):
        rejudge(tmp_path)
    edit_json(stored(tmp_path), lambda content: content.update(arrays=name))
    with pytest.raises(SetupError, match=r"arrays = .*: expected a plain file name without a folder"):
        rejudge(tmp_path)


def test_a_changed_or_missing_shard_is_refused(tmp_path: Path) -> None:
    shard = sharded_arrays.folder_of(stored(tmp_path)) / "1.npz"
    shard.write_bytes(npz.encode({"labels": np.zeros(3, np.int64)}))
    with pytest.raises(SetupError, match="not the shard that the record was written with"):
        rejudge(tmp_path)
    shard.unlink()
    with pytest.raises(SetupError, match="expected a shard's arrays"):
        rejudge(tmp_path)
