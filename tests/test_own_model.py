"""A model of the user's own, from images to a verdict, on the command line alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cli import main
from harness.images.spec import ModelSpec
from tests.conftest import FEW_IMAGES_POLICY, ROOT

CONFIG = """
data = "raw"
out = "fruit.keras"
depth = 11
epochs = 3
steps_per_epoch = 20
batch_size = 24
learning_rate = 0.05
precision = "float32"
tensorboard = false

[model]
image_size = [16, 24]
channels = 3
class_names = ["apple", "lime", "plum"]
pixel_range = [-1, 1]

[augmentation]
rotation_degrees = [-20, 20]
"""
COLOURS = {"apple": (200, 40, 40), "lime": (120, 200, 60), "plum": (90, 40, 140)}


def paint(folder: Path, each: int, seed: int) -> None:
    """Noisy pictures of a coloured disc, in a folder for each class, of several sizes."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(each):
            height, width = rng.integers(16, 24), rng.integers(24, 32)
            y, x = np.mgrid[:height, :width]
            centre, radius = (height / 2 + rng.normal(0, 2), width / 2 + rng.normal(0, 2)), rng.uniform(5, 8)
            inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
            picture = np.where(inside[..., None], colour, rng.uniform(120, 240)) + rng.normal(0, 15, (height, width, 3))
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the user's images and settings."""
    folder = tmp_path_factory.mktemp("home")
    paint(folder / "raw", 60, seed=1)
    paint(folder / "calibration", 40, seed=2)
    paint(folder / "test", 100, seed=3)
    (folder / "train.toml").write_text(CONFIG)
    return folder


@pytest.mark.slow
def test_from_training_to_a_verdict(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Colour, 24x16 pixels of -1 to 1, classes by name: trained, converted, checked, explained, asked; all PASS."""
    monkeypatch.chdir(home)

    def harness(*arguments: str) -> str:
        code = main([*arguments])
        shown = capsys.readouterr()
        assert code == 0, shown.out + shown.err
        return shown.out

    train = [sys.executable, "-m", "models.train", "train.toml"]
    done = subprocess.run(train, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stdout + done.stderr
    expected = ModelSpec((16, 24), 3, tuple(COLOURS), (-1.0, 1.0))
    assert (home / "fruit.toml").read_text() == expected.to_toml()
    shown = harness("convert", "fruit.keras", "--out", "variants", "--calibration", "calibration", "--data", "test")
    assert "batch norms were not folded" not in shown

    shared = ["--models", "variants", "--data", "test"]
    words = ["--reference", "fruit.keras", "--policy", str(FEW_IMAGES_POLICY), "--quick", "--json", "check.json"]
    harness("check", *shared, *words)
    record = json.loads((home / "check.json").read_text())
    assert record["verdict"] == "PASS"
    assert [cell["variant"] for cell in record["cells"]] == ["float32", "dynamic_range", "int8"]
    for cell in record["cells"]:
        assert cell["parity"]["reference_accuracy"] > 0.5  # guessing is right on a third of the images
        assert [entry["name"] for entry in cell["parity"]["classes"]] == list(COLOURS)
    assert "verdict: PASS" in harness("verdict", "check.json")
    harness("report", "check.json", "--flips", "--html", "check.html")
    assert "layers beside float32's" in harness("explain", "int8", *shared, "--images", "6")

    for model in ("variants/int8.tflite", "fruit.keras"):
        harness("evaluate", model, *shared, "--json", "e.json", "--html", "e.html")
        evaluated = json.loads((home / "e.json").read_text())
        assert [entry["name"] for entry in evaluated["classes"]] == list(COLOURS)
        shown = harness("predict", "test/lime/0.png", "--model", model, "--models", "variants")
        assert any(name in shown.splitlines()[2] for name in COLOURS)
