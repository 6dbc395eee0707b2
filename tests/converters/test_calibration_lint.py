"""The calibration linter: what stops a conversion, what is only shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters import calibration_lint
from harness.cli import main
from harness.images import dataset
from harness.images.dataset import Dataset
from tests.conftest import CALIBRATION, DIGITS, TEST_IMAGES


@pytest.fixture(scope="session")
def good() -> Dataset:
    return dataset.load(CALIBRATION, DIGITS)


@pytest.fixture(scope="session")
def tested() -> Dataset:
    return dataset.load(TEST_IMAGES, DIGITS)


def changed(
    data: Dataset, change: Callable[[np.ndarray], np.ndarray], keep: np.ndarray | slice = slice(None)
) -> Dataset:
    names = np.array(data.names)[keep].tolist()
    return dataset.build(change(data.images)[keep], data.labels[keep].tolist(), names, DIGITS)


def test_the_committed_set_is_clean(good: Dataset, tested: Dataset) -> None:
    """No error and no warning."""
    assert calibration_lint.lint(good, tested, DIGITS) == calibration_lint.Findings((), ())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: 255 - x, "brightness"),
        (lambda x: x // 255, "span 1 of 255"),
        (lambda x: x // 3, "inverted, or scaled otherwise"),
        (lambda x: np.full_like(x, 200), "of one colour throughout"),
        (lambda x: np.repeat(x[:1], len(x), axis=0), "219 of 220 images repeat another"),
        (lambda x: x / np.float32(255), "float32 pixels, values 0"),
        (lambda x: np.where(np.arange(len(x))[:, None, None, None] < 3, np.nan, x), "3 images with NaN or infinity"),
        (lambda x: x[:, :14], "shape (220, 14, 28, 1)"),
        (lambda x: np.repeat(x, 3, axis=3), "expected [N, 28, 28, 1]"),
    ],
)
def test_what_would_spoil_the_ranges_is_an_error(
    good: Dataset, tested: Dataset, change: Callable[[np.ndarray], np.ndarray], says: str
) -> None:
    """Inverted, scaled twice, dark, blank, the same over and over, not the evaluation path's type or shape."""
    assert any(says in error for error in calibration_lint.lint(changed(good, change), tested, DIGITS).errors)


def test_test_images_among_them_are_an_error(good: Dataset, tested: Dataset) -> None:
    """By pixels, whatever the files are called; named in the message."""
    images = np.concatenate([good.images[:-1], tested.images[:1]])
    leaky = dataset.build(images, good.labels.tolist(), [*good.names[:-1], "renamed.png"], DIGITS)
    (error,) = calibration_lint.lint(leaky, tested, DIGITS).errors
    assert "1 images are of the test set (renamed.png)" in error


def test_classes_missing_and_rare(good: Dataset, tested: Dataset) -> None:
    """A missing class is an error; one with a few images a warning."""
    without = changed(good, lambda x: x, good.labels != 7)
    assert any("no image of class 7" in error for error in calibration_lint.lint(without, tested, DIGITS).errors)
    few = np.flatnonzero(good.labels == 7)[2:]
    rare = calibration_lint.lint(changed(good, lambda x: x, ~np.isin(np.arange(220), few)), tested, DIGITS)
    assert rare.errors == ()
    assert any("fewer than 5 images of class 7" in warning for warning in rare.warnings)


def test_small_flaws_are_warnings(good: Dataset) -> None:
    """One image twice, one blank, few images, no test images to compare with."""
    images = good.images.copy()
    images[1], images[2] = images[0], 255
    found = calibration_lint.lint(changed(good, lambda _: images), None, DIGITS)
    assert found.errors == ()
    text = " | ".join(found.warnings)
    assert "1 of 220 images repeat another" in text
    assert "1 of 220 images are of one colour" in text
    assert "not compared with the test images" in text
    one_each = changed(good, lambda x: x, np.unique(good.labels, return_index=True)[1])
    assert any(
        "11 images, fewer than 100" in warning for warning in calibration_lint.lint(one_each, None, DIGITS).warnings
    )


def test_convert_stops_on_an_error(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The test folder as calibration set, and a set of one image: exit code 2, one line, nothing written."""
    one = tmp_path / "one"
    one.mkdir()
    (one / "3_1.jpg").write_bytes((CALIBRATION / "3" / "3_1.jpg").read_bytes())
    for folder, says in ((TEST_IMAGES, "are of the test set"), (one, "no image of class 0, 1, 2, 4")):
        out = tmp_path / "out"
        arguments = [str(tiny_model), "--out", str(out), "--calibration", str(folder), "--data", str(TEST_IMAGES)]
        assert main(["convert", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert says in error
        assert not out.exists()
