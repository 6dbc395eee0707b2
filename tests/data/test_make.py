"""Rendering: where strokes come from, and that a seed decides the pixels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data import ink, make, mnist
from data.make import main
from harness.images import dataset
from tests.conftest import CALIBRATION, DIGITS, TEST_IMAGES


@pytest.fixture(scope="session")
def idx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST's four files as a user would have them."""
    folder = tmp_path_factory.mktemp("idx")
    for name, content in mnist.obtain().items():
        (folder / name).write_bytes(content)
    return folder


def test_mnist_is_had_and_is_the_published_one(idx_folder: Path) -> None:
    """60,000 and 10,000 strokes, verified by hash, from whichever source answers."""
    for split, count in (("train", 60_000), ("test", 10_000)):
        digits = mnist.load(split, idx_folder)  # type: ignore[arg-type]
        assert digits.images.shape == (count, 28, 28)
        assert set(np.unique(digits.labels)) == set(range(10))


def test_arrays_become_the_published_files(idx_folder: Path) -> None:
    """keras.datasets gives arrays: the IDX files made of them are MNIST's own, byte for byte."""
    made = mnist.as_idx("train", mnist.load("train", idx_folder)) | mnist.as_idx("test", mnist.load("test", idx_folder))
    assert made == mnist.obtain()


