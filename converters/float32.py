"""float32: the model as trained, its batch norms folded away. The other variants are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters import accelerators, keras_model, tensorflow_operations
from harness.artifacts import flatbuffer
from harness.core.errors import SetupError
from harness.images.spec import ModelSpec

MOST_STEPS = 128  # of a recurrent layer that are written one after the other


@dataclass(frozen=True)
class Float32:
    """A float32 .tflite, and how its batch norms fared: how many were folded, which were kept and why."""

    content: bytes
    batch_norms_folded: int
    batch_norms_kept: dict[str, str]
    notes: tuple[str, ...]  # what a person should know of how it was made


def convert(source: Path, spec: ModelSpec, imports: tuple[str, ...] = (), *, batch: int | None = 1) -> Float32:
    """A .keras file as a float32 .tflite. Runs where TensorFlow is; raises SetupError.

    batch: None for one of any size, with which accelerators refuse Flatten and Reshape.
    """
    model = keras_model.classifier(source, spec, imports)
    from converters.fold import fold

    notes = list(model.notes)
    folded = fold(model.graph)
    notes += _unroll(folded.model)
    content = accelerators.rewrite(_lower(folded.model, spec, batch))
    notes += dict.fromkeys(accelerators.warnings(content))
    if len(flatbuffer.read(content).subgraphs) > 1:
        notes.append("loops or branches: what they compute stays float32 in every variant that calibrates")
    return Float32(content, len(folded.folded), dict(folded.kept), tuple(notes))


def _unroll(model: Any) -> tuple[str, ...]:
    """Write short recurrent layers without a loop: loops stay float32, and accelerators refuse them."""
    import keras

    notes: dict[str, None] = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            notes |= dict.fromkeys(_unroll(layer))
        recurrent = [part for part in (layer, *_wrapped(layer)) if hasattr(part, "unroll") and not part.unroll]
        if recurrent and (steps := _steps(layer)) is not None and steps <= MOST_STEPS:
            for part in recurrent:
                part.unroll = True
            notes["recurrent layers: their steps are written one after the other, without a loop"] = None
    return tuple(notes)


def _wrapped(layer: Any) -> list[Any]:
    return [getattr(layer, name) for name in ("forward_layer", "backward_layer") if hasattr(layer, name)]


def _steps(layer: Any) -> int | None:
    try:
        return int(layer.input.shape[1])
    except (AttributeError, TypeError, ValueError):
        return None


def layer_names(model: Any) -> list[str]:
    """Of all layers and operations of a model, those of models in it too."""
    import keras

    names = []
    for layer in getattr(model, "operations", model.layers):
        names += [layer.name, *(layer_names(layer) if isinstance(layer, keras.Model) else ())]
    return names


def _lower(model: Any, spec: ModelSpec, batch: int | None) -> bytes:
    """The model by TFLiteConverter, with the file's signature that `from_keras_model` would give it.

    Frozen in memory: `from_keras_model` saves a SavedModel and loads it again, which takes ten times as long and ends
    in the same operations.
    """
    import tensorflow as tf

    name = model.inputs[0].name
    image = tf.TensorSpec([batch, *spec.shape], tf.float32, name=name)
    function = tf.function(lambda images: model(images, training=False), input_signature=[image])
    concrete = function.get_concrete_function()
    names = layer_names(model)
    if drawn := tensorflow_operations.random_layer(concrete, names):
        raise SetupError(f"{drawn}: its answers differ each time; call it with training=False, or leave it out")
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
    converter.experimental_lower_to_saved_model = False
    try:
        content = converter.convert()
    except Exception as error:  # whatever its parts raise
        raise SetupError(tensorflow_operations.refusal(error, concrete, names)) from error
    return flatbuffer.with_signature(
        content, inputs=(name,), outputs=[f"output_{number}" for number in range(len(model.outputs))]
    )
