"""Training: settings that are understood or refused, splits that do not leak, runs that continue."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from msgspec import structs
from msgspec.structs import replace
from PIL import Image

from harness.core.errors import SetupError
from harness.core.files import sha256
from harness.images import dataset
from harness.images.spec import ModelSpec
from models import config, training
from models.augment import augment
from models.batches import Batches, split, unsure
from models.callbacks import Checkpoint, Plateau, Progress
from models.callbacks import save as save_model
from models.config import Augmentation
from models.optimizer import NesterovSGD, SmoothedCrossentropy
from models.train import main
from models.training import compile_model, plain_model
from tests.conftest import CALIBRATION, DIGITS, ROOT, files_no_larger_than, stored_model

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
        ("save = 'bets'", "'last' or 'best' or 'every'"),
        ("[augmentation]\nblur = [2, 1]", "expected .low, high."),
        ("out = 'models/resnet164.keras'", "never overwrites"),
        ("out = 'a.keras'\ninit = './a.keras'", "never overwrites"),
        ("out = 'a.h5'", "ending in .keras"),
        ("out = 'models/train.keras'", "would replace another file"),
        ("[model]\nclass_name = ['a', 'b']", "did you mean 'class_names'"),
        ("[model]\nclass_names = ['a']", "expected at least 2"),
        ("[model]\nchannels = 2", "expected 1 .grey. or 3 .RGB."),
        ("[model]\nimage_size = [4, 40]", "at least 8 x 8"),
        ("[model]\nimage_size = 28", "expected .int, int."),
        ("processes = 2", "expected backend = 'jax'"),
        ("processes = 2\nbackend = 'jax'", "coordinator"),
        ("validation_share = 0\nsave = 'best'", "need validation images"),
        ("seed = -1", "out of range"),
        ("average = 1", "out of range"),
        ("label_smoothing = 1", "out of range"),
        ("hard_by = 'a.tflite'\nbatch_size = 1", "hard_share = 0.4 is out of range"),
        ("hard_by = 'a.tflite'\nprocesses = 2", "expected one process"),
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


@pytest.mark.parametrize("flag", ["--rotation-degrees nan 5", "--learning-rate inf", "--pixel-range 0 nan"])
def test_a_flag_that_is_no_number_is_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line."""
    assert main(flag.split()) == 2
    error = capsys.readouterr().err
    assert "expected a finite number" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["train.toml", "finetune.toml"])
def test_the_committed_settings_are_understood(name: str) -> None:
    """They load, and train another file than the shipped one."""
    assert config.load(ROOT / "models" / name).depth == 164


def test_every_setting_has_a_flag_that_wins(tmp_path: Path) -> None:
    """Over the file's value, ranges and switches, too."""
    file = tmp_path / "train.toml"
    file.write_text("epochs = 7\n[augmentation]\nzoom = [0.8, 1.2]\n")
    parser = argparse.ArgumentParser()
    config.add_flags(parser)
    flags = "--epochs 9 --zoom 0.7 1.3 --no-augmentation --save best --no-tensorboard --init a.keras "
    flags += "--class-names cat dog --image-size 24 32 --channels 3 --pixel-range -1 1"
    settings = config.from_flags(file, vars(parser.parse_args(flags.split())))
    assert (settings.epochs, settings.save, settings.tensorboard, settings.init) == (9, "best", False, Path("a.keras"))
    assert settings.augmentation == Augmentation(enabled=False, zoom=(0.7, 1.3))
    assert settings.model == ModelSpec((24, 32), 3, ("cat", "dog"), (-1.0, 1.0))
    names = {f.name for kind in (config.TrainConfig, ModelSpec, Augmentation) for f in structs.fields(kind)}
    names -= {"model", "augmentation"}
    assert names == set(vars(parser.parse_args([])))


