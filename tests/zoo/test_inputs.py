"""Inputs as people have them: without channels, by name, of a fixed batch, of bytes; which pixels a model expects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from converters import float32, keras_model, model_input
from converters.interpreter import predict
from harness.images import dataset, spec
from harness.images.spec import ModelConfig, ModelSpec

KERAS_2 = Path(__file__).parent / "keras2"


def classes(x: Any, name: str | None = None) -> Any:
    wide = keras.initializers.RandomNormal(stddev=0.5)
    return layers.Dense(4, activation="softmax", kernel_initializer=wide, name=name)(layers.Flatten()(x))


def plain(image: Any) -> keras.Model:
    return keras.Model(image, classes(image))


def by_name(image: Any) -> keras.Model:
    return keras.Model({"picture": image}, {"answer": classes(image)})


def whole_numbers(image: Any) -> keras.Model:
    return keras.Model(image, classes(layers.Conv2D(2, 3)(layers.Rescaling(1 / 127.5, -1)(image))))


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (lambda: plain(keras.Input((8, 8))), (8, 8)),
        (lambda: plain(keras.Input((6, 8))), (6, 8)),
        (lambda: plain(keras.Input((64,))), (8, 8)),
        (
            lambda: keras.Sequential([keras.Input((8, 8)), layers.Flatten(), layers.Dense(4, activation="softmax")]),
            (8, 8),
        ),
        (lambda: plain(keras.Input((8, 8, 1))), (8, 8)),
        (lambda: plain(keras.Input(batch_shape=(1, 8, 8, 1))), (8, 8)),
        (lambda: plain(keras.Input(batch_shape=(32, 8, 8))), (8, 8)),
        (lambda: by_name(keras.Input((8, 8, 1), name="picture")), (8, 8)),
        (lambda: by_name(keras.Input((8, 8), name="picture")), (8, 8)),
        (lambda: whole_numbers(keras.Input((8, 8, 1), dtype="uint8")), (8, 8)),
    ],
    ids=["grey", "oblong", "flat", "sequential", "channel", "batch", "grey_batch", "names", "grey_names", "uint8"],
)
def test_grey_images_however_they_are_given(model: Any, size: tuple[int, int], tmp_path: Path) -> None:
    """Converted and asked as [N, height, width, 1], with the answers of the model itself."""
    path = tmp_path / "model.keras"
    keras.utils.set_random_seed(0)
    model().save(path)
    takes = spec.combine(keras_model.signature(path), None, path)
    assert takes.shape == (*size, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (5, *takes.shape), np.uint8)
    data = dataset.build(pixels, [0] * 5, list("abcde"), takes)
    expected = keras_model.predict(path, data)
    own = keras.saving.load_model(path)
    shape = tuple(own.inputs[0].shape)[1:]
    inputs = data.inputs().reshape(5, *shape).astype(own.inputs[0].dtype)
    named = isinstance(own, keras.Function) and isinstance(own.input, dict)
    answers = own({"picture": inputs} if named else inputs)
    answers = answers["answer"] if isinstance(answers, dict) else answers
    np.testing.assert_allclose(expected, answers, atol=1e-5)
    np.testing.assert_allclose(predict(float32.convert(path, takes).content, data), expected, atol=1e-5)


IMAGE = (32, 32, 3)


def begins(*first: Any) -> keras.Model:
    return keras.Sequential([keras.Input(IMAGE), *first, layers.Conv2D(2, 3)])


def computed(function: Any) -> keras.Model:
    image = keras.Input(IMAGE)
    return keras.Model(image, layers.Conv2D(2, 3)(function(image)))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda: begins(layers.Rescaling(1 / 255)), (0, 255)),
        (lambda: begins(layers.RandomFlip(), layers.Resizing(16, 16), layers.Rescaling(1 / 127.5, -1)), (0, 255)),
        (lambda: begins(layers.Normalization(mean=[120.0] * 3, variance=[60.0**2] * 3)), (0, 255)),
        (lambda: computed(lambda x: x / 255.0), (0, 255)),
        (lambda: computed(lambda x: (x - 127.5) / 127.5), (0, 255)),
        (lambda: computed(lambda x: x * (1 / 255)), (0, 255)),
        (lambda: computed(lambda x: begins(layers.Rescaling(1 / 255))(x)), (0, 255)),
        (lambda: begins(), None),
        (lambda: begins(layers.Rescaling(2.0, -1)), None),
        (lambda: begins(layers.Normalization(mean=[0.5] * 3, variance=[0.1] * 3)), None),
        (lambda: computed(lambda x: layers.Add()([x / 255.0, x])), None),
        (lambda: keras.applications.MobileNetV2(IMAGE, 0.35, weights=None, classes=2), (-1, 1)),
        (lambda: keras.applications.MobileNetV3Small(IMAGE, 0.75, weights=None, classes=2), (0, 255)),
    ],
)
def test_the_pixels_that_a_model_expects(model: Any, expected: tuple[float, float] | None) -> None:
    """By its first layers, in models in it too, or the family of keras.applications; else nothing is proposed."""
    found = model_input.pixel_range(model(), "float32")
    assert (found and found[0]) == expected


def test_pixels_are_proposed_unless_the_config_says_otherwise(tmp_path: Path) -> None:
    """uint8 means 0 to 255; both cases are noted."""
    path = tmp_path / "model.keras"
    whole_numbers(keras.Input((8, 8, 1), dtype="uint8")).save(path)
    signature = keras_model.signature(path)
    takes = spec.combine(signature, None, path)
    assert takes.pixel_range == (0, 255)
    assert any(
        "pixels become 0 to 255, by its uint8 input" in note for note in keras_model.classifier(path, takes).notes
    )
    told = spec.combine(signature, spec.LoadedConfig(ModelConfig(pixel_range=(0.0, 1.0)), "model.toml"), path)
    assert told.pixel_range == (0, 1)
    notes = keras_model.classifier(path, told).notes
    assert any("pixels become 0 to 1, but its uint8 input suggests pixel_range = [0, 255]" in note for note in notes)
    assert spec.combine(ModelSpec((8, 8), 1, tuple("abcd")).signature, None, path).pixel_range == (0, 1)
