"""Does a variant answer like the reference? Figures from paired outputs on the same images; NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.spec import numbers

FloatArray = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]

LEAST_PROBABILITY = 1 / 512  # half a step of int8 outputs; smaller ones count as that in the divergence
FLOAT_TOLERANCE = 0.01  # of probabilities that were computed in float16
ECE_BINS = 15  # Guo et al., arXiv:1706.04599


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


def dequantize(raw: npt.NDArray[np.generic], scale: float, zero_point: int) -> FloatArray:
    """Real outputs from stored ones; a scale of 0 means that they are real already."""
    if not scale:
        return raw.astype(np.float64)
    return (raw.astype(np.float64) - zero_point) * scale


def compare(
    outputs: FloatArray, reference: FloatArray, labels: npt.NDArray[np.int64], class_names: Sequence[str] = ()
) -> Parity:
    """Figures for outputs [N, classes] beside the reference's, and labels [N]. class_names: numbers unless given.

    Raises ValueError: nothing to compare, unequal shapes, NaN or infinite values, the same answer to every image,
    no probabilities where the reference gives probabilities.
    """
    check(outputs, reference, labels)
    images = np.arange(len(labels))
    answer, expected = outputs.argmax(axis=1), reference.argmax(axis=1)
    top, expected_top = _top(outputs), _top(reference)
    tied = top.sum(axis=1) > 1
    same = (top == expected_top).all(axis=1)
    right, reference_right = answer == labels, expected == labels
    best, reference_best = top[images, labels], expected_top[images, labels]
    worst = best & ~tied
    reference_worst = reference_best & (expected_top.sum(axis=1) == 1)
    cases = (
        reference_right & ~right,
        ~reference_right & right,
        reference_worst & ~best & ~same,
        ~reference_worst & best & ~same,
        reference_best & ~worst & ~same,
        ~reference_best & worst & ~same,
    )
    difference = np.abs(outputs - reference).max(axis=1)
    return Parity(
        images=len(labels),
        accuracy=float(right.mean()),
        accuracy_best=float(best.mean()),
        accuracy_worst=float(worst.mean()),
        reference_accuracy=float(reference_right.mean()),
        agreement=float((answer == expected).mean()),
        flips=int((answer != expected).sum()),
        flips_best=int((~(top & expected_top).any(axis=1)).sum()),
        flips_worst=int((~same).sum()),
        ties=int(tied.sum()),
        largest_probability_difference=float(difference.max()),
        mean_probability_difference=float(difference.mean()),
        divergence=_divergence(reference, outputs),
        ece=_ece(outputs, right),
        reference_ece=_ece(reference, reference_right),
        changes=Changes(*(int(case.sum()) for case in cases)),
        classes=_classes(labels, answer, expected, cases, class_names or numbers(outputs.shape[1])),
    )


def check(outputs: FloatArray, reference: FloatArray, labels: npt.NDArray[np.int64]) -> None:
    """Raise ValueError where outputs cannot be compared with the reference's."""
    if outputs.shape != reference.shape or outputs.ndim != 2 or len(labels) != len(outputs):
        raise ValueError(
            f"{outputs.shape} outputs, {reference.shape} of the reference and {len(labels)} labels do not pair"
        )
    if not len(outputs):
        raise ValueError("no images: nothing to compare")
    if labels.min() < 0 or labels.max() >= outputs.shape[1]:
        raise ValueError(f"labels {labels.min()} to {labels.max()} for {outputs.shape[1]} classes")
    for whose, values in (("", outputs), ("the reference's ", reference)):
        if broken := int((~np.isfinite(values)).any(axis=1).sum()):
            raise ValueError(f"{whose}NaN or infinite outputs on {broken} of {len(values)} images")
    if (outputs == outputs[0]).all() and not (reference == reference[0]).all():
        raise ValueError(f"constant: the same outputs for all {len(outputs)} images")
    tolerance = 0.1 + outputs.shape[1] * LEAST_PROBABILITY
    if _off_sum(reference) <= tolerance < _off_sum(outputs):
        totals = outputs.sum(axis=1)
        raise ValueError(
            f"outputs from {outputs.min():g} to {outputs.max():g}, on one image adding up to "
            f"{totals[np.abs(totals - 1).argmax()]:g}: no probabilities as the reference's are; not dequantized, or by "
            "the wrong scale and zero point"
        )


def are_probabilities(outputs: FloatArray) -> bool:
    """Whether each image's outputs [N, classes], of a float model, are a distribution."""
    return _off_sum(outputs) <= FLOAT_TOLERANCE


def are_logits(outputs: FloatArray) -> bool:
    """Whether outputs leave 0..1, so that a softmax is still to come."""
    return bool(outputs.min() < -FLOAT_TOLERANCE or outputs.max() > 1 + FLOAT_TOLERANCE)


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities [N, classes]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _off_sum(outputs: FloatArray) -> float:
    """How far from a distribution the outputs are, at worst: a sum other than 1, or a negative value."""
    return float(max(np.abs(outputs.sum(axis=1) - 1).max(), -outputs.min()))


def _top(outputs: FloatArray) -> Flags:
    """Which classes share the largest output, [N, classes]."""
    return np.asarray(outputs == outputs.max(axis=1, keepdims=True))


def _divergence(reference: FloatArray, outputs: FloatArray) -> float:
    p, q = np.maximum(reference, LEAST_PROBABILITY), np.maximum(outputs, LEAST_PROBABILITY)
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    return max(0.0, float((p * np.log(p / q)).sum(axis=1).mean()))


def _ece(outputs: FloatArray, right: Flags) -> float:
    """The mean distance of confidence and accuracy over bins of equal width, by their share of images."""
    confidence = outputs.max(axis=1)
    bins = np.clip((confidence * ECE_BINS).astype(np.int64), 0, ECE_BINS - 1)
    gaps = np.bincount(bins, confidence - right, ECE_BINS)
    return float(np.abs(gaps).sum() / len(right))


def _classes(
    labels: npt.NDArray[np.int64],
    answer: npt.NDArray[np.int64],
    expected: npt.NDArray[np.int64],
    cases: tuple[Flags, ...],
    class_names: Sequence[str],
) -> tuple[ClassParity, ...]:
    def counts(of: npt.NDArray[np.int64]) -> list[int]:
        return [int(number) for number in np.bincount(of, minlength=len(class_names))]

    images = counts(labels)
    right, reference_right = counts(labels[answer == labels]), counts(labels[expected == labels])
    answers, reference_answers = counts(answer), counts(expected)
    changes = list(zip(*(counts(labels[case]) for case in cases), strict=True))
    return tuple(
        ClassParity(
            label=label,
            name=name,
            images=images[label],
            recall=right[label] / images[label] if images[label] else None,
            reference_recall=reference_right[label] / images[label] if images[label] else None,
            answers=answers[label],
            reference_answers=reference_answers[label],
            changes=Changes(*changes[label]),
        )
        for label, name in enumerate(class_names)
    )
