"""Where answers were lost: flips and probability error at each step from the Keras model to the variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Annotated

import numpy as np
import numpy.typing as npt

from harness.artifacts.outputs import FloatArray
from harness.judge.tally import Mergeable, exact_sum

Stage = tuple[str, FloatArray]  # name, outputs [N, classes]

NOISE = 1e-5  # a mean probability difference that float32 arithmetic alone makes


@dataclass(frozen=True)
class Hop:
    """From one stage to the next on the same images: counts of images, and probability differences as in Parity."""

    source: str
    target: str
    flips: int
    broken: int
    fixed: int
    largest_probability_difference: float
    mean_probability_difference: float


@dataclass(frozen=True)
class Pair(Mergeable):
    """Two stages on the same images; the difference is summed up exactly."""

    images: int
    flips: int
    broken: int
    fixed: int
    largest: Annotated[float, max]
    difference: Fraction


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(stage for stage in one if stage in other)


def _common_pairs(
    one: Mapping[tuple[str, str], Pair], other: Mapping[tuple[str, str], Pair]
) -> dict[tuple[str, str], Pair]:
    return {names: pair + other[names] for names, pair in one.items() if names in other}


@dataclass(frozen=True)
class Chain(Mergeable):
    """The stages that answered every image, in order, and each two of them compared: a shard may want one."""

    stages: Annotated[tuple[str, ...], _common]
    pairs: Annotated[Mapping[tuple[str, str], Pair], _common_pairs]

    @property
    def hops(self) -> tuple[Hop, ...]:
        """Each pair of neighbouring stages."""
        return tuple(_hop(names, self.pairs[names]) for names in pairwise(self.stages))


def chain(stages: Sequence[Stage], labels: npt.NDArray[np.int64]) -> Chain:
    """Stages on the images of one shard."""
    return Chain(
        tuple(name for name, _ in stages),
        {(one[0], other[0]): _pair(one[1], other[1], labels) for one, other in combinations(stages, 2)},
    )


def lost_most(hops: Sequence[Hop]) -> Hop | None:
    """The hop that flipped most answers, or else moved probabilities most; none where nothing but noise was lost."""
    worst = max(hops, key=lambda hop: (hop.flips, hop.mean_probability_difference), default=None)
    if worst is None or (not worst.flips and worst.mean_probability_difference < NOISE):
        return None
    return worst


def _pair(before: FloatArray, after: FloatArray, labels: npt.NDArray[np.int64]) -> Pair:
    was, now = before.argmax(axis=1), after.argmax(axis=1)
    difference = np.abs(after - before).max(axis=1)
    return Pair(
        images=len(labels),
        flips=int((was != now).sum()),
        broken=int(((was == labels) & (now != labels)).sum()),
        fixed=int(((was != labels) & (now == labels)).sum()),
        largest=float(difference.max()),
        difference=exact_sum(difference),
    )


def _hop(names: tuple[str, str], pair: Pair) -> Hop:
    mean = float(pair.difference / pair.images)
    return Hop(*names, pair.flips, pair.broken, pair.fixed, pair.largest, mean)
