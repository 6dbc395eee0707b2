"""How apps read images, rightly or not: channels, orientation, resizing, tone, and the line from pixel to value.

The first way of each kind is right and has no name; the others are named as mistakes. NumPy and Pillow alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import ExifTags, Image, ImageOps

from harness.artifacts.outputs import FloatArray
from harness.images.spec import ModelSpec

Size = tuple[int, int]  # width, height

MAX_MISTAKES = 2
MAX_SAMPLES = 20_000  # pixels of all images that are compared

_Transpose = Image.Transpose
ORIENTATIONS: Mapping[str, Image.Transpose | None] = {
    "": None,
    "turned by 90 degrees to the left": _Transpose.ROTATE_90,
    "turned by 180 degrees": _Transpose.ROTATE_180,
    "turned by 90 degrees to the right": _Transpose.ROTATE_270,
    "mirrored left to right": _Transpose.FLIP_LEFT_RIGHT,
    "mirrored top to bottom": _Transpose.FLIP_TOP_BOTTOM,
    "transposed (rows and columns swapped)": _Transpose.TRANSPOSE,
    "transposed along the other diagonal": _Transpose.TRANSVERSE,
}
EXIF_IGNORED = "EXIF orientation not applied"
CHANNELS_RGB = {"": (0, 1, 2), "channels swapped (BGR for RGB)": (2, 1, 0)}
CHANNELS_GREY: Mapping[str, tuple[float, float, float]] = {
    "": (0.299, 0.587, 0.114),
    "channels swapped (BGR for RGB) before they became grey": (0.114, 0.587, 0.299),
    "grey as the mean of the channels": (1 / 3, 1 / 3, 1 / 3),
    "only the red channel": (1, 0, 0),
    "only the green channel": (0, 1, 0),
    "only the blue channel": (0, 0, 1),
}
TONES: Mapping[str, Callable[[FloatArray], FloatArray]] = {
    "": lambda pixels: pixels,
    "gamma of 2.2 applied (linear light)": lambda pixels: 255 * (pixels / 255) ** 2.2,
    "gamma of 1/2.2 applied": lambda pixels: 255 * (pixels / 255) ** (1 / 2.2),
}


def _whole(image: Image.Image, size: Size) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def _nearest(image: Image.Image, size: Size) -> Image.Image:
    return image.resize(size, Image.Resampling.NEAREST)


def _plain_bilinear(image: Image.Image, size: Size) -> Image.Image:
    """Four neighbours, as Android's Bitmap and tf.image.resize take them; no antialiasing when shrinking."""
    matrix = (image.width / size[0], 0, 0, 0, image.height / size[1], 0)
    return image.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _cropped(image: Image.Image, size: Size) -> Image.Image:
    return ImageOps.fit(image, size, Image.Resampling.BILINEAR)


def _central(image: Image.Image, size: Size) -> Image.Image:
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    return image.crop((left, top, left + size[0], top + size[1]))


def _padded(image: Image.Image, size: Size) -> Image.Image:
    return ImageOps.pad(image, size, Image.Resampling.BILINEAR)


RESIZINGS: Mapping[str, Callable[[Image.Image, Size], Image.Image]] = {
    "": _whole,
    "nearest neighbour instead of bilinear": _nearest,
    "bilinear without antialiasing": _plain_bilinear,
    "cropped to the shape instead of resized whole": _cropped,
    "the centre cut out instead of resized": _central,
    "padded to the shape instead of resized whole": _padded,
}


@dataclass(frozen=True)
class Reading:
    """One way to read images. Each part is "" if it is right."""

    channels: str = ""
    orientation: str = ""
    resizing: str = ""
    tone: str = ""

    @property
    def mistakes(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.channels, self.orientation, self.resizing, self.tone)))


def readings(spec: ModelSpec, has_exif: bool) -> Iterator[Reading]:
    """Every way to read images with at most MAX_MISTAKES mistakes, those with fewer first."""
    channels: Sequence[str] = list(CHANNELS_GREY if spec.channels == 1 else CHANNELS_RGB)
    orientations = [*ORIENTATIONS, *([EXIF_IGNORED] if has_exif else [])]
    every = (Reading(*parts) for parts in product(channels, orientations, RESIZINGS, TONES))
    yield from sorted((way for way in every if len(way.mistakes) <= MAX_MISTAKES), key=lambda way: len(way.mistakes))


