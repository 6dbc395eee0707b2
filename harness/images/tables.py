"""Tables about images, CSV or Parquet: a row for each, which a column names as the set names it.

A set's own table is `metadata.csv` or `metadata.parquet` in its folder, as Hugging Face's ImageFolder has it, or the
folder's only CSV file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.files import read_capped
from harness.images import parquet

SUFFIX = ".csv"
USUAL = ("metadata.csv", "metadata.parquet")
NAMES = ("file_name", "name", "image")  # what the column of the images' names may be called
MAX_BYTES = 200_000_000  # of a CSV file
EXPECTED = f"a table of images: a column {NAMES[0]} that names each as a path below its folder, and others about it"


def is_table(name: str) -> bool:
    """Whether a file in a folder of images is a table by its name."""
    return name.endswith(SUFFIX) or name in USUAL


def beside(folder: Path) -> Path | None:
    """The table in a folder of images. None if there is none. Raises SetupError where there are several."""
    for name in USUAL:
        if (folder / name).is_file():
            return folder / name
    tables = sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
    if len(tables) > 1:
        raise SetupError(
            f"{folder}: has {', '.join(table.name for table in tables[:3])}; name one of them with --table"
        )
    return tables[0] if tables else None


def columns(path: Path) -> tuple[str, ...]:
    """The columns of a table, without that of the names. Raises SetupError."""
    header = parquet.columns(path) if path.suffix == parquet.SUFFIX else _rows(path)[0]
    return tuple(name for name in header if name != _name_column(header, path))


def read(path: Path, wanted: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """The texts of some columns by the image's name; empty where there is none. Raises SetupError: no such column, an
    image that is named twice, a damaged file."""
    for name in wanted:
        shapes.check_name(name, columns(path), str(path), "column")
    texts: dict[str, tuple[str, ...]] = {}
    for number, cells in enumerate(_cells(path, wanted), start=1):
        name, *row = (cell.strip() for cell in cells)
        name = name.removeprefix("./")
        if name in texts:
            raise SetupError(f"{path}: row {number} names {name!r} a second time; expected a row for each image")
        texts[name] = tuple(row)
    return texts


def _cells(path: Path, wanted: tuple[str, ...]) -> Iterator[list[str]]:
    """Each row's name and the wanted columns."""
    if path.suffix == parquet.SUFFIX:
        yield from parquet.texts(path, (_name_column(parquet.columns(path), path), *wanted))
        return
    header, *rows = _rows(path)
    places = [header.index(name) for name in (_name_column(header, path), *wanted)]
    for row in rows:
        yield [row[place] for place in places]


def _name_column(header: list[str], path: Path) -> str:
    name = next((name for name in NAMES if name in header), None)
    if name is None:
        raise SetupError(f"{path}: has columns {', '.join(header[:8])}; expected {EXPECTED}")
    return name


def _rows(path: Path) -> list[list[str]]:
    """All rows of a CSV file, its header first; separated by commas, semicolons or tabs."""
    content = read_capped(path, MAX_BYTES, EXPECTED)
    try:
        text = content.decode("utf-8-sig")
        first = text.partition("\n")[0]
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count)) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SetupError(f"{path}: not CSV in UTF-8 ({error}); expected {EXPECTED}") from error
    if len(rows) < 2:
        raise SetupError(f"{path}: has no rows; expected {EXPECTED}")
    header = rows[0] = [name.strip() for name in rows[0]]
    if len(set(header)) < len(header):
        raise SetupError(f"{path}: a column stands in it twice; expected names that differ")
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise SetupError(f"{path}: row {number} has {len(row)} cells, the header {len(header)}; expected as many")
    return rows
