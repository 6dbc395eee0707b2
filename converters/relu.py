"""Quantized ReLUs that stay on XNNPACK's fast path.

XNNPACK runs a RELU or RELU6 fused into an operation, not a stand-alone quantized one: that falls back to a slow
reference kernel. Where the values that the output can store lie within the activation's limits, storing saturates at
them, so that a QUANTIZE between the same tensors is the same function, and XNNPACK takes it.
"""

from __future__ import annotations

from math import inf
from typing import Any

from converters import flatbuffer

QUANTIZE_VERSION = 2  # the first that requantizes int8 to int8
LIMITS = {"RELU": (0.0, inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}


def as_quantize(content: bytes) -> bytes:
    """A .tflite with each stand-alone int8 RELU, RELU6 and the like that saturates written as QUANTIZE."""
    from ai_edge_litert import schema_py_generated as schema

    model = flatbuffer.read(content)
    operators = [
        operator
        for graph in model.subgraphs
        for operator in graph.operators
        if (limits := LIMITS.get(flatbuffer.operation(model, operator)))
        and _saturates(graph.tensors[operator.outputs[0]], *limits)
    ]
    if not operators:
        return content
    quantize = schema.OperatorCodeT()
    quantize.builtinCode = quantize.deprecatedBuiltinCode = schema.BuiltinOperator.QUANTIZE
    quantize.version = QUANTIZE_VERSION
    model.operatorCodes.append(quantize)
    for operator in operators:
        operator.opcodeIndex = len(model.operatorCodes) - 1
    return flatbuffer.pack(model)


def _saturates(tensor: Any, low: float, high: float) -> bool:
    """Whether a tensor is int8 and can store nothing beyond the limits, to within half a step."""
    from ai_edge_litert import schema_py_generated as schema

    if tensor.type != schema.TensorType.INT8:
        return False
    (scale,), (zero_point,) = tensor.quantization.scale, tensor.quantization.zeroPoint
    least, greatest = ((stored - zero_point) * scale for stored in (-128, 127))
    return bool(least > low - scale / 2 and greatest < high + scale / 2)
