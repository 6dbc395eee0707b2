"""Classes by their names where the model has names, by number where not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def of(known: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    """One name a class: the known ones where there is one for each, else 0, 1, 2 ..."""
    return tuple(known) if known and len(known) == classes else tuple(map(str, range(classes)))


def stored(data: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    """Of what a record says of its data."""
    return of(data.get("class_names"), classes)


def read(data: object, classes: int) -> tuple[str, ...]:
    """Of a dataset read for a model."""
    return of(getattr(getattr(data, "spec", None), "class_names", None), classes)
