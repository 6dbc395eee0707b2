"""Small networks of one odd operation each, as .tflite files: 28x28 grey images to 11 classes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np


def _plain(x: Any) -> Any:
    return x


def _strided(x: Any) -> Any:
    """A 1x1 convolution with stride 2, whose weights LiteRT 2.3's GPU accelerator gets wrong where they are int8."""
    import keras

    return keras.layers.Conv2D(64, 1, strides=2, activation="relu", name="strided")(x)


def _flattened(x: Any) -> Any:
    """Flatten: with a dynamic batch, SHAPE and PACK compute the new shape."""
    import keras

    return keras.layers.Reshape((7, 7, -1))(keras.layers.Flatten()(keras.layers.MaxPooling2D(4)(x)))


def _int64(x: Any) -> Any:
    """ARG_MAX to int64 and what follows it, which the GPU accelerator does not take."""
    import keras
    import tensorflow as tf

    return keras.layers.Lambda(lambda t: t + tf.cast(tf.math.argmax(t, axis=-1)[..., tf.newaxis], tf.float32))(x)


def _overflowing(x: Any) -> Any:
    """A sum beyond float16's 65504."""
    import keras

    large = keras.initializers.Constant(3000.0)
    return keras.layers.Conv2D(32, 3, padding="same", kernel_initializer=large, name="overflowing")(x)


_MIDDLES: dict[str, Callable[[Any], Any]] = {
    "plain": _plain,
    "strided": _strided,
    "flattened": _flattened,
    "int64": _int64,
    "overflowing": _overflowing,
}


@cache
def tflite(middle: str, kind: str = "float32", *, batch: int | None = 1, deep: int = 1) -> bytes:
    """A 3x3 convolution, the middle, `deep` more 3x3 convolutions, and classes by softmax.

    kind: float32, dynamic_range, int8 or int16x8. batch: None for a dynamic one.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    x = entry = keras.Input((28, 28, 1), batch_size=batch)
    convolution = partial(
        keras.layers.Conv2D, kernel_size=3, padding="same", activation="relu", kernel_initializer="he_normal"
    )
    x = convolution(64, name="first")(x)
    x = _MIDDLES[middle](x)
    for number in range(deep):
        x = convolution(32, name=f"after{number}")(x)
    x = keras.layers.Flatten()(x)
    wide = keras.initializers.RandomNormal(stddev=0.03)  # for predictions that differ
    x = keras.layers.Dense(11, activation="softmax", kernel_initializer=wide, name="classes")(x)
    model = keras.Model(entry, x)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind.startswith("int"):
        noise = np.random.default_rng(0).random((8, 1, 28, 28, 1), np.float32)
        converter.representative_dataset = lambda: ([image] for image in noise)
        sets = tf.lite.OpsSet
        wide = sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [wide if kind == "int16x8" else sets.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int16 if kind == "int16x8" else tf.int8
    with warnings.catch_warnings(action="ignore"):  # TensorFlow's, of int8 inputs
        return bytes(converter.convert())
