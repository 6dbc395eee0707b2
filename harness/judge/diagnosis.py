"""What a variant that does not answer like the reference looks like: the patterns that name a mistake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from harness.judge.tally import MAX_SUSPECTS, Suspect, Tally

MOSTLY = 0.9  # of a class's images answered with one other class: the classes are renamed
SWAP_TOLERANCE = 0.1  # of each probability


def patterns(counted: Tally, class_names: Sequence[str]) -> Iterator[str]:
    """Mistakes that a variant's answers show beside the reference's."""
    classes = len(counted.confusion)
    renamed = {}
    for label, answers in enumerate(counted.confusion):
        if answers.any() and answers.argmax() != label and answers.max() >= MOSTLY * answers.sum():
            renamed[label] = int(answers.argmax())
    shifts = {(new - old) % classes for old, new in renamed.items()}
    if len(renamed) > 2 and len(shifts) == 1:
        yield f"classes shifted: {len(renamed)} classes are answered with the class {shifts.pop()} further on"
    elif renamed:
        yield "classes renamed or collapsed: " + ", ".join(
            f"{class_names[old]} answered as {class_names[new]}" for old, new in renamed.items()
        )


def swaps(counted: Tally) -> Iterator[str]:
    """Images that have each other's outputs, if these are all that are far off the reference.

    A proof of mixed-up answers, however few they are: two images that a variant takes for each other by chance are
    some of several that it gets wrong.
    """
    if len(counted.suspects) == MAX_SUSPECTS:  # there may be more
        return
    alone = list(counted.suspects)
    pairs = []
    while alone:
        first = alone.pop()
        other = next((suspect for suspect in alone if _crossed(first, suspect)), None)
        if other is None:
            return
        alone.remove(other)
        pairs.append(sorted((first.image, other.image)))
    for first_image, second_image in sorted(pairs):
        yield f"images {first_image} and {second_image} (counted from 0) have each other's outputs: swapped"


def _crossed(first: Suspect, second: Suspect) -> bool:
    off = np.array([first.outputs, second.outputs]) - np.array([second.reference, first.reference])
    return bool(np.abs(off).max() < SWAP_TOLERANCE)
