"""TFLite metadata of a file, as `harness convert --metadata` and others write it: see converters/metadata.py."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any

from harness.artifacts import flatbuffer

ENTRY, IDENTIFIER = b"TFLITE_METADATA", b"M001"
MAX_TEXT = 300
MAX_LABELS_BYTES = 1_000_000
_NORMALIZATION, _LABELS = 1, 2  # ProcessUnitOptions, AssociatedFileType (4: labels of values)


@dataclass(frozen=True)
class Metadata:
    """Empty where the file says nothing. mean, std: the input is (pixel - mean) / std, for pixels of 0 to 255. labels:
    the classes' names."""

    name: str
    description: str
    author: str
    licence: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: tuple[str, ...]


def read(content: bytes, model: Any) -> Metadata | None:
    """Of a .tflite and its model. None if it has none. Raises ValueError: damaged."""
    entry = flatbuffer.metadata(model, ENTRY)
    if entry is None:
        return None
    try:
        return _read(content, entry)
    except Exception as error:  # the reader raises whatever damaged offsets lead to
        raise ValueError(f"damaged ({type(error).__name__}: {error})") from error


def _read(content: bytes, entry: bytes) -> Metadata:
    import flatbuffers

    if entry[4:8] != IDENTIFIER:
        raise ValueError(f"no {IDENTIFIER.decode()} at byte 4")
    root = flatbuffers.table.Table(bytearray(entry), int.from_bytes(entry[:4], "little"))
    graph = _tables(root, 3)[0]
    units = [unit for tensor in _tables(graph, 2) for unit in _tables(tensor, 4)]
    options = next((_table(unit, 1) for unit in units if _byte(unit, 0) == _NORMALIZATION), None)
    files = [file for tensor in _tables(graph, 3) for file in _tables(tensor, 6) if _byte(file, 2) == _LABELS]
    return Metadata(
        name=_text(root, 0),
        description=_text(root, 1),
        author=_text(root, 4),
        licence=_text(root, 5),
        mean=_floats(options, 0) if options else (),
        std=_floats(options, 1) if options else (),
        labels=_labels(content, _text(files[0], 0)) if files else (),
    )


def _labels(content: bytes, name: str) -> tuple[str, ...]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(name) as file:
        return tuple(_plain(line) for line in file.read(MAX_LABELS_BYTES).decode().splitlines())


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text[:MAX_TEXT])


def _place(table: Any, number: int) -> int:
    """Of a field; 0: the table has none."""
    offset = int(table.Offset(4 + 2 * number))
    return table.Pos + offset if offset else 0


def _byte(table: Any, number: int) -> int:
    place = _place(table, number)
    return int(table.Bytes[place]) if place else 0


def _text(table: Any, number: int) -> str:
    place = _place(table, number)
    return _plain(bytes(table.String(place)).decode()) if place else ""


def _table(table: Any, number: int) -> Any:
    place = _place(table, number)
    return type(table)(table.Bytes, table.Indirect(place)) if place else None


def _entries(table: Any, number: int) -> range:
    """Where the entries of a vector of four bytes each are."""
    offset = int(table.Offset(4 + 2 * number))
    if not offset:
        return range(0)
    start, count = table.Vector(offset), table.VectorLen(offset)
    if start + 4 * count > len(table.Bytes):
        raise ValueError("a vector beyond the end")
    return range(start, start + 4 * count, 4)


def _tables(table: Any, number: int) -> list[Any]:
    return [type(table)(table.Bytes, table.Indirect(place)) for place in _entries(table, number)]


def _floats(table: Any, number: int) -> tuple[float, ...]:
    import flatbuffers

    return tuple(float(table.Get(flatbuffers.number_types.Float32Flags, place)) for place in _entries(table, number))
