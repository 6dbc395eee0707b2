"""A quantized RELU that stays on XNNPACK's fast path.

XNNPACK runs a RELU fused into an operation, not a stand-alone quantized one: that falls back to a slow reference
kernel. Where the output's zero point is its type's minimum, storing a negative saturates there, so that a
QUANTIZE between the same tensors is the same function, and XNNPACK takes it.
"""

from __future__ import annotations

from typing import Any

from harness.artifacts import flatbuffer

QUANTIZE_VERSION = 2  # the first that requantizes int8 to int8


def as_quantize(content: bytes) -> bytes:
    """A .tflite with each stand-alone int8 RELU that saturates at zero written as QUANTIZE."""
    model = flatbuffer.read(content)
    operators = [
        operator
        for graph in model.subgraphs
        for operator in graph.operators
        if flatbuffer.operation(model, operator) == "RELU" and _saturates(graph.tensors[operator.outputs[0]])
    ]
    if not operators:
        return content
    code = flatbuffer.add_code(model, "QUANTIZE", QUANTIZE_VERSION)
    for operator in operators:
        operator.opcodeIndex = code
    return flatbuffer.pack(model)


def _saturates(tensor: Any) -> bool:
    """Whether a tensor is int8 and stores zero as its minimum."""
    from ai_edge_litert import schema_py_generated as schema

    return tensor.type == schema.TensorType.INT8 and list(tensor.quantization.zeroPoint) == [-128]
