"""What a Keras model takes, images or a tensor, by its shape; the pixels that its first layers were made for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isqrt
from typing import Any

import numpy as np

from harness.images.spec import COLOURS, Input, ModelSpec

Shape = tuple[int | None, ...] | None
Images = tuple[tuple[int, int] | None, int]  # size: height, width, None if any; channels
FEWEST_PIXELS = 16  # of a flat input that is taken for a square image
OF_BYTES = 1 / 16  # a first scale of at most this is for pixels of 0 to 255, not of 0 to 1
BYTES, CENTRED = (0.0, 255.0), (-1.0, 1.0)
APPLICATIONS = re.compile(r"(mobilenet_\d|mobilenetv2_|resnet\d+v2|xception|inception|nasnet)", re.IGNORECASE)
LETS_THROUGH = re.compile(
    r"InputLayer|Random|Resizing|CenterCrop|Reshape|Identity|Dropout|Gaussian|ZeroPadding|Cropping|Cast|GetItem|Permute"
)
SCALES = {"Divide": -1, "TrueDivide": -1, "Multiply": 1, "math.truediv": -1, "math.divide": -1, "math.multiply": 1}
SHIFTS = re.compile(r"Subtract|Add|math\.subtract|math\.add|__operators__\.add|nn\.bias_add")


def images(shape: Shape) -> Images | None:
    """The images that an input's shape stands for. None if it is none of images.

    [N, height, width] is grey without the axis of channels; [N, a square number] a square grey image, row by row.
    """
    if shape is None or len(shape) not in (2, 3, 4):
        return None
    if len(shape) == 4:
        _, height, width, channels = shape
        if channels not in COLOURS:
            return None
        return (None if height is None or width is None else (height, width)), channels
    if len(shape) == 3:
        return None if shape[1] is None or shape[2] is None else ((shape[1], shape[2]), 1)
    size = isqrt(shape[1] or 0)
    return ((size, size), 1) if size**2 == shape[1] and shape[1] >= FEWEST_PIXELS else None


def tensor(shape: Shape, model: Any) -> Input | None:
    """An input of a known size, whatever it stands for. None if its size is not known."""
    sizes = tuple(size or 0 for size in (shape or ())[1:])
    name = getattr((getattr(model, "inputs", None) or [None])[0], "name", None)
    return Input(name or "inputs", sizes) if all(sizes) and sizes else None


def of_images(model: Any, spec: ModelSpec) -> Any:
    """A functional model as a graph of any number of the spec's images: one input and its outputs, in order."""
    import keras

    (taken,) = model.inputs
    ends = (model.input, model.output) if isinstance(model, keras.Function) else (taken, None)  # a Sequential is plain
    plain = not any(isinstance(end, list | tuple | dict) for end in ends)
    if tuple(taken.shape) == (None, *spec.shape) and plain:
        return model
    if tuple(taken.shape) == (None, *spec.shape):
        given, image = list(model.outputs), taken
    else:
        x = image = keras.Input(spec.shape, name=taken.name)
        if len(taken.shape) != 1 + len(spec.shape):
            x = keras.layers.Reshape(tuple(taken.shape)[1:], name="without_channels")(image)
        given = keras.tree.flatten(model.call(keras.tree.map_structure(lambda _: x, ends[0])))
    return keras.Model(image, given if len(given) > 1 else given[0], name=model.name)


def pixel_range(model: Any, dtype: str | None) -> tuple[tuple[float, float], str] | None:
    """What the pixels 0 and 255 should become by what the model holds, and what tells so. None if nothing does.

    dtype: of its input, as its file says.
    """
    if dtype and re.match(r"u?int", dtype):
        return BYTES, f"its {dtype} input"
    scale = 1.0
    names: list[str] = []
    for operation in _first(model):
        kind = getattr(operation, "function", type(operation).__name__)
        kind = kind if isinstance(kind, str) else type(operation).__name__
        if APPLICATIONS.match(operation.name) and not names:
            return CENTRED, f"{operation.name} of keras.applications, whose preprocess_input gives -1 to 1"
        if hasattr(operation, "layers") or LETS_THROUGH.match(kind):
            continue
        factor = _factor(operation, kind)
        if factor is None:
            break
        scale *= factor
        names.append(operation.name)
        if abs(scale) <= OF_BYTES:
            return BYTES, f"its first layer {' and '.join(names)}"
    return None


def _first(model: Any) -> Iterator[Any]:
    """The model, and the operations that its input passes one after the other, up to a branch; in models in it, too."""
    from converters.graph import Graph

    yield model
    if not getattr(model, "inputs", None):
        return
    graph, tensor = Graph(model), id(model.inputs[0])
    while len(readers := graph.readers[tensor]) == 1 and readers[0] is not model:
        (reader,) = readers
        if hasattr(reader, "layers"):
            yield from _first(reader)
            return
        yield reader
        if len(graph.inputs(reader)) != 1:
            return
        tensor = graph.output(reader)


def _factor(operation: Any, kind: str) -> float | None:
    """What an operation multiplies its input by, besides a shift. None if it does other things."""
    if kind == "Rescaling":
        return float(np.max(np.abs(operation.scale)))
    if kind == "Normalization":
        mean, deviation = np.asarray(operation.mean), np.sqrt(np.asarray(operation.variance))
        return OF_BYTES if np.abs(mean).max() > 2 else float(1 / max(float(deviation.min()), 1e-3))
    if SHIFTS.match(kind):
        return 1.0
    if kind in SCALES and (constant := _constant(operation)):
        return float(abs(constant) ** SCALES[kind])
    return None


def _constant(operation: Any) -> float | None:
    """The number that an operation computes its input with. None if there is none, or several."""
    import keras

    if hasattr(operation, "named"):  # of Keras 2
        values = [value.get("value") for value in operation.named.values()]
    else:
        arguments = operation._inbound_nodes[-1].arguments
        values = keras.tree.flatten((arguments.args, arguments.kwargs))
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return numbers[0] if len(numbers) == 1 else None
