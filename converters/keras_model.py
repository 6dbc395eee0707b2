"""The trained model: opened safely, checked to take one input, and asked. Runs where Keras is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters import keras_file, model_input, model_outputs
from converters.keras_file import Opened
from converters.model_outputs import Shape
from harness.artifacts.outputs import as_classes
from harness.core.errors import SetupError
from harness.images.dataset import Dataset, take
from harness.images.spec import ModelSignature, ModelSpec

Outputs = npt.NDArray[np.float32]

PREDICT_BATCH = 128
REPEATED = 1e-3  # relative and absolute difference of outputs that count as the same
SAMPLE = 32  # images, on which two ways of asking are compared
ALIKE = 1e-5  # mean over images of their largest difference, which float32 arithmetic alone makes
PREDICT_AT_ONCE = 4096  # images held as floats


@lru_cache(maxsize=1)  # in a process of its own, a model is loaded once
def _opened(path: Path, imports: tuple[str, ...]) -> Opened:
    return keras_file.load(path, imports)


def signature(path: Path, imports: tuple[str, ...] = ()) -> ModelSignature:
    """What a model file says of its images and outputs. Raises SetupError where it takes other than single images."""
    opened = _opened(path, imports)
    model = opened.model
    if (count := len(getattr(model, "inputs", None) or [()])) != 1:
        raise SetupError(f"{path}: has {count} inputs; expected one")
    taken, given = _shapes(model)
    images = model_input.images(taken)
    tensor = model_input.tensor(taken, model)
    if images is None and tensor is None:
        raise SetupError(
            f"{path}: takes {model_outputs.shown(taken)}; expected [N, height, width, channels], channels 1 (grey) or "
            "3 (RGB), or [N, height, width]; or a tensor of a known size but for the batch, the first number"
        )
    pixels = model_input.pixel_range(model, opened.input_dtype)
    size, channels = images or ((0, 0), 0)
    outputs = model_outputs.describe(model, given, path)
    pixel_range, reason = pixels or (None, "")
    return ModelSignature(size, channels, outputs, pixel_range, reason, tensor)


def _shapes(model: Any) -> tuple[Shape, list[Shape]]:
    """Shapes of the input and the outputs. None and an empty list if the model does not know them."""
    import keras

    if getattr(model, "inputs", None):
        return tuple(model.inputs[0].shape), [tuple(tensor.shape) for tensor in model.outputs]
    taken = (model.get_build_config() or {}).get("input_shape")  # subclassed: it knows what it was built for
    if taken is None:
        return None, []
    try:
        given = keras.tree.flatten(model(keras.KerasTensor(tuple(taken))))
        return tuple(taken), [tuple(tensor.shape) for tensor in given]
    except Exception:  # whatever the user's own code raises
        return tuple(taken), []


@dataclass(frozen=True)
class Classifier:
    """A Keras graph of one image input and its outputs in order, classes as probabilities; notes: what was done to make
    it one."""

    graph: Any
    notes: tuple[str, ...]


def classifier(path: Path, spec: ModelSpec, imports: tuple[str, ...] = ()) -> Classifier:
    """The model as it is converted and asked: a subclassed one as a graph of one opaque layer, logits with a softmax,
    a single one with a sigmoid.

    Raises SetupError where it is not what the spec says, or gives neither probabilities nor logits.
    """
    import keras

    own = signature(path, imports)
    if not own.fits(spec):
        raise SetupError(f"{path}: is for {own}; expected {spec.signature}: another model than the one converted?")
    opened = _opened(path, imports)
    model, notes = opened.model, list(opened.notes)
    if not isinstance(model, keras.Sequential | keras.Function):
        image = keras.Input(spec.shape)
        model = keras.Model(image, keras.tree.flatten(model(image)))
        notes.append("a subclassed model: converted as it is, nothing inside is folded")
    else:
        model = model_input.of_images(model, spec)
    if spec.input:
        notes.append(f"takes tensors of {spec.images} as they are; --data and --calibration name .npz files of them")
        if "int" in (opened.input_dtype or ""):
            notes.append(
                "takes whole numbers, which int8 and int16x8 round to their steps: for indices use int8_float_io"
            )
    elif own.pixel_range == spec.pixel_range:
        notes.append(f"pixels become {_range(spec)}, by {own.pixel_reason}; pixel_range in its .toml may say otherwise")
    elif own.pixel_range is not None and not spec.mean and not spec.std:
        low, high = own.pixel_range
        notes.append(f"pixels become {_range(spec)}, but {own.pixel_reason} suggests pixel_range = [{low:g}, {high:g}]")
    if not spec.outputs:
        model, more = model_outputs.with_probabilities(model, path, spec)
        notes += more
    elif spec.label_names:
        model, more = model_outputs.with_label_probabilities(model)
        notes += more
    return Classifier(model, tuple(notes))


def check_not_quantized(path: Path, imports: tuple[str, ...] = ()) -> None:
    """Raise SetupError if layers of the model hold integers already, which cannot be trained."""
    layers = _opened(path, imports).model._flatten_layers()
    if quantized := [layer.name for layer in layers if getattr(layer, "quantization_mode", None)]:
        raise SetupError(
            f"{path}: layer {quantized[0]} is in int8 already; expected the float model that it was made from"
        )


def _range(spec: ModelSpec) -> str:
    return "{:g} to {:g}".format(*spec.pixel_range)


def predict(path: Path, data: Dataset, imports: tuple[str, ...] = ()) -> Outputs:
    """The model's outputs [N, numbers]; see Reference. Raises SetupError where they are others each time."""
    graph = classifier(path, data.spec, imports).graph
    outputs = _predict(graph, data)
    _refuse_random(graph, data, outputs)
    return outputs


