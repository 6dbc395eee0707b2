"""Counts of a variant's predictions, shard by shard: the same sums in any order and number of shards.

Counts are integers and sums of real numbers are exact (`exact_sum`), so that adding up shards loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from operator import add
from typing import Annotated, Any, Self, TypeVar, get_type_hints

import numpy as np
import numpy.typing as npt

from harness.images.spec import UNLABELLED

Floats = npt.NDArray[np.floating]
Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

HALF_STEP = 1 / 512  # of int8 outputs; smaller probabilities count as that in logarithms
MAX_GAINED = 0.85  # by rounding, of a sum that is 1
MAX_SUSPECTS = 20  # images furthest off, kept with their outputs
FAR_OFF = 0.5  # of a probability: a suspect

T = TypeVar("T")


def exact_sum(values: Floats) -> Fraction:
    """The sum of finite numbers, not rounded."""
    mantissas, exponents = np.frexp(values.astype(np.float64))
    whole = (mantissas * 2.0**53).astype(np.int64)
    total = Fraction(0)
    for exponent in np.unique(exponents):
        part = whole[exponents == exponent]
        halves = (int((part >> 26).sum()) << 26) + int((part & (2**26 - 1)).sum())
        total += halves * Fraction(2) ** (int(exponent) - 53)
    return total


def total(parts: Iterable[T]) -> T:
    """All parts added up. Raises TypeError if there is none."""
    return reduce(add, parts)


class Mergeable:
    """A dataclass whose `+` puts its fields together: by the function they are annotated with, or else by adding."""

    def __add__(self, other: Self) -> Self:
        return type(self)(
            **{name: how(getattr(self, name), getattr(other, name)) for name, how in _merges(type(self)).items()}
        )


def _merges(kind: type) -> dict[str, Callable[[Any, Any], Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint.__metadata__[0] if hasattr(hint, "__metadata__") else add for name, hint in hints.items()}


def by_key(left: Mapping[str, T], right: Mapping[str, T]) -> dict[str, T]:
    return {key: left[key] + right[key] for key in left}  # type: ignore[operator]


@dataclass(frozen=True)
class Moments(Mergeable):
    """Exact sums of some values and of their squares."""

    total: Fraction
    squares: Fraction

    @classmethod
    def of_values(cls, values: Floats) -> Moments:
        return cls(exact_sum(values), exact_sum(values**2))


@dataclass(frozen=True)
class Extreme:
    """The largest of some values, the first image that has it, and other values of that image."""

    value: float
    image: int = -1
    about: tuple[float, ...] = ()

    @classmethod
    def of_values(cls, values: Floats, start: int, *about: Floats) -> Extreme:
        """start: the number of the first image. NaN counts as the largest."""
        if not len(values):
            return cls(-np.inf)
        ranked = np.nan_to_num(values, nan=np.inf)
        at = int(ranked.argmax())
        return cls(float(ranked[at]), start + at, tuple(float(values[at]) for values in about))

    def __add__(self, other: Extreme) -> Extreme:
        return min(self, other, key=lambda extreme: (-extreme.value, extreme.image))


@dataclass(frozen=True)
class Constant:
    """Whether all rows of an array are equal. row: that row; None if there is no row, or they differ."""

    holds: bool
    row: tuple[float, ...] | None

    @classmethod
    def of_rows(cls, rows: Floats) -> Constant:
        if not len(rows):
            return cls(True, None)
        holds = bool((rows == rows[0]).all())
        return cls(holds, tuple(rows[0].tolist()) if holds else None)

    def __add__(self, other: Constant) -> Constant:
        if self.holds and other.holds and (None in (self.row, other.row) or self.row == other.row):
            return Constant(True, self.row or other.row)
        return Constant(False, None)


@dataclass(frozen=True)
class Suspect:
    """An image whose outputs are far off the reference's."""

    off: float
    image: int
    outputs: tuple[float, ...]
    reference: tuple[float, ...]


