"""What a variant that does not answer like the reference looks like: the patterns that name a mistake."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from harness.judge.tally import MAX_SUSPECTS, Counts, Suspect, Tally

Indices = npt.NDArray[np.int64]

MIN_IMAGES_A_CLASS = 3  # on average, to tell another order of the classes
MIN_REORDERED, MIN_GAIN = 0.5, 0.25  # accuracy in that order, and how much more it is
REORDERED_TOLERANCE = 0.02  # of accuracy: a known order is as good as the best
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


def reordered(confusion: Counts, class_names: Sequence[str]) -> str | None:
    """In words, another order of the classes in which a model is right far more often, with the config's line to paste.

    confusion: images by label and by answer, [classes, classes]. None if there is no such order.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ModuleNotFoundError:
        return None
    images, classes = int(confusion.sum()), len(confusion)
    if images < MIN_IMAGES_A_CLASS * classes:
        return None
    _, assigned = linear_sum_assignment(confusion, maximize=True)
    names = np.array(class_names)

    def right(answers: Indices) -> float:
        """The share of images that are right if the class of a label is the output answers[label]."""
        return float(confusion[np.arange(classes), answers].sum() / images)

    best, now = right(assigned), right(np.arange(classes))
    if best < MIN_REORDERED or best - now < MIN_GAIN:
        return None
    orders = {"text order, as image_dataset_from_directory sorts folders": np.argsort(np.argsort(names))}
    orders |= {"the reverse order": np.arange(classes)[::-1]}
    orders |= {f"shifted by {shift}": (np.arange(classes) + shift) % classes for shift in (1, -1)}
    fitting = [(what, answers) for what, answers in orders.items() if right(answers) > best - REORDERED_TOLERANCE]
    what, answers = fitting[0] if fitting else ("an order of its own", assigned)
    line = json.dumps(names[np.argsort(answers)].tolist(), ensure_ascii=False)
    return (
        f"the labels are a permutation of the model's answers: {what}. It is right on {now:.2%} of the images, and "
        f"would be on {right(answers):.2%}; put this into the Keras model's .toml file: class_names = {line}"
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