def answers(path: Path, spec: ModelSpec, imports: tuple[str, ...] = ()) -> Callable[[npt.NDArray[np.float32]], Outputs]:
    """The model as a function: a batch of inputs to outputs [N, numbers]; see Reference. Raises SetupError."""
    graph = classifier(path, spec, imports).graph

    def ask(inputs: npt.NDArray[np.float32]) -> Outputs:
        with _fused_batch_norms():
            return _together(graph.predict_on_batch(inputs), spec)

    return ask


def predict_folded_too(path: Path, data: Dataset, imports: tuple[str, ...] = ()) -> tuple[Outputs, Outputs | None]:
    """The model's outputs [N, numbers], and those with its batch norms folded: None where a sample shows them alike, as
    an exact fold makes them. Raises SetupError as `predict` does."""
    graphs = _with_folded(path, data.spec, imports)
    outputs = _predict(graphs.plain, data, whole_batches=True)
    if graphs.alike is None:
        _refuse_random(graphs.plain, data, outputs)
        sample = np.linspace(0, len(data) - 1, min(len(data), SAMPLE)).astype(int)
        folded = _ask_once(graphs.folded, take(data, sample).inputs(), data.spec)
        graphs.alike = bool(np.abs(folded - outputs[sample]).max(axis=1).mean() < ALIKE)
    return outputs, None if graphs.alike else _predict(graphs.folded, data, whole_batches=True)


@dataclass
class _Graphs:
    """A model without and with its batch norms folded. alike: whether they answer alike; None until both were asked."""

    plain: Any
    folded: Any
    alike: bool | None = None


@lru_cache(maxsize=1)
def _with_folded(path: Path, spec: ModelSpec, imports: tuple[str, ...]) -> _Graphs:
    """Made, traced and compared once for all shards of a set."""
    from converters.fold import fold

    graph = classifier(path, spec, imports).graph
    return _Graphs(graph, fold(graph).model)


def _predict(graph: Any, data: Dataset, *, whole_batches: bool = False) -> Outputs:
    """whole_batches: an image's outputs are the same, to the last bit, whatever part of a set it is in."""
    parts = []
    for inputs in data.batches(PREDICT_AT_ONCE):
        count = len(inputs)
        if whole_batches:
            inputs = np.concatenate([inputs, np.zeros((-count % PREDICT_BATCH, *inputs.shape[1:]), inputs.dtype)])
        parts.append(_ask(graph, inputs, data.spec)[:count])
    return np.concatenate(parts)


def _ask(graph: Any, inputs: Any, spec: ModelSpec) -> Outputs:
    with _fused_batch_norms():
        return _together(graph.predict(inputs, batch_size=PREDICT_BATCH, verbose=0), spec)


def _ask_once(graph: Any, inputs: Any, spec: ModelSpec) -> Outputs:
    """A graph's outputs for few images, without tracing it first."""
    import keras

    with _fused_batch_norms():
        outputs = keras.tree.map_structure(keras.ops.convert_to_numpy, graph(inputs, training=False))
    return _together(outputs, spec)


def _together(outputs: Any, spec: ModelSpec) -> Outputs:
    """A graph's outputs as one array [N, numbers]."""
    flat = [output.reshape(len(output), -1) for output in (outputs if isinstance(outputs, list) else [outputs])]
    together = np.concatenate(flat, axis=1)
    return np.asarray(together if spec.outputs else as_classes(together), np.float32)


@contextmanager
def _fused_batch_norms() -> Iterator[None]:
    """Run batch norms of maps as one kernel, in place of the four that Keras composes: the outputs are the same within
    rounding, in a third less time."""
    import keras
    import tensorflow as tf

    composed = keras.layers.BatchNormalization.call

    def call(layer: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        of_maps = len(inputs.shape) == 4 and layer.axis in (3, -1) and inputs.dtype == tf.float32
        if training or mask is not None or not (of_maps and layer.scale and layer.center):
            return composed(layer, inputs, training=training, mask=mask)
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=layer.gamma,
            offset=layer.beta,
            mean=layer.moving_mean,
            variance=layer.moving_variance,
            epsilon=layer.epsilon,
            is_training=False,
        ).y

    keras.layers.BatchNormalization.call = call
    try:
        yield
    finally:
        keras.layers.BatchNormalization.call = composed


def _refuse_random(graph: Any, data: Dataset, outputs: Outputs) -> None:
    """Ask for the first images again. Raises SetupError where the outputs are others."""
    inputs = next(iter(data.batches(SAMPLE)))
    again = _ask(graph, inputs, data.spec)
    if not np.allclose(outputs[: len(inputs)], again, REPEATED, REPEATED, equal_nan=True):
        raise SetupError(
            "the Keras model gives other outputs for the same images when it is asked twice: it draws random numbers "
            "while it predicts; build it without (dropout and noise layers not called with training=True)"
        )