def test_validation_images_are_never_trained_on() -> None:
    """Disjoint, every class alike, the same for the same seed."""
    data = dataset.load(CALIBRATION, DIGITS)
    learn, held = split(data, 0.2, seed=1)
    assert not set(learn) & set(held)
    assert len(learn) + len(held) == len(data)
    assert np.bincount(data.labels[held]).tolist() == [4] * 11
    np.testing.assert_array_equal(held, split(data, 0.2, seed=1)[1])
    assert not np.array_equal(held, split(data, 0.2, seed=2)[1])


def test_copies_of_an_image_do_not_leak() -> None:
    """An image that lies in the folder twice, under two names, is on one side of the split."""
    data = dataset.load(CALIBRATION, DIGITS)
    double = dataset.build(
        np.concatenate([data.images, data.images]), [*data.labels, *data.labels], [*data.names, *data.names], DIGITS
    )
    learn, held = split(double, 0.3, seed=1)
    contents = [{image.tobytes() for image in double.images[part]} for part in (learn, held)]
    assert not contents[0] & contents[1]
    assert len(held) == 2 * 6 * 11


def test_a_class_with_one_image_is_trained_on() -> None:
    """The split leaves it on the training side, and says nothing about the others."""
    data = dataset.load(CALIBRATION, DIGITS)
    kept = np.flatnonzero((data.labels != 3) | (np.arange(len(data)) == np.flatnonzero(data.labels == 3)[0]))
    learn, held = split(dataset.take(data, kept), 0.2, seed=1)
    assert 3 not in data.labels[kept][held]
    assert 3 in data.labels[kept][learn]


NEUTRAL = Augmentation(
    rotation_degrees=(0, 0),
    shift_pixels=(0, 0),
    shear=(0, 0),
    zoom=(1, 1),
    stroke_width=(0, 0),
    ink_strength=(1, 1),
    paper_level=(1, 1),
    border_lines=0,
    blur=(0, 0),
    brightness=(1, 1),
    contrast=(1, 1),
)


def test_augmentation_changes_every_image_and_keeps_paper() -> None:
    """Off or neutral, images stay; on, each differs, and its paper stays paper."""
    images = dataset.load(CALIBRATION, DIGITS).images[:40]
    rng = np.random.default_rng(0)
    assert augment(images, Augmentation(enabled=False), rng) is images
    np.testing.assert_array_equal(augment(images, NEUTRAL, rng), images)
    changed = augment(images, Augmentation(), rng)
    assert changed.shape == images.shape
    assert changed.dtype == np.uint8
    assert all((a != b).any() for a, b in zip(images, changed, strict=True))
    paper = np.median(images, axis=(1, 2, 3)), np.median(changed, axis=(1, 2, 3))
    assert np.all(paper[1] > 0.6 * paper[0])


def test_colour_is_augmented_as_one_picture() -> None:
    """Every channel by the same draw: equal channels stay equal; neither strokes, ink, paper nor lines are drawn in."""
    grey = dataset.load(CALIBRATION, DIGITS).images[:20]
    colour = np.repeat(grey, 3, axis=3)
    changed = augment(colour, Augmentation(), np.random.default_rng(0))
    assert changed.shape == colour.shape
    assert (changed == changed[..., :1]).all()
    assert all((a != b).any() for a, b in zip(colour, changed, strict=True))
    inked = replace(NEUTRAL, stroke_width=(1, 1), ink_strength=(2, 2), paper_level=(0.5, 0.5), border_lines=1)
    np.testing.assert_array_equal(augment(colour, inked, np.random.default_rng(0)), colour)


