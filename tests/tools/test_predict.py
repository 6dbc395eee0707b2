"""`harness predict`: pictures to classes and confidences, by Keras and TFLite alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli import main
from harness.images import dataset
from tests.conftest import DIGITS, FLOAT32_DIFFERENCE, refusal


def answers(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert main(["predict", *arguments, "--json", "-"]) == code
    return json.loads(capsys.readouterr().out)


def test_keras_and_its_variant_see_the_same(
    tiny_model: Path, tiny_variants: Path, few_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three likeliest classes each, by the Keras model's own outputs; float32 gives the same, images in their order."""
    import keras

    names = [str(few_images / name) for name in ("7_1.jpg", "3_2.jpg")]
    by_keras = answers(capsys, *names, "--model", str(tiny_model), "--models", str(tiny_variants), "--top", "3")
    by_float32 = answers(capsys, *names, "--model", str(tiny_variants / "float32.tflite"), "--top", "3")
    assert by_keras["runtime"] == "Keras"
    assert "ai-edge-litert" in by_float32["runtime"]
    pixels = np.stack([dataset.read_image(Path(name), DIGITS) for name in names])
    expected = keras.saving.load_model(tiny_model).predict(DIGITS.to_input(pixels), verbose=0)
    for found in (by_keras, by_float32):
        assert [one["image"] for one in found["images"]] == names
        for one, outputs in zip(found["images"], expected, strict=True):
            assert [top["class"] for top in one["top"]] == [str(i) for i in np.argsort(-outputs)[:3]]
            assert [top["confidence"] for top in one["top"]] == pytest.approx(
                sorted(outputs)[:-4:-1], abs=FLOAT32_DIFFERENCE
            )


def test_a_bad_image_does_not_cost_the_others(
    tiny_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder, a file that is no image and one that is missing: a line each, exit code 2, the rest answered."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(few_images / "1_1.jpg", folder / "sub" / "any name.jpg")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden").write_text("not looked at")
    stored = tmp_path / "answers.json"
    named = [str(folder), str(few_images / "2_1.jpg"), str(tmp_path / "missing.jpg")]
    model = ["--model", str(tiny_variants / "int8.tflite")]
    assert main(["predict", *named, *model, "--json", str(stored)]) == 2
    shown = capsys.readouterr()
    first, second = shown.err.splitlines()
    assert f"{folder / 'notes.txt'}: not an image" in first
    assert f"{tmp_path / 'missing.jpg'}: unreadable" in second
    assert "any name.jpg" in shown.out
    assert "2_1.jpg" in shown.out
    found = json.loads(stored.read_text())
    assert (found["schema"], len(found["images"]), len(found["problems"])) == ("harness-prediction/1", 2, 2)


def test_class_names_and_pixels_may_be_told(
    tiny_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By --model-config, over what was stored when the model was converted; pixels change the answer."""
    config, model = tmp_path / "own.toml", ["--model", str(tiny_variants / "float32.tflite")]
    image = str(few_images / "7_1.jpg")
    names = [f"class {i}" for i in range(11)]
    config.write_text(f"class_names = {json.dumps(names)}\npixel_range = [1, 0]")
    plain = answers(capsys, image, *model)["images"][0]["top"][0]
    told = answers(capsys, image, *model, "--model-config", str(config))["images"][0]["top"][0]
    assert told["class"] in names
    assert told["confidence"] != plain["confidence"]


def test_nothing_to_predict_is_refused(tiny_variants: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder, no model, no class asked for, a config for another model."""
    model = ["--model", str(tiny_variants / "float32.tflite")]
    config = tmp_path / "own.toml"
    config.write_text('class_names = ["a", "b"]')
    (tmp_path / "empty").mkdir()
    cases = {
        "no image in the folders": [str(tmp_path / "empty"), *model],
        "expected a model": ["a.jpg", "--model", str(tmp_path / "none.tflite")],
        "--top 0": ["a.jpg", *model, "--top", "0"],
        "class_names has 2 names, the model gives 11": ["a.jpg", *model, "--model-config", str(config)],
    }
    for says, arguments in cases.items():
        assert says in refusal(capsys, main(["predict", *arguments]))
