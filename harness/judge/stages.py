"""Where answers were lost: flips and probability error from stage to stage, from the Keras model to the variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Annotated

import numpy as np
import numpy.typing as npt

from harness.artifacts.outputs import FloatArray
from harness.core.shapes import Shape
from harness.judge.tally import Mergeable, exact_sum

Stage = tuple[str, FloatArray]  # name, outputs [N, classes]

NOISE = 1e-5  # a mean probability difference that float32 arithmetic alone makes


class StageDiff(Shape):
    """From one stage to the next on the same images: counts of images, and probability differences as in Parity."""

    source: str
    target: str
    flips: int
    regressions: int
    improvements: int
    max_probability_difference: float
    mean_probability_difference: float


@dataclass(frozen=True)
class Pair(Mergeable):
    """Two stages on the same images; the difference is summed up exactly."""

    images: int
    flips: int
    regressions: int
    improvements: int
    max_difference: Annotated[float, max]
    difference: Fraction


def _common(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(stage for stage in left if stage in right)


def _common_pairs(
    left: Mapping[tuple[str, str], Pair], right: Mapping[tuple[str, str], Pair]
) -> dict[tuple[str, str], Pair]:
    return {names: pair + right[names] for names, pair in left.items() if names in right}


@dataclass(frozen=True)
class Chain(Mergeable):
    """The stages that answered every image, in order, and each two of them compared: a shard may want one."""

    stages: Annotated[tuple[str, ...], _common]
    pairs: Annotated[Mapping[tuple[str, str], Pair], _common_pairs]

    @property
    def diffs(self) -> tuple[StageDiff, ...]:
        """Each pair of neighbouring stages."""
        return tuple(_diff(names, self.pairs[names]) for names in pairwise(self.stages))


def chain(stages: Sequence[Stage], labels: npt.NDArray[np.int64]) -> Chain:
    """Stages on the images of one shard."""
    return Chain(
        tuple(name for name, _ in stages),
        {(a, b): _pair(before, after, labels) for (a, before), (b, after) in combinations(stages, 2)},
    )


def lost_most(diffs: Sequence[StageDiff]) -> StageDiff | None:
    """The step that flipped most answers, or else moved probabilities most. None if nothing but noise was lost."""
    worst = max(diffs, key=lambda diff: (diff.flips, diff.mean_probability_difference), default=None)
    if worst is None or (not worst.flips and worst.mean_probability_difference < NOISE):
        return None
    return worst


def _pair(before: FloatArray, after: FloatArray, labels: npt.NDArray[np.int64]) -> Pair:
    was, now = before.argmax(axis=1), after.argmax(axis=1)
    difference = np.abs(after - before).max(axis=1)
    return Pair(
        images=len(labels),
        flips=int((was != now).sum()),
        regressions=int(((was == labels) & (now != labels)).sum()),
        improvements=int(((was != labels) & (now == labels)).sum()),
        max_difference=float(difference.max()),
        difference=exact_sum(difference),
    )


def _diff(names: tuple[str, str], pair: Pair) -> StageDiff:
    mean = float(pair.difference / pair.images)
    return StageDiff(*names, pair.flips, pair.regressions, pair.improvements, pair.max_difference, mean)
