"""Do a device and this machine answer alike? The same variant's raw outputs on both, image by image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.artifacts.outputs import FloatArray


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


def sentence(kind: str, found: Agreement, device: str) -> str:
    """For a person."""
    same = f"{kind}: {found.identical} of {found.images} outputs on {device} are this machine's"
    if found.identical == found.images:
        return f"{same}, to the last bit"
    far = f"{found.largest_difference:.2g}"
    if found.largest_steps is not None:
        far = f"{found.largest_steps} step{'s' if found.largest_steps > 1 else ''} of the quantized output"
    return f"{same} to the last bit, the others at most {far} off; {found.flips} flips between the two"
