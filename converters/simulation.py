"""An int8 .tflite simulated in Keras, so that it can be trained: quantization-aware training.

The graph is that of the float32 .tflite that the quantizer reads, its batch norms folded, operation by operation. Each
tensor is quantized where the int8 file has it, which that file tells: weights at a step of their channel or of their
tensor, activations at one range. Rounding passes gradients on as if it were not there (straight-through estimator), and
so weights, biases and ranges learn. Adam moves every number alike, so each is held as a share of what it may be:
weights of their channel's largest, biases of their channel's range, the ends of a range as a factor's logarithm.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from converters.calibration import Ranges
from converters.equalize import CHANNEL_AXIS
from converters.simulated_operations import FUNCTIONS, Operation, log_probabilities
from harness.artifacts import flatbuffer
from harness.core.errors import SetupError

FIXED = ("SOFTMAX", "LOGISTIC", "TANH")  # whose output's range the quantizer sets
FACTOR_RATE = 4.0  # how much faster the sizes of channels and ranges learn than shares
LARGEST_BIAS = 2**30  # a stored one; see converters.bias
LEVELS, LOWEST, HIGHEST = 255, -128, 127
MIN_SPAN = 1e-3  # of a channel's range, as a share of the largest one's
MIN_SCALE = 1e-9 / HIGHEST

Array = npt.NDArray[np.float32]


def _rounded(x: Any) -> Any:
    return x + ops.stop_gradient(ops.round(x) - x)


@dataclass(frozen=True)
class _Stored:
    """An int8 tensor of the int8 file. scales: one, or one a channel."""

    name: str
    scales: Array
    zero_point: int


@dataclass(frozen=True)
class _Step:
    """An operation of the float32 file: its inputs and outputs by tensor there, and as the int8 file stores them."""

    operation: Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    stored_inputs: tuple[_Stored | None, ...]
    stored_outputs: tuple[_Stored | None, ...]


class Simulation(keras.layers.Layer):
    """From images [N, H, W, C] as floats to the logarithms of probabilities [N, classes]."""

    def __init__(self, float32: bytes, int8: bytes, ranges: Ranges) -> None:
        """ranges: measured, by channel. Raises SetupError where an operation cannot be simulated."""
        super().__init__(name="simulation")
        self._model, quantized = flatbuffer.read(float32), flatbuffer.read(int8)
        graph = self._model.subgraphs[0]
        if len(self._model.subgraphs) > 1:
            raise SetupError("quantization-aware training: loops and branches cannot be simulated")
        self._steps = _steps(self._model, quantized)
        self._input, self._output = int(graph.inputs[0]), int(graph.outputs[0])
        self._ranges = _Ranges(self, self._steps, _stored_input(quantized))
        self._constants = {
            index: _constant(self._model, index)
            for step in self._steps
            for index in step.inputs
            if index >= 0 and flatbuffer.constant(self._model, index)
        }
        self._weights: dict[int, tuple[Any, Any, Array]] = {}  # by tensor: shares, factors, and of what
        self._biases: dict[int, tuple[Any, Array]] = {}  # by step, as several may share a tensor of zeros
        for number, step in enumerate(self._steps):
            self._add_weights(number, step, ranges)
        stored = _stored_constants(quantized)
        self._quantized_constants = {
            index: stored[store.name]
            for step in self._steps
            for index, store in zip(step.inputs, step.stored_inputs, strict=True)
            if index in self._constants and index not in self._weights and store is not None
        }
        self.built = True

    def _add_weights(self, number: int, step: _Step, ranges: Ranges) -> None:
        if step.operation.kind not in CHANNEL_AXIS or step.inputs[1] not in self._constants:
            return
        weights = self._constants[step.inputs[1]]
        axes = tuple(axis for axis in range(weights.ndim) if axis != CHANNEL_AXIS[step.operation.kind])
        largest = np.abs(weights).max(axis=axes, keepdims=True)
        largest[largest == 0] = 1
        if step.inputs[1] not in self._weights:
            shares = self.add_weight(weights.shape, keras.initializers.Constant(weights / largest), name="weights")
            factors = self.add_weight(largest.shape, "zeros", name="factors")
            self._weights[step.inputs[1]] = shares, factors, largest
        if len(step.inputs) > 2 and step.inputs[2] in self._constants:
            bias = self._constants[step.inputs[2]]
            ends = [np.abs(end) for end in ranges.get(step.operation.name, (bias, bias))]
            span = np.maximum(*ends).astype(np.float32)
            span = np.maximum(span, MIN_SPAN * span.max() or 1)
            self._biases[number] = self.add_weight(bias.shape, "zeros", name="bias"), span

    def call(self, images: Any) -> Any:
        return self.trace(images)[1]

    def trace(self, images: Any, *, quantized: bool = True) -> tuple[dict[str, Any], Any]:
        """Every operation's outputs by tensor name, and the logarithms of the probabilities."""
        values = self._entered(images, quantized=quantized)
        result: Any = None
        for number, step in enumerate(self._steps):
            inputs = self._inputs(number, values, quantized=quantized)
            outputs = self._run(number, inputs, values, quantized=quantized)
            if self._output in step.outputs:
                result = log_probabilities(step.operation, inputs, outputs[0])
        names = self._model.subgraphs[0].tensors
        computed = [index for step in self._steps for index in step.outputs]
        return {names[index].name.decode(): values[index][0] for index in computed}, result

    def correct_biases(self, images: Array) -> None:
        """Move each bias by what quantization moves its channel's mean, layer after layer (arXiv:1906.04721)."""
        real, quantized = self._entered(images, quantized=False), self._entered(images, quantized=True)
        for number, step in enumerate(self._steps):
            inputs = self._inputs(number, real, quantized=False), self._inputs(number, quantized, quantized=True)
            if number in self._biases:
                function, linear = FUNCTIONS[step.operation.kind], replace(step.operation, linear=True)
                before, after = (ops.reshape(function(linear, *part), (-1, part[2].shape[0])) for part in inputs)
                variable, span = self._biases[number]
                variable.assign(variable + ops.mean(before - after, axis=0) / span)
                inputs[1][2] = self._bias(number)
            self._run(number, inputs[0], real, quantized=False)
            self._run(number, inputs[1], quantized, quantized=True)

    def _entered(self, images: Any, *, quantized: bool) -> dict[int, tuple[Any, str]]:
        """By tensor, its values, and as which int8 tensor they are quantized: for the start the input's alone."""
        if not quantized or self._ranges.input is None:
            return {self._input: (images, "")}
        return {self._input: (self._ranges.quantize(images, self._ranges.input), self._ranges.input)}

    def _run(self, number: int, inputs: list[Any], values: dict[int, tuple[Any, str]], *, quantized: bool) -> list[Any]:
        """An operation's outputs as it computes them; `values` takes them as the file stores them."""
        step = self._steps[number]
        made = FUNCTIONS[step.operation.kind](step.operation, *inputs)
        outputs = list(made) if isinstance(made, list | tuple) else [made]
        for index, value, store in zip(step.outputs, outputs, step.stored_outputs, strict=True):
            values[index] = value, ""
            if quantized and store is not None:
                values[index] = self._ranges.quantize(value, store.name), store.name
        return outputs

    def _inputs(self, number: int, values: dict[int, tuple[Any, str]], *, quantized: bool) -> list[Any]:
        step = self._steps[number]
        inputs: list[Any] = []
        for position, (index, store) in enumerate(zip(step.inputs, step.stored_inputs, strict=True)):
            if index < 0:
                inputs.append(None)
            elif index in self._weights and position == 1:
                inputs.append(self._quantized_weights(number) if quantized and store else self._real_weights(index))
            elif position == 2 and number in self._biases and quantized:
                inputs.append(self._bias(number))
            elif index in self._constants:
                constants = self._constants | (self._quantized_constants if quantized else {})
                inputs.append(constants[index])
            else:
                value, held = values[index]
                requantized = quantized and store is not None and held != store.name
                inputs.append(self._ranges.quantize(value, store.name) if store and requantized else value)
        return inputs

    def _real_weights(self, index: int) -> Any:
        shares, factors, largest = self._weights[index]
        return shares * ops.exp(FACTOR_RATE * factors) * largest

    def _bias(self, number: int) -> Any:
        moved, span = self._biases[number]
        return self._constants[self._steps[number].inputs[2]] + moved * span

    def _quantized_weights(self, number: int) -> Any:
        step = self._steps[number]
        weights, store, read = self._real_weights(step.inputs[1]), step.stored_inputs[1], step.stored_inputs[0]
        assert store is not None
        axis = CHANNEL_AXIS[step.operation.kind]
        each = store.scales.size > 1
        axes = tuple(other for other in range(len(weights.shape)) if other != axis or not each)
        scale = ops.maximum(ops.max(ops.abs(weights), axis=axes, keepdims=True) / HIGHEST, MIN_SCALE)
        if number in self._biases and read is not None:
            needed = ops.abs(self._bias(number)) / (self._ranges.scale(read.name) * LARGEST_BIAS)
            shape = [1] * len(weights.shape)
            shape[axis] = -1 if each else 1
            scale = ops.maximum(scale, ops.reshape(needed if each else ops.max(needed), shape))
        scale = ops.stop_gradient(scale)
        return _rounded(ops.clip(weights / scale, -HIGHEST, HIGHEST)) * scale

    def trained(self, ranges: Ranges) -> tuple[bytes, Ranges]:
        """The float32 .tflite with the weights as they are now, and the ranges as they are now among those given."""
        model = copy.deepcopy(self._model)
        graph = model.subgraphs[0]
        for index in self._weights:
            _replace(model, graph.tensors[index], self._real_weights(index))
        for number in self._biases:
            operator = graph.operators[number]
            index = int(operator.inputs[2])
            if sum(index in other.inputs for other in graph.operators) > 1:
                tensor = copy.deepcopy(graph.tensors[index])
                tensor.name += f";{number}".encode()
                index = flatbuffer.add_tensor(graph, tensor)
                operator.inputs = [*map(int, operator.inputs[:2]), index]
            _replace(model, graph.tensors[index], self._bias(number))
        changed = {
            graph.tensors[index].name.decode(): ends
            for step in self._steps
            for index, store in zip(step.outputs, step.stored_outputs, strict=True)
            if store is not None and (ends := self._ranges.learned(store.name)) is not None
        }
        return flatbuffer.pack(model), ranges | changed


