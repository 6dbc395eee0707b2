"""Balancing channels before quantization: the same function, known factors, and an int8 file nearer to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import calibration, equalize, quantize
from converters.convert import Images, convert
from converters.interpreter import predict
from harness.images import dataset
from harness.images.dataset import Dataset
from tests.conftest import CALIBRATION, DIGITS

Branch = Callable[[Any, int], Any]
ON_ITS_OWN = 1e-4  # float32's rounding, relative to the largest value


@pytest.fixture(scope="session")
def images() -> Dataset:
    return dataset.take(dataset.load(CALIBRATION, DIGITS), np.arange(0, 220, 5))


def lowered(body: Branch, folder: Path, *, uneven: float = 30.0) -> bytes:
    """A float32 .tflite of 28x28x1 to 11 classes around a body of 8 channels that differ in size by up to `uneven`.

    What reads a channel has weights to match, so that the small ones count as much as the large.
    """
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(body(x, 8))
    model = keras.Model(inputs, keras.layers.Dense(11, activation="softmax")(x))
    sizes = np.geomspace(1 / uneven, 1, 8)
    for one in model.layers:
        if isinstance(one, (keras.layers.Conv2D, keras.layers.Dense)) and "depthwise" not in one.name:
            kernel, bias = one.get_weights()
            kernel *= sizes if kernel.shape[-1] == 8 else 1
            kernel /= sizes[:, np.newaxis] if kernel.shape[-2] == 8 else 1
            one.set_weights([kernel, bias])
    model.save(folder / "model.keras")
    convert(folder / "model.keras", folder / "out", Images(CALIBRATION), kinds=("float32",))
    return (folder / "out" / "float32.tflite").read_bytes()


def layer(kind: str, **options: Any) -> Any:
    import keras

    return getattr(keras.layers, kind)(**options)


def stream(x: Any, channels: int) -> Any:
    """Two residual blocks, each read behind a ReLU."""
    for _ in range(2):
        branch = layer("Conv2D", filters=channels, kernel_size=3, padding="same")(layer("ReLU")(x))
        x = layer("Add")([x, branch])
    return x


def depthwise(x: Any, channels: int) -> Any:
    x = layer("DepthwiseConv2D", kernel_size=3, activation="relu")(x)
    return layer("MaxPooling2D")(layer("Conv2D", filters=channels, kernel_size=1, activation="relu")(x))


def clipped(x: Any, channels: int) -> Any:
    """A ReLU6 takes no factor; the pooled convolution after it does."""
    x = layer("ReLU", max_value=6.0)(layer("Conv2D", filters=channels, kernel_size=1, name="clipped")(x))
    return layer("Conv2D", filters=channels, kernel_size=1, name="free")(x)


def grouped(x: Any, channels: int) -> Any:
    return layer("Conv2D", filters=channels, kernel_size=1, groups=2, name="grouped")(x)


def shared(x: Any, channels: int) -> Any:
    """One layer read twice: what it gives the one reader, it gives the other."""
    twice = layer("Conv2D", filters=channels, kernel_size=1, name="shared")
    return twice(layer("Activation", activation="tanh")(twice(x)))


@pytest.mark.parametrize(
    ("body", "touched", "untouched"),
    [
        (stream, ["/Add"], []),
        (depthwise, ["depthwise", "MaxPool"], []),
        (clipped, ["free"], ["clipped"]),
        (grouped, [], ["grouped"]),
        (shared, [], ["Tanh"]),
    ],
)
def test_the_function_stays_the_same(
    body: Branch, touched: list[str], untouched: list[str], images: Dataset, tmp_path: Path
) -> None:
    """Outputs alike; channels larger by their factors where they may be, as they were where they may not."""
    before = lowered(body, tmp_path)
    measured = calibration.measure(before, images)
    after, ranges = equalize.equalize(before, measured)
    np.testing.assert_allclose(predict(after, images), predict(before, images), atol=ON_ITS_OWN)
    factors = equalize.factors(after)
    for part in touched:
        assert any(part in name and factor.max() > 1.5 for name, factor in factors.items()), part
    for part in untouched:
        assert not any(part in name for name in factors), part
    again = calibration.measure(after, images)
    for name, factor in factors.items():
        low, high = (limit * factor for limit in measured[name])
        np.testing.assert_allclose(again[name][0], low, rtol=1e-3, atol=ON_ITS_OWN * np.abs(low).max())
        np.testing.assert_allclose(again[name][1], high, rtol=1e-3, atol=ON_ITS_OWN * np.abs(high).max())
        np.testing.assert_allclose(ranges[name][1], again[name][1], rtol=1e-3, atol=ON_ITS_OWN * np.abs(high).max())


def test_int8_is_nearer_to_it(images: Dataset, tmp_path: Path) -> None:
    """Uneven channels on a residual stream: the balanced file's mean error is well below the other's."""
    float32 = lowered(stream, tmp_path, uneven=100.0)
    expected = predict(float32, images)
    measured = calibration.measure(float32, images)

    def error(content: bytes, ranges: calibration.Ranges) -> float:
        return float(np.abs(predict(quantize.make("int8_float_io", content, ranges), images) - expected).mean())

    assert error(*equalize.equalize(float32, measured)) < 0.5 * error(float32, measured)


def test_nothing_to_balance_leaves_the_file_alone(images: Dataset, tmp_path: Path) -> None:
    """Byte for byte, as where the ranges are unknown; a file that was not balanced has no factors."""
    float32 = lowered(stream, tmp_path)
    content, _ = equalize.equalize(float32, {})
    assert content == float32
    assert equalize.factors(float32) == {}
