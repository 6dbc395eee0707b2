"""Do a device and this machine answer alike? The same variant's raw outputs on both, image by image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.parity import FloatArray


@dataclass(frozen=True)
class Agreement:
    """Counts of images. largest_steps: of a quantized output's steps; none where outputs are float."""

    images: int
    identical: int
    flips: int
    largest_steps: int | None
    largest_difference: float


def compare(device: FloatArray, host: FloatArray, scale: float) -> Agreement | None:
    """Real outputs [N, classes] of both; scale: of one step, 0 for float. None where they do not pair."""
    if device.shape != host.shape or not np.isfinite(device).all() or not np.isfinite(host).all():
        return None
    difference = np.abs(device - host).max(axis=1)
    return Agreement(
        images=len(difference),
        identical=int((difference == 0).sum()),
        flips=int((device.argmax(axis=1) != host.argmax(axis=1)).sum()),
        largest_steps=round(float(difference.max()) / scale) if scale else None,
        largest_difference=float(difference.max()),
    )
