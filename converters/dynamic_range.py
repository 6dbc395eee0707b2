"""dynamic_range: int8 weights, float32 inputs and outputs; activations are quantized while running.

By ai-edge-quantizer rather than TFLiteConverter, whose dynamic-range files do not load in tflite-runtime 2.14
(FULLY_CONNECTED version 12).
"""

from __future__ import annotations


def quantize(float32: bytes) -> bytes:
    """A float32 .tflite with its weights quantized per channel."""
    from ai_edge_quantizer import quantizer, recipe

    made = quantizer.Quantizer(bytearray(float32), recipe.dynamic_wi8_afp32())
    return bytes(made.quantize(enable_progress_report=False).quantized_model)
