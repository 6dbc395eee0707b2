"""Random changes to a batch of training images. Grey images are taken as dark ink on light paper."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from models.config import Augmentation

Image = npt.NDArray[np.float32]
_KNOTS = 4  # a side, between which a distortion is smooth
_CROSS = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))


def augment(images: npt.NDArray[np.uint8], settings: Augmentation, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Change each image at random: uint8 [N, H, W, channels] to the same shape."""
    if not settings.enabled:
        return images
    changed = np.empty_like(images)
    for index, image in enumerate(images):
        grey = image.shape[-1] == 1
        view = _move((image[..., 0] if grey else image).astype(np.float32), settings, rng)
        view = _light(_ink(view, settings, rng) if grey else view, settings, rng)
        changed[index] = np.clip(np.round(view), 0, 255).reshape(image.shape)
    return changed


def _move(image: Image, settings: Augmentation, rng: np.random.Generator) -> Image:
    """Rotate, shear and zoom about the centre, shift, and bend. The paper continues beyond the edges."""
    height, width = image.shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    angle, shear = np.deg2rad(rng.uniform(*settings.rotation_degrees)), rng.uniform(*settings.shear)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rng.uniform(*settings.zoom) * turn @ np.array([[1, shear], [0, 1]])
    matrix = np.column_stack([linear, centre - linear @ centre + rng.uniform(*settings.shift_pixels, size=2)])
    if settings.elastic[1] <= 0:
        return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    knots = rng.normal(0, max(rng.uniform(*settings.elastic), 0), (_KNOTS, _KNOTS, 2)).astype(np.float32)
    bent = cv2.resize(knots, (width, height), interpolation=cv2.INTER_CUBIC) + _grid(height, width)
    source = cv2.transform(bent, cv2.invertAffineTransform(matrix).astype(np.float32))
    return cv2.remap(image, source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> Image:
    """The place of each pixel, [H, W, (x, y)]."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)


def _ink(image: Image, settings: Augmentation, rng: np.random.Generator) -> Image:
    """Change stroke width, ink strength and paper level, and draw a line as on a form."""
    width = float(np.clip(rng.uniform(*settings.stroke_width), -1, 1))
    grown = cv2.erode(image, _CROSS) if width > 0 else cv2.dilate(image, _CROSS)
    image = image + abs(width) * (grown - image)
    paper = _level(image, 0.75)
    ink = np.clip(paper - image, 0, None)  # by how much it darkens the paper
    image = (image + ink) * rng.uniform(*settings.paper_level) - ink * rng.uniform(*settings.ink_strength)
    if rng.random() < settings.border_lines:
        turned = np.rot90(image, int(rng.integers(4)))  # a view: the line is drawn into image
        row = min(int(abs(rng.normal(0, 1.2))), len(turned) - 1)
        turned[row] *= rng.uniform(0.3, 0.9)
    return image


def _light(image: Image, settings: Augmentation, rng: np.random.Generator) -> Image:
    """Change blur, contrast about the level of the paper, and brightness."""
    sigma = rng.uniform(*settings.blur)
    if sigma > 0.05:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    paper = _level(image, 0.5)
    return (paper + (image - paper) * rng.uniform(*settings.contrast)) * rng.uniform(*settings.brightness)


def _level(image: Image, share: float) -> float:
    """The grey level below which this share of the pixels lies."""
    place = round(share * (image.size - 1))
    return float(np.partition(image, place, axis=None)[place])
