"""The images of a golden bundle: chosen, and where there is none of a kind made, so that an app's mistakes show."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageEnhance, ImageOps

from harness.core.errors import SetupError
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.images.shards import Source, cannot_be_used
from harness.images.spec import ModelSpec

MAX_CANDIDATES = 5000  # images of a large set that are looked at, spread evenly
MADE_SHARE = 12  # one image in so many is made of each kind that the set lacks
# Values 0 to 1 from which on an image counts as of a kind.
KINDS: Mapping[str, float] = {
    "turned by EXIF": 0.5,
    "of another size": 0.5,
    "coloured": 0.08,
    "dark": 0.7,
    "bright": 0.85,
}
ASYMMETRIC = "asymmetric"
SIZES = ((61, 47), (45, 90), (100, 37), (23, 31))  # width, height
EXIF_ORIENTATIONS = (6, 8, 3, 2)
# What turns an upright image into the one that is stored, so that its EXIF orientation turns it back.
_STORED = {
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
    3: Image.Transpose.ROTATE_180,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
}

Features = Mapping[str, float]


@dataclass(frozen=True)
class ChosenImage:
    """An image as the app will read it. pixels: as the model takes it, uint8. kind: why it is in the bundle."""

    name: str
    content: bytes
    label: int
    kind: str
    pixels: npt.NDArray[np.uint8]


def choose(source: Source, spec: ModelSpec, count: int, *, skip_bad: bool = False) -> list[ChosenImage]:
    """Up to `count` images: of every class, the asymmetric first; dark, bright, coloured, of odd sizes and turned by
    EXIF, made from others where the set has none. Raises SetupError: files that cannot be used."""
    if spec.input:
        raise SetupError(f"{source.path}: the model takes {spec.images}; expected one of images, as golden bundles are")
    every = max(1, -(-source.images // max(MAX_CANDIDATES, count)))
    labels: list[int] = []
    features: list[Features] = []
    places: list[int] = []
    bad = list(source.bad)
    for place, (name, label, content) in enumerate(islice(source.entries(), 0, None, every)):
        pixels = dataset.try_read(content, spec)
        if isinstance(pixels, str):
            bad.append(f"{name} ({pixels})")
            continue
        places.append(place * every)
        labels.append(label)
        features.append(_features(content, pixels))
    if bad and not skip_bad:
        raise SetupError(cannot_be_used(source.path, bad))
    if not places:
        raise SetupError(f"{source.path}: none of its images can be used")
    kinds, to_make = _by_kind(features, labels, count)
    wanted = {places[i]: kind for i, kind in kinds.items()}
    chosen = {
        place: _read(entry, wanted[place], spec) for place, entry in enumerate(source.entries()) if place in wanted
    }
    picked = [chosen[place] for place in wanted]
    originals = cycle([image for image in picked if image.kind == ASYMMETRIC] or picked)
    numbers = [to_make[:place].count(kind) for place, kind in enumerate(to_make)]
    made = zip(to_make, numbers, originals, strict=False)
    return picked + [_make(kind, number, image, spec) for kind, number, image in made]


def _by_kind(features: Sequence[Features], labels: Sequence[int], count: int) -> tuple[dict[int, str], list[str]]:
    """Which images are chosen and for what, and the kinds of those that are to be made: one image of each class, then
    some of each kind, then the classes in turn again."""
    in_turn = _classes_in_turn(sorted(range(len(features)), key=lambda i: -features[i][ASYMMETRIC]), labels)
    chosen = dict.fromkeys(islice(in_turn, min(count, len(set(labels)))), ASYMMETRIC)
    of_each, lacking = max(1, count // MADE_SHARE), []
    for kind, least in KINDS.items():
        order = sorted(range(len(features)), key=lambda i: -features[i][kind])
        fitting = [i for i in order[:of_each] if features[i][kind] >= least]
        for i in fitting:
            if i in chosen or len(chosen) < count:
                chosen[i] = kind
        if not fitting:
            lacking.append(kind)
    to_make = (lacking * of_each)[: count - len(chosen)]
    for i in in_turn:
        if len(chosen) >= count - len(to_make):
            break
        chosen.setdefault(i, ASYMMETRIC)
    return chosen, to_make


def _classes_in_turn(order: Sequence[int], labels: Sequence[int]) -> Iterator[int]:
    """The images in their order, one of each class in turn."""
    queues: dict[int, list[int]] = {}
    for i in order:
        queues.setdefault(labels[i], []).append(i)
    while queues:
        for label in sorted(queues):
            yield queues[label].pop(0)
        queues = {label: queue for label, queue in queues.items() if queue}


def _features(content: bytes, pixels: npt.NDArray[np.uint8]) -> Features:
    """How far an image is of each kind, 0 to 1."""
    values = pixels.astype(np.float64) / 255
    turned = [values[::-1], values[:, ::-1], values[::-1, ::-1]]
    if values.shape[0] == values.shape[1]:
        turned += [np.swapaxes(values, 0, 1), np.rot90(values), np.rot90(values, 3)]
    with Image.open(io.BytesIO(content)) as original:
        orientation = original.getexif().get(ExifTags.Base.Orientation, 1)
        size = original.size
        small = np.asarray(original.convert("RGB").resize((16, 16)), np.float64) / 255
    return {
        ASYMMETRIC: min(float(np.abs(values - other).mean()) for other in turned),
        "turned by EXIF": float(orientation in _STORED or orientation in (4, 5, 7)),
        "of another size": float(size != (pixels.shape[1], pixels.shape[0])),
        "coloured": float((small.max(axis=2) - small.min(axis=2)).mean()),
        "dark": 1 - float(values.mean()),
        "bright": float(values.mean()),
    }


def _read(entry: tuple[str, int, bytes], kind: str, spec: ModelSpec) -> ChosenImage:
    name, label, content = entry
    pixels = dataset.try_read(content, spec)
    if isinstance(pixels, str):
        raise SetupError(f"{name}: {pixels}; it changed while it was read, run again")
    return ChosenImage(name, content, label, kind, pixels)


def _make(kind: str, number: int, image: ChosenImage, spec: ModelSpec) -> ChosenImage:
    """An image of a kind, from another one. number: of those of the kind, no two of which are made alike."""
    with Image.open(io.BytesIO(image.content)) as original:
        made, options = _MAKERS[kind](ImageOps.exif_transpose(original).convert("RGB"), number)
    buffer = io.BytesIO()
    made.save(buffer, "PNG", **options)
    path = PurePosixPath(image.name)
    name = f"{path.with_suffix('')}-{kind.replace(' ', '-').lower()}-{number}.png"
    return _read((name, image.label, buffer.getvalue()), f"{kind}, made from {image.name}", spec)


_Made = tuple[Image.Image, dict[str, Any]]


def _turned(image: Image.Image, number: int) -> _Made:
    orientation = EXIF_ORIENTATIONS[number % len(EXIF_ORIENTATIONS)]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return image.transpose(_STORED[orientation]), {"exif": exif}


def _sized(image: Image.Image, number: int) -> _Made:
    return image.resize(SIZES[number % len(SIZES)], Image.Resampling.NEAREST), {}


def _coloured(image: Image.Image, number: int) -> _Made:
    ends = (("#1030a0", "#ffe0a0"), ("#701010", "#a0f0d0"))[number % 2]
    return ImageOps.colorize(image.convert("L"), *ends), {}


def _darkened(image: Image.Image, number: int) -> _Made:
    return ImageEnhance.Brightness(image).enhance(0.35), {}


def _brightened(image: Image.Image, number: int) -> _Made:
    return image.point(lambda value: 255 - (255 - value) * 0.35), {}


_MAKERS: Mapping[str, Callable[[Image.Image, int], _Made]] = {
    "turned by EXIF": _turned,
    "of another size": _sized,
    "coloured": _coloured,
    "dark": _darkened,
    "bright": _brightened,
}


def as_dataset(chosen: Sequence[ChosenImage], spec: ModelSpec) -> Dataset:
    """The images as a set, in their order."""
    pixels = np.stack([image.pixels for image in chosen])
    return dataset.build(pixels, [image.label for image in chosen], [image.name for image in chosen], spec)
