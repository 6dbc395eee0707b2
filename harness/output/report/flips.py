"""The page of a run's flips, and galleries of them for other pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.output.report.html import image_uri, render
from harness.records import flips
from harness.records.flips import Flip
from harness.records.record import Record, VariantRecord

SHOWN = 120  # of each variant's broken, fixed and other ones


@dataclass(frozen=True)
class Gallery:
    """One variant's changed images, groups of (sort, how many, tiles of the first)."""

    variant: VariantRecord
    flips: int
    groups: tuple[tuple[str, int, list[dict[str, Any]]], ...]


def page(record: Record) -> str:
    """HTML: for each variant its verdict, and the images whose answer changed, broken and fixed apart."""
    return render("flips.html", record=record, galleries=galleries(record))


def galleries(record: Record, shown: int = SHOWN) -> list[Gallery]:
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
