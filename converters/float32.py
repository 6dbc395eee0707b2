"""float32: the model as trained, its batch norms folded away. The other variants are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters import flatbuffer, keras_model
from harness.spec import ModelSpec


@dataclass(frozen=True)
class Float32:
    """A float32 .tflite, and how its batch norms fared: how many were folded, which were kept and why."""

    content: bytes
    batch_norms_folded: int
    batch_norms_kept: dict[str, str]
    notes: tuple[str, ...]  # what a person should know of how it was made


def convert(source: Path, spec: ModelSpec, imports: tuple[str, ...] = ()) -> Float32:
    """A .keras file as a float32 .tflite. Runs where TensorFlow is; raises SetupError."""
    model = keras_model.classifier(source, spec, imports)
    import tensorflow as tf

    from converters.fold import fold

    notes = list(model.notes)
    folded = fold(model.graph)
    content = tf.lite.TFLiteConverter.from_keras_model(folded.model).convert()
    if len(flatbuffer.read(content).subgraphs) > 1:
        notes.append("loops or branches: what they compute stays float32 in every variant that calibrates")
    return Float32(content, len(folded.folded), dict(folded.kept), tuple(notes))
