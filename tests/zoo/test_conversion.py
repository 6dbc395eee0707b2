"""Networks as people have them: what converts, what stays float32, what is refused, on tiny models of 8x8 images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers, ops

from converters import bias, calibration_lint, equalize, float32, integers, quantize
from converters import convert as conversion
from converters.calibration import Ranges
from converters.convert import Images
from converters.interpreter import predict
from converters.keras_model import predict as predict_by_keras
from harness.core.errors import SetupError
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.images.spec import ModelSpec

Layer = Callable[[Any], Any]

SPEC = ModelSpec((8, 8), 1, tuple("abcd"))


@keras.saving.register_keras_serializable("zoo")
class AlwaysDropped(layers.Layer):
    """Dropout while predicting, as for an estimate of uncertainty; it prints, too."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.drop = layers.Dropout(0.5, name="drop")

    def call(self, x: Any) -> Any:
        print("called")
        return self.drop(x, training=True)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """40 images of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, *SPEC.shape), np.uint8)
    return dataset.build(pixels, [number % 4 for number in range(40)], [str(number) for number in range(40)], SPEC)


def save(middle: Layer, path: Path) -> Path:
    """A .keras file of a middle between an input of 8x8x1 and a dense softmax of four classes."""
    keras.utils.set_random_seed(0)
    image = keras.Input(SPEC.shape)
    wide = keras.initializers.RandomNormal(stddev=0.5)
    x = layers.Dense(4, activation="softmax", kernel_initializer=wide)(layers.Flatten()(middle(image)))
    keras.Model(image, x).save(path)
    return path


def converted(path: Path, data: Dataset, batch: int | None = 1) -> tuple[bytes, Ranges, npt.NDArray[np.float64]]:
    """The float32 file that calibrates, its ranges, and its answers, which are Keras's."""
    content = float32.convert(path, SPEC, batch=batch).content
    expected = keras.saving.load_model(path).predict(data.inputs(), verbose=0)
    answers = predict(content, data)
    np.testing.assert_allclose(answers, expected, atol=1e-4)
    return *equalize.calibrate(content, data), answers


def transformer(x: Any) -> Any:
    x = layers.Reshape((4, 8))(layers.Conv2D(8, 4, 4)(x))
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 4)(y, y)
    y = layers.Dense(16, activation="gelu")(layers.LayerNormalization()(x))
    return x + layers.Dense(8)(y)


def recurrent(x: Any) -> Any:
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(layers.Reshape((4, 16))(x))
    return layers.SimpleRNN(3)(layers.GRU(3, return_sequences=True)(x))


@pytest.mark.parametrize("middle", [transformer, recurrent])
def test_transformers_and_recurrent_layers_are_quantized(middle: Layer, data: Dataset, tmp_path: Path) -> None:
    """LayerNormalization, attention, exact GELU; LSTM, GRU, SimpleRNN, Bidirectional over rows, for any batch too."""
    path = save(middle, tmp_path / "model.keras")
    content, ranges, expected = converted(path, data, batch=None if middle is recurrent else 1)
    for kind, tolerance in (("int8", 0.06), ("int16x8", 0.03)):
        answers = predict(quantize.make(kind, content, ranges), data)
        np.testing.assert_allclose(answers, expected, atol=tolerance)


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: layers.Normalization(mean=[0.5], variance=[0.1])(x),
        lambda x: layers.GroupNormalization(2)(layers.Conv2D(4, 3)(x)),
        lambda x: layers.Activation("sparsemax")(layers.Conv2D(4, 3)(x)),
        lambda x: ops.arctan2(x, x + 1),
    ],
    ids=["normalization", "group_normalization", "sparsemax", "arctan2"],
)
def test_what_the_quantizer_cannot_do_stays_float32(middle: Layer, data: Dataset, tmp_path: Path) -> None:
    """Constants of any shape are quantized; an operation that the quantizer or the runtime refuses stays float32."""
    content, ranges, expected = converted(save(middle, tmp_path / "model.keras"), data)
    for kind in ("int8", "int16x8"):
        np.testing.assert_allclose(predict(quantize.make(kind, content, ranges), data), expected, atol=0.1)


