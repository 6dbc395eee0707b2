"""Models and circumstances that conversion was not made for: converted plainly and said so, or refused in one line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from converters import convert as conversion
from converters import keras_model
from converters.convert import Images
from converters.fold import Fold, fold
from harness.artifacts import manifest
from harness.cli import main
from harness.core.errors import SetupError
from harness.core.files import write_atomic_together
from harness.images import dataset
from harness.images.spec import ModelSpec
from tests.conftest import CALIBRATION, DIGITS, FLOAT32_DIFFERENCE, TEST_IMAGES, files_no_larger_than

KERAS_2 = Path(__file__).parent / "keras2.h5"  # written by Keras 2.15: convolution, batch norm, ReLU, pooling, dense

OWN_LAYER = """
import keras

@keras.saving.register_keras_serializable("own")
class Halve(keras.layers.Layer):
    def call(self, x):
        return x / 2

@keras.saving.register_keras_serializable("own")
class Repeat(keras.layers.Layer):
    def call(self, x):
        go_on = lambda step, x: step < 3
        return keras.ops.while_loop(go_on, lambda step, x: (step + 1, keras.ops.tanh(x) * 1.5), (0, x))[1]

@keras.saving.register_keras_serializable("own")
class Subclassed(keras.Model):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.conv = keras.layers.Conv2D(4, 3)
        self.norm = keras.layers.BatchNormalization()
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.dense = keras.layers.Dense(11, activation="softmax")

    def call(self, x):
        return self.dense(self.pool(keras.ops.relu(self.norm(self.conv(x)))))
"""


def convert(model: Path, out: Path, *more: str) -> int:
    return main(["convert", str(model), "--out", str(out), "--data", str(TEST_IMAGES), *more])


def head(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Dense(11, activation="softmax")(layers.Flatten()(x))


def check_answers(model: Path, out: Path, imports: tuple[str, ...] = ()) -> None:
    """float32 answers as Keras does, and the others are there."""
    from harness.run import worker

    variants = manifest.read(out)
    assert set(variants) == set(manifest.KINDS)
    data = dataset.take(dataset.load(CALIBRATION, DIGITS), np.arange(20))
    expected, _ = keras_model.predict_folded_too(model, data, imports)
    float32 = worker.load((out / "float32.tflite").read_bytes(), 1)
    for image, answer in zip(float32.quantize(data.inputs()), expected, strict=True):
        float32.set(image)
        float32.invoke()
        np.testing.assert_allclose(float32.get(), answer, atol=FLOAT32_DIFFERENCE)


def test_a_sequential_model_is_folded_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Built, it is a graph like any other."""
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), layers.Conv2D(4, 3, 2), layers.BatchNormalization(), layers.ReLU(), layers.Flatten()]
    )
    model.add(layers.Dense(11, activation="softmax"))
    model.save(tmp_path / "sequential.keras")
    assert convert(tmp_path / "sequential.keras", tmp_path / "out") == 0
    check_answers(tmp_path / "sequential.keras", tmp_path / "out")
    assert manifest.read(tmp_path / "out")["int8"].batch_norms_folded == 1
    assert "not folded" not in capsys.readouterr().out


def test_a_fold_that_is_not_exact_is_asked_for_every_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model folded exactly is asked for a sample; one whose fold errs answers all, so that the stage is shown."""
    image = keras.Input((28, 28, 1))
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, 2, name="convolution")(image)))
    path = tmp_path / "model.keras"
    keras.Model(image, head(x)).save(path)
    data = dataset.load(CALIBRATION, DIGITS)
    outputs, folded = keras_model.predict_folded_too(path, data)
    assert outputs.shape == (220, 11)
    assert folded is None

    def wrong(model: keras.Model) -> Fold:
        result = fold(model)
        result.model.get_layer("convolution").bias.assign_add([0.3, 0, 0, 0])
        return result

    monkeypatch.setattr("converters.fold.fold", wrong)
    keras_model._with_folded.cache_clear()
    again, folded = keras_model.predict_folded_too(path, data)
    keras_model._with_folded.cache_clear()
    np.testing.assert_array_equal(again, outputs)
    assert folded is not None
    assert np.abs(folded - outputs).max() > 1e-3


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's, with a layer and a model of their own, found by Python."""
    (tmp_path / "their_layers.py").write_text(OWN_LAYER)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "their_layers"


