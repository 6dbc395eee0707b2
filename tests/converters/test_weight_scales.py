"""Scales of quantized weights: one for each channel where channels differ in size, else one for all."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from converters import calibration, quantize
from converters.convert import Images, convert
from converters.interpreter import predict
from harness.images import dataset
from tests.conftest import CALIBRATION, DIGITS


@cache
def network(folder: Path, ratio: float) -> bytes:
    """A float32 .tflite of a depthwise convolution whose filters differ in size by `ratio`."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((28, 28, 1))
    sizes = np.geomspace(1 / ratio, 1, 8)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    depthwise = keras.layers.DepthwiseConv2D(3)
    x = keras.layers.Conv2D(8, 1, activation="relu")(depthwise(x))
    model = keras.Model(image, keras.layers.Dense(11, activation="softmax")(keras.layers.Flatten()(x)))
    kernel, bias = depthwise.get_weights()
    spread = kernel / np.abs(kernel).max(axis=(0, 1, 3), keepdims=True) * sizes[:, np.newaxis]
    depthwise.set_weights([spread, bias])
    model.save(folder / f"{ratio}.keras")
    convert(folder / f"{ratio}.keras", folder / f"{ratio}", Images(CALIBRATION), kinds=("float32",))
    return (folder / f"{ratio}" / "float32.tflite").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scales")


def scales(content: bytes) -> list[int]:
    """The number of scales of each weight, the smallest first."""
    details = Interpreter(model_content=content).get_tensor_details()
    weights = [
        one for one in details if one["dtype"] == np.int8 and "depthwise" in one["name"] and len(one["shape"]) == 4
    ]
    return sorted(len(one["quantization_parameters"]["scales"]) for one in weights)


@pytest.mark.parametrize(
    ("kind", "ratio", "expected"), [("int8", 1000, 8), ("int8", 4, 1), ("int16x8", 1000, 8), ("int16x8", 4, 8)]
)
def test_uneven_filters_have_their_own_scales(kind: str, ratio: float, expected: int, folder: Path) -> None:
    """With 1:1000, one scale for all would leave the smallest filters nothing but zeros."""
    images = dataset.take(dataset.load(CALIBRATION, DIGITS), np.arange(0, 220, 5))
    float32 = network(folder, ratio)
    made = quantize.make(kind, float32, calibration.measure(float32, images))
    assert scales(made)[-1] == expected
    error = np.abs(predict(made, images) - predict(float32, images)).max()
    assert error < {"int8": 0.15, "int16x8": 0.02}[kind]


def test_dynamic_range_has_a_scale_for_each_filter(folder: Path) -> None:
    """However even they are: a hybrid depthwise convolution does not run otherwise."""
    made = quantize.make("dynamic_range", network(folder, 4), None)
    assert scales(made)[-1] == 8