class _Ranges:
    """The ranges of a simulation's int8 tensors; those that an operation must keep alike learn as one."""

    def __init__(self, layer: Simulation, steps: Iterable[_Step], entry: _Stored | None) -> None:
        self._group: dict[str, str] = {}
        self._ends: dict[str, tuple[float, float]] = {}
        self.input = entry.name if entry else None
        fixed = set()
        for store in [entry, *(store for step in steps for store in (*step.stored_inputs, *step.stored_outputs))]:
            if store is not None and store.scales.size == 1:
                scale = float(store.scales[0])
                self._group[store.name] = store.name
                self._ends[store.name] = (LOWEST - store.zero_point) * scale, (HIGHEST - store.zero_point) * scale
        for step in steps:
            for store in step.stored_inputs:
                for other in step.stored_outputs:
                    if store and other and {store.name, other.name} <= self._ends.keys():
                        self._join(store.name, other.name)
        for step in steps:
            if step.operation.kind in FIXED:
                fixed |= {self._root(store.name) for store in step.stored_outputs if store}
        fixed |= {self._root(self.input)} if self.input else set()
        roots = {self._root(name) for name in self._group} - fixed
        self._place = {root: place for place, root in enumerate(sorted(roots))}
        self._factors = layer.add_weight((len(roots), 2), "zeros", name="ranges") if roots else None

    def _root(self, name: str) -> str:
        while self._group[name] != name:
            name = self._group[name]
        return name

    def _join(self, name: str, other: str) -> None:
        if self._ends[name] == self._ends[other]:
            self._group[self._root(other)] = self._root(name)

    def _now(self, name: str) -> tuple[Any, Any]:
        root = self._root(name)
        low, high = self._ends[root]
        if root not in self._place:
            return low, high
        assert self._factors is not None
        factor = ops.exp(FACTOR_RATE * self._factors[self._place[root]])
        return low * factor[0], high * factor[1]

    def scale(self, name: str) -> Any:
        low, high = self._now(name)
        return (high - low) / LEVELS

    def quantize(self, x: Any, name: str) -> Any:
        low, high = self._now(name)
        scale = (high - low) / LEVELS
        zero_point = ops.round(LOWEST - low / scale)
        zero_point = zero_point if isinstance(low, float) else ops.stop_gradient(zero_point)
        return (_rounded(ops.clip(x / scale + zero_point, LOWEST, HIGHEST)) - zero_point) * scale

    def learned(self, name: str) -> tuple[Array, Array] | None:
        """The ends [1] as they are now. None if they are not learned."""
        if self._root(name) not in self._place:
            return None
        low, high = (np.asarray(ops.convert_to_numpy(end), np.float32).reshape(1) for end in self._now(name))
        return low, high


