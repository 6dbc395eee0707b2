"""Does a variant give the reference's numbers? For outputs that are not classes: regression, maps, embeddings.

An image's error is the root of its mean squared difference, in units of the reference's spread: the standard deviation
of all its numbers on all images. Its cosine is that of both models' numbers as vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

import numpy as np

from harness.artifacts.outputs import FloatArray
from harness.core.cell import Cell
from harness.core.outcome import SEVERITY, Interval, Outcome, Verdict, within
from harness.core.shapes import Shape
from harness.judge import paired_tests
from harness.judge.parity import Mean
from harness.judge.policy import Limits
from harness.judge.rules import NO_SCIPY, Check, Judgement, advice, number, percent, shown
from harness.judge.tally import Mergeable, exact_sum

MAX_DISTANCE = 0.1  # the most that an image counts in the mean of 1 - cosine


@dataclass(frozen=True)
class TensorOutput:
    """One output of several, on the same images: real numbers of the reference and of each cell, [N, numbers]."""

    name: str
    reference: FloatArray
    cells: Mapping[Cell, FloatArray]


def _joined(left: FloatArray, right: FloatArray) -> FloatArray:
    return np.concatenate([left, right])


@dataclass(frozen=True)
class TensorTally(Mergeable):
    """Numbers beside the reference's. Sums are exact; squares and cosines are of each image, [N].

    total, total_squares: of the reference's numbers. squares: an image's mean squared difference. cosines: -1 where
    only one of the two is all zeros.
    """

    numbers: Annotated[int, max]  # of an image
    not_finite: int
    total: Fraction
    total_squares: Fraction
    max_difference: Annotated[float, max]
    squares: Annotated[FloatArray, _joined]
    cosines: Annotated[FloatArray, _joined]


class TensorParity(Shape):
    """A variant's output against the reference's. Errors are in units of `spread`, the reference's standard deviation.

    off: images whose error is above the policy's max_tensor_error, or whose cosine is below min_cosine. For the capped
    means an image counts as at most max_tensor_error, and its distance, 1 - cosine, as at most 0.1. A single number
    has no cosine.
    """

    name: str
    numbers: int
    images: int
    spread: float
    mean_error: float
    max_error: float  # of an image
    max_difference: float  # of any number, in units of its own
    min_cosine: float | None
    off: int
    capped_error: Mean
    capped_distance: Mean | None


def count(outputs: FloatArray, reference: FloatArray) -> TensorTally:
    """Numbers [N, numbers] beside the reference's. Raises ValueError if they do not pair."""
    if outputs.shape != reference.shape:
        raise ValueError(f"{list(outputs.shape)} numbers and {list(reference.shape)} of the reference do not pair")
    expected, actual = reference.astype(np.float64), outputs.astype(np.float64)
    finite = np.asarray(np.isfinite(expected).all(axis=1) & np.isfinite(actual).all(axis=1))
    expected, actual = expected[finite], actual[finite]
    difference = actual - expected
    lengths = np.sqrt((expected**2).sum(axis=1) * (actual**2).sum(axis=1))
    equal = (expected == actual).all(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.where(equal, 1.0, (expected * actual).sum(axis=1) / lengths)
    return TensorTally(
        numbers=outputs.shape[1],
        not_finite=int((~finite).sum()),
        total=exact_sum(expected.sum(axis=1)),
        total_squares=exact_sum((expected**2).sum(axis=1)),
        max_difference=float(np.abs(difference).max(initial=0.0)),
        squares=(difference**2).mean(axis=1),
        cosines=np.nan_to_num(cosines, nan=-1.0),
    )


def figures(name: str, counted: TensorTally, limits: Limits, spread: float | None = None) -> TensorParity:
    """spread: of more images than these. Raises ValueError: NaN or infinite numbers."""
    images = len(counted.squares)
    if counted.not_finite:
        of = images + counted.not_finite
        raise ValueError(f"{name}: NaN or infinite outputs on {counted.not_finite} of {of} images")
    values = images * counted.numbers
    if spread is None:
        spread = math.sqrt(counted.total_squares / values - (counted.total / values) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.where(counted.squares == 0, 0.0, np.sqrt(counted.squares) / spread)
    off = (errors > limits.max_tensor_error) & (limits.max_tensor_error < 1)  # 1 is no limit, nor is a cosine of 0
    several = counted.numbers > 1
    if several and limits.min_cosine:
        off |= counted.cosines < limits.min_cosine
    return TensorParity(
        name=name,
        numbers=counted.numbers,
        images=images,
        spread=spread,
        mean_error=float(np.minimum(errors, 1e9).mean()),
        max_error=float(np.minimum(errors, 1e9).max()),
        max_difference=counted.max_difference,
        min_cosine=float(counted.cosines.min()) if several else None,
        off=int(off.sum()),
        capped_error=_mean(np.minimum(errors, limits.max_tensor_error)),
        capped_distance=_mean(np.clip(1 - counted.cosines, 0, MAX_DISTANCE)) if several else None,
    )


def _mean(values: FloatArray) -> Mean:
    return Mean(float(values.mean()), float(values.var(ddof=1)) if len(values) > 1 else 0.0)


def judge(parities: Sequence[TensorParity], limits: Limits, alpha: float) -> Judgement:
    """The verdict on all such outputs. Any of them can fail a variant, so for that alpha is shared out."""
    try:
        decided = [pair for parity in parities for pair in _decide(parity, limits, alpha, len(parities))]
    except ModuleNotFoundError:
        return Judgement(Verdict(Outcome.INCONCLUSIVE, (NO_SCIPY,)), None)
    checks = tuple(check for check, _ in decided)
    outcome = max((check.outcome for check in checks), key=SEVERITY.index)
    reasons = [reason for check in checks if check.outcome is outcome for reason in check.reasons]
    if outcome is Outcome.INCONCLUSIVE:
        needed = [count for check, count in decided if check.outcome is outcome]
        reasons.append(advice(needed, parities[0].images))
    return Judgement(Verdict(outcome, tuple(reasons)), None, checks)


def _decide(parity: TensorParity, limits: Limits, alpha: float, outputs: int) -> Iterator[tuple[Check, int | None]]:
    """The outcome of each rule, and about how many images would decide one that is open; None if no number would."""
    for rule, limit, text, interval in _rules(parity, limits, alpha):

        def outcome(images: int, limit: float = limit, interval: _Bound = interval) -> Outcome:
            return within(Interval(interval(images, alpha / outputs).low, interval(images, alpha).high), limit)

        def is_decided(factor: float, outcome: Callable[[int], Outcome] = outcome) -> bool:
            return outcome(round(factor * parity.images)) is not Outcome.INCONCLUSIVE

        check = Check(f"{rule} of {parity.name}", outcome(parity.images), (f"{parity.name}: {text}",))
        open_ = check.outcome is Outcome.INCONCLUSIVE
        yield check, paired_tests.images_to_decide(parity.images, is_decided) if open_ else None


_Bound = Callable[[int, float], Interval]  # of a number of images and an alpha


def _rules(parity: TensorParity, limits: Limits, alpha: float) -> Iterator[tuple[str, float, str, _Bound]]:
    """Each rule's name, limit, text, and how its interval depends on the number of images."""
    error, distance = parity.capped_error, parity.capped_distance

    def off_share(images: int, alpha: float) -> Interval:
        return paired_tests.clopper_pearson(round(parity.off * images / parity.images), images, alpha)

    def mean_error(images: int, alpha: float) -> Interval:
        bounds = Interval(0, limits.max_tensor_error)
        return paired_tests.mean_interval(error.mean, error.variance, images, bounds, alpha)

    text = f"{parity.off} of {parity.images} images are off by more than {limits.max_tensor_error:g} of the spread"
    text += "" if distance is None else f" or have a cosine below {limits.min_cosine:g}"
    yield (
        "max_off_share",
        limits.max_off_share,
        f"{text}, {shown(off_share(parity.images, alpha), percent, alpha)}, {percent(limits.max_off_share)} allowed",
        off_share,
    )
    limit = limits.max_mean_tensor_error
    text = f"mean error {number(error.mean)} of the spread, {shown(mean_error(parity.images, alpha), number, alpha)}"
    yield "max_mean_tensor_error", limit, f"{text}, {limit:g} allowed", mean_error
    if distance is None:
        return

    def mean_distance(images: int, alpha: float) -> Interval:
        bounds = Interval(0, MAX_DISTANCE)
        return paired_tests.mean_interval(distance.mean, distance.variance, images, bounds, alpha)

    now = mean_distance(parity.images, alpha)
    cosine = Interval(1 - now.high, 1 - now.low)
    text = f"mean cosine {1 - distance.mean:.5f}, {shown(cosine, '{:.5f}'.format, alpha)}"
    text += f", at least {limits.min_mean_cosine:g} asked"
    yield "min_mean_cosine", 1 - limits.min_mean_cosine, text, mean_distance
