"""The images whose prediction changed: which ones, from what to what, and with what confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.core.cell import Cell
from harness.images.spec import UNKNOWN
from harness.records.record import Record

REGRESSION, IMPROVEMENT, OTHER, UNJUDGED = "regression", "improvement", "wrong before and after", "changed"


@dataclass(frozen=True)
class FlippedImage:
    """One image of one cell; classes by name. image: uint8 [H, W, channels], None if the record keeps none."""

    cell: Cell
    name: str
    truth: str
    expected: str
    expected_confidence: float
    answer: str
    answer_confidence: float
    image: npt.NDArray[np.uint8] | None

    @property
    def change(self) -> str:
        """REGRESSION, IMPROVEMENT or OTHER; UNJUDGED without a label."""
        if self.truth == UNKNOWN:
            return UNJUDGED
        return REGRESSION if self.expected == self.truth else IMPROVEMENT if self.answer == self.truth else OTHER


def flipped_images(record: Record) -> list[FlippedImage]:
    """All flips of all cells, the most confident predictions first."""
    predictions, images = record.arrays.predictions(), record.arrays.flipped
    image_names, classes = record.arrays.names, (*predictions.class_names, UNKNOWN)  # UNLABELLED is the last
    flips: list[FlippedImage] = []
    if not predictions.class_names:
        return flips
    expected = predictions.reference.argmax(axis=1)
    for cell, outputs in predictions.cells.items():
        if outputs.shape != predictions.reference.shape or not np.isfinite(outputs).all():
            continue
        answer = outputs.argmax(axis=1)
        flipped = np.flatnonzero(answer != expected)
        for i in sorted(flipped.tolist(), key=lambda i: -float(outputs[i].max())):
            flips.append(
                FlippedImage(
                    cell=cell,
                    name=str(image_names[i]),
                    truth=classes[predictions.labels[i]],
                    expected=classes[expected[i]],
                    expected_confidence=float(predictions.reference[i].max()),
                    answer=classes[answer[i]],
                    answer_confidence=float(outputs[i].max()),
                    image=images.get(i),
                )
            )
    return flips
