"""TensorFlow Lite's operations on real numbers by Keras operations, which any backend computes and differentiates.

A file's batch is one; here the first dimension is any number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops


@dataclass(frozen=True)
class Operation:
    """One of the file's. options: of the schema. name: of its first output. shape: of that, for one image.

    linear: without the activation that is fused into it.
    """

    kind: str
    options: Any
    name: str
    shape: tuple[int, ...]
    linear: bool = False

    def option(self, name: str, default: Any = 0) -> Any:
        return getattr(self.options, name, default)


# Of an operation and its inputs, to its outputs; integer constants are NumPy arrays. None if there is no such input.
Function = Callable[..., Any]

ACTIVATIONS: dict[int, Callable[[Any], Any]] = {  # by the schema's ActivationFunctionType
    0: lambda x: x,
    1: ops.relu,
    2: lambda x: ops.clip(x, -1, 1),
    3: ops.relu6,
    4: ops.tanh,
}


def activated(op: Operation, x: Any) -> Any:
    return x if op.linear else ACTIVATIONS[op.option("fusedActivationFunction")](x)


def _window(op: Operation) -> dict[str, Any]:
    return {"strides": (op.option("strideH"), op.option("strideW")), "padding": ("same", "valid")[op.option("padding")]}


def _dilation(op: Operation) -> tuple[int, int]:
    return op.option("dilationHFactor", 1), op.option("dilationWFactor", 1)


def _conv(op: Operation, x: Any, weights: Any, bias: Any = None) -> Any:
    kernel = ops.transpose(weights, (1, 2, 3, 0))  # to height, width, inputs, outputs
    x = ops.conv(x, kernel, **_window(op), dilation_rate=_dilation(op), data_format="channels_last")
    return activated(op, x if bias is None else x + bias)


def _depthwise_conv(op: Operation, x: Any, weights: Any, bias: Any = None) -> Any:
    _, height, width, outputs = weights.shape
    kernel = ops.reshape(weights, (height, width, x.shape[-1], outputs // x.shape[-1]))
    x = ops.depthwise_conv(x, kernel, **_window(op), dilation_rate=_dilation(op), data_format="channels_last")
    return activated(op, x if bias is None else x + bias)


def _fully_connected(op: Operation, x: Any, weights: Any, bias: Any = None) -> Any:
    if not op.option("keepNumDims"):
        x = ops.reshape(x, (-1, weights.shape[1]))
    x = ops.matmul(x, ops.transpose(weights))
    return activated(op, x if bias is None else x + bias)


def _reshape(op: Operation, x: Any, *_: Any) -> Any:
    return ops.reshape(x, (-1, *op.shape[1:]))


def _pool(function: Callable[..., Any]) -> Function:
    def pool(op: Operation, x: Any) -> Any:
        size = op.option("filterHeight"), op.option("filterWidth")
        return activated(op, function(x, size, **_window(op), data_format="channels_last"))

    return pool


def _reduced(function: Callable[..., Any]) -> Function:
    def reduce(op: Operation, x: Any, axes: Any) -> Any:
        return function(x, axis=tuple(int(axis) for axis in np.ravel(axes)), keepdims=bool(op.option("keepDims")))

    return reduce


def _binary(function: Callable[[Any, Any], Any]) -> Function:
    return lambda op, x, y: activated(op, function(x, y))


def _unary(function: Callable[[Any], Any]) -> Function:
    return lambda op, x: function(x)


def _matmul(op: Operation, x: Any, y: Any) -> Any:
    x, y = (
        ops.swapaxes(tensor, -1, -2) if op.option(adjoint) else tensor for tensor, adjoint in ((x, "adjX"), (y, "adjY"))
    )
    return ops.matmul(x, y)


def _strided_slice(op: Operation, x: Any, begin: Any, end: Any, strides: Any) -> Any:
    parts: list[Any] = []
    for axis, (first, last, step) in enumerate(zip(begin, end, strides, strict=True)):
        bit = 1 << axis
        if op.option("shrinkAxisMask") & bit:
            parts.append(int(first))
            continue
        whole = axis == 0  # all images
        start = None if op.option("beginMask") & bit or whole else int(first)
        parts.append(slice(start, None if op.option("endMask") & bit or whole else int(last), int(step)))
    return x[tuple(parts)]


def _hard_swish(x: Any) -> Any:
    return x * ops.relu6(x + 3) / 6


def _resized(interpolation: str) -> Function:
    return lambda op, x, size: ops.image.resize(
        x, [int(side) for side in size], interpolation, data_format="channels_last"
    )


FUNCTIONS: dict[str, Function] = {
    "ABS": _unary(ops.abs),
    "ADD": _binary(ops.add),
    "AVERAGE_POOL_2D": _pool(ops.average_pool),
    "BATCH_MATMUL": _matmul,
    "CONCATENATION": lambda op, *x: activated(op, ops.concatenate(x, axis=op.option("axis"))),
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise_conv,
    "DIV": _binary(ops.divide),
    "ELU": _unary(ops.elu),
    "EXP": _unary(ops.exp),
    "FULLY_CONNECTED": _fully_connected,
    "GELU": lambda op, x: ops.gelu(x, approximate=bool(op.option("approximate"))),
    "HARD_SWISH": _unary(_hard_swish),
    "LEAKY_RELU": lambda op, x: ops.leaky_relu(x, op.option("alpha")),
    "LOGISTIC": _unary(ops.sigmoid),
    "MAXIMUM": _binary(ops.maximum),
    "MAX_POOL_2D": _pool(ops.max_pool),
    "MEAN": _reduced(ops.mean),
    "MINIMUM": _binary(ops.minimum),
    "MUL": _binary(ops.multiply),
    "NEG": _unary(ops.negative),
    "PACK": lambda op, *x: ops.stack(x, axis=op.option("axis")),
    "PAD": lambda op, x, sizes: ops.pad(x, [tuple(map(int, pair)) for pair in sizes]),
    "RELU": _unary(ops.relu),
    "RELU6": _unary(ops.relu6),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resized("bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": _resized("nearest"),
    "RSQRT": _unary(ops.rsqrt),
    "SOFTMAX": lambda op, x: ops.softmax(x * op.option("beta", 1.0)),
    "SPLIT": lambda op, axis, x: ops.split(x, op.option("numSplits"), axis=int(np.ravel(axis)[0])),
    "SQRT": _unary(ops.sqrt),
    "SQUARE": _unary(ops.square),
    "SQUARED_DIFFERENCE": _binary(lambda x, y: ops.square(x - y)),
    "STRIDED_SLICE": _strided_slice,
    "SUB": _binary(ops.subtract),
    "SUM": _reduced(ops.sum),
    "TANH": _unary(ops.tanh),
    "TILE": lambda op, x, counts: ops.tile(x, [int(count) for count in counts]),
    "TRANSPOSE": lambda op, x, order: ops.transpose(x, [int(axis) for axis in order]),
    "UNPACK": lambda op, x: ops.unstack(x, op.option("num"), axis=op.option("axis")),
}


def log_probabilities(op: Operation, inputs: Sequence[Any], outputs: Any) -> Any:
    """[N, classes] of the operation that gives a classifier's answer, exact where it saturates."""
    if op.kind == "SOFTMAX":
        return ops.log_softmax(inputs[0])
    if op.kind == "LOGISTIC":
        return ops.concatenate([ops.log_sigmoid(-inputs[0]), ops.log_sigmoid(inputs[0])], axis=-1)
    return ops.log(ops.clip(outputs, 1e-7, 1))
