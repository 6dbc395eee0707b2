"""From a float32 .tflite to each other kind of variant, by litert-quantizer's recipes."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any
from warnings import catch_warnings, simplefilter

from converters import op_versions, relu
from converters.calibration import Ranges
from harness.artifacts import flatbuffer
from harness.artifacts.manifest import CALIBRATED


def make(kind: str, float32: bytes, ranges: Ranges | None) -> bytes:
    """A variant that declares the op versions it needs. Runs where TensorFlow is.

    ranges: of the activations; only the kinds that calibrate use them.
    """
    if kind not in CALIBRATED:
        return op_versions.declare(apply(recipe(kind), float32))
    return op_versions.declare(apply(recipe(kind, unmeasured(float32, ranges or {})), float32, ranges))


def recipe(kind: str, float_layers: Collection[str] = ()) -> list[dict[str, Any]]:
    """The litert-quantizer recipe of a kind; later entries take precedence.

    float_layers: output tensors of the operations that stay float32.
    """
    from litert_quantizer import qtyping, recipe
    from litert_quantizer.recipe_manager import AlgorithmName, RecipeManager

    ops = qtyping.TFLOperationName
    manager = RecipeManager()
    if kind == "float16":
        manager.add_weight_only_config(".*", ops.ALL_SUPPORTED, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    elif kind == "dynamic_range":
        manager.add_dynamic_config(".*", ops.ALL_SUPPORTED, 8)
        # Per channel needs TensorFlow Lite 2.17: tflite-runtime 2.14 loads it and answers nonsense.
        manager.add_dynamic_config(".*", ops.FULLY_CONNECTED, 8, qtyping.QuantGranularity.TENSORWISE)
    elif kind.startswith("int16x8"):
        manager.load_quantization_recipe(recipe.static_wi8_ai16())
    else:
        manager.load_quantization_recipe(recipe.static_wi8_ai8())
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
    """A float32 .tflite quantized by a recipe, its stand-alone ReLUs on XNNPACK's fast path."""
    return relu.as_quantize(plain(recipe, float32, ranges))


def plain(recipe: list[dict[str, Any]], float32: bytes, ranges: Ranges | None = None) -> bytes:
    """A float32 .tflite as litert-quantizer makes it by a recipe."""
    from litert_quantizer import quantizer

    statistics = {
        name: {"min": low.min().reshape(1), "max": high.max().reshape(1)}
        for name, (low, high) in (ranges or {}).items()
    }
    with catch_warnings():
        simplefilter("ignore")  # that it keeps all tensors
        made = quantizer.Quantizer(bytearray(float32), recipe).quantize(
            statistics or None, enable_progress_report=False
        )
    return bytes(made.quantized_model)
