"""What an app did to its images, named by fitting the known mistakes to the tensors that it fed.

A tensor is explained as a way to read the image, then a straight line from pixel to value. Every combination of at most
two mistakes is fitted; of those that fit about as well as the best, the one with the fewest mistakes is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.artifacts.outputs import FloatArray, dequantize
from harness.images.spec import ModelSpec
from harness.tools import app_readings
from harness.tools.app_readings import MAX_MISTAKES, Images, Reading

RIGHT_LEVELS = 2.5  # of 255: by what another JPEG decoder and rounding move an image's pixels, root mean square
MIN_FIT = 0.97  # share of the tensors' variance that an explanation must account for
CLEARLY_BETTER = 0.5  # of the unexplained variance: only then are more mistakes believed
SAME_FIT = 1e-6  # of the variance: a smaller difference does not count
SAME_LINE = 0.02  # of the range: how far the ends of two lines may lie apart
OUTLIER_LEVELS = 10.0  # of 255: an image that is further off than this, and than OUTLIER times the median image
OUTLIER = 4.0
OUTLIER_SHARE = 0.2  # of the images, at most, may be such
SIGN = "8-bit values read with the wrong sign (int8 as uint8)"


@dataclass(frozen=True)
class Explanation:
    """The mistakes that explain the tensors; none if they are right.

    fit: share of the tensors' variance that is accounted for (inputs), or of the images (outputs). known: False if no
    known mistake explains them. outliers: images that this does not explain, though it explains the others.
    """

    mistakes: tuple[str, ...]
    fit: float
    known: bool = True
    outliers: tuple[int, ...] = ()

    @property
    def right(self) -> bool:
        return self.known and not self.mistakes and not self.outliers


@dataclass(frozen=True)
class Input:
    """What a model takes. scale, zero_point: of its input; a scale of 0 for float. stored_range: of its integers."""

    spec: ModelSpec
    scale: float = 0.0
    zero_point: int = 0
    stored_range: tuple[int, int] = (0, 0)

    def tolerance(self, levels: float) -> FloatArray:
        """So many of 255 levels, and a step of the quantization, as real values of each channel [channels]."""
        ends = app_readings.lines(self.spec, 0.0, 0)[""]
        return np.asarray(np.maximum(levels / 255 * np.abs(ends[1] - ends[0]), self.scale))

    def as_stored(self, values: FloatArray) -> FloatArray:
        """Real values as the model's input can hold them."""
        if not self.scale:
            return values
        stored = np.clip(np.round(values / self.scale + self.zero_point), *self.stored_range)
        return np.asarray((stored - self.zero_point) * self.scale)


@dataclass(frozen=True)
class _Fit:
    """predict: the tensors' values by these mistakes, from pixels read in this way."""

    mistakes: tuple[str, ...]
    unexplained: float  # share of the variance
    residual: float  # root mean square, of the range of the values
    way: Reading
    predict: Callable[[FloatArray], FloatArray]
    values: FloatArray

    @property
    def explains(self) -> bool:
        return self.unexplained <= 1 - MIN_FIT


def are_right(tensors: npt.NDArray[Any], expected: FloatArray, takes: Input) -> npt.NDArray[np.bool_]:
    """Which images' tensors [N, ...], as real values or as stored ones, are the expected real ones but for rounding."""
    _, values = next(_storages(tensors.reshape(expected.shape), takes))
    square = ((values - expected) ** 2).reshape(len(tensors), -1, takes.spec.channels).mean(axis=1)
    return np.asarray((np.sqrt(square) <= takes.tolerance(RIGHT_LEVELS)).all(axis=1))


def explain_inputs(images: Images, tensors: npt.NDArray[Any], takes: Input) -> Explanation:
    """What was done to the images that became `tensors` [N, ...], as the app fed them: stored or real numbers.

    Raises ValueError: as many values an image as the model does not take, NaN or infinity.
    """
    check(tensors, takes.spec)
    best = _best(images, tensors, takes, np.ones(len(images.places), bool))
    if not best.explains and len(images) > 1:  # a few images that are wrong otherwise must not hide what the others are
        residuals = _residuals(images, best)
        worst = np.argsort(-residuals)[: max(1, int(OUTLIER_SHARE * len(images)))]
        rest = _best(images, tensors, takes, ~np.isin(images.owners, worst))
        best = rest if rest.explains else best
    if not best.explains:
        return Explanation((), 1 - best.unexplained, known=False)
    residuals = _residuals(images, best)
    limit = max(OUTLIER_LEVELS / 255, OUTLIER * float(np.median(residuals)))
    outliers = tuple(int(place) for place in np.flatnonzero(residuals > limit))
    return Explanation(best.mistakes, 1 - best.unexplained, outliers=outliers)


def _best(images: Images, tensors: npt.NDArray[Any], takes: Input, kept: npt.NDArray[np.bool_]) -> _Fit:
    """The explanation of the pixels that are kept, of images.places."""
    fits: list[_Fit] = []
    for count in range(MAX_MISTAKES + 1):
        for layout, raw in _layouts(tensors, takes.spec):
            for storage, values in _storages(raw, takes):
                fits += _fits(images, values, takes, (*layout, *storage), count, kept)
        best = _choose(fits)
        if best.explains and _residuals(images, best).max() <= RIGHT_LEVELS / 255:
            break
    return best


