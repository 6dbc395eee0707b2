"""What a model stores as real numbers and probabilities, and the other way."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]


FLOAT_TOLERANCE = 0.01  # of probabilities that were computed in float16


def dequantize(raw: npt.NDArray[np.generic], scale: float, zero_point: int) -> FloatArray:
    """Real outputs from stored ones; a scale of 0 means that they are real already."""
    if not scale:
        return raw.astype(np.float64)
    return (raw.astype(np.float64) - zero_point) * scale


def quantize(values: FloatArray, dtype: type[np.number], scale: float, zero_point: int) -> npt.NDArray[Any]:
    """Real inputs as a tensor stores them; a scale of 0 means that they are stored as they are."""
    if not scale:
        return values.astype(dtype)
    limits = np.iinfo(np.dtype(dtype))
    return np.clip(np.round(values / scale + zero_point), limits.min, limits.max).astype(dtype)


def as_classes(outputs: FloatArray) -> FloatArray:
    """Probabilities [N, classes]; of a single number [N, 1], which is the second class's, those of both classes."""
    return np.concatenate([1 - outputs, outputs], axis=1) if outputs.shape[1:] == (1,) else outputs


def are_probabilities(outputs: FloatArray) -> bool:
    """Whether each image's outputs [N, classes], of a float model, are a distribution."""
    off_sum = np.abs(outputs.sum(axis=1) - 1).max()
    return bool(max(off_sum, -outputs.min()) <= FLOAT_TOLERANCE)


def are_logits(outputs: FloatArray) -> bool:
    """Whether outputs leave 0..1, so that a softmax is still to come."""
    return bool(outputs.min() < -FLOAT_TOLERANCE or outputs.max() > 1 + FLOAT_TOLERANCE)


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities [N, classes]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