def test_layers_of_ones_own(own_module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --import refused, saying what to do; with it converted, the batch norm at such a layer kept and named."""
    import importlib

    own = importlib.import_module(own_module)
    image = keras.Input((28, 28, 1))
    x = layers.BatchNormalization(name="after_own")(own.Halve()(image))
    keras.Model(image, head(layers.ReLU()(x))).save(tmp_path / "own.keras")
    assert convert(tmp_path / "own.keras", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "holds Halve, a class that Keras does not know" in error
    assert "--import" in error
    assert error.count("\n") == 1
    assert convert(tmp_path / "own.keras", tmp_path / "out", "--import", own_module) == 0
    assert "1 batch norms were not folded: after_own: its input comes from" in capsys.readouterr().out
    check_answers(tmp_path / "own.keras", tmp_path / "out", (own_module,))
    assert convert(tmp_path / "own.keras", tmp_path / "out", "--import", "no_such_module") == 2
    assert "--import no_such_module: ModuleNotFoundError" in capsys.readouterr().err


def test_a_subclassed_model_takes_the_plain_path(
    own_module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is inside is not folded, and that is said."""
    import importlib

    model = importlib.import_module(own_module).Subclassed()
    model(np.zeros((1, 28, 28, 1), np.float32))
    model.save(tmp_path / "sub.keras")
    assert convert(tmp_path / "sub.keras", tmp_path / "out", "--import", own_module) == 0
    shown = capsys.readouterr().out
    assert "a subclassed model: converted as it is" in shown
    assert "were not folded: subclassed/" in shown
    check_answers(tmp_path / "sub.keras", tmp_path / "out", (own_module,))


def test_control_flow_takes_the_plain_path(own_module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A loop converts; what is inside stays float32, and that is said."""
    import importlib

    image = keras.Input((28, 28, 1))
    x = importlib.import_module(own_module).Repeat()(layers.Conv2D(4, 3, 2)(image))
    keras.Model(image, head(x)).save(tmp_path / "loop.keras")
    assert convert(tmp_path / "loop.keras", tmp_path / "out", "--import", own_module) == 0
    assert "loops or branches" in capsys.readouterr().out
    check_answers(tmp_path / "loop.keras", tmp_path / "out", (own_module,))


def test_several_inputs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The data are single images: one line says what the model takes."""
    one, two = keras.Input((28, 28, 1)), keras.Input((28, 28, 1))
    keras.Model([one, two], head(layers.Add()([one, two]))).save(tmp_path / "two.keras")
    assert convert(tmp_path / "two.keras", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "2 inputs" in error
    assert error.count("\n") == 1


COLOUR = ModelSpec(image_size=(12, 16), channels=3, class_names=("a", "b", "c"), pixel_range=(-1.0, 1.0))


def pooled(shape: tuple[int | None, ...], *end: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(shape), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), *end])


def save(model: keras.Model, path: Path) -> Path:
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 1, weights.shape) for weights in model.get_weights()])
    model.save(path)
    return path


def test_logits_are_given_a_softmax(tmp_path: Path) -> None:
    """In the reference as in the variants, and that is said; a model that gives probabilities stays as it is."""
    from harness.artifacts.outputs import softmax
    from harness.run import worker

    source = save(pooled(COLOUR.shape, layers.Dense(3)), tmp_path / "logits.keras")
    (tmp_path / "logits.toml").write_text(COLOUR.to_toml())
    assert convert(source, tmp_path / "out", "--variants", "float32") == 0
    variant = manifest.read(tmp_path / "out")["float32"]
    assert variant.spec == COLOUR
    assert variant.notes == ("the model gives logits: a softmax was added, in the reference as in the variants",)
    pixels = np.random.default_rng(1).integers(0, 256, (5, *COLOUR.shape), np.uint8)
    data = dataset.build(pixels, [0] * 5, list("vwxyz"), COLOUR)
    logits = keras.saving.load_model(source).predict(data.inputs(), verbose=0)
    expected = softmax(logits.astype(np.float64))
    np.testing.assert_allclose(keras_model.predict(source, data), expected, atol=FLOAT32_DIFFERENCE)
    float32 = worker.load((tmp_path / "out" / "float32.tflite").read_bytes(), 1)
    for image, answer in zip(float32.quantize(data.inputs()), expected, strict=True):
        float32.set(image)
        float32.invoke()
        np.testing.assert_allclose(float32.get(), answer, atol=FLOAT32_DIFFERENCE)
    plain = save(pooled(COLOUR.shape, layers.Dense(3, activation="softmax")), tmp_path / "plain.keras")
    assert keras_model.classifier(plain, COLOUR).notes == ()


