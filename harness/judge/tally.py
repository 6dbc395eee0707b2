"""What is counted of a variant's answers, shard by shard: the same sums in whatever order and number of shards.

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

Floats = npt.NDArray[np.floating]
Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

LEAST_PROBABILITY = 1 / 512  # half a step of int8 outputs; smaller ones count as that in the divergence
ECE_BINS = 15  # Guo et al., arXiv:1706.04599
MOST_SUSPECTS = 20  # images furthest off, kept with their outputs
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
    """All parts added up. Raises TypeError where there is none."""
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


def by_key(one: Mapping[str, T], other: Mapping[str, T]) -> dict[str, T]:
    return {key: one[key] + other[key] for key in one}  # type: ignore[operator]


def elementwise(one: tuple[Fraction, ...], other: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


@dataclass(frozen=True)
class Extreme:
    """The largest of some values, the first image that has it, and what else is to be said of that image."""

    value: float
    image: int = -1
    about: tuple[float, ...] = ()

    @classmethod
    def of(cls, values: Floats, start: int, *about: Floats) -> Extreme:
        """start: the number of the first image. NaN counts as the largest."""
        if not len(values):
            return cls(-np.inf)
        ranked = np.nan_to_num(values, nan=np.inf)
        at = int(ranked.argmax())
        return cls(float(ranked[at]), start + at, tuple(float(one[at]) for one in about))

    def __add__(self, other: Extreme) -> Extreme:
        return min(self, other, key=lambda one: (-one.value, one.image))


@dataclass(frozen=True)
class Same:
    """Whether all rows of an array were the same one. row: none where there was none, and where they differ."""

    holds: bool
    row: tuple[float, ...] | None

    @classmethod
    def of(cls, rows: Floats) -> Same:
        if not len(rows):
            return cls(True, None)
        holds = bool((rows == rows[0]).all())
        return cls(holds, tuple(rows[0].tolist()) if holds else None)

    def __add__(self, other: Same) -> Same:
        if self.holds and other.holds and (None in (self.row, other.row) or self.row == other.row):
            return Same(True, self.row or other.row)
        return Same(False, None)


@dataclass(frozen=True)
class Suspect:
    """An image whose outputs are far off the reference's."""

    off: float
    image: int
    outputs: tuple[float, ...]
    reference: tuple[float, ...]


def _furthest(one: tuple[Suspect, ...], other: tuple[Suspect, ...]) -> tuple[Suspect, ...]:
    return tuple(sorted((*one, *other), key=lambda suspect: (-suspect.off, suspect.image))[:MOST_SUSPECTS])


@dataclass(frozen=True)
class Tally(Mergeable):
    """Of outputs beside the reference's; images with NaN or infinity are counted and otherwise left out.

    counts: by name of a case (`CASES`), images of each class [classes]. confusion: images by the reference's and by the
    variant's answer. gaps: confidence less right answers, summed up in each of ECE_BINS. Sums are exact.
    """

    images: int
    broken: int  # with NaN or infinite outputs
    reference_broken: int
    counts: Annotated[Mapping[str, Counts], by_key]
    confusion: Counts
    difference: Fraction  # each image's largest
    divergence: Fraction
    gaps: Annotated[tuple[Fraction, ...], elementwise]
    reference_gaps: Annotated[tuple[Fraction, ...], elementwise]
    largest_difference: Annotated[float, max]
    lowest: Annotated[float, min]
    highest: Annotated[float, max]
    off_sum: Extreme  # of the outputs' sums from 1
    reference_off: Annotated[float, max]  # from a distribution, at worst
    same: Same
    reference_same: Same
    suspects: Annotated[tuple[Suspect, ...], _furthest]


CHANGES = ("broken", "fixed", "broken_best", "fixed_best", "broken_worst", "fixed_worst")


def count(outputs: Floats, reference: Floats, labels: Counts, start: int = 0) -> Tally:
    """Tally outputs [N, classes], the reference's, and labels [N]; start: the number of the first image.

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
    cases = _cases(outputs, reference, labels)
    off = np.abs(outputs - reference).max(axis=1, initial=0.0)
    sums = outputs.sum(axis=1)
    worst_sum = Extreme.of(np.abs(sums - 1), 0, sums)
    return Tally(
        images=len(usable),
        broken=int((~finite).sum()),
        reference_broken=int((~reference_finite).sum()),
        counts={name: np.bincount(labels[case], minlength=classes) for name, case in cases.items()},
        confusion=np.bincount(expected * classes + answer, minlength=classes**2).reshape(classes, classes),
        difference=exact_sum(off),
        divergence=exact_sum(_divergences(reference, outputs)),
        gaps=_gaps(outputs, cases["right"]),
        reference_gaps=_gaps(reference, cases["reference_right"]),
        largest_difference=float(off.max(initial=0.0)),
        lowest=float(outputs.min(initial=np.inf)),
        highest=float(outputs.max(initial=-np.inf)),
        off_sum=Extreme(worst_sum.value, int(numbers[worst_sum.image]) if len(numbers) else -1, worst_sum.about),
        reference_off=float(max(np.abs(reference.sum(axis=1) - 1).max(initial=0), -reference.min(initial=0))),
        same=Same.of(outputs),
        reference_same=Same.of(reference),
        suspects=tuple(
            Suspect(float(off[i]), int(numbers[i]), tuple(outputs[i].tolist()), tuple(reference[i].tolist()))
            for i in np.argsort(-off, kind="stable")[:MOST_SUSPECTS]
            if off[i] > FAR_OFF
        ),
    )


def _cases(outputs: Floats, reference: Floats, labels: Counts) -> dict[str, Flags]:
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
    p, q = np.maximum(reference, LEAST_PROBABILITY), np.maximum(outputs, LEAST_PROBABILITY)
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    return np.asarray((p * np.log(p / q)).sum(axis=1))


def _gaps(outputs: Floats, right: Flags) -> tuple[Fraction, ...]:
    confidence = outputs.max(axis=1, initial=-np.inf)
    bins = np.clip((confidence * ECE_BINS).astype(np.int64), 0, ECE_BINS - 1)
    gaps = confidence - right
    return tuple(exact_sum(gaps[bins == one]) for one in range(ECE_BINS))
