"""Images in Parquet: one file, or a folder of files in the order of their names, read a few rows at a time.

Columns: `image` (an encoded image's bytes, or a struct that holds them as `bytes`, as Hugging Face's datasets have it),
`label` (a class's number; not in an unlabelled set) and, optionally, `name`. Needs pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

from harness.core import extras, shapes
from harness.core.errors import SetupError
from harness.images.spec import UNLABELLED, ModelSpec

SUFFIX = ".parquet"
TABLE = "metadata.parquet"  # about images, in their folder: harness.images.tables
BATCH = 256  # rows decoded at a time
BUFFER_BYTES = 1 << 20
MAX_NUMBERS = 100_000_000  # of tensors


def files(path: Path) -> list[Path]:
    """The Parquet files of a folder, or the file itself; empty if it is neither, or only has a table about images."""
    if path.is_dir():
        listed = [file for file in path.glob(f"*{SUFFIX}") if file.is_file() and not file.name.startswith(".")]
        return sorted(file for file in listed if file.name != TABLE)
    return [path] if path.suffix == SUFFIX else []


class Parquet:
    """A source of images (harness.images.shards.Source). Raises SetupError: damaged, other columns, no rows."""

    def __init__(self, path: Path, spec: ModelSpec, *, labelled: bool = True) -> None:
        self.path = path
        self.bad: list[str] = []
        self.left_out: tuple[str, ...] = ()
        self._classes, self._labelled = len(spec.class_names), labelled
        self._files = files(path)
        self.images = 0
        for file in self._files:
            with _open(file) as table:
                _check(file, table.schema_arrow, labelled)
                self.images += table.metadata.num_rows
        if not self.images:
            raise SetupError(f"{path}: no rows; expected images")

    def names(self) -> Iterator[str]:
        return (name for name, _ in column(self._files, None))

    def entries(self) -> Iterator[tuple[str, int, bytes]]:
        names: set[int] = set()  # as hashes, which take less memory
        for file in self._files:
            row = 0
            for table in _batches(file):
                for entry in table.to_pylist():
                    where = f"{file}, row {row} (counted from 0)"
                    name, label, content = self._entry(entry, f"{file.stem}/{row}", where)
                    if hash(name) in names:
                        raise SetupError(f"{where}: a second image is named {name!r}; expected names that differ")
                    names.add(hash(name))
                    yield name, label, content
                    row += 1

    def _entry(self, entry: dict[str, Any], default_name: str, where: str) -> tuple[str, int, bytes]:
        label, image = entry["label"] if self._labelled else UNLABELLED, entry["image"]
        content = image["bytes"] if isinstance(image, dict) else image
        if content is None or label is None:
            raise SetupError(f"{where}: no {'label' if label is None else 'image'}; expected one in every row")
        if self._labelled and not 0 <= label < self._classes:
            raise SetupError(f"{where}: says class {label}, the classes are 0-{self._classes - 1}")
        return str(entry.get("name") or default_name), label, content


def columns(file: Path) -> list[str]:
    """Raises SetupError."""
    with _open(file) as table:
        return list(table.schema_arrow.names)


def arrays(files: list[Path]) -> dict[str, Any]:
    """The columns of numbers, texts and lists of equal length, as arrays. Raises SetupError."""
    import numpy as np

    joined: dict[str, list[Any]] = {}
    if (numbers := sum(map(_numbers, files))) > MAX_NUMBERS:
        raise SetupError(f"{files[0]}: {numbers:,} numbers; expected at most {MAX_NUMBERS:,}, which are held in memory")
    for file in files:
        wanted = tuple(columns(file))
        for table in _batches(file, wanted):
            for name in wanted:
                joined.setdefault(name, []).extend(table.column(name).to_pylist())
    made = {}
    for name, values in joined.items():
        try:
            made[name] = np.array(values)
        except ValueError as error:
            raise SetupError(f"{files[0]}: {name}: expected lists of one length ({_first_line(error)})") from error
    return made


def _numbers(file: Path) -> int:
    """How many values it has, those of lists too."""
    with _open(file) as table:
        groups = [table.metadata.row_group(number) for number in range(table.metadata.num_row_groups)]
        return sum(group.column(place).num_values for group in groups for place in range(group.num_columns))


def _rows(file: Path) -> int:
    with _open(file) as table:
        return int(table.metadata.num_rows)


def texts(file: Path, wanted: tuple[str, ...]) -> Iterator[list[str]]:
    """Some columns of each row as texts; empty where there is nothing. Raises SetupError."""
    for table in _batches(file, wanted):
        for row in table.to_pylist():
            yield [_text(row[name]) for name in wanted]


def _text(value: Any) -> str:
    return "" if value is None else "|".join(map(str, value)) if isinstance(value, list) else str(value)


def column(files: list[Path], name: str | None = None) -> Iterator[tuple[str, str]]:
    """The images of a set by name, each with a column's text, if one is named. Raises SetupError: no such column."""
    for file in files:
        known = columns(file)
        if name is not None:
            shapes.check_name(name, [column for column in known if column != "image"], str(file), "column")
        wanted = tuple(column for column in dict.fromkeys(("name", name or "name")) if column in known)
        for row, cells in enumerate(texts(file, wanted) if wanted else repeat([""], _rows(file))):
            yield cells[0] if "name" in wanted and cells[0] else f"{file.stem}/{row}", cells[-1]


def _batches(file: Path, wanted: tuple[str, ...] = ("image", "label", "name")) -> Iterator[Any]:
    import pyarrow

    try:
        with _open(file) as table:
            columns = [name for name in wanted if name in table.schema_arrow.names]
            for group in range(table.num_row_groups):  # one reader for all of them holds more and more memory
                yield from table.iter_batches(batch_size=BATCH, row_groups=[group], columns=columns)
    except (pyarrow.ArrowException, OSError) as error:
        raise SetupError(f"{file}: cannot be read to its end ({_first_line(error)}); write it again") from error


def _check(file: Path, schema: Any, labelled: bool) -> None:
    from pyarrow import types

    columns = {"image": "encoded images, as bytes"} | ({"label": "a class's number"} if labelled else {})
    for name, what in columns.items():
        if name not in schema.names:
            raise SetupError(f"{file}: has columns {', '.join(schema.names)}; expected {name}: {what}")
    if labelled and not types.is_integer(schema.field("label").type):
        raise SetupError(f"{file}: label is {schema.field('label').type}; expected integers: a class's number")
    image = schema.field("image").type
    if types.is_struct(image) and image.get_field_index("bytes") >= 0:
        image = image.field("bytes").type
    if not (types.is_binary(image) or types.is_large_binary(image)):
        raise SetupError(f"{file}: image is {schema.field('image').type}; expected encoded images, as bytes")


def _open(file: Path) -> Any:
    """A pyarrow.parquet.ParquetFile."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise extras.missing("parquet", f"{file}: Parquet needs pyarrow") from error
    try:
        return ParquetFile(file, buffer_size=BUFFER_BYTES)  # mapped files would count as memory
    except (pyarrow.ArrowException, OSError) as error:
        raise SetupError(f"{file}: expected a complete Parquet file ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
