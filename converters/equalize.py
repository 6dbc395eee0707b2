"""Scale channels to similar sizes before quantization: a tensor has one step for all its channels, set by the largest.

A ReLU, a sum and a mean let a positive factor of a channel through, so that a convolution may give each of its channels
larger and those that read it take that back in their weights: the same function, and small channels fill more of the
256 steps (Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction", arXiv:1906.04721;
shared between activations and weights by an exponent, as in SmoothQuant, arXiv:2211.10438). On a residual stream
one factor holds for every tensor from the first addition to the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from converters import calibration
from converters.calibration import Ranges
from harness.artifacts import flatbuffer
from harness.core import npz
from harness.images.dataset import Dataset

EXPONENT = 0.4  # 0: channels stay as they are; 1: all become as large as the largest (docs/conversion.md)
MIN_SHARE = 1 / 256  # of its tensor's largest: a channel that is smaller counts as that
LETS_THROUGH = ("ADD", "RELU", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN")
CHANNEL_AXIS = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": 3}  # of the weights, the output's
METADATA = b"channel_factors"

Factors = dict[str, npt.NDArray[np.float32]]


def calibrate(float32: bytes, data: Dataset) -> tuple[bytes, Ranges]:
    """A float32 .tflite of the same function with balanced channels, and its ranges over a set of images."""
    return equalize(float32, calibration.measure(float32, data))


def equalize(float32: bytes, ranges: Ranges) -> tuple[bytes, Ranges]:
    """As `calibrate`, from ranges that were measured before, by channel.

    Channels that an operation mixes, or that leave the model, stay as they are.
    The factors stand in the file's metadata, for those who compare layers: `factors`.
    """
    model = flatbuffer.read(float32)
    graph = model.subgraphs[0]
    sums = {op.outputs[0] for op in graph.operators if flatbuffer.operation(model, op) == "ADD"}
    found: dict[int, npt.NDArray[np.float32]] = {}
    for tensors in _free(model):
        deciding = [index for index in tensors if index in sums] or tensors
        if (factor := _factor([graph.tensors[index].name.decode() for index in deciding], ranges)) is not None:
            found |= dict.fromkeys(tensors, factor)
    if not found:
        return float32, ranges
    named = {graph.tensors[index].name.decode(): factor for index, factor in found.items()}
    balanced = {name: (low * named[name], high * named[name]) for name, (low, high) in ranges.items() if name in named}
    for operator in graph.operators:
        for index, values in _rescaled(model, operator, found):
            buffer = model.buffers[graph.tensors[index].buffer]
            buffer.data = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8)
    _note(model, named)
    return flatbuffer.pack(model), ranges | balanced


def factors(content: bytes) -> Factors:
    """By tensor name, what a file's channels were multiplied by; empty where nothing was."""
    if (found := flatbuffer.metadata(flatbuffer.read(content), METADATA)) is None:
        return {}
    stored = npz.read(found, METADATA.decode())
    groups = np.split(stored["values"], np.cumsum(stored["sizes"])[:-1])
    return {name: groups[group] for name, group in zip(str(stored["names"]).split("\n"), stored["groups"], strict=True)}


def _note(model: Any, named: Mapping[str, npt.NDArray[np.float32]]) -> None:
    groups = {id(factor): factor for factor in named.values()}
    order = {key: number for number, key in enumerate(groups)}
    arrays = {
        "names": np.array("\n".join(named)),
        "groups": np.array([order[id(factor)] for factor in named.values()]),
        "sizes": np.array([len(factor) for factor in groups.values()]),
        "values": np.concatenate(list(groups.values())),
    }
    flatbuffer.set_metadata(model, METADATA, npz.encode(arrays))


def _factor(names: list[str], ranges: Ranges) -> npt.NDArray[np.float32] | None:
    """One factor a channel, at least 1, by the largest share that it has of any of these tensors."""
    sizes = [np.maximum(np.abs(ranges[name][0]), np.abs(ranges[name][1])) for name in names if name in ranges]
    if not sizes or len({size.shape for size in sizes}) > 1 or not all(size.max() > 0 for size in sizes):
        return None
    share = np.max([size / size.max() for size in sizes], axis=0)
    factor = np.where(share > 0, np.maximum(share, MIN_SHARE), 1) ** -EXPONENT  # never active: unchanged
    return np.asarray(factor / factor.min(), np.float32)


