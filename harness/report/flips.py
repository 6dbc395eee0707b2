"""The page of a run's flips."""

from __future__ import annotations

from harness import flips
from harness.flips import Flip
from harness.record import Record
from harness.report.html import image_uri, render

SHOWN = 120  # of each variant's broken, fixed and other ones


def page(record: Record) -> str:
    """HTML: for each variant its verdict, and the images whose answer changed, broken and fixed apart."""
    found = flips.of(record)
    variants = []
    for variant in record.variants:
        own = [flip for flip in found if flip.kind == variant.kind]
        groups = [
            (sort, len(of_sort), [_tile(flip) for flip in of_sort[:SHOWN]])
            for sort in (flips.BROKEN, flips.FIXED, flips.OTHER)
            if (of_sort := [flip for flip in own if flip.sort == sort])
        ]
        variants.append({"record": variant, "flips": len(own), "groups": groups})
    return render("flips.html", record=record, variants=variants)


def _tile(flip: Flip) -> dict[str, object]:
    return {"flip": flip, "uri": image_uri(flip.image) if flip.image is not None else None}