def _steps(model: Any, quantized: Any) -> tuple[_Step, ...]:
    graph, other = model.subgraphs[0], quantized.subgraphs[0]
    stored = {flatbuffer.outputs(other, operator): operator for operator in other.operators}
    steps: list[_Step] = []
    missing: dict[str, None] = {}
    for operator in graph.operators:
        kind, name = flatbuffer.operation(model, operator), flatbuffer.outputs(graph, operator)
        if kind not in FUNCTIONS:
            missing[f"{kind} ({graph.tensors[operator.outputs[0]].name.decode()})"] = None
            continue
        there = stored.get(name)
        sides = [
            tuple(_stored(other, int(index)) for index in getattr(there, side)) if there else (None,) * len(indices)
            for side, indices in (("inputs", operator.inputs), ("outputs", operator.outputs))
        ]
        first = graph.tensors[operator.outputs[0]]
        steps.append(
            _Step(
                Operation(kind, operator.builtinOptions, first.name.decode(), tuple(map(int, first.shape))),
                tuple(map(int, operator.inputs)),
                tuple(map(int, operator.outputs)),
                *sides,
            )
        )
    if missing:
        raise SetupError(f"quantization-aware training: {', '.join(list(missing)[:5])} cannot be simulated")
    return tuple(steps)