def check(tensors: npt.NDArray[Any], spec: ModelSpec) -> None:
    """Raise ValueError for tensors [N, ...] that the model does not take."""
    if tensors[0].size != np.prod(spec.shape):
        raise ValueError(
            f"{list(tensors.shape[1:])}: {tensors[0].size} values an image; the model takes {list(spec.shape)}"
        )
    if not np.isfinite(tensors.astype(np.float64)).all():
        raise ValueError("NaN or infinite values")


def _layouts(tensors: npt.NDArray[Any], spec: ModelSpec) -> Iterator[tuple[tuple[str, ...], npt.NDArray[Any]]]:
    height, width, channels = spec.shape
    count = len(tensors)
    yield (), tensors.reshape(count, height, width, channels)
    if channels > 1:
        planes = tensors.reshape(count, channels, height, width)
        yield ("channels first (planes) instead of last",), np.moveaxis(planes, 1, -1)
    if height != width:
        swapped = tensors.reshape(count, width, height, channels).swapaxes(1, 2)
        yield ("stored column by column instead of row by row",), swapped


def _storages(raw: npt.NDArray[Any], takes: Input) -> Iterator[tuple[tuple[str, ...], FloatArray]]:
    """Real values of a tensor, as it was written and as it may have been meant. Whole numbers are stored ones."""
    values = raw.astype(np.float64)
    if not takes.scale:
        yield (), values
        return
    if not (values == np.round(values)).all():
        yield (), values
        return
    yield (), dequantize(values, takes.scale, takes.zero_point)
    other = np.where(values < 0, values + 256, np.where(values > 127, values - 256, values))
    # int8 that stands for bytes 0 to 255 holds them modulo 256, whatever was meant; bytes that stand for int8 do not.
    yield (() if values.min() < 0 else (SIGN,)), dequantize(other, takes.scale, takes.zero_point)
    yield (), values  # real values that happen to be whole


def _fits(
    images: Images, values: FloatArray, takes: Input, before: tuple[str, ...], count: int, kept: npt.NDArray[np.bool_]
) -> Iterator[_Fit]:
    """Every explanation by so many mistakes, besides those that were made before."""
    spec, known = takes.spec, app_readings.lines(takes.spec, takes.scale, takes.zero_point)
    target = values.reshape(-1, spec.channels)[images.places[kept]]
    total = float(((target - target.mean(axis=0)) ** 2).sum()) or 1.0
    span = float(np.ptp(target)) or 1.0
    for way in app_readings.readings(spec, images.has_exif):
        if len(before) + len(way.mistakes) not in (count, count - 1):
            continue
        pixels = images.sample(way)[kept]
        for name, predict in _lines(pixels, target, takes, known, len(way.mistakes)):
            mistakes = tuple(filter(None, (*before, *way.mistakes, name)))
            if len(mistakes) == count:
                left = float(((predict(pixels) - target) ** 2).sum())
                yield _Fit(mistakes, left / total, np.sqrt(left / target.size) / span, way, predict, values)


def _lines(
    pixels: FloatArray, target: FloatArray, takes: Input, known: Mapping[str, FloatArray], mistakes: int
) -> Iterator[tuple[str, Callable[[FloatArray], FloatArray]]]:
    """Lines from pixel to value: the best, the right one, and all known ones for integers, which round and clip."""
    centre, middle = pixels.mean(axis=0), target.mean(axis=0)
    spread = ((pixels - centre) ** 2).sum(axis=0)
    slope = ((pixels - centre) * (target - middle)).sum(axis=0) / np.where(spread > 0, spread, 1)
    start = middle - slope * centre
    yield _name(np.stack([start, start + 255 * slope]), known), lambda values: start + values * slope
    for name, ends in known.items():
        if not name or (takes.scale and mistakes < MAX_MISTAKES):
            yield name, _stored_line(ends, takes)


def _stored_line(ends: FloatArray, takes: Input) -> Callable[[FloatArray], FloatArray]:
    return lambda values: takes.as_stored(ends[0] + values * (ends[1] - ends[0]) / 255)


def _name(ends: FloatArray, known: Mapping[str, FloatArray]) -> str:
    """The known line that a fitted one is, or its ends in words."""
    span = float(np.abs(ends[1] - ends[0]).max()) or 1.0
    distances = {name: float(np.abs(line - ends).max()) / span for name, line in known.items()}
    if distances[""] <= SAME_LINE:
        return ""
    nearest = min(distances, key=lambda name: distances[name])
    return nearest if distances[nearest] <= SAME_LINE else app_readings.range_name(ends[0].mean(), ends[1].mean())


def _choose(fits: Sequence[_Fit]) -> _Fit:
    """The fewest mistakes that fit; more are believed only if they leave clearly less unexplained."""
    chosen: _Fit | None = None
    for count in range(MAX_MISTAKES + 1):
        for fit in fits:
            share = CLEARLY_BETTER if chosen and chosen.explains and len(chosen.mistakes) < count else 1.0
            if len(fit.mistakes) == count and (
                chosen is None or fit.unexplained < share * chosen.unexplained - SAME_FIT
            ):
                chosen = fit
    assert chosen is not None
    return chosen


def _residuals(images: Images, fit: _Fit) -> FloatArray:
    """What an explanation leaves of each image, root mean square, of the range of the values."""
    difference = fit.predict(images.read(fit.way)) - fit.values
    square = (difference**2).reshape(len(images), -1).mean(axis=1)
    return np.asarray(np.sqrt(square) / (float(np.ptp(fit.values)) or 1.0))
