"""Random changes to a batch of training images."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from models.config import Augmentation


def augment(images: npt.NDArray[np.uint8], settings: Augmentation, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Each image moved and relit by its own draw: uint8 [N, H, W, 1] to the same."""
    if not settings.enabled:
        return images
    count, height, width, _ = images.shape
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    angle = np.deg2rad(rng.uniform(*settings.rotation_degrees, size=(count,)))
    shear, zoom = rng.uniform(*settings.shear, size=(count,)), rng.uniform(*settings.zoom, size=(count,))
    shift = rng.uniform(*settings.shift_pixels, size=(count, 2))
    light = (count, 1, 1, 1)
    brightness, contrast = rng.uniform(*settings.brightness, size=light), rng.uniform(*settings.contrast, size=light)
    moved = np.empty_like(images)
    for i, image in enumerate(images):
        cos, sin = np.cos(angle[i]), np.sin(angle[i])
        linear = zoom[i] * np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear[i]], [0, 1]])
        matrix = np.column_stack([linear, centre - linear @ centre + shift[i]])
        moved[i, :, :, 0] = cv2.warpAffine(
            image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    paper = np.median(moved, axis=(1, 2, 3), keepdims=True)
    relit = (paper + (moved - paper) * contrast) * brightness
    return np.clip(np.round(relit), 0, 255).astype(np.uint8)
