"""Do a device and this machine answer alike? The same variant's raw outputs on both, image by image."""

from __future__ import annotations

import numpy as np

from harness.artifacts.outputs import FloatArray
from harness.core.shapes import Shape


class Agreement(Shape):
    """Counts of images. max_steps: of a quantized output's steps. None if outputs are float."""

    images: int
    identical: int
    flips: int
    max_steps: int | None
    max_difference: float

    def __add__(self, other: Agreement) -> Agreement:
        """Of the images of both."""
        steps = [part.max_steps for part in (self, other) if part.max_steps is not None]
        return Agreement(
            self.images + other.images,
            self.identical + other.identical,
            self.flips + other.flips,
            max(steps, default=None),
            max(self.max_difference, other.max_difference),
        )


def compare(device: FloatArray, host: FloatArray, scale: float) -> Agreement | None:
    """Real outputs [N, classes] of both; scale: of one step, 0 for float. None if they do not pair."""
    if device.shape != host.shape or not np.isfinite(device).all() or not np.isfinite(host).all():
        return None
    difference = np.abs(device - host).max(axis=1)
    return Agreement(
        images=len(difference),
        identical=int((difference == 0).sum()),
        flips=int((device.argmax(axis=1) != host.argmax(axis=1)).sum()),
        max_steps=round(float(difference.max()) / scale) if scale else None,
        max_difference=float(difference.max()),
    )


def sentence(kind: str, agreement: Agreement, device: str) -> str:
    """For a person."""
    same = f"{kind}: {agreement.identical} of {agreement.images} outputs on {device} are this machine's"
    if agreement.identical == agreement.images:
        return f"{same}, to the last bit"
    far = f"{agreement.max_difference:.2g}"
    if agreement.max_steps is not None:
        far = f"{agreement.max_steps} step{'s' if agreement.max_steps > 1 else ''} of the quantized output"
    return f"{same} to the last bit, the others at most {far} off; {agreement.flips} flips between the two"
