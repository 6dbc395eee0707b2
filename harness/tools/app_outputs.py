"""What an app made of a model's outputs, named by fitting the known mistakes to what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.artifacts.outputs import FloatArray, are_logits, quantize, softmax
from harness.tools.app_inputs import Explanation

OUTPUT_TOLERANCE = 0.02  # of the range of the outputs: what other kernels, or float16, move one by
LOGITS = "softmax left out: outputs are logits"
MIN_SAME = 0.98  # of the images, whose outputs an explanation must account for


@dataclass(frozen=True)
class Output:
    """What a model gives. scale, zero_point: of its output; a scale of 0 for float. dtype: as it is stored."""

    scale: float = 0.0
    zero_point: int = 0
    dtype: str = "float32"

    @property
    def bits(self) -> int:
        return 8 * np.dtype(self.dtype).itemsize

    def stored(self, real: FloatArray) -> FloatArray:
        return quantize(real, np.dtype(self.dtype).type, self.scale, self.zero_point).astype(np.float64)

    def other_sign(self, stored: FloatArray) -> FloatArray:
        """The same bits, read as signed instead of unsigned or the other way."""
        size, signed = 2**self.bits, np.iinfo(np.dtype(self.dtype)).min < 0
        if signed:
            return np.where(stored < 0, stored + size, stored)
        return np.where(stored >= size / 2, stored - size, stored)

    def real(self, stored: FloatArray) -> FloatArray:
        return (stored - self.zero_point) * self.scale


def explain_outputs(outputs: npt.NDArray[Any], expected: npt.NDArray[np.floating], gives: Output) -> Explanation:
    """What was done to the model's outputs [N, classes]; expected: its real outputs on the same tensors.

    Raises ValueError: other shapes, NaN or infinity.
    """
    if outputs.shape != expected.shape:
        raise ValueError(f"{list(outputs.shape[1:])} outputs an image; the model gives {list(expected.shape[1:])}")
    values: FloatArray = outputs.astype(np.float64)
    answers: FloatArray = expected.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinite outputs")
    classes = answers.shape[1]
    shifts = {"": 0} | {f"labels shifted by {_signed(k, classes)} of {classes}": k for k in range(1, classes)}
    names = ["", *_MISTAKES, *([LOGITS] if are_logits(values) and not are_logits(answers) else [])]
    tried = [(name, label, by) for name in names for label, by in shifts.items()]
    best = Explanation((), 0.0, known=False)
    for name, label, by in sorted(tried, key=lambda way: bool(way[0]) + bool(way[1])):
        mistakes = tuple(filter(None, (name, label)))
        if best.known and len(best.mistakes) < len(mistakes):
            break
        predicted: FloatArray | None = np.roll(answers, by, axis=1)
        shown: FloatArray = values
        if name == LOGITS:
            shown = softmax(values)
        elif name:
            predicted = _MISTAKES[name](np.roll(answers, by, axis=1), gives)
        elif are_logits(answers) and not are_logits(values):
            predicted = softmax(np.roll(answers, by, axis=1))  # the app's own, which a model of logits needs
        if predicted is None:
            continue
        same = _same(shown, predicted)
        share = float(same.mean())
        known = share >= MIN_SAME
        if share > best.fit:
            outliers = tuple(int(place) for place in np.flatnonzero(~same))
            best = Explanation(mistakes if known else (), share, known, outliers if known else ())
    return best


def _same(values: FloatArray, predicted: FloatArray) -> npt.NDArray[np.bool_]:
    """Which images' outputs are those predicted, but for what other kernels change."""
    tolerance = OUTPUT_TOLERANCE * max(float(np.ptp(predicted)), 1e-3)
    return np.asarray(np.abs(values - predicted).max(axis=1) <= tolerance)


def _signed(shift: int, classes: int) -> int:
    return shift if shift <= classes // 2 else shift - classes


def _stored(answers: FloatArray, gives: Output) -> FloatArray | None:
    return gives.stored(answers) if gives.scale else None


def _other_sign(answers: FloatArray, gives: Output) -> FloatArray | None:
    return gives.other_sign(gives.stored(answers)) if gives.scale else None


def _other_sign_dequantized(answers: FloatArray, gives: Output) -> FloatArray | None:
    return gives.real(gives.other_sign(gives.stored(answers))) if gives.scale else None


def _other_sign_scaled(answers: FloatArray, gives: Output) -> FloatArray | None:
    return gives.other_sign(gives.stored(answers)) * gives.scale if gives.scale and gives.zero_point else None


def _no_zero_point(answers: FloatArray, gives: Output) -> FloatArray | None:
    return gives.stored(answers) * gives.scale if gives.scale and gives.zero_point else None


def _no_scale(answers: FloatArray, gives: Output) -> FloatArray | None:
    return np.asarray(gives.stored(answers) - gives.zero_point) if gives.scale and gives.zero_point else None


def _softmax(answers: FloatArray, gives: Output) -> FloatArray | None:
    """Of a model that gives probabilities."""
    return None if are_logits(answers) else softmax(answers)


def _softmax_of_stored(answers: FloatArray, gives: Output) -> FloatArray | None:
    return softmax(gives.stored(answers)) if gives.scale else None


def _softmax_twice(answers: FloatArray, gives: Output) -> FloatArray | None:
    """Of a model that gives logits."""
    return softmax(softmax(answers)) if are_logits(answers) else None


def _best_only(answers: FloatArray, gives: Output) -> FloatArray | None:
    return np.asarray(np.eye(answers.shape[1])[answers.argmax(axis=1)])


# What an app makes of right outputs by mistake; None where the model's outputs do not allow that mistake.
_MISTAKES: Mapping[str, Callable[[FloatArray, Output], FloatArray | None]] = {
    "output not dequantized": _stored,
    "output not dequantized and int8 read as uint8": _other_sign,
    "int8 output read as uint8": _other_sign_dequantized,
    "int8 output read as uint8, zero point not subtracted": _other_sign_scaled,
    "output zero point not subtracted": _no_zero_point,
    "output not multiplied by its scale": _no_scale,
    "softmax applied twice": _softmax,
    "only the best class, as 0 and 1": _best_only,
    "softmax applied to outputs that were not dequantized": _softmax_of_stored,
    "softmax of the app applied twice": _softmax_twice,
}
