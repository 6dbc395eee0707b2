"""Large sets in shards: folders and Parquet, read in dataset's order, and every way they can be wrong."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from msgspec.structs import replace
from pyarrow import parquet

from harness.core.errors import SetupError
from harness.images import dataset, shards
from tests.conftest import DIGITS, ROOT, TEST_IMAGES
from tests.needs import needs


def table(folder: Path, *, struct: bool = False, **columns: Any) -> pyarrow.Table:
    """A folder's images in a table, with other columns in place of the usual ones."""
    files = sorted(folder.iterdir())
    images = [file.read_bytes() for file in files]
    usual = {
        "image": [{"bytes": image, "path": None} for image in images] if struct else images,
        "label": [int(file.name.split("_")[0]) for file in files],
        "name": [file.name for file in files],
    }
    return pyarrow.table({name: column for name, column in (usual | columns).items() if column is not None})


def digest(path: Path, size: int) -> str:
    """The dataset's hash, put together from shards."""
    found = hashlib.sha256()
    for data in dataset.in_shards(shards.open_source(path, DIGITS), size, DIGITS):
        found.update(dataset.digests(data.images, data.labels, data.names).tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_folder_in_shards_is_the_same_set(size: int, few_images: Path, tmp_path: Path) -> None:
    """The same images in the same order, both layouts mixed, whatever the size of the shards."""
    folder = Path(shutil.copytree(few_images, tmp_path / "mixed"))
    (folder / "3" / "a b").mkdir(parents=True)
    (folder / "3-").mkdir()
    for name in ("3/a b/x.jpg", "3/a-b.jpg", "3/é.jpg", "3/.hidden"):
        shutil.copy(few_images / "3_1.jpg", folder / name)
    assert digest(folder, size) == dataset.load(folder, DIGITS, skip_bad=True).sha256
    assert shards.open_source(folder, DIGITS).bad == ["3-/ (0 files, folder name says class 3-; did you mean 3?)"]


def test_names_without_classes_are_told_what_to_do(few_images: Path, tmp_path: Path) -> None:
    """If no file's name says a class, perhaps nobody knows them."""
    for number in range(3):
        shutil.copy(few_images / "3_1.jpg", tmp_path / f"IMG{number}.jpg")
    with pytest.raises(SetupError, match=r"pass --skip-bad; if nobody knows their classes, --unlabelled"):
        dataset.load(tmp_path, DIGITS)


def test_parquet_is_the_same_set(few_images: Path, tmp_path: Path) -> None:
    """One file, a folder of several, images as bytes or in a struct: the hash of the folder they were made of."""
    whole = dataset.load(few_images, DIGITS).sha256
    file, folder = tmp_path / "all.parquet", tmp_path / "parts"
    folder.mkdir()
    parquet.write_table(table(few_images, struct=True), file, row_group_size=20)
    for number, start in enumerate(range(0, 110, 40)):
        parquet.write_table(table(few_images).slice(start, 40), folder / f"{number}.parquet")
    assert digest(file, 33) == digest(folder, 50) == dataset.load(folder, DIGITS).sha256 == whole
    assert shards.open_source(folder, DIGITS).images == 110


def test_parquet_without_names_gets_them(few_images: Path, tmp_path: Path) -> None:
    """A row is named after its file and number."""
    parquet.write_table(table(few_images, name=None), tmp_path / "set.parquet")
    (data,) = dataset.in_shards(shards.open_source(tmp_path / "set.parquet", DIGITS), 200, DIGITS)
    assert data.names[:2] == ("set/0", "set/1")


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"image": None}, "expected image: encoded images"),
        ({"label": None}, "expected label: a class's number"),
        ({"image": [1.5] * 110}, "image is double"),
        ({"label": ["one"] * 110}, "label is string"),
        ({"label": [11] * 110}, "row 0 .* says class 11, the classes are 0-10"),
        ({"label": [None, *[1] * 109]}, "no label"),
        ({"image": [None, *[b"x"] * 109]}, "no image"),
        ({"name": ["a"] * 110}, "a second image is named 'a'"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(
    columns: dict[str, Any], what: str, few_images: Path, tmp_path: Path
) -> None:
    """Each by its file, and by its row where one is at fault."""
    parquet.write_table(table(few_images, **columns), tmp_path / "set.parquet")
    with pytest.raises(SetupError, match=what):
        list(shards.open_source(tmp_path / "set.parquet", DIGITS).entries())


def test_unreadable_files_are_refused(few_images: Path, tmp_path: Path) -> None:
    """Not Parquet, cut short, damaged in the middle, empty, missing: one line that names the file."""
    file = tmp_path / "set.parquet"
    with pytest.raises(SetupError, match="there is none"):
        shards.open_source(tmp_path / "nothing", DIGITS)
    file.write_bytes(b"not a table")
    with pytest.raises(SetupError, match=r"set\.parquet: expected a complete Parquet file"):
        shards.open_source(file, DIGITS)
    parquet.write_table(table(few_images), file, row_group_size=20)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SetupError, match="expected a complete Parquet file"):
        shards.open_source(file, DIGITS)
    content = bytearray(whole)
    content[4:40] = b"\xff" * 36  # the first page's header
    file.write_bytes(content)
    with pytest.raises(SetupError, match=r"set\.parquet: cannot be read to its end"):
        list(shards.open_source(file, DIGITS).entries())
    parquet.write_table(table(few_images).slice(0, 0), file)
    with pytest.raises(SetupError, match="no rows"):
        shards.open_source(file, DIGITS)


