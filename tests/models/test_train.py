"""Training: settings that are understood or refused, splits that do not leak, runs that continue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from harness import dataset
from harness.errors import SetupError
from models import config
from models.augment import augment
from models.config import Augmentation
from models.train import main, split
from tests.conftest import CALIBRATION, ROOT

SMALL = ["--data", str(CALIBRATION), "--depth", "11", "--batch-size", "20", "--steps-per-epoch", "4"]


def test_defaults_and_overrides(tmp_path: Path) -> None:
    """A file overrides the defaults, a flag the file."""
    file = tmp_path / "train.toml"
    file.write_text('epochs = 7\nlearning_rate = 1\nout = "x.keras"\n[augmentation]\nzoom = [0.8, 1.2]\n')
    settings = config.load(file, epochs=9, seed=None)
    assert (settings.epochs, settings.learning_rate, settings.out) == (9, 1.0, Path("x.keras"))
    assert settings.augmentation.zoom == (0.8, 1.2)
    assert settings.augmentation.shear == Augmentation().shear


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("epoch = 7", "did you mean 'epochs'"),
        ("[augmentation]\nrotaton_degrees = [0, 1]", "did you mean 'rotation_degrees'"),
        ("epochs = 'seven'", "expected int"),
        ("epochs = true", "expected int"),
        ("[augmentation]\nzoom = 1.5", "zoom"),
        ("epochs = 0", "out of range"),
        ("depth = 100", "out of range"),
        ("epochs = ", "not valid TOML"),
    ],
)
def test_a_mistyped_setting_is_refused(
    text: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the nearest valid key or the expected type, in one line."""
    (tmp_path / "train.toml").write_text(text)
    with pytest.raises(SetupError, match=what):
        config.load(tmp_path / "train.toml")
    assert main([str(tmp_path / "train.toml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_committed_settings_are_understood() -> None:
    """models/train.toml loads."""
    assert config.load(ROOT / "models" / "train.toml").depth == 164


def test_validation_images_are_never_trained_on() -> None:
    """Disjoint, every class alike, the same for the same seed."""
    data = dataset.load(CALIBRATION)
    learn, held = split(data, 0.2, seed=1)
    assert not set(learn) & set(held)
    assert len(learn) + len(held) == len(data)
    assert np.bincount(data.labels[held]).tolist() == [4] * 11
    np.testing.assert_array_equal(held, split(data, 0.2, seed=1)[1])
    assert not np.array_equal(held, split(data, 0.2, seed=2)[1])


def test_augmentation_moves_ink_and_keeps_paper() -> None:
    """Off, images stay; on, each differs, and its paper stays paper."""
    images = dataset.load(CALIBRATION).images[:40]
    rng = np.random.default_rng(0)
    assert augment(images, Augmentation(enabled=False), rng) is images
    changed = augment(images, Augmentation(), rng)
    assert changed.shape == images.shape
    assert changed.dtype == np.uint8
    assert all((a != b).any() for a, b in zip(images, changed, strict=True))
    paper = np.median(images, axis=(1, 2, 3)), np.median(changed, axis=(1, 2, 3))
    assert np.all(paper[1] > 0.75 * paper[0])


def test_a_killed_run_continues(tmp_path: Path) -> None:
    """Killed with -9 after its first epoch, the same command goes on from there and saves a plain float32 model."""
    out = tmp_path / "model.keras"
    command = [sys.executable, "-m", "models.train", *SMALL, "--epochs", "3", "--out", str(out)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    deadline = time.monotonic() + 400
    while not (tmp_path / "model.checkpoint.keras").exists():
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "continuing after epoch" in again.stdout
    assert "Epoch 3/3" in again.stdout
    model = keras.saving.load_model(out, safe_mode=True)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert getattr(model, "optimizer", None) is None


def test_a_checkpoint_of_another_run_is_not_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other settings and the same --out: refused in one line, nothing overwritten."""
    out = tmp_path / "model.keras"
    arguments = [*SMALL, "--epochs", "1", "--out", str(out)]
    assert main(arguments) == 0
    before = out.read_bytes()
    capsys.readouterr()
    assert main([*arguments, "--seed", "7"]) == 2
    error = capsys.readouterr().err
    assert "other settings" in error
    assert error.count("\n") == 1
    assert out.read_bytes() == before
