"""Does a variant answer like the reference? Figures from paired outputs on the same images; NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from harness.artifacts.outputs import FloatArray
from harness.core.outcome import SEVERITY, Interval, Outcome
from harness.core.shapes import Shape
from harness.images.spec import numbers
from harness.judge import tally
from harness.judge.tally import CHANGES, Moments, Tally

T = TypeVar("T")

SUM_TOLERANCE = 0.1  # of the sum of an image's probabilities, and how far below 0 one may be


class Changes(Shape):
    """Images where only the reference is right (regressions) or only the variant is (improvements).

    As answered, where a tie goes to the lower class; at best and at worst, where it goes for or against the variant.
    """

    regressions: int
    improvements: int
    regressions_best: int
    improvements_best: int
    regressions_worst: int
    improvements_worst: int


class ClassParity(Shape):
    """One class: its images, how many of them the variant answers rightly, and how many images it answers with it.

    Best and worst count ties for and against the variant.
    """

    label: int
    name: str
    images: int
    recall: float | None  # None if it has no images
    reference_recall: float | None
    right_best: int
    right_worst: int
    answers: int
    reference_answers: int
    changes: Changes


class Mean(Shape):
    """Of a value of each image; variance: of one image's, unbiased (0 for one image)."""

    mean: float
    variance: float


class Parity(Shape):
    """A variant against the reference. Shares are 0..1 of all images; flips and ties are counts.

    A flip is another top-1 class than the reference's. A tie is an image whose largest output two classes
    share (int8 outputs have 256 steps): top-1 is then the lower class. Best and worst count ties for and against the
    variant; a tie between the same classes as the reference's is no change.
    The probability difference is each image's largest over the classes. `far` images have more than `cap`, the
    policy's max_probability_difference. For the capped means an image counts as at most the cap (see rules).
    Without labels there is no accuracy and no log loss, and the reference's answers stand for the labels in the rest.
    The divergence is Kullback-Leibler's, of the variant's outputs from the reference's, and the log loss the negative
    logarithm of the label's probability, both in nats and per image.
    """

    images: int
    labelled: bool
    accuracy: float | None
    accuracy_best: float | None
    accuracy_worst: float | None
    reference_accuracy: float | None
    agreement: float
    flips: int
    flips_best: int
    flips_worst: int
    ties: int
    max_probability_difference: float
    mean_probability_difference: float
    divergence: float
    log_loss: float | None
    reference_log_loss: float | None
    cap: float
    far: int
    capped_probability_difference: Mean
    capped_log_loss_rise: Mean | None
    changes: Changes
    classes: tuple[ClassParity, ...]


class PartParity(Shape):
    """A slice of the images, or one of several labels; intervals that its rules are judged by.

    accuracy, drop: None without truths or classes. flips: None without classes; of a slice of images with several
    labels, those on which any flips. off: of the output that has most such images, as in TensorParity; None if there
    are no tensors.
    """

    name: str
    images: int
    outcome: Outcome
    accuracy: float | None = None
    reference_accuracy: float | None = None
    drop: float | None = None
    drop_interval: Interval | None = None
    flips: int | None = None
    flip_share: Interval | None = None
    off: int | None = None
    off_share: Interval | None = None


def worst_first(parity: PartParity) -> tuple[float | int | str, ...]:
    """What parts are sorted by."""
    changed = max(parity.flips or 0, parity.off or 0) / parity.images
    return -SEVERITY.index(parity.outcome), -(parity.drop or 0), -changed, parity.images, parity.name


def compare(
    outputs: FloatArray,
    reference: FloatArray,
    labels: npt.NDArray[np.int64],
    class_names: Sequence[str] = (),
    cap: float = 1.0,
) -> Parity:
    """Figures for outputs [N, classes] beside the reference's, and labels [N]. class_names: numbers unless given.

    Raises ValueError: nothing to compare, unequal shapes, NaN or infinite values, the same answer to every image,
    no probabilities where the reference gives probabilities.
    """
    return figures(tally.count(outputs, reference, labels, cap=cap), class_names)


def figures(counted: Tally, class_names: Sequence[str] = ()) -> Parity:
    """Of a tally, of however many shards. Raises ValueError as `compare` does."""
    _check(counted)
    images = counted.images
    totals = {name: int(by_class.sum()) for name, by_class in counted.counts.items()}
    agreeing = int(counted.confusion.trace())

    def of_labels(value: T) -> T | None:
        return value if counted.labelled else None

    return Parity(
        images=images,
        labelled=counted.labelled,
        accuracy=of_labels(totals["right"] / images),
        accuracy_best=of_labels(totals["right_best"] / images),
        accuracy_worst=of_labels(totals["right_worst"] / images),
        reference_accuracy=of_labels(totals["reference_right"] / images),
        agreement=agreeing / images,
        flips=images - agreeing,
        flips_best=totals["flips_best"],
        flips_worst=totals["flips_worst"],
        ties=totals["ties"],
        max_probability_difference=counted.max_difference,
        mean_probability_difference=float(counted.difference / images),
        divergence=max(0.0, float(counted.divergence / images)),
        log_loss=of_labels(float(counted.log_loss / images)),
        reference_log_loss=of_labels(float(counted.reference_log_loss / images)),
        cap=counted.cap,
        far=counted.far,
        capped_probability_difference=_mean(counted.capped_difference, images),
        capped_log_loss_rise=of_labels(_mean(counted.capped_rise, images)),
        changes=Changes(**{name: totals[name] for name in CHANGES}),
        classes=_classes(counted, class_names or numbers(len(counted.confusion))),
    )


def _check(counted: Tally) -> None:
    """Raise ValueError if outputs cannot be compared with the reference's."""
    for whose, not_finite in (("", counted.not_finite), ("the reference's ", counted.reference_not_finite)):
        if not_finite:
            raise ValueError(f"{whose}NaN or infinite outputs on {not_finite} of {counted.images} images")
    if counted.constant.holds and not counted.reference_constant.holds:
        raise ValueError(f"constant: the same outputs for all {counted.images} images")
    if counted.reference_off <= SUM_TOLERANCE < max(counted.sum_beyond.value, -counted.lowest):
        raise ValueError(
            f"outputs from {counted.lowest:g} to {counted.highest:g}, on one image adding up to "
            f"{counted.sum_beyond.about[0]:g}: no probabilities as the reference's are; not dequantized, or by "
            "the wrong scale and zero point"
        )


def _mean(moments: Moments, images: int) -> Mean:
    mean = moments.total / images
    variance = (moments.squares - images * mean**2) / max(1, images - 1)
    return Mean(float(mean), max(0.0, float(variance)))


def _classes(counted: Tally, class_names: Sequence[str]) -> tuple[ClassParity, ...]:
    counts = {name: by_class.tolist() for name, by_class in counted.counts.items()}
    answers, reference_answers = counted.confusion.sum(axis=0).tolist(), counted.confusion.sum(axis=1).tolist()
    return tuple(
        ClassParity(
            label=label,
            name=class_names[label],
            images=images,
            recall=counts["right"][label] / images if images else None,
            reference_recall=counts["reference_right"][label] / images if images else None,
            right_best=counts["right_best"][label],
            right_worst=counts["right_worst"][label],
            answers=answers[label],
            reference_answers=reference_answers[label],
            changes=Changes(**{name: counts[name][label] for name in CHANGES}),
        )
        for label, images in enumerate(counts["all"])
    )
