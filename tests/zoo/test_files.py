"""Model files as people have them: opened where that is safe, else named as what they are, with a way out."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from converters import keras_file
from harness.core.errors import SetupError

KERAS_2 = Path(__file__).parent / "keras2"  # written by TensorFlow 2.15, with its own answers


@pytest.mark.parametrize(
    ("file", "note"),
    [
        ("operations.h5", None),
        ("teachable.h5", None),
        ("hard_sigmoid.h5", "hard_sigmoid as Keras 2 computes it"),
        ("attention.keras", "dtype policy mixed_float16"),
    ],
)
def test_files_of_keras_2_answer_as_they_did(file: str, note: str | None) -> None:
    """Arithmetic as layers, names with slashes, dropped settings, nested models: the same answers as in TF 2.15."""
    opened = keras_file.load(KERAS_2 / file)
    shape = opened.model.inputs[0].shape[1:]
    images = np.random.default_rng(1).integers(0, 256, (6, *shape)).astype("float32") / 255
    expected = np.load(KERAS_2 / "answers.npz")[file.split(".")[0]]
    assert np.ptp(expected, axis=0).max() > 0.01
    tolerance = 2e-3 if note and "float16" in note else 1e-5
    np.testing.assert_allclose(opened.model.predict(images, verbose=0), expected, atol=tolerance)
    assert [text for text in opened.notes if text.startswith(str(note))] == list(opened.notes)


@pytest.mark.parametrize(
    ("policy", "suffix"),
    [
        ("mixed_bfloat16", ".keras"),
        ("bfloat16", ".keras"),
        ("float64", ".keras"),
        ("mixed_float16", ".h5"),
        ("float16", ".h5"),
    ],
)
def test_other_floats_are_read_as_float32(policy: str, suffix: str, tmp_path: Path) -> None:
    """Whatever the policy, also of a part only: float32 throughout, its own answers but for rounding, and said."""
    image = keras.Input((8, 8, 1))
    inner = keras.Sequential(
        [keras.Input((6, 6, 4)), layers.BatchNormalization(dtype=policy), layers.ReLU(dtype=policy)]
    )
    x = inner(layers.Conv2D(4, 3, dtype=policy)(image))
    x = keras.ops.cast(x, "float16") if suffix == ".keras" else x  # an .h5 file holds no operations
    x = layers.Dense(4, activation="softmax")(layers.Flatten()(x))
    model = keras.Model(image, x)
    path = tmp_path / f"model{suffix}"
    model.save(path)
    opened = keras_file.load(path)
    assert any(policy in note for note in opened.notes)
    parts = [*opened.model.layers, *next(part for part in opened.model.layers if hasattr(part, "layers")).layers]
    assert {layer.dtype_policy.name for layer in parts if isinstance(layer, keras.layers.Layer)} == {"float32"}
    images = np.random.default_rng(0).random((5, 8, 8, 1), np.float32)
    np.testing.assert_allclose(opened.model(images), np.asarray(model(images), np.float32), atol=0.02)


def test_a_plain_file_is_opened_as_it_is(tmp_path: Path) -> None:
    """No note, no copy."""
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(4)])
    model.save(tmp_path / "plain.keras")
    assert keras_file.load(tmp_path / "plain.keras").notes == ()


def folder(*names: str) -> dict[str, bytes]:
    return dict.fromkeys(names, b"x")


@pytest.mark.parametrize(
    ("path", "files", "says"),
    [
        (
            "saved",
            folder("saved/saved_model.pb", "saved/variables/v"),
            "a SavedModel folder; expected a Keras model: load",
        ),
        ("runs", folder("runs/checkpoint", "runs/cp.index"), "a TensorFlow checkpoint"),
        ("cp.ckpt", folder("cp.ckpt.index", "cp.ckpt.data-00000-of-00001"), "a TensorFlow checkpoint"),
        ("cp.ckpt.index", folder("cp.ckpt.index"), "a TensorFlow checkpoint"),
        ("cp.data-00000-of-00001", folder("cp.data-00000-of-00001"), "a TensorFlow checkpoint"),
        ("models", folder("models/a.keras"), "a folder; expected a Keras model: name the model's file"),
        ("m.tflite", {"m.tflite": b"\x1c\0\0\0TFL3" + bytes(20)}, "a .tflite file, a variant"),
        ("m.keras", {"m.keras": b"\x1c\0\0\0TFL3" + bytes(20)}, "a .tflite file, a variant"),
        ("m.onnx", folder("m.onnx"), "an ONNX model"),
        ("frozen.pb", folder("frozen.pb"), "a TensorFlow graph"),
        ("m.pt", folder("m.pt"), "a PyTorch model"),
        ("m.PTH", folder("m.PTH"), "a PyTorch model"),
        ("m.safetensors", folder("m.safetensors"), "weights without the network"),
        ("m.json", folder("m.json"), "a network without weights"),
        ("m.pkl", folder("m.pkl"), "a pickle"),
        ("m.keras", folder("m.keras"), "not a .keras file"),
        ("gone.keras", {}, "No such file"),
    ],
)
def test_what_is_no_keras_model_is_named(path: str, files: dict[str, bytes], says: str, tmp_path: Path) -> None:
    """One line: what it is, and what to do."""
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SetupError, match=says) as caught:
        keras_file.load(tmp_path / path)
    assert "\n" not in str(caught.value)


def test_weights_and_archives_of_others(tmp_path: Path) -> None:
    """Weights of Keras 2 and 3, arrays of NumPy, and a PyTorch archive, by any name."""
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(4)])
    model.save_weights(tmp_path / "keras3.weights.h5")
    shutil.copy(KERAS_2 / "only.weights.h5", tmp_path / "keras2.h5")
    np.savez(tmp_path / "arrays.npz", w=np.zeros(3))
    shutil.copy(tmp_path / "arrays.npz", tmp_path / "arrays.keras")
    for name in ("keras3.weights.h5", "keras2.h5", "arrays.npz", "arrays.keras"):
        with pytest.raises(SetupError, match="weights without the network; expected a Keras model: build the network"):
            keras_file.load(tmp_path / name)


def test_functions_that_are_not_known_are_not_looked_up() -> None:
    """Named, with the way out; a Lambda stays refused."""
    with pytest.raises(SetupError, match=r"nn.local_response_normalization.* rebuild the model in Keras 3"):
        keras_file.load(KERAS_2 / "unknown_operation.h5")


def test_weights_that_cannot_be_converted(tmp_path: Path) -> None:
    """NaN is told with the weight's name, and more than a .tflite file holds before anything is converted."""
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(4, name="last")])
    with pytest.raises(SetupError, match="holds less than 2 GiB"):
        keras_file.check_weights(model, tmp_path / "large.keras", largest_bytes=1000)
    model.set_weights([np.full((64, 4), np.nan), np.zeros(4)])
    model.save(tmp_path / "nan.keras")
    with pytest.raises(SetupError, match=r"NaN or infinity in 1 of 2 weights, the first of them .*last/kernel"):
        keras_file.load(tmp_path / "nan.keras")