def _furthest(left: tuple[Suspect, ...], right: tuple[Suspect, ...]) -> tuple[Suspect, ...]:
    return tuple(sorted((*left, *right), key=lambda suspect: (-suspect.off, suspect.image))[:MAX_SUSPECTS])


@dataclass(frozen=True)
class Tally(Mergeable):
    """Outputs beside the reference's; images with NaN or infinity are counted and otherwise left out. Sums are exact.

    counts: by name of a case (`cases`), images of each class [classes]. confusion: images by the reference's and by
    the variant's answer. cap: the most that an image counts in `capped_difference` and, up or down, in
    `capped_rise`, of the log loss; an image whose probability difference is larger is far.
    """

    images: int
    labelled: Annotated[bool, min]  # else the reference's answers stand for the labels
    not_finite: int  # images with NaN or infinite outputs
    reference_not_finite: int
    counts: Annotated[Mapping[str, Counts], by_key]
    confusion: Counts
    reference_confusion: Counts  # by the label and by the reference's answer
    cap: Annotated[float, min]
    far: int
    difference: Fraction  # each image's largest over the classes
    capped_difference: Moments
    divergence: Fraction
    log_loss: Fraction
    reference_log_loss: Fraction
    capped_rise: Moments
    max_difference: Annotated[float, max]
    lowest: Annotated[float, min]
    highest: Annotated[float, max]
    sum_beyond: Extreme  # how far the sum of an image's outputs is beyond what rounding explains, and that sum
    reference_off: Annotated[float, max]  # from a distribution, at worst
    constant: Constant
    reference_constant: Constant
    suspects: Annotated[tuple[Suspect, ...], _furthest]


CHANGES = (
    "regressions",
    "improvements",
    "regressions_best",
    "improvements_best",
    "regressions_worst",
    "improvements_worst",
)


def count(outputs: Floats, reference: Floats, labels: Counts, start: int = 0, cap: float = 1.0) -> Tally:
    """Tally outputs [N, classes], the reference's, and labels [N]; start: the number of the first image.

    Without labels, where all are UNLABELLED, the reference's answers stand for them.
    Raises ValueError: unequal shapes, no images, labels beyond the classes.
    """
    if outputs.ndim != 2 or not len(outputs) == len(labels) == len(reference) or outputs.shape != reference.shape:
        raise ValueError(
            f"{list(outputs.shape)} outputs, {list(reference.shape)} of the reference and {len(labels)} labels do not "
            "pair"
        )
    if not len(outputs):
        raise ValueError("no images: nothing to compare")
    classes = outputs.shape[1]
    if not (labelled := bool((labels != UNLABELLED).any())):
        labels = reference.argmax(axis=1)
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels {labels.min()} to {labels.max()} for {classes} classes")
    finite = np.asarray(np.isfinite(outputs).all(axis=1))
    reference_finite = np.asarray(np.isfinite(reference).all(axis=1))
    usable = finite & reference_finite
    numbers = start + np.flatnonzero(usable)
    outputs, reference, labels = (
        outputs[usable].astype(np.float64),
        reference[usable].astype(np.float64),
        labels[usable],
    )
    answer, expected = outputs.argmax(axis=1), reference.argmax(axis=1)
    by_case = cases(outputs, reference, labels)
    off = np.abs(outputs - reference).max(axis=1, initial=0.0)
    loss, reference_loss = _log_losses(outputs, labels), _log_losses(reference, labels)
    sums = outputs.sum(axis=1)
    worst_sum = Extreme.of_values(_beyond_rounding(sums, reference), 0, sums)
    return Tally(
        images=len(usable),
        labelled=labelled,
        not_finite=int((~finite).sum()),
        reference_not_finite=int((~reference_finite).sum()),
        counts={name: np.bincount(labels[case], minlength=classes) for name, case in by_case.items()},
        confusion=np.bincount(expected * classes + answer, minlength=classes**2).reshape(classes, classes),
        reference_confusion=np.bincount(labels * classes + expected, minlength=classes**2).reshape(classes, classes),
        cap=cap,
        far=int((off > cap).sum()),
        difference=exact_sum(off),
        capped_difference=Moments.of_values(np.minimum(off, cap)),
        divergence=exact_sum(_divergences(reference, outputs)),
        log_loss=exact_sum(loss),
        reference_log_loss=exact_sum(reference_loss),
        capped_rise=Moments.of_values(np.clip(loss - reference_loss, -cap, cap)),
        max_difference=float(off.max(initial=0.0)),
        lowest=float(outputs.min(initial=np.inf)),
        highest=float(outputs.max(initial=-np.inf)),
        sum_beyond=Extreme(worst_sum.value, int(numbers[worst_sum.image]) if len(numbers) else -1, worst_sum.about),
        reference_off=float(max(np.abs(reference.sum(axis=1) - 1).max(initial=0), -reference.min(initial=0))),
        constant=Constant.of_rows(outputs),
        reference_constant=Constant.of_rows(reference),
        suspects=tuple(
            Suspect(float(off[i]), int(numbers[i]), tuple(outputs[i].tolist()), tuple(reference[i].tolist()))
            for i in np.argsort(-off, kind="stable")[:MAX_SUSPECTS]
            if off[i] > FAR_OFF
        ),
    )


