"""int8: integer weights, activations, input and output."""

from __future__ import annotations

from converters import relu
from converters.calibration import Ranges


def quantize(float32: bytes, ranges: Ranges) -> bytes:
    """A float32 .tflite fully quantized, activations by the ranges that calibration measured."""
    from ai_edge_quantizer import quantizer, recipe

    statistics = {name: {"min": low, "max": high} for name, (low, high) in ranges.items()}
    made = quantizer.Quantizer(bytearray(float32), recipe.static_wi8_ai8())
    return relu.as_quantize(bytes(made.quantize(statistics, enable_progress_report=False).quantized_model))
