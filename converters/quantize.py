"""From a float32 .tflite to each other kind of variant, by litert-quantizer's recipes."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Literal
from warnings import catch_warnings, simplefilter

import numpy as np

from converters import bias, op_versions, relu
from converters.calibration import Ranges
from harness.artifacts import flatbuffer
from harness.artifacts.manifest import CALIBRATED
from harness.core.errors import SetupError

CONVOLUTIONS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0}  # of a convolution's weights, the output's
Weights = Literal["shared", "channel", "clipped"]
EVEN = 1 / 8  # channels that have at least so much of the largest weight, 16 steps, share a scale


def make(kind: str, float32: bytes, ranges: Ranges | None, weights: Weights = "shared") -> bytes:
    """A variant that declares the op versions it needs. Runs where TensorFlow is.

    ranges: of the activations; only the kinds that calibrate use them. What the quantizer or the runtime cannot do in
    integers stays float32. weights: of convolutions in int8; their channels share a scale where that does no harm, or
    each has its own, and may be clipped by OCTAV (arXiv:2206.06501).
    """
    if kind not in CALIBRATED:
        return op_versions.declare(apply(recipe(kind), float32))
    content, _ = in_integers(kind, float32, ranges or {}, weights)
    return op_versions.declare(content)


def in_integers(kind: str, float32: bytes, ranges: Ranges, weights: Weights = "shared") -> tuple[bytes, list[str]]:
    """A float32 .tflite quantized, and the output tensors of the operations that had to stay float32.

    Raises SetupError where it cannot be quantized whatever stays float32.
    """
    model = flatbuffer.read(float32)
    operators = [
        (flatbuffer.operation(model, operator), flatbuffer.outputs(graph, operator))
        for graph in model.subgraphs
        for operator in graph.operators
    ]
    names = unmeasured(float32, ranges)
    if kind.startswith("int8") and weights == "shared":
        ranges = ranges | even_weights(float32)

    def attempt(float_layers: Collection[str]) -> bytes | str:
        return _attempt(recipe(kind, float_layers, weights), float32, ranges)

    seen: set[str] = set()
    while isinstance(result := attempt(names), str):
        able, unable = 0, len(operators)  # so many of the first ones are quantized: it works, it does not
        if isinstance(problem := attempt([output for _, output in operators]), str):
            raise SetupError(f"{kind}: cannot be quantized ({problem})")
        while unable - able > 1:
            middle = (able + unable) // 2
            if isinstance(attempt([*names, *(output for _, output in operators[middle:])]), str):
                unable = middle
            else:
                able = middle
        operation, culprit = operators[unable - 1]
        if culprit in names:
            raise SetupError(f"{kind}: cannot be quantized ({result})")
        names += [output for other, output in operators if other == operation] if operation in seen else [culprit]
        seen.add(operation)
    return result, names


def _attempt(recipe: list[dict[str, Any]], float32: bytes, ranges: Ranges) -> bytes | str:
    """The file, or why it cannot be made or does not run."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        content = apply(recipe, float32, ranges)
        Interpreter(model_content=content).allocate_tensors()
    except (ValueError, RuntimeError, TypeError, IndexError, KeyError, NotImplementedError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return content


def recipe(kind: str, float_layers: Collection[str] = (), weights: Weights = "shared") -> list[dict[str, Any]]:
    """The litert-quantizer recipe of a kind; later entries take precedence.

    Weights have a scale for each channel, a fully connected layer's one for all: there, channels need TensorFlow Lite
    2.17, and tflite-runtime 2.14 loads them and answers nonsense.
    float_layers: output tensors of the operations that stay float32.
    """
    from litert_quantizer import qtyping
    from litert_quantizer.qtyping import QuantGranularity
    from litert_quantizer.recipe_manager import AlgorithmName, RecipeManager

    ops = qtyping.TFLOperationName
    manager = RecipeManager()
    if kind == "float16":
        manager.add_weight_only_config(".*", ops.ALL_SUPPORTED, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    elif kind == "dynamic_range":
        manager.add_dynamic_config(".*", ops.ALL_SUPPORTED, 8)
        manager.add_dynamic_config(".*", ops.FULLY_CONNECTED, 8, QuantGranularity.TENSORWISE)
    else:
        bits = 16 if kind.startswith("int16x8") else 8
        manager.add_static_config(".*", ops.ALL_SUPPORTED, bits, 8)
        manager.add_static_config(".*", ops.FULLY_CONNECTED, bits, 8, QuantGranularity.TENSORWISE)
        for operation in (ops.CONV_2D, ops.DEPTHWISE_CONV_2D) if weights == "clipped" else ():
            manager.add_static_config(".*", operation, bits, 8, algorithm_key=AlgorithmName.OCTAV)
    if kind.endswith("_float_io"):
        for end in (ops.INPUT, ops.OUTPUT):
            manager.add_quantization_config(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    if float_layers:
        names = "|".join(re.escape(name) for name in sorted(float_layers))
        manager.add_quantization_config(f"^({names});", ops.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return manager.get_quantization_recipe()


def unmeasured(float32: bytes, ranges: Ranges) -> list[str]:
    """Operations that touch a float tensor without a range, such as those inside loops: they stay float32."""
    from ai_edge_litert import schema_py_generated as schema

    model = flatbuffer.read(float32)
    ends = [
        graph.tensors[index].name.decode() for graph in model.subgraphs[1:] for index in (*graph.inputs, *graph.outputs)
    ]
    return ends + [
        flatbuffer.outputs(graph, operator)
        for graph in model.subgraphs
        for operator in graph.operators
        for tensor in (graph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index != -1)
        if tensor.type == schema.TensorType.FLOAT32
        and model.buffers[tensor.buffer].data is None
        and tensor.name.decode() not in ranges
    ]


def apply(recipe: list[dict[str, Any]], float32: bytes, ranges: Ranges | None = None) -> bytes:
    """A float32 .tflite quantized by a recipe: its biases fit, its stand-alone ReLUs are on XNNPACK's fast path."""
    return relu.as_quantize(bias.fit(plain(recipe, float32, ranges), float32))


def plain(recipe: list[dict[str, Any]], float32: bytes, ranges: Ranges | None = None) -> bytes:
    """A float32 .tflite as litert-quantizer makes it by a recipe."""
    from litert_quantizer import quantizer

    statistics = {
        name: {"min": low.min(keepdims=True), "max": high.max(keepdims=True)}
        for name, (low, high) in (ranges or {}).items()
    }
    with catch_warnings():
        simplefilter("ignore")  # that it keeps all tensors
        made = quantizer.Quantizer(bytearray(float32), recipe).quantize(
            statistics or None, enable_progress_report=False
        )
    return bytes(made.quantized_model)


def even_weights(float32: bytes) -> Ranges:
    """The ranges of convolutions' weights whose channels are of like size, as arrays of the weights' rank.

    With these they get one scale together, which takes less of the file; all others get one for each channel. Beside
    activations in 8 bits this costs nothing; beside 16 bits the weights' steps are what is left of the error.
    """
    model = flatbuffer.read(float32)
    ranges: Ranges = {}
    for graph in model.subgraphs:
        for operator in graph.operators:
            if (axis := CONVOLUTIONS.get(flatbuffer.operation(model, operator))) is None:
                continue
            tensor = graph.tensors[operator.inputs[1]]
            if (data := model.buffers[tensor.buffer].data) is None:
                continue
            values = data.view(np.float32).reshape(tensor.shape)
            largest = np.abs(np.moveaxis(values, axis, 0)).reshape(tensor.shape[axis], -1).max(axis=1)
            if largest.min() >= EVEN * largest.max():
                ranges[tensor.name.decode()] = values.min(keepdims=True), values.max(keepdims=True)
    return ranges
