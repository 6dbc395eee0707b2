"""Where int8 changes too much, `harness convert --recover` and `--qat` make a file that changes less, and say how."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

from converters import equalize, keras_model, quantize
from converters import quantization_training as training
from converters.calibration import Ranges
from converters.float32 import convert as to_float32
from converters.interpreter import predict
from converters.quantization_training import Plan
from harness.artifacts import manifest
from harness.artifacts.manifest import RECOVERED
from harness.cli import main
from harness.core.outcome import EXIT_CODES as OUTCOME_CODES
from harness.core.outcome import Outcome
from harness.images import dataset, spec
from harness.images.dataset import Dataset
from tests.conftest import refusal
from tests.converters import fragile

Parts = tuple[bytes, bytes, Ranges, Path, Dataset]


@pytest.fixture(scope="module")
def folder() -> Path:
    return fragile.stored()


def command(folder: Path, out: Path, *options: str) -> list[str]:
    images = ["--calibration", str(folder / "calibration"), "--data", str(folder / "test")]
    return ["convert", str(folder / "model.keras"), "--variants", "int8", "--out", str(out), *images, *options]


def test_recipes_are_tried_in_order_of_cost_and_the_best_is_taken(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without labels, by the Keras model's answers. The manifest has the table that is printed."""
    flat = tmp_path / "unlabelled"
    flat.mkdir()
    for number, file in enumerate(sorted((folder / "training").rglob("*.png"))):
        shutil.copy(file, flat / f"photo {number}.png")
    options = ("--recover", str(flat), "--unlabelled", "--training-steps", "150")
    code = main(command(folder, tmp_path / "out", *options))
    recovery = manifest.read(tmp_path / "out")[RECOVERED].recovery
    assert recovery is not None
    assert code == OUTCOME_CODES[recovery.attempts[-1].outcome or Outcome.FAIL]
    recipes = [attempt.recipe for attempt in recovery.attempts]
    assert recipes[0] == "as always"
    assert recipes[-1] == recovery.recipe == "quantization-aware training"
    assert recovery.attempts[-1].flips < 0.7 * recovery.attempts[0].flips
    assert recovery.training is not None
    assert recovery.training.loss < 0.5 * recovery.training.loss_before
    assert (recovery.training.learned_from, recovery.training.steps, recovery.images) == ("reference", 150, 400)
    printed = capsys.readouterr().out
    assert f"flips of {recovery.images}" in printed
    assert all(recipe in printed for recipe in recipes)
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--qat", "test"], "200 images are of the test set"),
        (["--qat", "training", "--learn-from", "labels", "--unlabelled"], "1600 of 1600 images have none"),
        (["--qat", "training", "--variants", "int8_recovered", "--calibration", "none"], "expected a folder of images"),
    ],
)
def test_images_that_must_not_be_used_are_refused(
    folder: Path, options: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, before anything is trained."""
    paths = [str(folder / option) if option in ("test", "training") else option for option in options]
    assert says in refusal(capsys, main(command(folder, tmp_path, *paths)))


def test_a_model_in_int8_already_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keras's own quantization leaves nothing to train; a .tflite file is no model to convert."""
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some layers have nothing to quantize
        model.quantize("int8")
    model.save(tmp_path / "model.keras")
    shutil.copy(folder / "model.toml", tmp_path)
    options = command(folder, tmp_path / "out", "--qat", str(folder / "training"))
    assert "int8 already" in refusal(capsys, main(["convert", str(tmp_path / "model.keras"), *options[2:]]))


@pytest.fixture(scope="module")
def parts(folder: Path) -> Parts:
    """A float32 file, the int8 file made of it, the model and images."""
    path = folder / "model.keras"
    takes = spec.combine(keras_model.signature(path), spec.load_config(path), path)
    data = dataset.load(folder / "calibration", takes)
    content, ranges = equalize.calibrate(to_float32(path, takes).content, data)
    return content, quantize.make("int8", content, ranges, "channel"), ranges, path, data


def start(parts: Parts, checkpoint: Path, plan: Plan) -> training.Progress:
    float32, int8, ranges, path, data = parts
    return training.start(float32, int8, ranges, path, (), data, data, plan, checkpoint)


@pytest.mark.parametrize("teacher", ["labels", "reference"])
def test_training_goes_on_where_it_was_killed(teacher: training.Source, parts: Parts, tmp_path: Path) -> None:
    """From the last checkpoint, with the same state, on the same batches; from the start if that is damaged."""
    plan, checkpoint = Plan(teacher, steps=10, batch_size=8), tmp_path / "checkpoint.npz"
    start(parts, checkpoint, plan)
    training.advance()
    before = training.advance()
    weights = training._trainers[0].model.get_weights()
    assert start(parts, checkpoint, plan) == before
    assert before.step == 2
    trainer = training._trainers[0]
    for old, new in zip(weights, trainer.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for first, again in zip(trainer._batch(2), trainer._batch(2), strict=True):
        np.testing.assert_array_equal(first, again)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert start(parts, checkpoint, plan).step == 0


def test_the_original_teaches_its_answers_to_moved_images_and_mixtures(parts: Parts, tmp_path: Path) -> None:
    """Half of a batch are images moved by up to a pixel of eight, half lie between two of them, and the answers are the
    Keras model's; labels teach images as they are."""
    data = parts[-1]
    start(parts, tmp_path / "a.npz", Plan("reference", steps=10, batch_size=8))
    inputs, answers = training._trainers[0]._batch(0)
    known = {image.tobytes() for image in data.inputs()}
    wider = np.pad(data.inputs(), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    moved = {wide[y : y + 8, x : x + 8].tobytes() for wide in wider for y in range(3) for x in range(3)}
    assert [image.tobytes() in moved for image in inputs] == [True, False] * 4
    assert not all(image.tobytes() in known for image in inputs[::2])
    path = parts[3]
    np.testing.assert_allclose(answers, keras_model.answers(path, data.spec)(inputs), atol=1e-6)
    start(parts, tmp_path / "b.npz", Plan("labels", steps=10, batch_size=8))
    inputs, wanted = training._trainers[0]._batch(0)
    assert all(image.tobytes() in known for image in inputs)
    assert set(np.unique(wanted)) == {0, 1}


def test_a_loss_that_diverges_stops_training(parts: Parts, tmp_path: Path) -> None:
    """The best state before is kept, and makes a file that answers."""
    progress = start(parts, tmp_path / "checkpoint.npz", Plan("labels", steps=20, batch_size=8, rate=1e4))
    while not progress.stopped:
        progress = training.advance()
    assert "the best state before is kept" in progress.stopped
    content, _ = training.finish({})
    assert np.isfinite(predict(content, parts[-1])).all()
