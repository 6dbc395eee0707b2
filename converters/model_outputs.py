"""What a Keras model's outputs are: classes, or tensors whose numbers are compared. Runs where Keras is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from harness.artifacts.outputs import are_logits, are_probabilities, as_classes
from harness.core.errors import SetupError
from harness.images.spec import ModelSpec, Output, OutputKind

PROBED = 8  # random images that show what the outputs are
# In the name of a loss that compares numbers, not classes.
_OF_NUMBERS = ("error", "mse", "mae", "mape", "msle", "huber", "cosh", "cosine", "poisson", "triplet")
_NORMALIZED = ("UnitNormalization", "LayerNormalization", "GroupNormalization")  # ends of embeddings

Shape = tuple[int | None, ...] | None


def shown(shape: Shape) -> str:
    """A shape as an error shows it."""
    return "an unknown shape" if shape is None else f"[{', '.join('N' if n is None else str(n) for n in shape)}]"


def describe(model: Any, shapes: Sequence[Shape], path: Path) -> tuple[Output, ...]:
    """The outputs of these shapes in order; one of them at most is classes. Raises SetupError for an unknown shape."""
    for shape in shapes or [None]:
        if shape is None or not shape or not all(shape[1:]):
            raise SetupError(f"{path}: gives {shown(shape)}; expected a known size but for the batch, the first number")
    names = list(getattr(model, "output_names", None) or [])
    if len(names) != len(set(names)) or len(names) != len(shapes):
        names = [f"output_{number}" for number in range(len(shapes))]
    tensors = list(getattr(model, "outputs", None) or [None] * len(shapes))
    outputs: list[Output] = []
    for name, shape, tensor in zip(names, shapes, tensors, strict=True):
        size = tuple(number or 0 for number in (shape or ())[1:])
        kind = _kind(_last_layer(tensor), size, "" if len(shapes) > 1 else _loss(path), only=len(shapes) == 1)
        if any(output.kind == "classes" for output in outputs):
            kind = "tensor"
        outputs.append(Output(name, kind, size))
    return tuple(outputs)


def _kind(layer: Any, shape: tuple[int, ...], loss: str, *, only: bool) -> OutputKind:
    """only: it is the model's only output, which is classes unless something speaks against that."""
    if len(shape) != 1 or any(name in loss for name in _OF_NUMBERS):
        return "tensor"
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    if only:
        if activation in ("sigmoid", "hard_sigmoid") and shape[0] > 1:
            return "labels"
        other = activation not in ("", "linear", "softmax", "sigmoid", "hard_sigmoid", "log_softmax")
        return "tensor" if other or type(layer).__name__ in _NORMALIZED else "classes"
    softmax = activation == "softmax" or type(layer).__name__ == "Softmax"
    return "classes" if (softmax and shape[0] > 1) or (activation == "sigmoid" and shape == (1,)) else "tensor"


def _last_layer(tensor: Any) -> Any:
    """The layer that gives an output; of a nested model its own last one. None if it is not known."""
    layer: Any = getattr(getattr(tensor, "_keras_history", None), "operation", None)
    while getattr(layer, "layers", None) and len(getattr(layer, "outputs", None) or []) == 1:
        layer = layer.layers[-1]
    return layer


def _loss(path: Path) -> str:
    """What the model was trained by, in small letters, as its file says. Empty if it does not."""
    try:
        with ZipFile(path) as archive:
            compiled = json.loads(archive.read("config.json")).get("compile_config") or {}
    except (OSError, BadZipFile, KeyError, ValueError):
        return ""
    loss = compiled.get("loss")
    loss = loss.get("class_name") or loss.get("config") if isinstance(loss, dict) else loss
    return loss.lower() if isinstance(loss, str) and "crossentropy" not in loss.lower() else ""


def with_probabilities(model: Any, path: Path, spec: ModelSpec) -> tuple[Any, tuple[str, ...]]:
    """A classifier that gives probabilities, and what a person should know of how it was made one.

    Raises SetupError where it gives neither probabilities nor logits.
    """
    import keras

    kind = "sigmoid" if model.outputs[0].shape[-1] == 1 else "softmax"
    if not _gives_logits(model, path, spec, kind):
        return model, ()
    layer = keras.layers.Activation(kind, name=f"{kind}_added")
    model = keras.Model(model.inputs[0], layer(model.outputs[0]), name=model.name)
    return model, (f"the model gives logits: a {kind} was added, in the reference as in the variants",)


def with_label_probabilities(model: Any) -> tuple[Any, tuple[str, ...]]:
    """A model of several labels that gives a probability for each; a sigmoid is added to logits."""
    import keras

    activation = getattr(_last_layer(model.outputs[0]), "activation", None)
    if activation is not keras.activations.linear:
        return model, ()
    layer = keras.layers.Activation("sigmoid", name="sigmoid_added")
    model = keras.Model(model.inputs[0], layer(model.outputs[0]), name=model.name)
    return model, ("the model gives logits: a sigmoid was added, in the reference as in the variants",)


def _gives_logits(model: Any, path: Path, spec: ModelSpec, kind: str) -> bool:
    """Logits, or else probabilities by an activation of this kind: by the last layer where that tells, or by what the
    model answers to random images. Raises SetupError where it gives neither."""
    import keras

    last = model.layers[-1]
    activation = getattr(last, "activation", None)
    if activation is getattr(keras.activations, kind) or (kind == "softmax" and isinstance(last, keras.layers.Softmax)):
        return False
    if kind == "sigmoid" and activation is keras.activations.linear:
        return True
    inputs = spec.to_input(spec.random(PROBED))
    outputs = np.asarray(keras.ops.convert_to_numpy(model(inputs, training=False)), np.float64)
    if not np.isfinite(outputs).all():  # refused when it answers
        return False
    if are_probabilities(as_classes(outputs)):
        return False
    if not are_logits(outputs):
        raise SetupError(
            f"{path}: gives 0 to 1 for each class, together {outputs.sum(axis=1).max():.2f}; expected one class an "
            'image: a softmax at the end, or logits; output = "labels" in its config judges several labels an image, '
            '"tensor" the numbers'
        )
    return True
