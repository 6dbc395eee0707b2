"""A .tflite as objects, and back. Needs no TensorFlow."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np


def read(content: bytes) -> Any:
    """The model; its buffers are uint8 arrays, which pack a hundred times faster than what LiteRT's reader gives."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
    return model


def pack(model: Any) -> bytes:
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def with_signature(content: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """A .tflite whose main graph can be called by these names, as `Interpreter.get_signature_runner()` does."""
    from ai_edge_litert import schema_py_generated as schema

    model = read(content)
    graph = model.subgraphs[0]

    def mapped(names: Sequence[str], tensors: Sequence[int]) -> list[Any]:
        found = []
        for name, index in zip(names, tensors, strict=True):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name.encode(), int(index)
            found.append(entry)
        return found

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs, signature.outputs = mapped(inputs, graph.inputs), mapped(outputs, graph.outputs)
    model.signatureDefs = [signature]
    return pack(model)


def outputs(graph: Any, operator: Any) -> str:
    """The tensors that an operator gives, as litert-quantizer names its scope."""
    return ";".join(graph.tensors[index].name.decode() for index in operator.outputs if index != -1)


def operation(model: Any, operator: Any) -> str:
    """The name of an operator's kind, such as CONV_2D; of a custom one, its own."""
    from ai_edge_litert.tools import flatbuffer_utils

    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode:
        return str(code.customCode.decode())
    return str(flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex))


def constant(model: Any, index: int) -> bool:
    """Whether a tensor of the main graph is stored in the file."""
    return model.buffers[model.subgraphs[0].tensors[index].buffer].data is not None


def cut(model: Any, operators: Sequence[Any], inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
    """A .tflite of some of the main graph's operators, between these of its tensors. The batch is static."""
    graph = model.subgraphs[0]
    used = [index for operator in operators for index in (*operator.inputs, *operator.outputs) if index >= 0]
    kept = {old: new for new, old in enumerate(dict.fromkeys([*inputs, *used]))} | {-1: -1}
    tensors, buffers = [], [model.buffers[0]]
    for index in list(kept)[:-1]:
        tensor = copy.copy(graph.tensors[index])
        tensor.shapeSignature, tensor.buffer = None, 0
        if constant(model, index):
            tensor.buffer = len(buffers)
            buffers.append(model.buffers[graph.tensors[index].buffer])
        tensors.append(tensor)
    part, whole = copy.copy(graph), copy.copy(model)
    part.operators = [copy.copy(operator) for operator in operators]
    for operator in part.operators:
        operator.inputs = [kept[int(index)] for index in operator.inputs]
        operator.outputs = [kept[int(index)] for index in operator.outputs]
    part.tensors, part.inputs, part.outputs = tensors, [kept[i] for i in inputs], [kept[i] for i in outputs]
    whole.subgraphs, whole.buffers = [part], buffers
    whole.signatureDefs = whole.metadata = whole.metadataBuffer = None
    return pack(whole)


def describe(model: Any, operator: Any) -> str:
    """Its kind, with weights their size and type, strides and groups: CONV_2D 1x1, strides 2x2, int8 weights."""
    from ai_edge_litert import schema_py_generated as schema

    shown = [operation(model, operator)]
    tensors = model.subgraphs[0].tensors
    weights = [tensors[i] for i in operator.inputs[1:2] if i >= 0 and constant(model, i) and len(tensors[i].shape) > 1]
    if weights and len(weights[0].shape) == 4:
        shown[0] += " {}x{}".format(*weights[0].shape[1:3])
    strides = [getattr(operator.builtinOptions, f"stride{side}", None) for side in "HW"]
    if None not in strides:
        shown.append("strides {}x{}".format(*strides))
    inputs = [tensors[i].shape for i in operator.inputs[:1] if i >= 0 and len(tensors[i].shape) == 4]
    if shown[0].startswith("CONV_2D ") and inputs and (groups := inputs[0][3] // weights[0].shape[3]) > 1:
        shown.append(f"{groups} groups")
    types = {number: name.lower() for name, number in vars(schema.TensorType).items()}
    shown += [f"{types[tensor.type]} weights" for tensor in weights]
    return ", ".join(shown)


def add_buffer(model: Any, content: bytes) -> int:
    """The index of a new buffer."""
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(content, np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def set_metadata(model: Any, name: bytes, content: bytes) -> None:
    """Store an entry in the model's metadata, in place of the one of that name."""
    from ai_edge_litert import schema_py_generated as schema

    entry = schema.MetadataT()
    entry.name, entry.buffer = name, add_buffer(model, content)
    model.metadata = [*(other for other in model.metadata or [] if other.name != name), entry]


def metadata(model: Any, name: bytes) -> bytes | None:
    """What `set_metadata` stored. None if there is no such entry."""
    buffers = [entry.buffer for entry in model.metadata or [] if entry.name == name]
    return bytes(model.buffers[buffers[-1]].data) if buffers else None


def add_code(model: Any, name: str, version: int = 1) -> int:
    """The index of a new kind of operation."""
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def operator(model: Any, name: str, inputs: list[int], outputs: list[int], options: Any) -> Any:
    """A new operator of version 1, for a graph's list. options: of the schema, such as a ReshapeOptionsT."""
    from ai_edge_litert import schema_py_generated as schema

    new = schema.OperatorT()
    new.opcodeIndex, new.inputs, new.outputs = add_code(model, name), inputs, outputs
    new.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    new.builtinOptions = options
    return new


def add_tensor(graph: Any, tensor: Any) -> int:
    """The tensor's index in the graph."""
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
