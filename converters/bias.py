"""Biases that fit into their integers.

A quantized bias has the step of its input times that of its weights. Where the weights are nearly zero (weight decay,
pruning, a dead batch norm) and the bias is not, it exceeds int32; litert-quantizer then stores -2147483648, whatever
its sign. Here such weights get a coarser step, so that the bias fits: what they lose is less than a step of the output,
whose range holds the bias.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.artifacts import flatbuffer

LARGEST = 2**30  # a stored bias: half of int32's range is left to the sum of products
LARGEST_WEIGHT = 127
ROUNDING = 1e-6  # of scales, which are stored as float32
PLACES = {  # of input, weights and bias among an operation's inputs
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "CONV_3D": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}


@dataclass(frozen=True)
class _Biased:
    """A quantized operation, and its weights and bias as they were, by channel of the bias."""

    operator: Any
    places: tuple[int, int, int]
    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def fit(content: bytes, float32: bytes) -> bytes:
    """A quantized .tflite whose biases all fit; the file itself where they did. float32: what it was made from."""
    model, original = flatbuffer.read(content), flatbuffer.read(float32)
    graph = model.subgraphs[0]
    by_weights: defaultdict[int, list[_Biased]] = defaultdict(list)
    for part in _biased(model, original):
        by_weights[int(part.operator.inputs[part.places[1]])].append(part)
    count = 0
    for index, parts in by_weights.items():
        tensor = graph.tensors[index]
        scale = np.asarray(tensor.quantization.scale, np.float64)
        needed = scale
        for part in parts:
            least = np.abs(part.bias.astype(np.float64)) / (_step(graph, part) * LARGEST)
            needed = np.maximum(needed, least if scale.size > 1 else least.max())
        if (needed > scale * (1 + ROUNDING)).any():
            count += 1
            _rescale_weights(model, tensor, parts[0].weights, needed)
            for part in parts:
                _rescale_bias(model, part, needed)
    return flatbuffer.pack(model) if count else content


def _biased(model: Any, original: Any) -> Iterator[_Biased]:
    """The quantized operations with a bias whose original is known by the tensor it gives."""
    from ai_edge_litert import schema_py_generated as schema

    graph, before = model.subgraphs[0], original.subgraphs[0]
    floats = {flatbuffer.outputs(before, operator): operator for operator in before.operators}
    for operator in graph.operators:
        places = PLACES.get(flatbuffer.operation(model, operator))
        plain = floats.get(flatbuffer.outputs(graph, operator))
        if places is None or plain is None or len(operator.inputs) <= places[2] or operator.inputs[places[2]] == -1:
            continue
        types = [graph.tensors[operator.inputs[place]].type for place in places[1:]]
        if types[0] != schema.TensorType.INT8 or types[1] not in (schema.TensorType.INT32, schema.TensorType.INT64):
            continue
        if not all(flatbuffer.constant(original, plain.inputs[place]) for place in places[1:]):
            continue
        weights, bias = (_floats(original, plain.inputs[place]) for place in places[1:])
        yield _Biased(operator, places, weights, bias)


def _floats(model: Any, index: int) -> npt.NDArray[np.float32]:
    tensor = model.subgraphs[0].tensors[index]
    values: npt.NDArray[np.float32] = model.buffers[tensor.buffer].data.view(np.float32).reshape(tensor.shape)
    return values


def _step(graph: Any, part: _Biased) -> float:
    return float(graph.tensors[part.operator.inputs[part.places[0]]].quantization.scale[0])


def _rescale_weights(model: Any, tensor: Any, weights: npt.NDArray[np.float32], scale: npt.NDArray[np.float64]) -> None:
    shape = [1] * weights.ndim
    if scale.size > 1:
        shape[tensor.quantization.quantizedDimension] = scale.size
    stored = np.round(weights / scale.reshape(shape)).clip(-LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int8)
    tensor.quantization.scale = scale.astype(np.float32)
    model.buffers[tensor.buffer].data = stored.reshape(-1).view(np.uint8)


def _rescale_bias(model: Any, part: _Biased, scale: npt.NDArray[np.float64]) -> None:
    """A tensor of its own: others may share the one that was there."""
    import copy

    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    tensor = copy.deepcopy(graph.tensors[part.operator.inputs[part.places[2]]])
    steps = scale.astype(np.float32) * np.float32(_step(graph, part))
    stored = np.round(part.bias / steps.astype(np.float64))
    dtype = np.int64 if tensor.type == schema.TensorType.INT64 else np.int32
    tensor.buffer = flatbuffer.add_buffer(model, stored.astype(dtype).tobytes())
    tensor.quantization.scale = steps
    inputs = [int(index) for index in part.operator.inputs]
    inputs[part.places[2]] = flatbuffer.add_tensor(graph, tensor)
    part.operator.inputs = inputs
