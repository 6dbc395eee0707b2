"""Mistakes that apps make with images, planted in tensors and named from them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from harness.artifacts.outputs import quantize
from harness.images import dataset
from harness.images.spec import ModelSpec
from harness.tools import app_readings
from harness.tools.app_inputs import SIGN, Input, are_right, explain_inputs
from harness.tools.app_readings import Images, Reading, lines, readings

GREY = ModelSpec((28, 28), 1, tuple(map(str, range(11))))
RGB = ModelSpec((24, 32), 3, tuple(map(str, range(5))), (-1.0, 1.0))
NORMALIZED = ModelSpec((32, 32), 3, ("a", "b"), (0.0, 1.0), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
SPECS = [GREY, RGB, NORMALIZED]
INT8 = Input(GREY, 1 / 255, -128, (-128, 127))
UNSCALED = "not scaled: pixels 0 to 255 as they are"


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """Nine coloured, detailed, asymmetric images of odd sizes; every third one is turned by EXIF."""
    rng = np.random.default_rng(0)
    images = []
    for number in range(9):
        width, height = int(rng.integers(70, 160)), int(rng.integers(70, 160))
        image = Image.new("RGB", (width, height), tuple(rng.integers(120, 255, 3).tolist()))
        draw = ImageDraw.Draw(image)
        for _ in range(25):
            x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
            box = (x, y, x + int(rng.integers(3, 30)), y + int(rng.integers(3, 30)))
            draw.rectangle(box, fill=tuple(rng.integers(0, 255, 3).tolist()))
        if number % 3 == 0:
            image.getexif()[0x0112] = 6
        images.append(image)
    return images


def tensors(images: Images, spec: ModelSpec, way: Reading, line: np.ndarray | None = None) -> np.ndarray:
    """What an app feeds that reads images in a way, and maps 0 and 255 to the ends of a line [2, channels]."""
    low, high = lines(spec, 0.0, 0)[""] if line is None else line
    return np.asarray(low + images.read(way) * (high - low) / 255, np.float32)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_mistake_of_reading_is_named(spec: ModelSpec, photographs: list[Image.Image]) -> None:
    """Channels, orientation, resizing and tone, each alone."""
    images = Images(photographs, spec)
    singles = [way for way in readings(spec, images.has_exif) if len(way.mistakes) == 1]
    assert len(singles) >= 16
    for way in singles:
        explained = explain_inputs(images, tensors(images, spec, way), Input(spec))
        assert explained.known, way
        assert explained.mistakes == way.mistakes
        assert explained.fit > 0.99


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_mistake_of_scaling_is_named(spec: ModelSpec, photographs: list[Image.Image]) -> None:
    """Not scaled, scaled twice, another range, mean and standard deviation."""
    images = Images(photographs, spec)
    known = lines(spec, 0.0, 0)
    for name, line in known.items():
        twins = [other for other, ends in known.items() if np.allclose(ends, line)]
        explained = explain_inputs(images, tensors(images, spec, Reading(), line), Input(spec))
        assert explained.known
        assert (explained.mistakes or ("",))[0] in twins, name


def test_pairs_of_mistakes_are_named(photographs: list[Image.Image]) -> None:
    """A seeded choice of pairs of all kinds, and one of reading with one of scaling."""
    images = Images(photographs, RGB)
    pairs = [way for way in readings(RGB, True) if len(way.mistakes) == 2]
    for i in np.random.default_rng(1).choice(len(pairs), 6, replace=False):
        explained = explain_inputs(images, tensors(images, RGB, pairs[i]), Input(RGB))
        assert set(explained.mistakes) == set(pairs[i].mistakes)
    unscaled = lines(RGB, 0.0, 0)[UNSCALED]
    for way in (Reading(channels="channels swapped (BGR for RGB)"), Reading(resizing="bilinear without antialiasing")):
        explained = explain_inputs(images, tensors(images, RGB, way, unscaled), Input(RGB))
        assert set(explained.mistakes) == {*way.mistakes, UNSCALED}


def test_a_right_app_is_not_accused(photographs: list[Image.Image]) -> None:
    """A hundred times: pixels off by what another decoder rounds, as floats or as int8, no mistake is named."""
    rng = np.random.default_rng(2)
    for number in range(100):
        spec = SPECS[number % 3]
        images = Images([photographs[i] for i in rng.choice(9, 3, replace=False)], spec)
        low, high = lines(spec, 0.0, 0)[""]
        right = tensors(images, spec, Reading())
        fed = right + rng.normal(0, 1.5 / 255, right.shape) * (high - low)
        takes = Input(spec)
        if number % 2:
            scale = float((high - low).max()) / 255
            zero_point = round(-128 - float(low.min()) / scale)
            takes = Input(spec, scale, zero_point, (-128, 127))
            fed = quantize(fed, np.int8, scale, zero_point) if number % 4 == 1 else fed
        assert are_right(fed, right, takes).all()
        assert explain_inputs(images, fed, takes).right


def test_the_tool_and_the_harness_read_images_alike(photographs: list[Image.Image]) -> None:
    """What counts as right here is what a dataset makes of the same file, but for rounding."""
    for spec in SPECS:
        for image in photographs[1:3]:
            expected = dataset._convert(image.copy(), spec)
            assert np.abs(Images([image], spec).read(Reading())[0] - expected).max() <= 2


def test_tensors_of_other_images_are_explained_by_none(photographs: list[Image.Image]) -> None:
    """Noise, and images in another order, are none of the known mistakes."""
    images = Images(photographs, RGB)
    right = tensors(images, RGB, Reading())
    assert not explain_inputs(images, np.roll(right, 1, axis=0), Input(RGB)).known
    assert not explain_inputs(images, np.random.default_rng(3).normal(size=right.shape), Input(RGB)).known


def test_an_image_that_others_do_not_explain_is_named(photographs: list[Image.Image]) -> None:
    """One of nine is another image's tensor: it is named, and the app is not right."""
    images = Images(photographs, RGB)
    fed = tensors(images, RGB, Reading())
    fed[4] = fed[7]
    explained = explain_inputs(images, fed, Input(RGB))
    assert explained.outliers == (4,)
    assert not explained.right


