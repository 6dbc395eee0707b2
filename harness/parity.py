"""Does a variant answer like the reference? Figures from paired outputs on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Parity:
    """A variant against the reference. Shares are 0..1 of all images; flips and ties are counts.

    A flip is another top-1 class than the reference's. A tie is an image whose largest output two classes
    share (int8 outputs have 256 steps): top-1 is then the lower class, and `accuracy_worst` counts it as wrong.
    """

    images: int
    accuracy: float
    accuracy_worst: float
    reference_accuracy: float
    agreement: float
    flips: int
    ties: int
    largest_probability_difference: float


def dequantize(raw: npt.NDArray[np.generic], scale: float, zero_point: int) -> FloatArray:
    """Real outputs from stored ones; a scale of 0 means that they are real already."""
    if not scale:
        return raw.astype(np.float64)
    return (raw.astype(np.float64) - zero_point) * scale


def compare(outputs: FloatArray, reference: FloatArray, labels: npt.NDArray[np.int64]) -> Parity:
    """Figures for outputs [N, classes] beside the reference's, and labels [N].

    Raises ValueError: nothing to compare, unequal shapes, NaN or infinite values.
    """
    if outputs.shape != reference.shape or len(labels) != len(outputs):
        raise ValueError(
            f"{outputs.shape} outputs, {reference.shape} of the reference and {len(labels)} labels do not pair"
        )
    if not len(outputs):
        raise ValueError("no images: nothing to compare")
    broken = int((~np.isfinite(outputs)).any(axis=1).sum())
    if broken:
        raise ValueError(f"NaN or infinite outputs on {broken} of {len(outputs)} images")
    answer, expected = outputs.argmax(axis=1), reference.argmax(axis=1)
    tied = (outputs == outputs.max(axis=1, keepdims=True)).sum(axis=1) > 1
    right = answer == labels
    return Parity(
        images=len(labels),
        accuracy=float(right.mean()),
        accuracy_worst=float((right & ~tied).mean()),
        reference_accuracy=float((expected == labels).mean()),
        agreement=float((answer == expected).mean()),
        flips=int((answer != expected).sum()),
        ties=int(tied.sum()),
        largest_probability_difference=float(np.abs(outputs - reference).max()),
    )
