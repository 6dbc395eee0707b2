"""Several independent labels of each image: by a table of them, or by the set's own columns or arrays.

A column for each label, with 0 or 1; or one column `labels` that lists those that an image has, separated by |. In an
.npz file `labels` is [N, labels] of 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.core import shapes
from harness.core.errors import SetupError
from harness.images import parquet, tables, tensors
from harness.images.shards import Source
from harness.images.tensors import Tensors

LISTED = ("labels", "tags")  # the one column, what it may be called
_FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


@dataclass(frozen=True)
class Labels:
    """names: of the labels. of_image: 0 or 1 for each, by the image's name."""

    names: tuple[str, ...]
    of_image: Mapping[str, tuple[int, ...]]

    def of_names(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Which labels each image has [N, labels]."""
        return np.array([self.of_image[name] for name in names], np.int64).reshape(len(names), len(self.names))


def read(source: Source, names: tuple[str, ...], table: Path | None = None) -> Labels:
    """The labels of a set. table: if it is not the set's own.

    Raises SetupError: no table, no such columns, an image without labels, other values than 0 and 1.
    """
    if isinstance(source, Tensors) and table is None:
        flags = source.array(tensors.LABELS, (len(names),))
        if not np.isin(flags, (0, 1)).all():
            raise SetupError(f"{source.path}: {tensors.LABELS}: expected 0 or 1 for each label of each example")
        return Labels(names, dict(zip(source.names(), map(tuple, flags.astype(int).tolist()), strict=True)))
    path = table or tables.beside(source.path) or (source.path if parquet.files(source.path) else None)
    if path is None:
        raise SetupError(
            f"{source.path}: the model gives several labels; expected a table with a column for each, "
            f"{source.path / tables.USUAL[0]} or --table FILE, or --unlabelled"
        )
    known, column = _columns(source, path)
    if listed := next((name for name in LISTED if name in known and name not in names), None):
        texts = column((listed,))
        of_image = {image: _listed(text, names, f"{path}: {image}") for image, (text,) in texts.items()}
    else:
        for name in names:
            shapes.check_name(name, known, str(path), "column")
        of_image = {image: _flags(row, names, f"{path}: {image}") for image, row in column(names).items()}
    missing = [name for name in source.names() if name not in of_image]
    if missing:
        raise SetupError(
            f"{path}: says nothing of {len(missing)} images, such as {missing[0]!r}; expected a row for each"
        )
    return Labels(names, of_image)


def _columns(
    source: Source, path: Path
) -> tuple[Sequence[str], Callable[[tuple[str, ...]], Mapping[str, tuple[str, ...]]]]:
    """The columns that there are, and how some are read, by the image's name."""
    own = parquet.files(path) if path == source.path else []
    if not own:
        return tables.columns(path), lambda wanted: tables.read(path, wanted)

    def read_own(wanted: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
        each = [dict(parquet.column(own, name)) for name in wanted]
        return {image: tuple(texts[image] for texts in each) for image in each[0]}

    return parquet.columns(own[0]), read_own


def _flags(row: Sequence[str], names: tuple[str, ...], where: str) -> tuple[int, ...]:
    for name, text in zip(names, row, strict=True):
        if text.lower() not in _FLAGS:
            raise SetupError(f"{where}: {name} is {text!r}; expected 0 or 1")
    return tuple(_FLAGS[text.lower()] for text in row)


def _listed(text: str, names: tuple[str, ...], where: str) -> tuple[int, ...]:
    has = {name.strip() for name in text.split("|") if name.strip()}
    for name in has:
        shapes.check_name(name, names, where, "label")
    return tuple(int(name in has) for name in names)