def test_planes_and_columns_are_named(photographs: list[Image.Image]) -> None:
    """Channels first, and a tensor stored column by column; another number of values is refused."""
    images = Images(photographs, RGB)
    right = tensors(images, RGB, Reading())
    planes = explain_inputs(images, np.moveaxis(right, -1, 1), Input(RGB))
    assert planes.mistakes == ("channels first (planes) instead of last",)
    columns = explain_inputs(images, right.swapaxes(1, 2).copy(), Input(RGB))
    assert columns.mistakes == ("stored column by column instead of row by row",)
    with pytest.raises(ValueError, match="784 values an image; the model takes"):
        explain_inputs(images, np.zeros((9, 28, 28, 1)), Input(RGB))


def test_mistakes_with_integers_are_named(photographs: list[Image.Image]) -> None:
    """Bytes for int8, a zero point left out (wrapped and clipped), values not scaled or scaled twice, then rounded."""
    images = Images(photographs, GREY)
    pixels = np.round(images.read(Reading()))
    stored = (pixels - 128).astype(np.int8)
    planted = {
        (): stored,
        (SIGN,): stored.view(np.uint8),
        ("input zero point not applied",): pixels,
        ("scaled twice",): quantize(pixels / 255 / 255, np.int8, INT8.scale, INT8.zero_point),
        ("input scale and zero point not applied",): np.clip(np.round(pixels / 255), -128, 127).astype(np.int8),
    }
    for mistakes, fed in planted.items():
        assert explain_inputs(images, fed, INT8).mistakes == mistakes
    zero_point = "input zero point not applied"
    for fed in (pixels.astype(np.uint8).view(np.int8), np.minimum(pixels, 127).astype(np.int8)):
        assert explain_inputs(images, fed, INT8).mistakes == (zero_point,)
    mirrored = images.read(Reading(orientation="mirrored left to right"))
    explained = explain_inputs(images, mirrored.astype(np.uint8).view(np.int8), INT8)
    assert set(explained.mistakes) == {"mirrored left to right", zero_point}
    assert app_readings.range_name(0, 1) == "wrong range: pixels became 0 to 1"
