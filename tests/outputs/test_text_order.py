"""Twelve classes named 0 to 11, and a model trained with its folders sorted as text: the check says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness.cli import main
from tests.outputs.rig import SHAPE, Home, paint

NAMES = tuple(map(str, range(12)))


def test_a_model_trained_in_text_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Right on few images, with the line to paste; with that line right on nearly all."""
    import keras
    from keras import layers

    home = Home(tmp_path)
    image = keras.Input(SHAPE)
    answer = layers.Dense(12, activation="softmax", name="answer")
    model = keras.Model(image, answer(layers.GlobalAveragePooling2D()(image)))
    levels = np.array([(int(name) + 0.5) / 12 for name in sorted(NAMES)])
    answer.set_weights([np.tile(2000 * levels / 3, (3, 1)), -1000 * levels**2])
    model.save(home.model)
    paint(tmp_path / "calibration", 2, 1, NAMES)
    paint(tmp_path / "test", 6, 2, NAMES)
    assert home.convert("--variants", "float32") == 0
    home.check()
    (note,) = [note for note in home.record["notes"] if "permutation" in note]
    assert "text order" in note
    line = f"class_names = {json.dumps(sorted(NAMES))}"
    assert note.endswith(line)
    shared = ["--models", str(home.variants), "--data", str(tmp_path / "test")]
    assert main(["evaluate", str(home.variants / "float32.tflite"), *shared]) == 0
    assert "text order" in capsys.readouterr().out
    (tmp_path / "model.toml").write_text(line)
    assert home.convert("--variants", "float32") == 0
    home.check()
    assert home.record["cells"][0]["parity"]["reference_accuracy"] > 0.9
    assert not any("permutation" in note for note in home.record["notes"])