def cases(outputs: Floats, reference: Floats, labels: Counts) -> dict[str, Flags]:
    """Which images are a case of what. Best and worst: ties for and against the variant; see parity.Changes."""
    images = np.arange(len(labels))
    top, expected_top = _top(outputs), _top(reference)
    tied = top.sum(axis=1) > 1
    same = (top == expected_top).all(axis=1)
    right, reference_right = outputs.argmax(axis=1) == labels, reference.argmax(axis=1) == labels
    best, reference_best = top[images, labels], expected_top[images, labels]
    worst = best & ~tied
    reference_worst = reference_best & (expected_top.sum(axis=1) == 1)
    changes = (
        reference_right & ~right,
        ~reference_right & right,
        reference_worst & ~best & ~same,
        ~reference_worst & best & ~same,
        reference_best & ~worst & ~same,
        ~reference_best & worst & ~same,
    )
    return {
        "all": np.ones(len(labels), bool),
        "right": right,
        "right_best": best,
        "right_worst": worst,
        "reference_right": reference_right,
        "flips_best": ~(top & expected_top).any(axis=1),
        "flips_worst": ~same,
        "ties": tied,
        **dict(zip(CHANGES, changes, strict=True)),
    }


def _top(outputs: Floats) -> Flags:
    """Which classes share the largest output, [N, classes]."""
    return np.asarray(outputs == outputs.max(axis=1, keepdims=True, initial=-np.inf))


def _divergences(reference: Floats, outputs: Floats) -> Floats:
    p, q = _floored(reference), _floored(outputs)
    return np.asarray((p * np.log(p / q)).sum(axis=1))


def _log_losses(outputs: Floats, labels: Counts) -> Floats:
    """The negative logarithm of each label's probability [N]: a strictly proper score (Gneiting and Raftery 2007)."""
    return np.asarray(-np.log(_floored(outputs)[np.arange(len(labels)), labels]))


def _floored(outputs: Floats) -> Floats:
    """Distributions [N, classes] that are nowhere 0."""
    raised = np.clip(outputs, HALF_STEP, 1)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _beyond_rounding(sums: Floats, reference: Floats) -> Floats:
    """How far sums of int8 probabilities are from 1 beyond what rounding to 256 steps explains [N]; negative: within.

    Rounding takes up to half a step from every class, but no more than it has, and adds up to half a step to those
    that have as much. So 1,000 classes may well sum to 0, but never to 2, which a wrong scale makes of 1.
    """
    lost = np.minimum(reference, HALF_STEP).sum(axis=1)
    gained = np.minimum(HALF_STEP * (reference >= HALF_STEP).sum(axis=1), MAX_GAINED)
    return np.asarray(np.maximum(sums - 1 - gained, 1 - sums - lost))
