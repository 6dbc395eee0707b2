"""Galleries of the images whose prediction changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.output.report.pages import image_uri
from harness.records import flips
from harness.records.flips import FlippedImage, flipped_images
from harness.records.record import CellRecord, Record


@dataclass(frozen=True)
class Gallery:
    """One cell's changed images, groups of (change, how many, tiles of the first)."""

    cell: CellRecord
    flips: int
    groups: tuple[tuple[str, int, list[dict[str, Any]]], ...]


def galleries(record: Record, shown: int) -> list[Gallery]:
    """Of every variant, at most `shown` images in each group."""
    flipped, result = flipped_images(record), []
    for cell in record.cells:
        of_cell = [flip for flip in flipped if flip.cell == cell.cell]
        groups = tuple(
            (change, len(changed), [_tile(flip) for flip in changed[:shown]])
            for change in (flips.REGRESSION, flips.IMPROVEMENT, flips.OTHER, flips.UNJUDGED)
            if (changed := [flip for flip in of_cell if flip.change == change])
        )
        result.append(Gallery(cell, len(of_cell), groups))
    return result


def _tile(flip: FlippedImage) -> dict[str, Any]:
    return {"flip": flip, "uri": image_uri(flip.image) if flip.image is not None else None}
