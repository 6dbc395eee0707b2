"""A made-up colour data set, easy to render and hard to read: ten shapes of any colour on busy grounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating]  # [N, H, W], signed distances, negative inside

CLASSES = ("disc", "ring", "square", "frame", "triangle", "plus", "cross", "crescent", "bars", "dots")
SMALLEST, LARGEST = 0.2, 0.36  # half a shape's width, as a share of the image's
TILT = 0.35  # radians: a cross is a plus turned by 0.785, so that less than half of that tells them apart
NOISE = 8.0


def _box(x: Field, y: Field, a: float, b: float) -> Field:
    return np.maximum(np.abs(x) - a, np.abs(y) - b)


def _triangle(x: Field, y: Field) -> Field:
    return np.maximum(np.maximum(y - 0.6, -0.5 * y + 0.87 * x - 0.5), -0.5 * y - 0.87 * x - 0.5)


def _plus(x: Field, y: Field) -> Field:
    return np.minimum(_box(x, y, 0.95, 0.28), _box(x, y, 0.28, 0.95))


def _repeated(x: Field) -> Field:
    """A coordinate in -0.9 to 0.9, told from the middle of the nearest of three strips."""
    return np.asarray(x - 0.6 * np.clip(np.round(x / 0.6), -1, 1), np.float32)


_SHAPES: dict[str, Callable[[Field, Field], Field]] = {
    "disc": lambda x, y: np.hypot(x, y) - 0.85,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.7) - 0.2,
    "square": lambda x, y: _box(x, y, 0.8, 0.8),
    "frame": lambda x, y: np.abs(_box(x, y, 0.65, 0.65)) - 0.2,
    "triangle": _triangle,
    "plus": _plus,
    "cross": lambda x, y: _plus((x + y) * 0.7071, (x - y) * 0.7071),
    "crescent": lambda x, y: np.maximum(np.hypot(x, y) - 0.9, 0.65 - np.hypot(x - 0.45, y)),
    "bars": lambda x, y: np.maximum(np.abs(_repeated(x)) - 0.17, np.abs(y) - 0.85),
    "dots": lambda x, y: np.hypot(_repeated(x), _repeated(y)) - 0.22,
}


def render(count: int, size: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images [count, size, size, 3] and labels [count], every class in turn."""
    parts = [_render(min(1000, count - start), size, seed, start) for start in range(0, count, 1000)]
    return np.concatenate([pixels for pixels, _ in parts]), np.concatenate([labels for _, labels in parts])


def _render(count: int, size: int, seed: int, start: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    rng = np.random.default_rng((seed, start))
    labels = np.arange(start, start + count) % len(CLASSES)

    def each(low: float, high: float, *shape: int) -> Field:
        return rng.uniform(low, high, (count, *(shape or (1, 1)))).astype(np.float32)

    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) / (size - 1) - 0.5
    ground = _ground(each, rows, columns)
    half, angle = each(SMALLEST, LARGEST), each(-TILT, TILT)
    free = 0.5 - half
    x, y = (columns - each(-1, 1) * free) / half, (rows - each(-1, 1) * free) / half
    turned = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    distance = np.empty((count, size, size), np.float32)
    for number, name in enumerate(CLASSES):
        distance[labels == number] = _SHAPES[name](turned[0][labels == number], turned[1][labels == number])
    covered = np.clip(0.5 - distance * half * size, 0, 1)[..., None]  # anti-aliased
    near = ground.mean(axis=(1, 2), keepdims=True)
    colour = (near + 128 + each(-70, 70, 1, 1, 3)) % 256  # of any hue, not that of the ground
    pixels = ground * (1 - covered) + colour * covered + rng.normal(0, NOISE, ground.shape)
    return np.clip(pixels * each(0.6, 1.1, 1, 1, 1), 0, 255).astype(np.uint8), labels


def _ground(each: Callable[..., Field], rows: Field, columns: Field) -> Field:
    """[N, size, size, 3]: a gradient, a wave, and a line across it that belongs to no shape."""
    direction, wave = each(0, 2 * np.pi), each(15, 60)
    along = columns * np.cos(direction) + rows * np.sin(direction)
    ground = each(30, 225, 1, 1, 3) + along[..., None] * each(-90, 90, 1, 1, 3)
    ground = ground + 16 * np.sin(along * wave + each(0, 6))[..., None]
    other = each(0, np.pi)
    line = np.abs(columns * np.cos(other) + rows * np.sin(other) - each(-0.4, 0.4)) < each(0.01, 0.03)
    return np.where(line[..., None], each(0, 255, 1, 1, 3), ground)
