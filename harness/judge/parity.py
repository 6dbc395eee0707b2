"""Does a variant answer like the reference? Figures from paired outputs on the same images; NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from harness.artifacts.outputs import FloatArray
from harness.images.spec import numbers
from harness.judge import tally
from harness.judge.tally import CHANGES, LEAST_PROBABILITY, Tally


@dataclass(frozen=True)
class Changes:
    """Images where only the reference is right (broken) or only the variant is (fixed).

    As answered, where a tie goes to the lower class; at best and at worst, where it goes for or against the variant.
    """

    broken: int
    fixed: int
    broken_best: int
    fixed_best: int
    broken_worst: int
    fixed_worst: int


@dataclass(frozen=True)
class ClassParity:
    """One class: its images, how many of them are read rightly, and how many images are answered with it."""

    label: int
    name: str
    images: int
    recall: float | None  # none without images
    reference_recall: float | None
    answers: int
    reference_answers: int
    changes: Changes


@dataclass(frozen=True)
class Parity:
    """A variant against the reference. Shares are 0..1 of all images; flips and ties are counts.

    A flip is another top-1 class than the reference's. A tie is an image whose largest output two classes
    share (int8 outputs have 256 steps): top-1 is then the lower class. Best and worst count ties for and against the
    variant; a tie between the same classes as the reference's is no change.
    The probability difference is each image's largest; the divergence is Kullback-Leibler's, of the variant's
    outputs from the reference's, in nats; ece is the expected calibration error of the largest probability.
    """

    images: int
    accuracy: float
    accuracy_best: float
    accuracy_worst: float
    reference_accuracy: float
    agreement: float
    flips: int
    flips_best: int
    flips_worst: int
    ties: int
    largest_probability_difference: float
    mean_probability_difference: float
    divergence: float
    ece: float
    reference_ece: float
    changes: Changes
    classes: tuple[ClassParity, ...]


def compare(
    outputs: FloatArray, reference: FloatArray, labels: npt.NDArray[np.int64], class_names: Sequence[str] = ()
) -> Parity:
    """Figures for outputs [N, classes] beside the reference's, and labels [N]. class_names: numbers unless given.

    Raises ValueError: nothing to compare, unequal shapes, NaN or infinite values, the same answer to every image,
    no probabilities where the reference gives probabilities.
    """
    return figures(tally.count(outputs, reference, labels), class_names)


def figures(counted: Tally, class_names: Sequence[str] = ()) -> Parity:
    """Of a tally, of however many shards. Raises ValueError as `compare` does."""
    _check(counted)
    images = counted.images
    totals = {name: int(by_class.sum()) for name, by_class in counted.counts.items()}
    agreeing = int(counted.confusion.trace())
    return Parity(
        images=images,
        accuracy=totals["right"] / images,
        accuracy_best=totals["right_best"] / images,
        accuracy_worst=totals["right_worst"] / images,
        reference_accuracy=totals["reference_right"] / images,
        agreement=agreeing / images,
        flips=images - agreeing,
        flips_best=totals["flips_best"],
        flips_worst=totals["flips_worst"],
        ties=totals["ties"],
        largest_probability_difference=counted.largest_difference,
        mean_probability_difference=float(counted.difference / images),
        divergence=max(0.0, float(counted.divergence / images)),
        ece=_ece(counted.gaps, images),
        reference_ece=_ece(counted.reference_gaps, images),
        changes=Changes(**{name: totals[name] for name in CHANGES}),
        classes=_classes(counted, class_names or numbers(len(counted.confusion))),
    )


def _check(counted: Tally) -> None:
    """Raise ValueError where outputs cannot be compared with the reference's."""
    for whose, broken in (("", counted.broken), ("the reference's ", counted.reference_broken)):
        if broken:
            raise ValueError(f"{whose}NaN or infinite outputs on {broken} of {counted.images} images")
    if counted.same.holds and not counted.reference_same.holds:
        raise ValueError(f"constant: the same outputs for all {counted.images} images")
    tolerance = 0.1 + len(counted.confusion) * LEAST_PROBABILITY
    if counted.reference_off <= tolerance < max(counted.off_sum.value, -counted.lowest):
        raise ValueError(
            f"outputs from {counted.lowest:g} to {counted.highest:g}, on one image adding up to "
            f"{counted.off_sum.about[0]:g}: no probabilities as the reference's are; not dequantized, or by "
            "the wrong scale and zero point"
        )


def _ece(gaps: tuple[Fraction, ...], images: int) -> float:
    """The mean distance of confidence and accuracy over bins of equal width, by their share of images."""
    return float(sum(map(abs, gaps), Fraction(0)) / images)


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
            answers=answers[label],
            reference_answers=reference_answers[label],
            changes=Changes(**{name: counts[name][label] for name in CHANGES}),
        )
        for label, images in enumerate(counts["all"])
    )