@pytest.mark.parametrize(("size", "sign"), [(1e-12, 1), (1e-9, -1), (5e-6, 1), (5e-6, -1), (5e-4, -1), (1.0, 1)])
def test_biases_fit_whatever_the_weights(size: float, sign: int, data: Dataset, tmp_path: Path) -> None:
    """Weights of nearly zero beside a bias that is not small: the stored bias is the real one, in int8 and int16x8."""
    keras.utils.set_random_seed(0)
    image = keras.Input(SPEC.shape)
    small = layers.Conv2D(3, 3)
    x = layers.Conv2D(4, 3)(small(image))
    keras_model = keras.Model(image, layers.Dense(4, activation="softmax")(layers.Flatten()(x)))
    weights, _ = small.get_weights()
    small.set_weights([weights * size / np.abs(weights).max(), sign * np.array([0.1, 0.9, -0.3])])
    keras_model.save(tmp_path / "model.keras")
    content, ranges, expected = converted(tmp_path / "model.keras", data)
    for kind in ("int8", "int16x8"):
        quantized = quantize.make(kind, content, ranges)
        np.testing.assert_allclose(predict(quantized, data), expected, atol=0.04)
        assert bias.fit(quantized, content) == quantized


@pytest.mark.parametrize(
    ("middle", "says"),
    [
        (lambda x: ops.erf(x), "TFLite has no tf.Erf of operation Erf: use the activation 'gelu'"),
        (lambda x: layers.Resizing(6, 6, interpolation="lanczos3", name="shrink")(x), "of layer shrink: resize with"),
        (
            lambda x: layers.Resizing(6, 6, interpolation="bicubic", name="shrink")(x),
            "tf.ResizeBicubic of layer shrink",
        ),
        (lambda x: ops.image.rgb_to_hsv(ops.repeat(x, 3, -1)), "TFLite has no tf.RGBToHSV"),
        (lambda x: ops.inv(x[..., 0]), "TFLite has no tf.MatrixInverse"),
        (lambda x: AlwaysDropped(name="sampled")(x), "draws random numbers while it predicts"),
    ],
    ids=["erf", "lanczos3", "bicubic", "hsv", "inverse", "dropout"],
)
def test_operations_that_tflite_lacks_are_named(middle: Layer, says: str, tmp_path: Path) -> None:
    """One line: the operation, its layer, and what to put instead; what draws random numbers is refused, too."""
    with pytest.raises(SetupError) as caught:
        float32.convert(save(middle, tmp_path / "model.keras"), SPEC)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reference_that_answers_otherwise_each_time_is_refused(data: Dataset, tmp_path: Path) -> None:
    """The model's own layers may be imported, so that only its answers tell."""
    path = save(lambda x: AlwaysDropped(name="sampled")(x), tmp_path / "model.keras")
    with pytest.raises(SetupError, match="gives other outputs for the same images when it is asked twice"):
        predict_by_keras(path, data)


def pooled(x: Any) -> Any:
    return layers.GlobalMaxPooling2D()(layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(4, 3)(x)))


def test_what_stays_float32_is_told_and_can_be_refused(tmp_path: Path) -> None:
    """`N of M operations stay float32`, in the manifest too; with integer_only nothing is written."""
    path = save(pooled, tmp_path / "model.keras")
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (40, *SPEC.shape), np.uint8)
    images = dataset.build(pixels, [number % 4 for number in range(40)], [str(number) for number in range(40)], SPEC)
    with pytest.raises(SetupError, match=r"int8: 1 of \d operations stay float32: 1 PRELU;"):
        conversion.convert(path, tmp_path / "refused", Images(images), kinds=["int8"], integer_only=True)
    assert not list(tmp_path.glob("refused/*"))
    variants = conversion.convert(path, tmp_path / "out", Images(images), kinds=["int8", "float32"])
    assert any("operations stay float32" in note for note in variants["int8"].notes)
    assert not any("stay float32" in note for note in variants["float32"].notes)
    assert integers.left_float((tmp_path / "out" / "int8.tflite").read_bytes()) is not None


def test_many_classes_are_calibrated_by_default(data: Dataset) -> None:
    """Messages name five of many classes that are missing."""
    many = ModelSpec((8, 8), 1, tuple(f"class{number}" for number in range(300)))
    with pytest.raises(SetupError) as caught:
        calibration_lint.check(dataset.build(data.images, data.labels.tolist(), data.names, many), None, many)
    assert "class4, class5, class6, class7, class8 and 291 more" in str(caught.value)
