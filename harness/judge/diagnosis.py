"""What a variant that does not answer like the reference looks like: the patterns that name a mistake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from harness.judge.tally import Suspect, Tally

MOSTLY = 0.9  # of a class's images answered with one other class: the classes are renamed


def patterns(counted: Tally, class_names: Sequence[str]) -> Iterator[str]:
    """Mistakes that a variant's answers show beside the reference's."""
    classes = len(counted.confusion)
    renamed = {}
    for label, given in enumerate(counted.confusion):
        if given.any() and given.argmax() != label and given.max() >= MOSTLY * given.sum():
            renamed[label] = int(given.argmax())
    shifts = {(new - old) % classes for old, new in renamed.items()}
    if len(renamed) > 2 and len(shifts) == 1:
        yield f"classes shifted: {len(renamed)} classes are answered with the class {shifts.pop()} further on"
    elif renamed:
        yield "classes renamed or collapsed: " + ", ".join(
            f"{class_names[old]} answered as {class_names[new]}" for old, new in renamed.items()
        )
    elif pair := _swapped(counted.suspects):
        yield f"images {pair[0]} and {pair[1]} (counted from 0) have each other's outputs: swapped"


def _swapped(suspects: Sequence[Suspect]) -> tuple[int, int] | None:
    """Two images whose outputs are the reference's for the other one; looked for among the furthest off."""
    for one, other in combinations(suspects, 2):
        crossed = np.abs(np.array([one.outputs, other.outputs]) - np.array([other.reference, one.reference]))
        if crossed.max() < 0.1:
            first, second = sorted((one.image, other.image))
            return first, second
    return None
