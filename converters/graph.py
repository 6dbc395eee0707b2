"""A functional Keras model as a graph: which layer writes each tensor, which layers read it, what each passes on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

Channels = NDArray[np.float64]  # [C], one number per channel


def _ranks(*kinds: str) -> tuple[type[Any], ...]:
    return tuple(getattr(layers, f"{kind}{rank}D") for kind in kinds for rank in (1, 2, 3))


_LINEAR = (*_ranks("Conv"), layers.DepthwiseConv1D, layers.DepthwiseConv2D, layers.Dense)
_AVERAGE_POOL = _ranks("AveragePooling")
# f(x + c) = f(x) + c for any c per channel
_SHIFTABLE = (*_ranks("MaxPooling", "SpatialDropout"), layers.Dropout, layers.Identity)
# f(a * x) = a * f(x) for any a > 0 per channel; Flatten repeats the channels
_SCALABLE = (
    *_SHIFTABLE,
    *_AVERAGE_POOL,
    *_ranks("ZeroPadding", "Cropping", "UpSampling", "GlobalAveragePooling", "GlobalMaxPooling"),
    layers.Flatten,
)


class StaysError(Exception):
    """Why a batch norm cannot be folded, in a few words."""


class Graph:
    """Who makes and who reads each tensor of a functional model. Tensors go by id(); the model keeps them alive."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.calls: Counter[Any] = Counter()
        self.node: dict[Any, Any] = {}  # an operation's call; of several, one
        self.with_arguments: set[Any] = set()  # layers called with training=True or the like
        self.maker: dict[int, Any] = {}
        self.readers: defaultdict[int, list[Any]] = defaultdict(list)  # the model itself reads its outputs
        self._alias: dict[int, int] = {}
        for tensor in model.outputs:
            self.readers[id(tensor)].append(model)
        pending, seen = list(model.outputs), set()
        while pending:
            op, index, _ = pending.pop()._keras_history
            node = op._inbound_nodes[index]
            if id(node) in seen:
                continue
            seen.add(id(node))
            self.calls[op] += 1
            self.node[op] = node
            for argument in keras.tree.flatten((node.arguments.args, node.arguments.kwargs)):
                if not isinstance(argument, keras.KerasTensor) and argument is not None and argument is not False:
                    self.with_arguments.add(op)
            self.maker.update((id(tensor), op) for tensor in node.outputs)
            for tensor in node.input_tensors:
                self.readers[id(tensor)].append(op)
                pending.append(tensor)

    def inputs(self, op: Any) -> list[int]:
        return [self._alias.get(id(tensor), id(tensor)) for tensor in self.node[op].input_tensors]

    def output(self, op: Any) -> int:
        return id(self.node[op].outputs[0])

    def bypass(self, bn: Any) -> None:
        """Take out the only reader of a tensor; that one's own readers take its place."""
        (before,), after = self.inputs(bn), self.output(bn)
        self.readers[before] = self.readers[after]
        self._alias[after] = before

    def misfit(self, op: Any) -> str:
        """Why this operation cannot be treated channel by channel. Empty if it can."""
        dtypes = {str(tensor.dtype) for tensor in (*self.node[op].input_tensors, *self.node[op].outputs)}
        if isinstance(op, layers.Layer):
            dtypes |= {op.compute_dtype, op.variable_dtype}
        if self.calls[op] > 1:
            return f"called {self.calls[op]} times"
        if op in self.with_arguments:
            return "called with an argument such as training=True"
        if len(dtypes) > 1:
            return f"mixed precision, {' and '.join(sorted(dtypes))}"
        if getattr(op, "data_format", None) == "channels_first":
            return "channels first"
        if getattr(op, "quantization_mode", None) or getattr(op, "lora_enabled", False):
            return "quantized or adapted weights"
        return ""

    def describe(self, op: Any) -> str:
        if op is self.model:
            return "the model's output"
        notes = [type(op).__name__, self.misfit(op)]
        if type(op) in _LINEAR and not is_plain(op):
            notes.append("with an activation")
        return f"{op.name} ({', '.join(filter(None, notes))})"

    def is_linear(self, op: Any) -> bool:
        return type(op) in _LINEAR and not self.misfit(op)

    def is_batch_norm(self, op: Any) -> bool:
        if type(op) is not layers.BatchNormalization or self.misfit(op) or len(self.inputs(op)) > 1:
            return False
        return op.axis in (-1, len(self.node[op].outputs[0].shape) - 1)

    def is_add(self, op: Any) -> bool:
        if type(op) not in (layers.Add, _function_type("add")) or len(self.inputs(op)) < 2 or self.misfit(op):
            return False
        return len({tuple(tensor.shape) for tensor in (*self.node[op].input_tensors, *self.node[op].outputs)}) == 1

    def is_relu(self, op: Any) -> bool:
        if type(op) is layers.Activation:
            plain = op.activation is keras.activations.relu
        elif type(op) in (layers.ReLU, _function_type("activations.relu")):
            plain = op.max_value is None and not op.negative_slope and not op.threshold
        else:
            plain = type(op) is _function_type("ops.relu")
        return plain and not self.misfit(op)

    def passes_shift(self, op: Any) -> bool:
        passes = type(op) in _SHIFTABLE or (type(op) in _AVERAGE_POOL and op.padding == "valid")
        return passes and not self.misfit(op)

    def takes_shift(self, op: Any) -> bool:
        """Can read x + c for x: it computes with its own mean or bias, and reads no zeros of padding."""
        if self.is_linear(op) and not isinstance(op, layers.Dense):
            return op.padding == "valid" or set(op.kernel_size) == {1}
        return self.is_linear(op) or self.is_batch_norm(op) or self.is_add(op)

    def feeds_freely(self, tensor: int) -> bool:
        """Made by a convolution whose kernel and bias may change."""
        return self.is_linear(self.maker[tensor]) and is_plain(self.maker[tensor])

    def root(self, tensor: int) -> int:
        """The tensor furthest upstream that has this one's shift."""
        while self.passes_shift(self.maker[tensor]):
            (tensor,) = self.inputs(self.maker[tensor])
        return tensor

    def stream(self, root: int) -> Iterator[Any]:
        """All that reads a tensor, at once or after what passes its shift on."""
        for reader in self.readers[root]:
            if self.passes_shift(reader):
                yield from self.stream(self.output(reader))
            else:
                yield reader

    def scaled(self, tensor: int, a: Channels) -> Iterator[tuple[Any, Channels]]:
        """The layers to take a scale of this tensor into their kernel, each with that scale for its own inputs."""
        for reader in self.readers[tensor]:
            if self.is_linear(reader):
                yield reader, a
            elif type(reader) in _SCALABLE and not self.misfit(reader):
                width = self.node[reader].outputs[0].shape[-1] or 0  # unknown after Flatten: nothing linear reads it
                yield from self.scaled(self.output(reader), np.tile(a, width // a.size))
            else:
                raise StaysError(f"between its ReLU and a convolution: {self.describe(reader)}")


@cache
def _function_type(name: str) -> type[Any]:
    """The operation behind x + y, ops.relu(x) or activations.relu(x); those have no public names."""
    x = keras.KerasTensor((1,))
    results = {"add": x + x, "ops.relu": keras.ops.relu(x), "activations.relu": keras.activations.relu(x)}
    return type(results[name]._keras_history.operation)


def is_plain(layer: Any) -> bool:
    return layer.activation in (None, keras.activations.linear)
