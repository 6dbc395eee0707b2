"""Where answers were lost: flips and probability error at each step from the Keras model to the variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from harness.parity import FloatArray

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


def hops(stages: Sequence[Stage], labels: npt.NDArray[np.int64]) -> tuple[Hop, ...]:
    """Each pair of neighbouring stages compared."""
    return tuple(_hop(before, after, labels) for before, after in pairwise(stages))


def lost_most(chain: Sequence[Hop]) -> Hop | None:
    """The hop that flipped most answers, or else moved probabilities most; none where nothing but noise was lost."""
    worst = max(chain, key=lambda hop: (hop.flips, hop.mean_probability_difference), default=None)
    if worst is None or (not worst.flips and worst.mean_probability_difference < NOISE):
        return None
    return worst


def _hop(before: Stage, after: Stage, labels: npt.NDArray[np.int64]) -> Hop:
    was, now = before[1].argmax(axis=1), after[1].argmax(axis=1)
    difference = np.abs(after[1] - before[1]).max(axis=1)
    return Hop(
        source=before[0],
        target=after[0],
        flips=int((was != now).sum()),
        broken=int(((was == labels) & (now != labels)).sum()),
        fixed=int(((was != labels) & (now == labels)).sum()),
        largest_probability_difference=float(difference.max()),
        mean_probability_difference=float(difference.mean()),
    )