class Images:
    """Images that can be read in every way. images: as Pillow opened them, their EXIF orientation not yet applied."""

    def __init__(self, images: Sequence[Image.Image], spec: ModelSpec) -> None:
        self._spec = spec
        self._stored = [_as_rgb(image) for image in images]
        self._upright = [_as_rgb(ImageOps.exif_transpose(image)) for image in images]
        self.has_exif = any(image.getexif().get(ExifTags.Base.Orientation, 1) != 1 for image in images)
        height, width = spec.image_size
        total = len(images) * height * width
        self.places = np.arange(total)  # of the pixels that are compared, in all images one after the other
        if total > MAX_SAMPLES:
            self.places = np.sort(np.random.default_rng(0).choice(total, MAX_SAMPLES, replace=False))
        self.owners = self.places // (height * width)  # the image that each is of
        self._sampled: dict[tuple[str, str], FloatArray] = {}

    def __len__(self) -> int:
        return len(self._stored)

    def read(self, way: Reading) -> FloatArray:
        """Pixels 0 to 255, [N, height, width, channels]."""
        return self._coloured(self._at_size(way), way).reshape(len(self), *self._spec.shape)

    def sample(self, way: Reading) -> FloatArray:
        """The pixels at `places`, [places, channels]."""
        key = way.orientation, way.resizing
        if key not in self._sampled:
            self._sampled[key] = self._at_size(way)[self.places]
        return self._coloured(self._sampled[key], way)

    def _at_size(self, way: Reading) -> FloatArray:
        """RGB of every pixel; turned before it is resized, as a camera's picture is."""
        height, width = self._spec.image_size
        turn = ORIENTATIONS.get(way.orientation)
        images = self._stored if way.orientation == EXIF_IGNORED else self._upright
        turned = images if turn is None else [image.transpose(turn) for image in images]
        parts = [np.asarray(RESIZINGS[way.resizing](image, (width, height))) for image in turned]
        return np.stack(parts).reshape(-1, 3).astype(np.float64)

    def _coloured(self, pixels: FloatArray, way: Reading) -> FloatArray:
        pixels = TONES[way.tone](pixels)
        if self._spec.channels == 1:
            return np.asarray((pixels * CHANNELS_GREY[way.channels]).sum(axis=-1, keepdims=True))
        return np.asarray(pixels[..., CHANNELS_RGB[way.channels]])


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def lines(spec: ModelSpec, scale: float, zero_point: int) -> dict[str, FloatArray]:
    """What the pixels 0 and 255 become by each known mistake, [2, channels]; "" is right.

    scale, zero_point: of the model's input; a scale of 0 for float.
    """
    low, high = spec.pixel_range
    mean, std = np.zeros(spec.channels) + (spec.mean or 0), np.zeros(spec.channels) + (spec.std or 1)
    each = np.zeros(spec.channels)
    pixels = np.array([[0.0], [255.0]]) + each

    def scaled(values: FloatArray) -> FloatArray:
        return low + values * (high - low) / 255

    def normalized(values: FloatArray) -> FloatArray:
        return np.asarray((scaled(values) - mean) / std)

    right = normalized(pixels)
    known = {"": right, "not scaled: pixels 0 to 255 as they are": pixels, "scaled twice": normalized(right)}
    if spec.mean or spec.std:
        known["mean and standard deviation not applied"] = scaled(pixels)
        known["mean and standard deviation applied twice"] = (right - mean) / std
        known["mean not subtracted"] = scaled(pixels) / std
        known["standard deviation not divided by"] = scaled(pixels) - mean
        known["mean and standard deviation applied to pixels that were not scaled"] = (pixels - mean) / std
    if scale:
        known["input zero point not applied"] = right - zero_point * scale
        known["input scale and zero point not applied"] = (right - zero_point) * scale
    if spec.channels == 3:
        imagenet = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
        known["mean and standard deviation of ImageNet applied"] = (pixels / 255 - imagenet[0]) / imagenet[1]
        known["mean of ImageNet subtracted from 0 to 255"] = pixels - [123.68, 116.779, 103.939]
    known["black and white inverted"] = right[::-1]
    for start, end in ((0.0, 1.0), (-1.0, 1.0), (-0.5, 0.5), (-128.0, 127.0)):
        known[range_name(start, end)] = np.array([[start], [end]]) + each
    return known


def range_name(start: float, end: float) -> str:
    return f"wrong range: pixels became {start:.3g} to {end:.3g}"
