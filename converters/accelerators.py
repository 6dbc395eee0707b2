"""Equal forms of operations that accelerators get wrong (measured: docs/accelerators-operations.md).

On LiteRT 2.3's GPU accelerator
- a 1x1 convolution with quantized weights ignores its stride: a 1x1 max-pooling of that stride, then the convolution
  with stride 1, is the same function, because the pooling picks the pixels that were read;
- a quantized sum, difference or product is wrong where one side is computed and has fewer dimensions than the other (a
  squeeze-and-excitation gate): it is given the missing dimensions by a RESHAPE, which TFLiteConverter takes out.
On Intel's OpenVINO
- an int8 maximum over rows and columns (GlobalMaxPooling2D: REDUCE_MAX) is wrong, and litert-quantizer leaves it
  float32: a MAX_POOL_2D of the whole image, then a RESHAPE, takes the same maximum.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from harness.artifacts import flatbuffer

BROADCAST = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM")
GPU_CHANNELS = 4  # of which a group of a convolution must have a multiple


def rewrite(float32: bytes) -> bytes:
    """A float32 .tflite of the same function without such operations; the file itself if it has none."""
    model = flatbuffer.read(float32)
    rewrites = _pool_strides, _equal_ranks, _pool_maxima
    counts = [rewrite(model, graph) for graph in model.subgraphs for rewrite in rewrites]
    return flatbuffer.pack(model) if sum(counts) else float32


def warnings(float32: bytes) -> Iterator[str]:
    """What accelerators get wrong and has no equal form that is as fast on the CPU."""
    model = flatbuffer.read(float32)
    for graph in model.subgraphs:
        for operator in graph.operators:
            if flatbuffer.operation(model, operator) == "CONV_2D":
                tensors = [graph.tensors[index].shape for index in (*operator.inputs[:2], *operator.outputs)]
                groups, per_group = tensors[0][3] // tensors[1][3], tensors[1][3]
                outputs = tensors[2][3] // groups
                wrong = ""
                if per_group % GPU_CHANNELS or outputs % GPU_CHANNELS:
                    wrong = f"is wrong where these are not multiples of {GPU_CHANNELS}"
                elif list(tensors[1][1:3]) == [1, 1]:
                    wrong = "is wrong where a 1x1 convolution in groups has int8 weights (dynamic_range, int8)"
                if groups > 1 and wrong:
                    yield (
                        f"a convolution of {groups} groups, {per_group} to {outputs} channels each: LiteRT's GPU "
                        f"accelerator {wrong}; harness convert --accelerator gpu tries it"
                    )


def _pool_strides(model: Any, graph: Any) -> int:
    """Give each 1x1 convolution with a stride a pooling in front, one for all that read the same tensor; how many."""
    operators: list[Any] = []
    pooled: dict[tuple[int, int, int], int] = {}  # tensor by input and strides
    for operator in graph.operators:
        if _is_strided_pointwise(model, graph, operator):
            options = operator.builtinOptions
            key = int(operator.inputs[0]), options.strideH, options.strideW
            if key not in pooled:
                operators.append(_pooling(model, graph, *key))
                pooled[key] = operators[-1].outputs[0]
            operator.inputs = [pooled[key], *operator.inputs[1:]]
            options.strideH = options.strideW = 1
        operators.append(operator)
    graph.operators = operators
    return len(pooled)


def _is_strided_pointwise(model: Any, graph: Any, operator: Any) -> bool:
    if flatbuffer.operation(model, operator) != "CONV_2D":
        return False
    kernel = list(graph.tensors[operator.inputs[1]].shape[1:3])
    return kernel == [1, 1] and max(operator.builtinOptions.strideH, operator.builtinOptions.strideW) > 1


def _pooling(model: Any, graph: Any, source: int, *strides: int, size: tuple[int, int] = (1, 1)) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    options = schema.Pool2DOptionsT()
    options.padding = schema.Padding.VALID
    options.filterHeight, options.filterWidth = size
    options.strideH, options.strideW = strides
    tensor = copy.copy(graph.tensors[source])
    tensor.name += b"/strided"
    for sizes in ("shape", "shapeSignature"):
        if (old := getattr(tensor, sizes)) is not None:
            pooled = [size if size < 0 else -(-size // stride) for size, stride in zip(old[1:3], strides, strict=True)]
            setattr(tensor, sizes, [old[0], *pooled, old[3]])
    return flatbuffer.operator(model, "MAX_POOL_2D", [source], [flatbuffer.add_tensor(graph, tensor)], options)


def _equal_ranks(model: Any, graph: Any) -> int:
    """Give the computed sides of sums and products as many dimensions as the output has; how many."""
    operators: list[Any] = []
    for operator in graph.operators:
        if flatbuffer.operation(model, operator) in BROADCAST:
            rank = len(graph.tensors[operator.outputs[0]].shape)
            for place, index in enumerate(operator.inputs):
                tensor = graph.tensors[index]
                is_fixed = tensor.shapeSignature is None or min(tensor.shapeSignature, default=1) > 0
                is_computed = model.buffers[tensor.buffer].data is None
                if is_computed and is_fixed and tensor.shape is not None and 0 < len(tensor.shape) < rank:
                    operators.append(_reshape(model, graph, index, [1] * (rank - len(tensor.shape)) + [*tensor.shape]))
                    operator.inputs[place] = operators[-1].outputs[0]
        operators.append(operator)
    count = len(operators) - len(graph.operators)
    graph.operators = operators
    return count


def _pool_maxima(model: Any, graph: Any) -> int:
    """Write each maximum over all rows and columns as a pooling; how many."""
    operators: list[Any] = []
    for operator in graph.operators:
        if not _is_maximum_of_image(model, graph, operator):
            operators.append(operator)
            continue
        source = int(operator.inputs[0])
        shape = graph.tensors[source].shape
        size = int(shape[1]), int(shape[2])
        pooling = _pooling(model, graph, source, *size, size=size)
        operators.append(pooling)
        if operator.builtinOptions.keepDims:
            pooling.outputs = operator.outputs
        else:
            operators.append(_reshape(model, graph, pooling.outputs[0], [int(shape[0]), int(shape[3])]))
            operators[-1].outputs = operator.outputs
    count = sum(old is not new for old, new in zip(graph.operators, operators, strict=False))
    graph.operators = operators
    return count


def _is_maximum_of_image(model: Any, graph: Any, operator: Any) -> bool:
    """Over rows and columns, of a tensor [N, H, W, C] of fixed size."""
    if flatbuffer.operation(model, operator) != "REDUCE_MAX":
        return False
    tensor, axes = (graph.tensors[index] for index in operator.inputs)
    stored = model.buffers[axes.buffer].data
    is_fixed = tensor.shapeSignature is None or min(tensor.shapeSignature, default=1) > 0
    if stored is None or tensor.shape is None or len(tensor.shape) != 4 or not is_fixed:
        return False
    return {int(axis) % 4 for axis in np.frombuffer(bytes(stored), np.int32)} == {1, 2}


def _reshape(model: Any, graph: Any, source: int, shape: list[int]) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    options, sizes = schema.ReshapeOptionsT(), schema.TensorT()
    options.newShape = shape
    tensor = copy.copy(graph.tensors[source])
    tensor.name += b"/dimensions"
    tensor.shape, tensor.shapeSignature = shape, None
    sizes.name, sizes.type, sizes.shape = tensor.name + b"/shape", schema.TensorType.INT32, [len(shape)]
    sizes.buffer = flatbuffer.add_buffer(model, np.array(shape, np.int32).tobytes())
    inputs, outputs = [source, flatbuffer.add_tensor(graph, sizes)], [flatbuffer.add_tensor(graph, tensor)]
    return flatbuffer.operator(model, "RESHAPE", inputs, outputs, options)
