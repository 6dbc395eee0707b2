"""What an app that wrote only its outputs did to its images: each known mistake is made here, and its tensors run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.artifacts.outputs import FloatArray
from harness.tools import app_readings
from harness.tools.app_inputs import Explanation, Input
from harness.tools.app_outputs import Output, explain_outputs
from harness.tools.app_readings import Images, Reading

MAX_VALUES = 30_000_000  # of all tensors that are run
MAX_IMAGES, MIN_IMAGES = 24, 4
MAX_NAMED = 4  # mistakes that the outputs do not tell apart
TYPICAL_CANDIDATES = 40  # how many mistakes there are to try, about

Run = Callable[[FloatArray], FloatArray]  # real inputs [N, height, width, channels] -> real outputs [N, classes]


@dataclass(frozen=True)
class Guess:
    """The mistake with the images, and what was done to the model's outputs on them."""

    input: Explanation
    output: Explanation


def images_to_try(takes: Input) -> int:
    """How many images can be read in every way and run."""
    fitting = MAX_VALUES // (TYPICAL_CANDIDATES * int(np.prod(takes.spec.shape)))
    return max(MIN_IMAGES, min(MAX_IMAGES, fitting))


def guess(images: Images, outputs: npt.NDArray[Any], takes: Input, gives: Output, run: Run) -> Guess | None:
    """The one mistake with the images, alone or with one with the outputs, that explains all outputs [N, classes]. None
    if none does, or too many do, or none is needed. Mistakes that give the same outputs are named together."""
    tried = list(_candidates(images, takes))
    answers = run(np.concatenate([tensors for _, tensors in tried])).reshape(len(tried), len(images), -1)
    explained = [explain_outputs(outputs, expected, gives) for expected in answers]
    best = min(
        (explanation for explanation in explained if explanation.known and not explanation.outliers),
        key=lambda explanation: len(explanation.mistakes),
        default=None,
    )
    if best is None:
        return None
    names = [
        name
        for (name, _), explanation in zip(tried, explained, strict=True)
        if explanation.known and not explanation.outliers and explanation.mistakes == best.mistakes
    ]
    if "" in names or len(names) > MAX_NAMED:
        return None
    return Guess(Explanation((" or ".join(names),), best.fit), best)


def _candidates(images: Images, takes: Input) -> Iterator[tuple[str, FloatArray]]:
    """Each mistake and the tensors that it makes, as the model's input can hold them; first "", which makes none."""
    known = app_readings.lines(takes.spec, takes.scale, takes.zero_point)
    right = images.read(Reading())

    def tensors(pixels: FloatArray, ends: FloatArray) -> FloatArray:
        return takes.as_stored(ends[0] + pixels * (ends[1] - ends[0]) / 255)

    for name, ends in known.items():
        if not name or not np.allclose(ends, known[""]):
            yield name, tensors(right, ends)
    for way in app_readings.readings(takes.spec, images.has_exif):
        if len(way.mistakes) == 1:
            yield way.mistakes[0], tensors(images.read(way), known[""])