@cache
def _digits() -> np.ndarray:
    images = dataset.load(CALIBRATION, DIGITS).images
    return images[: len(images) * 10 // 11]


def test_a_distortion_is_smooth_and_goes_with_the_rest() -> None:
    """A slope stays a slope, bent by at most what the knots move; turned and bent is turned at no distortion."""
    slope = np.tile(np.arange(0, 224, 8, dtype=np.uint8), (28, 1))[None, :, :, None]
    bent = augment(slope, replace(NEUTRAL, elastic=(1, 1)), np.random.default_rng(3)).astype(float)
    assert 2 < np.abs(bent - slope).max() < 8 * 4
    assert (np.diff(bent[0, ..., 0], axis=1) > -4).all()
    turn = replace(NEUTRAL, rotation_degrees=(20, 20), shift_pixels=(2, 2))
    bends = ((0, 0), (0, 1e-6))
    plain, barely = (augment(_digits()[:20], replace(turn, elastic=e), np.random.default_rng(0)) for e in bends)
    assert np.abs(plain.astype(float) - barely).max() <= 3


def _ink(images: np.ndarray) -> float:
    """How much darker than their paper the images are, on average."""
    return float((np.percentile(images, 75, axis=(1, 2), keepdims=True) - images).clip(0).mean())


@pytest.mark.parametrize(
    ("setting", "low", "high", "figure"),
    [
        ("stroke_width", (-1, -1), (1, 1), _ink),
        ("ink_strength", (0.5, 0.5), (1.3, 1.3), _ink),
        ("contrast", (0.5, 0.5), (1.3, 1.3), _ink),
        ("paper_level", (0.6, 0.6), (1, 1), np.mean),
        ("brightness", (0.6, 0.6), (1, 1), np.mean),
        ("blur", (2, 2), (0, 0), np.std),
        ("border_lines", 1, 0, lambda images: images[:, [0, -1]].mean() + images[:, :, [0, -1]].mean()),
        ("zoom", (1.4, 1.4), (0.7, 0.7), lambda images: (images < 100).mean()),
        ("elastic", (0, 0), (2, 2), lambda images: (images != _digits()).mean()),
    ],
)
def test_each_range_does_what_it_says(setting: str, low: Any, high: Any, figure: Any) -> None:
    """With all else neutral, the figure it is named for moves; zoom maps the crop's points outwards."""
    images = _digits()
    few, much = (
        augment(images, replace(NEUTRAL, **{setting: value}), np.random.default_rng(0)) for value in (low, high)
    )
    if setting == "zoom":
        few, much = much, few
    assert figure(few) < figure(much)


def test_a_killed_run_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed with -9 after its first epoch, the same command goes on from there and saves a plain float32 model."""
    out = tmp_path / "model.keras"
    command = [sys.executable, "-m", "models.train", *SMALL, "--epochs", "3", "--out", str(out)]
    command += ["--precision", "mixed_bfloat16"]
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
    assert main(command[3:]) == 0
    shown = capsys.readouterr().out
    assert "continuing after epoch" in shown
    assert "epoch 3/3" in shown
    model = keras.saving.load_model(out, safe_mode=True)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert keras.mixed_precision.dtype_policy().name == "float32"  # of this process, which trained in bfloat16
    assert getattr(model, "optimizer", None) is None
    assert len(json.loads((tmp_path / "model.checkpoint.json").read_text())["history"]) == 3
    with Image.open(tmp_path / "model.png") as curve:
        assert curve.width > 600
    assert list((tmp_path / "model.logs").rglob("events.out.tfevents*"))
    record = json.loads((tmp_path / "model.split.json").read_text())
    held = record["validation"]["files"]
    assert len(held) == 22
    assert all(sha256((CALIBRATION / name).read_bytes()) == digest for name, digest in held.items())
    assert record["training"]["images"] + len(held) == 220


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_not_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other settings or other images and the same --out: refused in one line, nothing overwritten."""
    out, raw = tmp_path / "model.keras", tmp_path / "raw"
    shutil.copytree(CALIBRATION, raw)
    arguments = [*SMALL, "--data", str(raw), "--epochs", "1", "--out", str(out)]
    assert main(arguments) == 0
    before = out.read_bytes(), (tmp_path / "model.split.json").read_bytes()
    capsys.readouterr()
    assert main([*arguments, "--seed", "7"]) == 2
    next((raw / "3").iterdir()).unlink()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("other settings or images") == error.count("\n") == 2
    assert (out.read_bytes(), (tmp_path / "model.split.json").read_bytes()) == before
    for damaged in ("[]", '{"run": "r", "epoch": "one", "history": []}', "{"):
        (tmp_path / "model.checkpoint.json").write_text(damaged)
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert "model.checkpoint.json" in error
        assert "to start anew" in error
        assert error.count("\n") == 1


def _weights(path: Path) -> list[np.ndarray]:
    return keras.saving.load_model(path, safe_mode=True).get_weights()


def test_fine_tuning_starts_from_the_weights_given(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a vanishing learning rate the kernels stay as they are; other depths and class counts are refused."""
    before = tiny_model.read_bytes()
    arguments = ["--data", str(CALIBRATION), "--depth", "20", "--steps-per-epoch", "1", "--batch-size", "8"]
    arguments += ["--epochs", "1", "--init", str(tiny_model), "--learning-rate", "1e-9", "--no-tensorboard"]
    assert main([*arguments, "--out", str(tmp_path / "tuned.keras")]) == 0
    kernels = [w for w in _weights(tmp_path / "tuned.keras") if w.ndim > 1]
    given = [w for w in _weights(tiny_model) if w.ndim > 1]
    for ours, theirs in zip(kernels, given, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert tiny_model.read_bytes() == before
    capsys.readouterr()
    assert main([*arguments, "--out", str(tmp_path / "other.keras"), "--depth", "11"]) == 2
    error = capsys.readouterr().err
    assert "depth and [model]" in error
    assert error.count("\n") == 1


def test_hard_images_are_drawn_more_often() -> None:
    """Their share of every batch is the one asked for, in the last quarter a line to none; none twice in a pass."""
    data = dataset.load(CALIBRATION, DIGITS)
    hard = np.arange(0, 220, 11)
    names = {image.tobytes(): index for index, image in enumerate(data.images)}
    off = replace(NEUTRAL, enabled=False)
    settings = replace(config.TrainConfig(), batch_size=40, epochs=10, hard_share=0.5, augmentation=off)
    fed = Batches(data, settings, 4, 0, hard)
    drawn = []
    for fed.epoch in range(settings.epochs):
        images = [np.round(fed[index][0] * 255).astype(np.uint8) for index in range(4)]
        drawn += [[names[image.tobytes()] for image in batch] for batch in images]
    shares = [[index in hard for index in batch[:20]] for batch in drawn]
    assert all(all(share) for share in shares[:31])
    assert [sum(share) for share in shares[36:]] == sorted((sum(share) for share in shares[36:]), reverse=True)
    assert sum(shares[39]) < 6
    assert sorted(drawn[0][:20]) == sorted(hard)
    plain = Batches(data, settings, 4)
    np.testing.assert_array_equal(plain[0][0][20:], Batches(data, settings, 4, 0, hard)[0][0][20:])


@pytest.mark.slow
def test_each_epoch_is_fed_its_own_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbered from 0 to the last, in a run that goes on, too."""
    asked = set()

    class Seen(Batches):
        def __getitem__(self, index: int) -> Any:
            asked.add((self.epoch, index))
            return super().__getitem__(index)

    monkeypatch.setattr("models.training.Batches", Seen)
    for epochs in (2, 3):
        arguments = [*SMALL, "--epochs", str(epochs), "--out", str(tmp_path / "a.keras"), "--no-tensorboard"]
        assert main(arguments) == 0
        assert asked == {(epoch, index) for epoch in range(epochs) for index in range(4)}


def test_sure_and_mislabelled_images_are_not_hard() -> None:
    """Hard are those whose own class a model gives little, but not next to nothing."""
    data = dataset.take(dataset.load(CALIBRATION, DIGITS), np.arange(4))
    given = np.array([0.01, 0.3, 0.9, 0.999])
    outputs = np.zeros((4, 11))
    outputs[np.arange(4), data.labels] = given
    assert unsure(outputs, data).tolist() == [1, 2]


@pytest.mark.slow
def test_a_model_picks_the_hard_images(
    tmp_path: Path, tiny_variants: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model named is asked once, and again only where the list it gave is damaged and steps are left to train."""
    judge = str(tiny_variants / "int8.tflite")
    arguments = [*SMALL, "--hard-by", judge, "--out", str(tmp_path / "a.keras"), "--no-tensorboard"]
    assert main([*arguments, "--epochs", "1"]) == 0
    assert re.search(r"unsure of \d+ of 198 training images", capsys.readouterr().out)
    kept = tmp_path / "a.hard.json"
    whole = kept.read_text()
    kept.write_text(whole[: len(whole) // 2])
    assert main([*arguments, "--epochs", "1"]) == 0  # nothing left to do: it is not read
    assert kept.read_text() != whole
    assert main([*arguments, "--epochs", "2"]) == 0
    assert kept.read_text() == whole
    monkeypatch.setattr("harness.tools.classifier.infer", None)
    assert main([*arguments, "--epochs", "3"]) == 0
    assert "continuing after epoch 2" in capsys.readouterr().out


def test_a_model_of_other_classes_picks_no_hard_images(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused in one line."""
    settings = tmp_path / "digits.toml"
    settings.write_text(f"[model]\nclass_names = {[*'0123456789']}\n")
    shutil.copytree(CALIBRATION, tmp_path / "raw", ignore=shutil.ignore_patterns("10"))
    arguments = [*SMALL, "--data", str(tmp_path / "raw"), "--hard-by", str(tiny_model)]
    assert main([str(settings), *arguments, "--out", str(tmp_path / "b.keras")]) == 2
    error = capsys.readouterr().err
    assert "hard_by" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("missing", ["folder", "images"])
def test_a_class_without_images_is_refused(missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is missing or empty is named by its class, in one line."""
    shutil.copytree(CALIBRATION, tmp_path / "raw")
    shutil.rmtree(tmp_path / "raw" / "7")
    if missing == "images":
        (tmp_path / "raw" / "7").mkdir()
    assert main([*SMALL, "--data", str(tmp_path / "raw"), "--out", str(tmp_path / "a.keras")]) == 2
    error = capsys.readouterr().err
    assert "no image of class 7" in error
    assert error.count("\n") == 1


def test_an_unreadable_image_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training on it is refused, in one line, or goes on without it where that is asked for."""
    shutil.copytree(CALIBRATION, tmp_path / "raw")
    (tmp_path / "raw" / "4" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    arguments = [*SMALL, "--data", str(tmp_path / "raw"), "--out", str(tmp_path / "a.keras"), "--epochs", "1"]
    assert main(arguments) == 2
    assert "4/torn.jpg" in capsys.readouterr().err
    assert main([*arguments, "--skip-bad"]) == 0
    assert "left out 1 files that cannot be used, 4/torn.jpg" in capsys.readouterr().out


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At an absurd learning rate, with exit code 2 and one line; the last good checkpoint is kept."""
    arguments = [*SMALL, "--precision", "float32", "--warmup-share", "0", "--schedule", "constant", "--no-tensorboard"]
    out = tmp_path / "model.keras"
    assert main([*arguments, "--epochs", "1", "--out", str(out), "--learning-rate", "1e-3"]) == 0
    good = out.read_bytes()
    again = tmp_path / "again.keras"
    assert main([*arguments, "--epochs", "2", "--out", str(again), "--init", str(out), "--learning-rate", "1e30"]) == 2
    arguments += ["--steps-per-epoch", "1"]  # the weights are broken by a step whose loss was sound
    assert main([*arguments, "--epochs", "2", "--out", str(again), "--init", str(out), "--learning-rate", "1e39"]) == 2
    error = capsys.readouterr().err
    assert error.count("lower learning_rate") == error.count("\n") == 2
    assert "in the last step of epoch 1; nothing was saved yet" in error
    assert out.read_bytes() == good
    assert not again.exists()
    assert not (tmp_path / "again.checkpoint.keras").exists()


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a checkpoint cannot be written, exit code 2, one line, and the one before is whole; then it continues."""
    arguments = [*SMALL, "--out", str(tmp_path / "model.keras"), "--no-tensorboard", "--epochs"]
    assert main([*arguments, "1"]) == 0
    checkpoint = tmp_path / "model.checkpoint.keras"
    good = checkpoint.read_bytes()
    capsys.readouterr()
    with files_no_larger_than(20_000):
        assert main([*arguments, "2"]) == 2
    error = capsys.readouterr().err
    assert "what was saved before is kept" in error
    assert error.count("\n") == 1
    assert checkpoint.read_bytes() == good
    assert not list(tmp_path.glob(".*part*"))
    assert main([*arguments, "2"]) == 0
    assert "continuing after epoch 1" in capsys.readouterr().out


def test_the_best_epoch_is_what_is_saved(tmp_path: Path) -> None:
    """With save = "best" the model is that of the epoch whose validation accuracy was highest, across runs."""
    settings = config.load(None, save="best", depth=11, out=tmp_path / "model.keras")
    model = compile_model(settings, steps=1)
    plain = partial(plain_model, settings=settings)
    progress, best = Progress("run"), tmp_path / "model.best.keras"
    for part, accuracies in enumerate(((0.2, 0.5, 0.4), (0.5, 0.3))):
        saving = Checkpoint(settings, tmp_path / "model.checkpoint.keras", progress, plain)
        saving.set_model(model)
        for epoch, accuracy in enumerate(accuracies):
            number = 10 * part + epoch
            model.set_weights([np.full_like(weights, number) for weights in model.get_weights()])
            saving.on_epoch_end(
                epoch, dict.fromkeys(("loss", "accuracy", "val_loss"), 1.0) | {"val_accuracy": accuracy}
            )
        progress = saving.progress
    assert all((weights == 1).all() for weights in _weights(best))
    assert (
        main([*SMALL, "--epochs", "1", "--out", str(tmp_path / "a.keras"), "--save", "best", "--no-tensorboard"]) == 0
    )
    for ours, theirs in zip(_weights(tmp_path / "a.keras"), _weights(tmp_path / "a.best.keras"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_average_of_the_weights_ships(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With `average` the model saved is neither the weights of before nor of the last step, but between; a run that
    continues ships the same; validation is the average's, and batch norms' statistics are averaged as slowly."""
    start, out = tmp_path / "start.keras", tmp_path / "model.keras"
    save_model(plain_model(compile_model(config.load(None, depth=11), 1), config.load(None, depth=11)), start)
    command = [*SMALL, "--epochs", "2", "--init", str(start), "--average=0.95", "--no-tensorboard", "--out", str(out)]
    assert main(command) == 0
    checkpoint = keras.saving.load_model(tmp_path / "model.checkpoint.keras")
    last = plain_model(checkpoint, config.load(None, depth=11, average=0.95))
    momenta = [
        {layer.momentum for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}
        for model in (checkpoint, last)
    ]
    assert momenta == [{0.95}, {0.9}]
    kernel, first = (_weights(path)[0] for path in (out, start))
    raw = np.asarray(checkpoint.get_weights()[0])
    assert 0 < np.abs(kernel - first).max() < np.abs(raw - first).max()
    for ours, theirs in zip(_weights(out), last.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    capsys.readouterr()
    shutil.copy(out, tmp_path / "before.keras")
    assert main(command) == 0
    assert "already at epoch 2" in capsys.readouterr().out
    for ours, theirs in zip(_weights(out), _weights(tmp_path / "before.keras"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512f avx512_vnni", "float32"), ("avx512f amx_bf16 amx_int8", "mixed_bfloat16"), (None, "float32")],
)
def test_bfloat16_is_for_processors_that_have_it(
    flags: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the processor's flags where the settings leave it open; what they say counts."""
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(training, "CPUINFO", tmp_path / "cpuinfo")
    assert training.precision(config.load(None)) == expected
    assert training.precision(config.load(None, precision="float32")) == "float32"


def test_smoothed_labels_are_what_keras_computes_of_one_hot_ones() -> None:
    """With no smoothing the plain cross-entropy; with some Keras's own of one-hot labels. It is loaded as saved."""
    labels, predicted = np.array([0, 3, 10]), np.random.default_rng(0).dirichlet(np.ones(11), 3).astype(np.float32)
    plain = keras.losses.SparseCategoricalCrossentropy()(labels, predicted)
    assert float(SmoothedCrossentropy()(labels, predicted)) == pytest.approx(float(plain), rel=1e-5)
    wanted = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)(np.eye(11)[labels], predicted)
    smoothed = keras.losses.deserialize(keras.losses.serialize(SmoothedCrossentropy(0.1)))
    assert float(smoothed(labels, predicted)) == pytest.approx(float(wanted), rel=1e-5)
    assert float(wanted) != pytest.approx(float(plain), rel=1e-2)


@pytest.mark.slow
def test_every_epoch_is_saved_where_asked(tmp_path: Path) -> None:
    """One plain model an epoch, beside the last."""
    out = tmp_path / "model.keras"
    assert main([*SMALL, "--epochs", "2", "--out", str(out), "--save", "every", "--no-tensorboard"]) == 0
    first, second = (_weights(tmp_path / f"model.epoch00{n}.keras") for n in (1, 2))
    assert any((a != b).any() for a, b in zip(first, second, strict=True))
    assert all((a == b).all() for a, b in zip(second, _weights(out), strict=True))


def test_the_rate_falls_where_the_loss_does_not(tmp_path: Path) -> None:
    """A plateau divides the rate; a run that continues has seen the epochs before."""
    settings = config.load(None, schedule="plateau", plateau_patience=1, plateau_factor=0.5, learning_rate=0.8)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(NesterovSGD(settings.learning_rate), "mse")
    plateau = Plateau(settings, [{"val_loss": 1.0}, {"val_loss": 2.0}])
    plateau.set_model(model)
    plateau.on_train_begin()
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(0.4)
    plateau.on_epoch_end(2, {"val_loss": 3.0})
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(0.2)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """On JAX, a step of two processes on loopback is the single process's, and what is saved is a plain model.

    Of each kind of weight the two steps differ by rounding, some millionths of the step. Half of the batch alone makes
    a step that differs by 2 % (moving means) to 120 % (scales).
    """
    start = stored_model("shallow", depth=11)
    common = ["--data", str(CALIBRATION), "--depth", "11", "--batch-size", "20", "--backend", "jax", "--epochs", "1"]
    common += ["--steps-per-epoch", "1", "--schedule", "constant", "--warmup-share", "0", "--learning-rate", "0.02"]
    common += ["--precision", "float32", "--no-augmentation", "--no-tensorboard", "--init", str(start)]

    quickly_compiled = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    environment = {**os.environ, "XLA_FLAGS": quickly_compiled}

    def run(name: str, *flags: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "models.train", *common, "--out", str(tmp_path / name), *flags]
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pair = ["--processes", "2", "--coordinator", address]
    runs = [run("two.keras", *pair, "--process", "0"), run("two.keras", *pair, "--process", "1"), run("one.keras")]
    try:
        for process in runs:
            output, _ = process.communicate(timeout=600)
            assert process.returncode == 0, output
    finally:
        for process in runs:  # one of the pair waits for the other for ever
            process.kill()
            process.communicate()
    one, two = (json.loads((tmp_path / f"{name}.checkpoint.json").read_text())["history"] for name in ("one", "two"))
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=0.02)
    assert two[0]["val_loss"] == pytest.approx(one[0]["val_loss"], rel=0.02)
    start_at, alone, together = (_by_kind(path) for path in (start, tmp_path / "one.keras", tmp_path / "two.keras"))
    assert set(start_at) == {"kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"}
    for kind, before in start_at.items():
        step = np.linalg.norm(alone[kind] - before)
        assert step > 0, kind
        assert np.linalg.norm(together[kind] - alone[kind]) < 0.01 * step, kind


def _by_kind(path: Path) -> dict[str, np.ndarray]:
    """A model's weights, flat, those of one kind together."""
    kinds: dict[str, list[np.ndarray]] = {}
    for weight in keras.saving.load_model(path, safe_mode=True).weights:
        kinds.setdefault(weight.path.split("/")[-1], []).append(keras.ops.convert_to_numpy(weight).ravel())
    return {kind: np.concatenate(parts) for kind, parts in kinds.items()}