@pytest.mark.parametrize(
    ("shape", "end", "says"),
    [
        ((12, 16, 3), layers.Dense(3, activation="sigmoid"), "gives 0 to 1 for each class"),
        ((12, 16, 3), layers.Dense(1, activation="sigmoid"), "another model than the one converted?"),
        ((12, 16, 4), layers.Dense(3, activation="softmax"), "[12, 16, 4], 3 classes; expected 16x12 RGB images"),
        ((12, 16, 3), layers.Reshape((2, 2)), "is for 16x12 RGB images, output_0 [2, 2]; expected"),
        ((16, 16, 3), layers.Dense(3, activation="softmax"), "another model than the one converted?"),
    ],
)
def test_what_is_no_classifier_of_images_is_refused(
    shape: tuple[int, ...], end: keras.Layer, says: str, tmp_path: Path
) -> None:
    """Several labels an image, two classes for three, four channels, a matrix: one line says so."""
    source = save(pooled(shape, end), tmp_path / "odd.keras")
    with pytest.raises(SetupError) as caught:
        keras_model.classifier(source, COLOUR)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_of_any_size_takes_the_one_it_is_told(tmp_path: Path) -> None:
    """Its graph is made anew for that size, with the same weights."""
    source = save(pooled((None, None, 3), layers.Dense(3, activation="softmax")), tmp_path / "any.keras")
    assert keras_model.signature(source).image_size is None
    graph = keras_model.classifier(source, COLOUR).graph
    assert graph.input_shape == (None, *COLOUR.shape)
    images = np.random.default_rng(0).random((2, *COLOUR.shape), np.float32)
    given = keras.saving.load_model(source).predict(images, verbose=0)
    np.testing.assert_allclose(graph.predict(images, verbose=0), given, atol=FLOAT32_DIFFERENCE)


def test_a_file_of_keras_2_loads(tmp_path: Path) -> None:
    """An .h5 file converts, its batch norm folded."""
    assert convert(KERAS_2, tmp_path / "out") == 0
    check_answers(KERAS_2, tmp_path / "out")
    assert manifest.read(tmp_path / "out")["float32"].batch_norms_folded == 1


def test_broken_and_misnamed_files_of_keras_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A truncated one, and one named .keras: one line each."""
    (tmp_path / "short.h5").write_bytes(KERAS_2.read_bytes()[:3000])
    shutil.copy(KERAS_2, tmp_path / "misnamed.keras")
    for name, says in (("short.h5", "written by Keras 2?"), ("misnamed.keras", "rename it")):
        assert convert(tmp_path / name, tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1


def test_arrays_that_do_not_fit_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    """A dataset at hand with NaN, floats or another size never reaches the converter."""
    good = dataset.load(CALIBRATION, DIGITS)
    floats = good.images.astype(np.float32)
    floats[0] = np.nan
    cases: tuple[tuple[Any, str], ...] = (
        (floats, "1 images with NaN"),
        (good.images[:, 2:], "expected \\[N, 28, 28, 1\\]"),
    )
    for images, says in cases:
        spoilt = dataset.build(images, good.labels.tolist(), good.names, DIGITS)
        with pytest.raises(SetupError, match=says):
            conversion.convert(tiny_model, tmp_path / "out", Images(spoilt))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """Of two files neither is replaced when the second does not fit, and no remains are left."""
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"old")
    with files_no_larger_than(100_000), pytest.raises(SetupError, match="cannot be written"):
        write_atomic_together({small: b"new", large: bytes(200_000)})
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    assert small.read_bytes() == b"old"


def test_a_disk_that_fills_during_conversion(tiny_model: Path, tmp_path: Path) -> None:
    """No file under a final name, one line."""
    with ExitStack() as full:

        @contextmanager
        def step(name: str) -> Iterator[None]:
            yield
            if name.startswith("running"):
                full.enter_context(files_no_larger_than(50_000))

        with pytest.raises(SetupError, match="cannot be written"):
            conversion.convert(tiny_model, tmp_path / "out", Images(CALIBRATION), step)
    assert not list((tmp_path / "out").iterdir())