def _stored(graph: Any, index: int) -> _Stored | None:
    from ai_edge_litert import schema_py_generated as schema

    if index < 0 or (tensor := graph.tensors[index]).type != schema.TensorType.INT8:
        return None
    quantization = tensor.quantization
    zero_point = int(quantization.zeroPoint[0])
    return _Stored(tensor.name.decode(), np.asarray(quantization.scale, np.float32), zero_point)


def _stored_input(model: Any) -> _Stored | None:
    """The input as int8; of a file that takes floats, what it is quantized to first."""
    graph = model.subgraphs[0]
    entry = graph.inputs[0]
    for operator in graph.operators:
        if flatbuffer.operation(model, operator) == "QUANTIZE" and list(operator.inputs) == [entry]:
            return _stored(graph, int(operator.outputs[0]))
    return _stored(graph, int(entry))


def _stored_constants(model: Any) -> dict[str, Array]:
    """Per-tensor int8 constants as real numbers, by name."""
    graph = model.subgraphs[0]
    constants = {}
    for index, tensor in enumerate(graph.tensors):
        if flatbuffer.constant(model, index) and (store := _stored(graph, index)) and store.scales.size == 1:
            raw = model.buffers[tensor.buffer].data.view(np.int8).astype(np.float32)
            values = (raw - store.zero_point) * store.scales[0]
            constants[store.name] = values.reshape(() if tensor.shape is None else tensor.shape)
    return constants


def _constant(model: Any, index: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    types = {
        schema.TensorType.FLOAT32: np.float32,
        schema.TensorType.INT32: np.int32,
        schema.TensorType.INT64: np.int64,
    }
    tensor = model.subgraphs[0].tensors[index]
    if tensor.type not in types:
        raise SetupError(f"quantization-aware training: constant {tensor.name.decode()} cannot be simulated")
    return (
        model.buffers[tensor.buffer].data.view(types[tensor.type]).reshape(() if tensor.shape is None else tensor.shape)
    )


def _replace(model: Any, tensor: Any, values: Any) -> None:
    """Give a tensor other content: in its own buffer, unless others share that."""
    content = np.asarray(ops.convert_to_numpy(values), np.float32).tobytes()
    if sum(tensor.buffer == other.buffer for graph in model.subgraphs for other in graph.tensors) > 1:
        tensor.buffer = flatbuffer.add_buffer(model, content)
    else:
        model.buffers[tensor.buffer].data = np.frombuffer(content, np.uint8)
