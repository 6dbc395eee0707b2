"""What a variant that does not answer like the reference looks like: the patterns that name a mistake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from harness.parity import FloatArray

MOSTLY = 0.9  # of a class's images answered with one other class: the classes are renamed


def patterns(outputs: FloatArray, reference: FloatArray, class_names: Sequence[str]) -> Iterator[str]:
    """Mistakes that the outputs [N, classes] show beside the reference's; finite, and of one shape."""
    answer, expected = outputs.argmax(axis=1), reference.argmax(axis=1)
    renamed = {}
    for label in np.unique(expected):
        given = np.bincount(answer[expected == label], minlength=outputs.shape[1])
        if given.argmax() != label and given.max() >= MOSTLY * given.sum():
            renamed[int(label)] = int(given.argmax())
    shifts = {(new - old) % outputs.shape[1] for old, new in renamed.items()}
    if len(renamed) > 2 and len(shifts) == 1:
        yield f"classes shifted: {len(renamed)} classes are answered with the class {shifts.pop()} further on"
    elif renamed:
        yield "classes renamed or collapsed: " + ", ".join(
            f"{class_names[old]} answered as {class_names[new]}" for old, new in renamed.items()
        )
    elif pair := _swapped(outputs, reference):
        yield f"images {pair[0]} and {pair[1]} (counted from 0) have each other's outputs: swapped"


def _swapped(outputs: FloatArray, reference: FloatArray) -> tuple[int, int] | None:
    """Two images whose outputs are the reference's for the other one; looked for among the furthest off."""
    off = np.abs(outputs - reference).max(axis=1)
    suspects = [int(i) for i in np.argsort(-off, kind="stable")[:20] if off[i] > 0.5]
    for first in suspects:
        for second in suspects:
            crossed = max(
                np.abs(outputs[first] - reference[second]).max(), np.abs(outputs[second] - reference[first]).max()
            )
            if first < second and crossed < 0.1:
                return first, second
    return None
