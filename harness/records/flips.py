"""The images whose answer changed: which, from what to what, and how sure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.records import evidence
from harness.records.record import Record

BROKEN, FIXED, OTHER = "broken", "fixed", "wrong before and after"


@dataclass(frozen=True)
class Flip:
    """One image of one variant; classes by name. image: uint8 [H, W, channels]; none where the record keeps none."""

    kind: str
    name: str
    truth: str
    expected: str
    expected_confidence: float
    answer: str
    answer_confidence: float
    image: npt.NDArray[np.uint8] | None

    @property
    def sort(self) -> str:
        """BROKEN, FIXED or OTHER."""
        return BROKEN if self.expected == self.truth else FIXED if self.answer == self.truth else OTHER


def of(record: Record) -> list[Flip]:
    """All flips of all variants, the surest wrong answers first."""
    answered = evidence.predictions(record.arrays)
    index, images = record.arrays["flipped.index"], record.arrays["flipped.images"]
    kept = dict(zip(index.tolist(), images, strict=True))
    names, expected = answered.class_names, answered.reference.argmax(axis=1)
    found = []
    for kind, outputs in answered.variants.items():
        if outputs.shape != answered.reference.shape or not np.isfinite(outputs).all():
            continue
        answer = outputs.argmax(axis=1)
        flipped = np.flatnonzero(answer != expected)
        for i in sorted(flipped.tolist(), key=lambda i: -float(outputs[i].max())):
            found.append(
                Flip(
                    kind=kind,
                    name=str(record.arrays["names"][i]),
                    truth=names[answered.labels[i]],
                    expected=names[expected[i]],
                    expected_confidence=float(answered.reference[i].max()),
                    answer=names[answer[i]],
                    answer_confidence=float(outputs[i].max()),
                    image=kept.get(i),
                )
            )
    return found
