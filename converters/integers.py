"""Which operations of a quantized .tflite compute in float32. Needs no TensorFlow."""

from __future__ import annotations

from collections import Counter
from typing import Any

from harness.artifacts import flatbuffer

NAMED = 5


def left_float(content: bytes) -> str | None:
    """In words, how many operations of a file made of integers stay float32, and which. None if none do."""
    from ai_edge_litert import schema_py_generated as schema

    model = flatbuffer.read(content)
    floats: Counter[str] = Counter()
    total = 0
    for graph in model.subgraphs:
        for operator in graph.operators:
            name = flatbuffer.operation(model, operator)
            types = [tensor.type == schema.TensorType.FLOAT32 for tensor in _activations(model, graph, operator)]
            if name in ("QUANTIZE", "DEQUANTIZE") and any(types):
                continue
            total += 1
            floats[name] += any(types)
    count = sum(floats.values())
    if not count:
        return None
    common = [f"{number} {name}" for name, number in floats.most_common() if number]
    return f"{count} of {total} operations stay float32: {', '.join(common[:NAMED])}" + (
        " ..." if len(common) > NAMED else ""
    )


def _activations(model: Any, graph: Any, operator: Any) -> list[Any]:
    indices = [*(index for index in operator.inputs if index != -1), *operator.outputs]
    return [graph.tensors[i] for i in indices if model.buffers[graph.tensors[i].buffer].data is None]
