"""`harness evaluate` on Keras and TFLite models: figures, misses, every refusal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.check.references import obtain
from harness.cli import main
from harness.core.errors import SetupError
from harness.images import dataset
from harness.tools.evaluate import evaluate, evaluate_all
from tests.conftest import DIGITS, ROOT, quiet_step, refusal, stored_model


def run(model: Path, data: Path, *more: str) -> int:
    return main(["evaluate", str(model), "--data", str(data), *more])


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def convert(model: Any, path: Path) -> Path:
    """Any Keras model as a float .tflite file, straight from TensorFlow."""
    import tensorflow as tf

    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return path


def test_a_keras_model_is_evaluated(
    tiny_model: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Accuracy, each class, confusion matrix and misses agree with the model's own outputs, which are kept."""
    stored = tmp_path / "e.json"
    assert run(tiny_model, few_images, "--json", str(stored), "--models", str(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert len(list(tmp_path.glob("reference-*.npz"))) == 1
    data = dataset.load(few_images, DIGITS)
    outputs = obtain(tiny_model, data, tmp_path, quiet_step).outputs
    found, answers = read(stored), outputs.argmax(axis=1)
    assert found["schema"] == "harness-evaluation/2"
    assert found["accuracy"] == pytest.approx((answers == data.labels).mean())
    assert found["confusion"][3][5] == int(((data.labels == 3) & (answers == 5)).sum())
    assert found["classes"][3]["recall"] == pytest.approx((answers[data.labels == 3] == 3).mean())
    misses = [data.names[i] for i in np.flatnonzero(answers != data.labels)]
    assert sorted(miss["image"] for miss in found["misses"]) == sorted(misses)
    confidences = [miss["confidence"] for miss in found["misses"]]
    assert confidences == sorted(confidences, reverse=True)
    assert f"accuracy {found['accuracy']:.2%}" in shown
    assert found["misses"][0]["image"] in shown


def test_a_variant_is_evaluated_without_tensorflow(
    tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path: Path
) -> None:
    """int8 by its own scale and zero point, TensorFlow and the extras out of reach; float32 answers as Keras does."""
    block = "import sys; sys.modules.update(dict.fromkeys(['tensorflow', 'keras', 'jinja2', 'matplotlib']))\n"
    call = "from harness.cli import main; sys.exit(main(sys.argv[1:]))"
    for kind in ("float32", "int8"):
        model, stored = tiny_variants / f"{kind}.tflite", tmp_path / f"{kind}.json"
        arguments = ["evaluate", str(model), "--data", str(few_images), "--json", str(stored)]
        done = subprocess.run(
            [sys.executable, "-c", block + call, *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    by_keras = evaluate(tiny_model, few_images, tmp_path)
    float32, int8 = read(tmp_path / "float32.json"), read(tmp_path / "int8.json")
    assert float32["confusion"] == by_keras.scores.confusion.tolist()
    assert "ai-edge-litert" in float32["runtime"]
    assert all(0 < miss["confidence"] <= 1 for miss in int8["misses"])
    assert abs(int8["accuracy"] - float32["accuracy"]) < 0.1


def test_a_page_without_the_extra_says_what_to_install(tiny_variants: Path, few_images: Path, tmp_path: Path) -> None:
    """One line and exit code 2, before the model is run."""
    code = "import sys; sys.modules['jinja2'] = None\nfrom harness.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["evaluate", str(tiny_variants / "int8.tflite"), "--data", str(few_images)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--html", tmp_path / "e.html"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "pip install '.[report]'" in done.stderr


def test_misses_come_first_then_the_least_confident(tiny_variants: Path, few_images: Path, tmp_path: Path) -> None:
    """The order of a gallery: wrong and sure, wrong and unsure, right and unsure, right and sure."""
    done = evaluate(tiny_variants / "float32.tflite", few_images, tmp_path)
    right = (done.answers == done.data.labels)[done.order]
    assert sorted(done.order) == list(range(110))
    assert 0 < right.sum() < 110
    assert not right[: len(done.misses)].any()
    assert right[len(done.misses) :].all()
    confidences = done.confidences[done.order]
    assert (np.diff(confidences[~right]) <= 0).all()
    assert (np.diff(confidences[right]) >= 0).all()


def test_classes_without_an_image_have_no_recall(
    tiny_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images of two classes only: null in the file and a dash in the table for the others."""
    images, stored = tmp_path / "two", tmp_path / "e.json"
    images.mkdir()
    for name in ("3_1.jpg", "3_2.jpg", "7_1.jpg"):
        (images / name).write_bytes((few_images / name).read_bytes())
    assert run(tiny_variants / "float32.tflite", images, "--json", str(stored)) == 0
    classes = read(stored)["classes"]
    assert [c["images"] for c in classes] == [0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]
    assert classes[0]["recall"] is None
    assert classes[3]["recall"] is not None
    row = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("0 "))
    assert row[4] == "-"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.tflite", None, "expected a model"),
        ("m.pb", b"", "*.keras, *.h5 or *.tflite"),
        ("m.h5", b"", "not a .keras file"),
        ("m.keras", b"no", "not a .keras file"),
        ("m.tflite", b"no model at all", "not a TFLite file"),
        ("m.tflite", b"\x1c\0\0\0TFL3" + bytes(500), "does not run"),
    ],
)
def test_what_is_no_model_is_refused(
    name: str, content: bytes | None, said: str, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing, of another kind, empty inside: one line and exit code 2."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert said in refusal(capsys, run(tmp_path / name, few_images, "--models", str(tmp_path)))


def test_a_truncated_variant_is_refused(
    tiny_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a file, whether the interpreter refuses it or crashes on it."""
    content = (tiny_variants / "int8.tflite").read_bytes()
    (tmp_path / "half.tflite").write_bytes(content[: len(content) // 2])
    assert "half.tflite: does not run" in refusal(capsys, run(tmp_path / "half.tflite", few_images))


def test_images_of_a_class_that_the_model_has_not_are_refused(
    few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the file, and the classes that there are."""
    ten = stored_model("ten", classes=10)
    said = refusal(capsys, run(ten, few_images, "--models", str(tmp_path)))
    assert "10_1.jpg (name says class 10; the classes are 0-9)" in said


def test_a_models_own_size_and_classes_are_read_from_it(few_images: Path, tmp_path: Path) -> None:
    """Twelve classes, 32x20 pixels, logits: nothing need be told of a bare .tflite file, confidences are shares."""
    import keras

    model = keras.Sequential([keras.Input((20, 32, 1)), keras.layers.Flatten(), keras.layers.Dense(12)])
    stored = tmp_path / "e.json"
    file = convert(model, tmp_path / "m.tflite")
    assert run(file, few_images, "--json", str(stored)) == 0
    assert len(read(stored)["confusion"]) == 12
    assert all(1 / 12 <= miss["confidence"] <= 1 for miss in read(stored)["misses"])


def test_a_model_that_answers_nan_is_refused(
    few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN is no answer and no figure is made of it, in Keras as in TFLite."""
    import keras

    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(11)])
    model.layers[-1].bias.assign([0.0] * 10 + [np.nan])
    model.save(tmp_path / "nan.keras")
    for file, reason in (
        (tmp_path / "nan.keras", "NaN or infinity in 1 of 2 weights"),
        (convert(model, tmp_path / "nan.tflite"), "NaN or infinite outputs on 110 of 110 images"),
    ):
        assert reason in refusal(capsys, run(file, few_images, "--models", str(tmp_path)))


def test_a_folder_of_models_is_evaluated_past_a_broken_one(
    tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path: Path
) -> None:
    """Keras models first, then variants; what cannot be evaluated is named. Nothing at all is an error."""
    (tmp_path / "sub").mkdir()
    for path in (tiny_variants / "int8.tflite", tiny_model):
        (tmp_path / "sub" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.tflite").write_bytes(b"")
    done, refused = evaluate_all(tmp_path, few_images, tiny_variants)
    assert [one.model.name for one in done] == ["tiny.keras", "int8.tflite"]
    assert len(refused) == 1
    assert "broken.tflite" in refused[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SetupError, match=r"expected .keras or .tflite models in it"):
        evaluate_all(tmp_path / "empty", few_images, tiny_variants)
