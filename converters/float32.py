"""float32: the model as trained, its batch norms folded away. The other variants are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters import accelerators, keras_model
from harness.artifacts import flatbuffer
from harness.images.spec import ModelSpec


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
    content = accelerators.rewrite(_lower(folded.model, spec, batch))
    notes += dict.fromkeys(accelerators.warnings(content))
    if len(flatbuffer.read(content).subgraphs) > 1:
        notes.append("loops or branches: what they compute stays float32 in every variant that calibrates")
    return Float32(content, len(folded.folded), dict(folded.kept), tuple(notes))


def _lower(model: Any, spec: ModelSpec, batch: int | None) -> bytes:
    """The model by TFLiteConverter, with the file's signature that `from_keras_model` would give it.

    Frozen in memory: `from_keras_model` saves a SavedModel and loads it again, which takes ten times as long and ends
    in the same operations.
    """
    import tensorflow as tf

    name = model.inputs[0].name
    image = tf.TensorSpec([batch, *spec.shape], tf.float32, name=name)
    function = tf.function(lambda images: model(images, training=False), input_signature=[image])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], model)
    converter.experimental_lower_to_saved_model = False
    return flatbuffer.with_signature(
        converter.convert(), inputs=(name,), outputs=[f"output_{number}" for number in range(len(model.outputs))]
    )