def _free(model: Any) -> Iterator[list[int]]:
    """Sets of the main graph's tensors whose channels can be multiplied alike, by what their writers and readers do."""
    graph = model.subgraphs[0]
    parent: dict[int, int] = {}

    def root(index: int) -> int:
        while parent.setdefault(index, index) != index:
            index = parent[index]
        return index

    fixed = {*graph.inputs, *graph.outputs}
    for operator in graph.operators:
        inputs = [index for index in operator.inputs if index != -1 and not _constant(model, index)]
        touched = [*inputs, *operator.outputs]
        for index in touched:
            root(index)
        operation = flatbuffer.operation(model, operator)
        if operation in CHANNEL_AXIS:
            if not _plain_weights(model, operator):
                fixed.update(touched)
            elif not _homogeneous(operator):
                fixed.update(operator.outputs)
        elif operation in LETS_THROUGH and _keeps_channels(model, operator, inputs):
            for index in touched[1:]:
                parent[root(index)] = root(touched[0])
        else:
            fixed.update(touched)
    held = {root(index) for index in fixed}
    groups: dict[int, list[int]] = {}
    for index in list(parent):
        groups.setdefault(root(index), []).append(index)
    return (tensors for key, tensors in groups.items() if key not in held)


def _constant(model: Any, index: int) -> bool:
    return model.buffers[model.subgraphs[0].tensors[index].buffer].data is not None


def _homogeneous(operator: Any) -> bool:
    """Whether a positive factor passes through an operation's fused activation."""
    from ai_edge_litert import schema_py_generated as schema

    activation = getattr(operator.builtinOptions, "fusedActivationFunction", schema.ActivationFunctionType.NONE)
    return activation in (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)


def _keeps_channels(model: Any, operator: Any, inputs: list[int]) -> bool:
    """Whether each channel of the output comes of that channel of the inputs alone, all of one number of channels."""
    graph = model.subgraphs[0]
    shapes = [list(graph.tensors[index].shape) for index in (*inputs, operator.outputs[0])]
    if not _homogeneous(operator) or any(len(shape) < 2 or shape[-1] != shapes[0][-1] for shape in shapes):
        return False
    operation = flatbuffer.operation(model, operator)
    if operation == "ADD":  # no constant, which would need the factor, too
        return len(inputs) == 2 and len(shapes[0]) == len(shapes[1])
    if operation == "MEAN":
        axes = model.buffers[graph.tensors[operator.inputs[1]].buffer].data
        return axes is not None and not {-1, len(shapes[0]) - 1} & {*axes.view(np.int32).tolist()}
    return True


def _plain_weights(model: Any, operator: Any) -> bool:
    """Whether weights and bias are float constants, this operation's alone, each input channel read once."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    constants = [index for index in operator.inputs[1:] if index != -1]
    uses = [index for other in graph.operators for index in other.inputs]
    buffers = [tensor.buffer for tensor in graph.tensors]
    for index in constants:
        tensor = graph.tensors[index]
        if not _constant(model, index) or tensor.type != schema.TensorType.FLOAT32:
            return False
        shared = uses.count(index) > 1 or buffers.count(tensor.buffer) > 1
        if shared and _values(model, index).any():  # zero biases are often one tensor, and no factor changes them
            return False
    read = list(graph.tensors[operator.inputs[0]].shape)[-1]
    return bool(graph.tensors[constants[0]].shape[-1] == read)  # neither grouped, nor several outputs a channel


def _rescaled(
    model: Any, operator: Any, found: Mapping[int, npt.NDArray[np.float32]]
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """An operation's weights and bias, by tensor, as its input's and its output's factors change them."""
    operation = flatbuffer.operation(model, operator)
    if operation not in CHANNEL_AXIS:
        return
    taken, given = found.get(operator.inputs[0]), found.get(operator.outputs[0])
    weights = _values(model, operator.inputs[1])
    if taken is not None:
        weights = weights / taken
    if given is not None:
        across = [axis for axis in range(weights.ndim) if axis != CHANNEL_AXIS[operation]]
        weights = weights * np.expand_dims(given, across)
        for bias in operator.inputs[2:3]:
            if bias != -1 and (values := _values(model, bias)).any():
                yield bias, values * given
    if taken is not None or given is not None:
        yield operator.inputs[1], weights


def _values(model: Any, index: int) -> npt.NDArray[np.float32]:
    tensor = model.subgraphs[0].tensors[index]
    values: npt.NDArray[np.float32] = model.buffers[tensor.buffer].data.view(np.float32).reshape(tensor.shape)
    return values
