"""Which op versions, and so which runtime, a .tflite needs.

litert-quantizer leaves op versions at 1, so that a runtime too old for a file loads it and computes nonsense instead
of refusing. TensorFlow's exporter knows the versions that an operation's types need: the file is passed through it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.artifacts import flatbuffer

RUNTIME = b"min_runtime_version"  # the metadata entry in which TensorFlow writes the oldest TensorFlow Lite
REQUANTIZE_RUNTIME = "1.15.0"  # the first whose QUANTIZE takes int8; the exporter does not tell


def declare(content: bytes) -> bytes:
    """A .tflite with the op versions and the oldest runtime that it needs written into it. Needs TensorFlow."""
    needed = flatbuffer.read(_exported(content))
    versions = {code.builtinCode: code.version for code in needed.operatorCodes}
    model = flatbuffer.read(content)
    for code in model.operatorCodes:
        code.version = max(code.version, versions.get(code.builtinCode, 1))
    _drop_unused_codes(model)
    runtime = oldest_runtime(needed) or "1.5.0"
    if any(_requantizes(model, graph, operator) for graph in model.subgraphs for operator in graph.operators):
        runtime = max(runtime, REQUANTIZE_RUNTIME, key=as_numbers)
    flatbuffer.set_metadata(model, RUNTIME, runtime.encode().ljust(16, b"\0"))
    return flatbuffer.pack(model)


def of_operations(model: Any) -> dict[str, int]:
    """Each operation of a flatbuffer model and the version it declares, the highest where there are several."""
    versions: dict[str, int] = {}
    for operator in (operator for graph in model.subgraphs for operator in graph.operators):
        name = flatbuffer.operation(model, operator)
        versions[name] = max(versions.get(name, 1), model.operatorCodes[operator.opcodeIndex].version)
    return dict(sorted(versions.items()))


def oldest_runtime(model: Any) -> str | None:
    """What a flatbuffer model declares as the oldest TensorFlow Lite for it."""
    declared = flatbuffer.metadata(model, RUNTIME) or b""
    return declared.rstrip(b"\0").decode() or None


def as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _drop_unused_codes(model: Any) -> None:
    operators = [operator for graph in model.subgraphs for operator in graph.operators]
    used = sorted({operator.opcodeIndex for operator in operators})
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    for operator in operators:
        operator.opcodeIndex = used.index(operator.opcodeIndex)


def _exported(content: bytes) -> bytes:
    """The file as TensorFlow's exporter writes it. Weights are set to one, as zeros would be stored as sparse."""
    from ai_edge_litert import schema_py_generated as schema
    from tensorflow.lite.python.convert import mlir_sparsify

    weights = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16, schema.TensorType.INT8)
    model = flatbuffer.read(content)
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors if tensor.type in weights):
        buffer = model.buffers[tensor.buffer]
        if buffer.data is not None:
            buffer.data = np.ones(len(buffer.data), np.uint8)
    return bytes(mlir_sparsify(flatbuffer.pack(model)))


def _requantizes(model: Any, graph: Any, operator: Any) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    if model.operatorCodes[operator.opcodeIndex].builtinCode != schema.BuiltinOperator.QUANTIZE:
        return False
    return bool(graph.tensors[operator.inputs[0]].type != schema.TensorType.FLOAT32)
