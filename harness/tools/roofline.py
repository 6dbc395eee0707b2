"""The work of a model's operations, and a machine's peak rates for such work.

The peaks are measured there, not read from a data sheet: one large fully connected layer, built here, by the same
kernels and on one thread, as the model; and a copy far larger than any cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.artifacts import flatbuffer
from harness.core.npz import Array
from harness.run import worker

PEAK_ROWS, PEAK_WIDTH = 256, 512  # of the product: large enough to be efficient, small enough for the caches
TYPES = {0: np.float32, 1: np.float16, 2: np.int32, 3: np.uint8, 4: np.int64, 9: np.int8}  # of the schema


@dataclass(frozen=True)
class Work:
    """One operation's multiply-accumulates, and the bytes of activations and weights that it reads or writes."""

    name: str  # of the tensor it gives
    operation: str
    macs: int
    moved_bytes: int


@dataclass(frozen=True)
class Peak:
    """A machine's peak rates, on one thread."""

    float_macs_per_s: float
    int8_macs_per_s: float
    bytes_per_s: float


def work(content: bytes) -> list[Work]:
    """The work of every operation in order, for a batch of one."""
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    works = []
    for operator in graph.operators:
        operation = flatbuffer.operation(model, operator)
        used = [graph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index != -1]
        written = graph.tensors[operator.outputs[0]]
        macs = 0
        if operation in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            kernel = graph.tensors[operator.inputs[1]].shape
            macs = _size(written) * int(np.prod(kernel[1:3] if operation == "DEPTHWISE_CONV_2D" else kernel[1:]))
        moved = sum(_size(tensor) * np.dtype(TYPES.get(tensor.type, np.float32)).itemsize for tensor in used)
        works.append(Work(written.name.decode(), operation, macs, moved))
    return works


def _size(tensor: Any) -> int:
    return int(np.prod([max(1, side) for side in (tensor.shape if tensor.shape is not None else [])]))


def products() -> dict[str, bytes]:
    """The files whose times give the peaks of arithmetic, by the worker's names."""
    return dict(zip(worker.PEAKS, (_product(np.float32), _product(np.int8)), strict=True))


def peak(times: Mapping[str, Array]) -> Peak:
    """From what the worker measured of a profile."""
    macs = PEAK_ROWS * PEAK_WIDTH * PEAK_WIDTH
    float_s, int8_s = (float(times[name].min()) for name in worker.PEAKS)
    return Peak(macs / float_s, macs / int8_s, 2 * worker.COPIED_BYTES / float(times["copied"]))


def _product(dtype: Any) -> bytes:
    """A .tflite of one fully connected layer, [PEAK_ROWS, PEAK_WIDTH] to the same."""
    from ai_edge_litert import schema_py_generated as schema

    quantized = dtype is np.int8
    weights = np.random.default_rng(1).integers(-127, 128, (PEAK_WIDTH, PEAK_WIDTH)).astype(dtype)
    model, graph, operator, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT()
    model.version, model.description = 3, "peak"
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = np.frombuffer(weights.tobytes(), np.uint8)
    rows, square = [PEAK_ROWS, PEAK_WIDTH], [PEAK_WIDTH, PEAK_WIDTH]
    graph.tensors = [
        _tensor(schema, name, shape, buffer, quantized)
        for name, shape, buffer in (("in", rows, 0), ("weights", square, 1), ("out", rows, 0))
    ]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4 if quantized else 1
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, -1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    graph.inputs, graph.outputs, graph.operators = [0], [2], [operator]
    model.operatorCodes, model.subgraphs = [code], [graph]
    return flatbuffer.pack(model)


def _tensor(schema: Any, name: str, shape: list[int], buffer: int, quantized: bool) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, shape, buffer
    tensor.type = schema.TensorType.INT8 if quantized else schema.TensorType.FLOAT32
    if quantized:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [{"out": 1.0}.get(name, 0.01)], [0]
    return tensor
