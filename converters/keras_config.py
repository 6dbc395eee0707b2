"""A model's config as its file holds it, made loadable by this Keras and plain float32.

Keras 2 wrote what Keras 3 refuses or reads otherwise (`repair`). Data are changed; nothing in the file runs.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

from converters import keras2

OTHER_FLOATS = ("float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16")
WHOLE_NUMBERS = re.compile(r"u?int(8|16|32|64)$")
# By the layer's class: keys of Keras 2 that Keras 3 does not know, with the value that means nothing.
KERAS_3_DROPPED: dict[str, dict[str, Any]] = {
    "DepthwiseConv1D": {"groups": 1},
    "DepthwiseConv2D": {"groups": 1},
    "SeparableConv1D": {"groups": 1},
    "SeparableConv2D": {"groups": 1},
    "Conv1DTranspose": {"groups": 1},
    "Conv2DTranspose": {"groups": 1},
    "Conv3DTranspose": {"groups": 1},
    "LSTM": {"time_major": False},
    "GRU": {"time_major": False},
    "SimpleRNN": {"time_major": False},
    "RNN": {"time_major": False},
    "MultiHeadAttention": {"query_shape": None, "key_shape": None, "value_shape": None},  # None: whatever it is
}
RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "Model": "Functional",
}
MODULES = {"Functional": "keras.src.models.functional", "Sequential": "keras"}


def repair(config: dict[str, Any], *, is_keras_2: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A model's config that this Keras loads, computing in float32, and notes on what was changed.

    The config itself, the same object, if nothing was.
    """
    repaired = copy.deepcopy(config)
    notes: dict[str, None] = {}
    if is_keras_2:
        for part in list(_parts(repaired)):
            notes |= dict.fromkeys(_repair_keras_2(part))
        keras2.repair_names(repaired)
    for kind in dict.fromkeys(_as_float32(repaired)):
        notes[f"{kind}: read, converted and judged as float32, from its variables"] = None
    for layer in _layers(repaired):
        settings = layer["config"]
        if layer["class_name"] == "InputLayer" and WHOLE_NUMBERS.match(str(settings.get("dtype"))):
            notes[f"takes {settings['dtype']} numbers: the same as float32 here"] = None
            settings["dtype"] = "float32"
        if settings.get("stateful") is True:
            notes[f"{settings.get('name')} keeps its state from call to call; here each image starts anew"] = None
            settings["stateful"] = False
    return (config if repaired == config else repaired), tuple(notes)


def input_dtype(config: dict[str, Any]) -> str | None:
    """The type of a model's first input. None if its config does not tell."""
    types = [layer["config"].get("dtype") for layer in _layers(config) if layer["class_name"] == "InputLayer"]
    return next((dtype for dtype in types if isinstance(dtype, str)), None)


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """All that has a class and a config, layers and models inside others too, the outer first."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for inner in list(value.values()):
            yield from _parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _parts(inner)


def _layers(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (part for part in _parts(config) if isinstance(part.get("config"), dict))


def _repair_keras_2(part: dict[str, Any]) -> Iterator[str]:
    kind, settings = part["class_name"], part.get("config")
    part["class_name"] = kind = RENAMED.get(kind, kind)
    if part.get("module") is not None:
        part["module"] = MODULES.get(kind, part["module"].replace("keras.src.engine.functional", "keras.src.models"))
        if kind in MODULES:
            part["registered_name"] = None
    if isinstance(settings, list):  # a Sequential of Keras 2.2 and before
        part["config"] = settings = {"layers": settings}
    if not isinstance(settings, dict):
        return
    for key, value in settings.items():
        if isinstance(value, dict) and value.get("class_name") == "__numpy__":
            settings[key] = value["config"]["value"]
    for key, value in KERAS_3_DROPPED.get(kind, {}).items():
        if value is None or settings.get(key, value) == value:
            settings.pop(key, None)
    if kind != "InputLayer" and part.get("module") is not None:  # an Input of its own tells it
        settings.pop("batch_input_shape", None)
    if kind not in MODULES:
        part.pop("build_config", None)  # it is built when it is called
    if kind == "ThresholdedReLU":
        part["class_name"] = "ReLU"
        settings["threshold"] = settings.pop("theta")
    if kind in keras2.OPERATION_LAYERS:
        keras2.repair_operation(part)
    elif part.get("inbound_nodes"):
        keras2.repair_arguments(part)
    if kind.startswith("SeparableConv"):
        for key in [key for key in settings if key.startswith("kernel_") and key != "kernel_size"]:
            del settings[key]
    axis = settings.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        settings["axis"] = axis[0]
    if "layers" in settings:
        keras2.repair_nodes_of_models(settings)
    for key in ("activation", "recurrent_activation"):
        if settings.get(key) == "hard_sigmoid":
            settings[key] = keras2.HARD_SIGMOID
            yield "hard_sigmoid as Keras 2 computes it, clip(0.2 x + 0.5); Keras 3's is another function"


def _as_float32(value: Any) -> Iterator[str]:
    """Set every other floating type to float32, in place; which there were."""
    if isinstance(value, list):
        for inner in value:
            yield from _as_float32(inner)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        name = inner
        if isinstance(inner, dict) and "Policy" in str(inner.get("class_name")):
            name = (inner.get("config") or {}).get("name")
        if key in ("dtype", "dtype_policy") and name in OTHER_FLOATS:
            yield f"dtype policy {name}" if str(name).startswith("mixed") else str(name)
            value[key] = "float32"
        else:
            yield from _as_float32(inner)
