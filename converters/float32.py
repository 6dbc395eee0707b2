"""float32: the model as trained. The other variants are made from it."""

from __future__ import annotations

from pathlib import Path

from converters import keras_model


def convert(source: Path, image_size: int, classes: int) -> bytes:
    """A .keras file as a float32 .tflite. Runs where TensorFlow is; raises SetupError."""
    model = keras_model.load(source)
    keras_model.check_shapes(model, source, image_size, classes)
    import tensorflow as tf

    content: bytes = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    return content