@pytest.mark.parametrize("damage", ["changed", "missing", "no folder"])
def test_another_mnist_is_refused(
    damage: str, idx_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is missing or not the published one, by name, in one line."""
    folder = Path(shutil.copytree(idx_folder, tmp_path / "idx"))
    labels = folder / "t10k-labels-idx1-ubyte"
    if damage == "changed":
        labels.write_bytes(labels.read_bytes()[:-1] + b"\7")
    elif damage == "missing":
        labels.unlink()
    else:
        folder = tmp_path / "nowhere"
    code = main(["test", "--per-class", "1", "--out", str(tmp_path / "out"), "--mnist", str(folder)])
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert ("SHA-256" in error) if damage == "changed" else ("expected" in error)


def render(name: str, out: Path, idx_folder: Path, *more: str) -> dict[str, bytes]:
    assert main([name, "--out", str(out), "--mnist", str(idx_folder), *more]) == 0
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.jpg")}


@pytest.mark.slow
def test_a_seed_decides_every_image(idx_folder: Path, tmp_path: Path) -> None:
    """The same seed gives the same bytes, whatever the workers or the amount; another seed gives others."""
    three = render("raw", tmp_path / "a", idx_folder, "--per-class", "3", "--workers", "1")
    assert len(three) == 33
    two = render("raw", tmp_path / "b", idx_folder, "--per-class", "2", "--workers", "2")
    assert two.items() <= three.items()
    other = render("raw", tmp_path / "c", idx_folder, "--per-class", "2", "--seed", "7")
    assert other.keys() == two.keys()
    assert all(other[name] != two[name] for name in two)


def test_a_drawing_keeps_the_digit(idx_folder: Path) -> None:
    """Eights show both loops and nothing of them is cut off, small and thick ones too."""
    calm = replace(ink.FIELD, faint_share=0, rule_share=0, neighbour_share=0, speck_share=0, shadow_share=0)
    strokes = mnist.load("test", idx_folder)
    rng = np.random.default_rng(0)
    loops, edges = [], []
    for stroke in strokes.images[strokes.labels == 8][:60]:
        crop = ink.digit(stroke, 8, strokes.images, calm, rng).astype(np.float32)
        paper, dark = np.percentile(crop, 90), crop.min()
        inked = cv2.resize(crop, (112, 112), interpolation=cv2.INTER_CUBIC) < (paper + dark) / 2
        loops.append(cv2.connectedComponents((~np.pad(inked, 1)).astype(np.uint8), connectivity=4)[0] - 2)
        edges.append(np.concatenate([inked[[0, -1]].ravel(), inked[:, [0, -1]].ravel()]).mean())
    assert np.mean(np.array(loops) >= 1) > 0.95
    assert np.median(loops) == 2
    assert np.mean(edges) < 0.02


def test_what_a_stroke_has_is_not_drawn_again() -> None:
    """A bare one gets a flag, one with a foot does not; a wide seven gets no bar; a pool of ink keeps its shape."""
    bare, footed, wide, tall = (np.zeros((112, 112), np.uint8) for _ in range(4))
    cv2.line(bare, (56, 16), (52, 96), 1)
    cv2.polylines(footed, [np.array([[36, 36], [56, 16], [56, 96], [24, 96], [88, 96]])], False, 1)
    cv2.polylines(wide, [np.array([[8, 40], [100, 40], [80, 80]])], False, 1)
    cv2.polylines(tall, [np.array([[30, 20], [80, 20], [60, 100]])], False, 1)

    def drawn(figure: np.ndarray, add: Callable[..., None]) -> bool:
        add(extra := np.zeros_like(figure), figure, np.random.default_rng(0))
        return bool(extra.any())

    assert [drawn(bare, ink._flag), drawn(footed, ink._flag)] == [True, False]
    assert [drawn(tall, ink._bar), drawn(wide, ink._bar)] == [True, False]
    pool = np.zeros((28, 28), np.uint8)
    cv2.line(pool, (14, 3), (14, 25), 255, 2)
    cv2.circle(pool, (14, 9), 4, 255, -1)
    assert not ink._trace(pool, 5, ink.FIELD, np.random.default_rng(0)).drawn


def test_crops_near_a_digit_are_in_wide_noise_alone(idx_folder: Path) -> None:
    """Pairs, cut digits and ticks have ink in the middle more often than the field's noise."""
    strokes = mnist.load("train", idx_folder).images
    near = replace(ink.WIDE, near_digit_share=1.0)

    def dark(look: ink.Look) -> float:
        crops = np.stack([ink.noise(strokes, look, np.random.default_rng(seed)) for seed in range(60)]).astype(float)
        return float((crops < 0.75 * np.median(crops, axis=(1, 2), keepdims=True))[:, 6:22, 6:22].mean())

    assert ink.FIELD.near_digit_share == 0
    assert dark(near) > 2 * dark(ink.FIELD)


def test_strokes_in_pieces_are_left_out(idx_folder: Path) -> None:
    """A five's bar may stand apart; a stroke the scanner broke is not whole."""
    stroke = mnist.load("test", idx_folder).images[0]
    assert ink.whole(stroke)
    broken = stroke.copy()
    broken[::6] = 0
    broken[1::6] = 0
    assert not ink.whole(broken)


def test_the_committed_sets_are_what_the_command_makes(idx_folder: Path, tmp_path: Path) -> None:
    """Some of data/test and data/calibration, rendered anew, look as committed."""
    for name, committed in (("test", TEST_IMAGES), ("calibration", CALIBRATION)):
        made = tmp_path / name
        render(name, made, idx_folder, "--per-class", "2")
        for path in made.rglob("*.jpg"):
            ours = np.asarray(Image.open(committed / path.relative_to(made)), float)
            assert np.abs(np.asarray(Image.open(path), float) - ours).mean() < 2


def test_the_committed_sets_are_complete() -> None:
    """2,200 test images, 200 of each class; 220 for calibration, 20 of each; grey, 28x28, and no image in both."""
    test, calibration = dataset.load(TEST_IMAGES, DIGITS), dataset.load(CALIBRATION, DIGITS)
    assert np.bincount(test.labels).tolist() == [200] * 11
    assert np.bincount(calibration.labels).tolist() == [20] * 11
    with Image.open(TEST_IMAGES / test.names[0]) as image:
        assert (image.mode, image.size) == ("L", (28, 28))
    assert not {image.tobytes() for image in test.images} & {image.tobytes() for image in calibration.images}


def test_test_strokes_come_from_the_test_split_only() -> None:
    """raw and calibration draw on MNIST's training split, test on its test split."""
    assert {name: kind.split for name, kind in make.SETS.items()} == {
        "raw": "train",
        "calibration": "train",
        "test": "test",
    }


def test_a_senseless_amount_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Zero images of each class are a mistake."""
    assert main(["raw", "--per-class", "0", "--out", str(tmp_path)]) == 2
    assert "--per-class 0" in capsys.readouterr().err