def test_images_that_cannot_be_used_are_listed(few_images: Path, tmp_path: Path) -> None:
    """In the shard that they belong to, by name and reason."""
    good = (few_images / "1_1.jpg").read_bytes()
    for number, content in enumerate((b"", good, good[:100], good), start=1):
        (tmp_path / f"1_{number}.jpg").write_bytes(content)
    first, second = dataset.in_shards(shards.open_source(tmp_path, DIGITS), 3, DIGITS)
    assert (first.names, second.names) == (("1_2.jpg",), ("1_4.jpg",))
    assert first.skipped[0] == "1_1.jpg (empty file)"
    assert first.skipped[1].startswith("1_3.jpg (unreadable")
    assert second.skipped == ()


def test_shards_are_read_one_at_a_time(tmp_path: Path) -> None:
    """A file that goes missing after the listing is refused when its shard is read, not before."""
    for number in (1, 2, 3):
        shutil.copy(TEST_IMAGES / f"1_{number}.jpg", tmp_path)
    found = dataset.in_shards(shards.open_source(tmp_path, DIGITS), 1, DIGITS)
    assert next(found).names == ("1_1.jpg",)
    (tmp_path / "1_3.jpg").unlink()
    assert next(found).names == ("1_2.jpg",)
    with pytest.raises(SetupError, match=r"1_3\.jpg: cannot be read"):
        next(found)


def test_a_shard_holds_what_fits() -> None:
    """Many small images, few large ones."""
    assert shards.usual_size(DIGITS) == 7653
    assert shards.usual_size(replace(DIGITS, image_size=(224, 224), channels=3)) == 64
    assert np.prod((64, 224, 224, 3)) * 4 < 2 * shards.SHARD_BYTES


READ_ALL = """
import re, sys
from pathlib import Path
from harness.images import dataset, shards
from tests.conftest import DIGITS
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
source = shards.open_source(Path(sys.argv[1]), DIGITS)
images, peaks = 0, []
for data in dataset.in_shards(source, 500, DIGITS):
    images += len(data)
    peaks.append(peak())
print(images, peaks[len(peaks) // 2 - 1], peaks[-1])
"""


def test_a_long_listing_takes_little_memory(tmp_path: Path) -> None:
    """Some 100 bytes for a file."""
    for label in range(4):
        (tmp_path / str(label)).mkdir()
        for number in range(2500):
            (tmp_path / str(label) / f"image_{number:08}.jpg").touch()
    tracemalloc.start()
    source = shards.open_source(tmp_path, DIGITS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert source.images == 10_000
    assert peak <= 150 * source.images


def test_memory_does_not_grow_with_the_number_of_images(few_images: Path, tmp_path: Path) -> None:
    """Of the second 11,000 images not even the half is kept; the allocator has what it wants after the first."""
    needs("peak memory")
    part = pyarrow.concat_tables([table(few_images, name=None)] * 10).combine_chunks()
    with parquet.ParquetWriter(path := tmp_path / "many.parquet", part.schema) as file:
        for _ in range(20):
            file.write_table(part)
    done = subprocess.check_output([sys.executable, "-c", READ_ALL, path], cwd=ROOT, text=True)
    images, before_kb, after_kb = map(int, done.split())
    assert images == 22_000
    assert (after_kb - before_kb) * 1024 < 11_000 * np.prod(DIGITS.shape) / 2


def test_some_images_of_a_set_are_evenly_spread(few_images: Path) -> None:
    """Of 110 images of 11 classes, 22 are two of each; more than there are is all."""
    source = shards.open_source(few_images, DIGITS)
    some = shards.Subset(source, 22)
    assert some.images == len(list(some.names())) == 22
    assert sorted(label for _, label, _ in some.entries()) == sorted(2 * list(range(11)))
    assert shards.Subset(source, 1000).images == 110
