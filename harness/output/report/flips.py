"""Galleries of the images whose prediction changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.output.report.pages import image_uri
from harness.records import flips
from harness.records.flips import Flip
from harness.records.record import Record, VariantRecord


@dataclass(frozen=True)
class Gallery:
    """One variant's changed images, groups of (sort, how many, tiles of the first)."""

    variant: VariantRecord
    flips: int
    groups: tuple[tuple[str, int, list[dict[str, Any]]], ...]


def galleries(record: Record, shown: int) -> list[Gallery]:
    """Of every variant, at most `shown` images in each group."""
    found = flips.of(record)
    made = []
    for variant in record.variants:
        own = [flip for flip in found if flip.kind == variant.kind]
        groups = tuple(
            (sort, len(of_sort), [_tile(flip) for flip in of_sort[:shown]])
            for sort in (flips.BROKEN, flips.FIXED, flips.OTHER)
            if (of_sort := [flip for flip in own if flip.sort == sort])
        )
        made.append(Gallery(variant, len(own), groups))
    return made


def _tile(flip: Flip) -> dict[str, Any]:
    return {"flip": flip, "uri": image_uri(flip.image) if flip.image is not None else None}
