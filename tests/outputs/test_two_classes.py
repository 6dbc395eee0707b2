"""A model with one output for two classes is judged like one that has an output for each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness.artifacts import manifest
from harness.cli import main
from tests.conftest import FEW_IMAGES_POLICY
from tests.outputs.rig import SHAPE, TWO, Home, paint


@pytest.fixture(scope="module", params=["sigmoid", "linear"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Its model's answer is `light` where the mean is above the middle: a probability, or one logit."""
    import keras
    from keras import layers

    home = Home(tmp_path_factory.mktemp(request.param))
    image = keras.Input(SHAPE)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu", name="convolution")(image))
    model = keras.Model(image, layers.Dense(1, activation=request.param, name="answer")(x))
    model.get_layer("convolution").set_weights([np.full((3, 3, 3, 4), 1 / 27), np.zeros(4)])
    model.get_layer("answer").set_weights([np.full((4, 1), 5.0), np.array([-10.0])])
    model.save(home.model)
    (home.folder / "model.toml").write_text(f"class_names = {json.dumps(TWO)}\n")
    paint(home.folder / "calibration", 20, 1)
    paint(home.folder / "test", 100, 2)
    assert home.convert("--variants", "float32,int8") == 0
    assert home.check("--policy", str(FEW_IMAGES_POLICY)) == 0
    return home


def test_two_classes_are_judged(home: Home) -> None:
    """From one number in every file to a verdict on two classes; the file's output stays one number."""
    notes = manifest.read(home.variants)["float32"].notes
    assert any("a sigmoid was added" in note for note in notes) == (home.folder.name.startswith("linear"))
    float32, int8 = home.record["cells"]
    assert [part["name"] for part in float32["parity"]["classes"]] == list(TWO)
    assert float32["parity"]["reference_accuracy"] > 0.9
    assert float32["parity"]["flips"] == 0
    assert int8["parity"]["flips"] <= 2
    assert 0 < int8["parity"]["max_probability_difference"] < 0.1
    arrays = np.load(home.folder / "check.npz")
    assert arrays["int8.outputs"].shape == (200, 1)
    assert arrays["reference"].shape == (200, 2)
    assert main(["verdict", str(home.folder / "check.json")]) == 0


@pytest.mark.parametrize("name", ["model.keras", "variants/int8.tflite"])
def test_two_classes_are_evaluated_and_predicted(home: Home, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By their names, from the Keras model and from a file."""
    shared = ["--models", str(home.variants)]
    result = home.folder / "evaluation.json"
    model = str(home.folder / name)
    assert main(["evaluate", model, *shared, "--data", str(home.folder / "test"), "--json", str(result)]) == 0
    evaluation = json.loads(result.read_text())
    assert [part["name"] for part in evaluation["classes"]] == list(TWO)
    assert evaluation["accuracy"] > 0.9
    capsys.readouterr()
    assert main(["predict", str(home.folder / "test" / "light" / "0.png"), "--model", model, *shared]) == 0
    assert "light" in capsys.readouterr().out.splitlines()[2]


def test_explain_and_report_name_the_two_classes(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No class is called dead, and the page has both."""
    assert main(["explain", "int8", "--models", str(home.variants), "--data", str(home.folder / "test")]) == 0
    assert "dead class" not in capsys.readouterr().out
    page = tmp_path / "check.html"
    assert main(["report", str(home.folder / "check.json"), "--html", str(page), "--flips"]) == 0
    assert "light" in page.read_text()


def test_an_app_of_one_output_is_examined(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether it writes one probability or both; one that is not dequantized is named."""
    bundle = tmp_path / "golden"
    shared = ["--models", str(home.variants), "--reference", str(home.model), "--data", str(home.folder / "test")]
    assert main(["golden", "int8", "--out", str(bundle), "--images", "20", *shared]) == 0
    index = json.loads((bundle / "golden.json").read_text())
    output, names = index["output"], [image["name"] for image in index["images"]]
    stored = np.stack([np.fromfile(bundle / image["output"], np.int8) for image in index["images"]])
    real = (stored.astype(float) - output["zero_point"]) * output["scale"]
    dump = tmp_path / "dump.npz"
    for values, code, named in (
        (real, 3, "right"),
        (np.hstack([1 - real, real]), 3, "right"),
        (stored, 1, "output not dequantized ("),
    ):
        np.savez(dump, images=np.array(names), output=values)
        assert main(["app", str(dump), "--golden", str(bundle)]) == code
        assert f"output: {named}" in capsys.readouterr().out
