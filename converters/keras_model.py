"""The trained model: opened safely, checked to be a classifier of images, and asked. Runs where Keras is."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters import keras_file
from converters.keras_file import Opened
from harness.artifacts.outputs import are_logits, are_probabilities, as_classes
from harness.core.errors import SetupError
from harness.images.dataset import Dataset
from harness.images.spec import COLOURS, ModelSignature, ModelSpec

Shape = tuple[int | None, ...] | None
Outputs = npt.NDArray[np.float32]

PREDICT_BATCH = 128
PREDICT_AT_ONCE = 4096  # images held as floats
PROBED = 8  # random images that show what the outputs are


@lru_cache(maxsize=1)  # in a process of its own, a model is loaded once
def _opened(path: Path, imports: tuple[str, ...]) -> Opened:
    return keras_file.load(path, imports)


def signature(path: Path, imports: tuple[str, ...] = ()) -> ModelSignature:
    """What a model file says of its images and classes. Raises SetupError where it is no classifier of images."""
    model = _opened(path, imports).model
    counts = [len(getattr(model, name, None) or [()]) for name in ("inputs", "outputs")]
    if counts != [1, 1]:
        raise SetupError(
            f"{path}: has {counts[0]} inputs and {counts[1]} outputs; expected one of single images and one of classes"
        )
    taken, given = _shapes(model)
    _, height, width, channels = taken if taken is not None and len(taken) == 4 else (None,) * 4
    if channels is None or channels not in COLOURS:
        raise SetupError(
            f"{path}: takes {_shape(taken)}; expected [N, height, width, channels], channels 1 (grey) or 3 (RGB)"
        )
    if given is None or len(given) != 2 or not given[1]:
        raise SetupError(f"{path}: gives {_shape(given)}; expected [N, classes], or [N, 1] for two classes")
    return ModelSignature(None if height is None or width is None else (height, width), channels, max(2, given[1]))


def _shapes(model: Any) -> tuple[Shape, Shape]:
    """Of input and output; none where the model does not know."""
    import keras

    if getattr(model, "inputs", None):
        return tuple(model.inputs[0].shape), tuple(model.outputs[0].shape)
    taken = (model.get_build_config() or {}).get("input_shape")  # subclassed: it knows what it was built for
    if taken is None:
        return None, None
    try:
        return tuple(taken), tuple(model(keras.KerasTensor(tuple(taken))).shape)
    except Exception:  # whatever the user's own code raises
        return tuple(taken), None


def _shape(shape: Shape) -> str:
    return "an unknown shape" if shape is None else f"[{', '.join('N' if n is None else str(n) for n in shape)}]"


@dataclass(frozen=True)
class Classifier:
    """A Keras graph of one image input and probabilities; notes: what was done to make it one."""

    graph: Any
    notes: tuple[str, ...]


def classifier(path: Path, spec: ModelSpec, imports: tuple[str, ...] = ()) -> Classifier:
    """The model as it is converted and asked: a subclassed one as a graph of one opaque layer, logits with a softmax,
    or where there is one of two classes, with a sigmoid.

    Raises SetupError where it is not what the spec says, or gives neither probabilities nor logits.
    """
    import keras

    own = signature(path, imports)
    if (own.image_size or spec.image_size, own.channels, own.classes) != astuple(spec.signature):
        raise SetupError(f"{path}: is for {own}; expected {spec.signature}: another model than the one converted?")
    opened = _opened(path, imports)
    model, notes = opened.model, list(opened.notes)
    if not isinstance(model, keras.Sequential | keras.Function):
        image = keras.Input(spec.shape)
        model = keras.Model(image, model(image))
        notes.append("a subclassed model: converted as it is, nothing inside is folded")
    elif own.image_size is None:
        weights = model.get_weights()
        model = keras.models.clone_model(model, input_tensors=keras.Input(spec.shape))
        model.set_weights(weights)
    if isinstance(model, keras.Function) and list in (type(model.input), type(model.output)):  # of one each
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    kind = "sigmoid" if model.outputs[0].shape[-1] == 1 else "softmax"
    if _gives_logits(model, path, spec, kind):
        layer = keras.layers.Activation(kind, name=f"{kind}_added")
        model = keras.Model(model.inputs[0], layer(model.outputs[0]), name=model.name)
        notes.append(f"the model gives logits: a {kind} was added, in the reference as in the variants")
    return Classifier(model, tuple(notes))


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
    pixels = np.random.default_rng(0).integers(0, 256, (PROBED, *spec.shape), np.uint8)
    outputs = np.asarray(keras.ops.convert_to_numpy(model(spec.to_input(pixels), training=False)), np.float64)
    if not np.isfinite(outputs).all():  # refused when it answers
        return False
    if are_probabilities(as_classes(outputs)):
        return False
    if not are_logits(outputs):
        raise SetupError(
            f"{path}: gives 0 to 1 for each class, together {outputs.sum(axis=1).max():.2f}; expected one class an "
            "image: a softmax at the end, or logits"
        )
    return True


def predict(path: Path, data: Dataset, imports: tuple[str, ...] = ()) -> Outputs:
    """The model's outputs [N, classes]."""
    return _predict(classifier(path, data.spec, imports).graph, data)


def predict_folded_too(path: Path, data: Dataset, imports: tuple[str, ...] = ()) -> tuple[Outputs, Outputs]:
    """The model's outputs [N, classes], and those with its batch norms folded."""
    graph, folded = _with_folded(path, data.spec, imports)
    return _predict(graph, data, whole_batches=True), _predict(folded, data, whole_batches=True)


@lru_cache(maxsize=1)
def _with_folded(path: Path, spec: ModelSpec, imports: tuple[str, ...]) -> tuple[Any, Any]:
    """Made and traced once for all shards of a set."""
    from converters.fold import fold

    graph = classifier(path, spec, imports).graph
    return graph, fold(graph).model


def _predict(graph: Any, data: Dataset, *, whole_batches: bool = False) -> Outputs:
    """whole_batches: an image's outputs are the same, to the last bit, whatever part of a set it is in."""
    parts = []
    for inputs in data.batches(PREDICT_AT_ONCE):
        count = len(inputs)
        if whole_batches:
            inputs = np.concatenate([inputs, np.zeros((-count % PREDICT_BATCH, *inputs.shape[1:]), inputs.dtype)])
        parts.append(graph.predict(inputs, batch_size=PREDICT_BATCH, verbose=0)[:count])
    return np.asarray(as_classes(np.concatenate(parts)), np.float32)
