"""What a model takes and gives: the config beside it, classes by name or number, and what pixels become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from harness.core import shapes
from harness.core.errors import SetupError
from harness.images import spec
from harness.images.spec import ModelSignature, ModelSpec
from tests.conftest import DIGITS, ROOT

PETS = ModelSpec(image_size=(24, 32), channels=3, class_names=("cat", "dog", "fish"))
GREYS = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)


def told(tmp_path: Path, content: str, ends: ModelSignature = PETS.signature) -> ModelSpec:
    (tmp_path / "own.toml").write_text(content)
    return spec.combine(ends, spec.load_config(tmp_path / "own.keras"), tmp_path / "own.keras")


def test_without_a_config_classes_are_numbers_and_pixels_shares(tmp_path: Path) -> None:
    """Size, channels and class count are the model's."""
    found = spec.combine(PETS.signature, spec.load_config(tmp_path / "own.keras"), tmp_path / "own.keras")
    assert found == replace(PETS, class_names=("0", "1", "2"))
    assert found.images == "32x24 RGB images"


def test_a_config_beside_the_model_or_named_is_read(tmp_path: Path) -> None:
    """The one that is named wins; what a spec writes reads as that spec."""
    own = replace(PETS, pixel_range=(-1.0, 1.0), mean=(0.0, 0.5, 1.0), std=(1.0, 2.0, 1.0))
    assert told(tmp_path, own.to_toml()) == own
    (tmp_path / "other.toml").write_text('class_names = ["a", "b", "ü"]')
    named = spec.load_config(tmp_path / "own.keras", tmp_path / "other.toml")
    assert spec.combine(PETS.signature, named, tmp_path / "own.keras").class_names == ("a", "b", "ü")
    assert shapes.decode(shapes.encode(own), ModelSpec, "a manifest") == own


def test_the_shipped_models_config_names_its_classes() -> None:
    """0 to 9 and noise."""
    model = ROOT / "models" / "resnet164.keras"
    assert spec.combine(DIGITS.signature, spec.load_config(model), model) == DIGITS


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('class_name = ["a"]', "did you mean 'class_names'?"),
        ('class_names = ["cat", "dog"]', "class_names has 2 names, the model gives 3 classes"),
        ('class_names = ["cat", "dog", "cat"]', "'cat' twice"),
        ("class_names = 3", "expected a list"),
        ("pixel_range = [0, 0]", "what 0 and 255 become"),
        ("pixel_range = [0, 1, 2]", "expected [float, float]"),
        ("pixel_range = '0..1'", "expected [float, float]"),
        ("mean = [0.5]", "mean has 1 numbers: expected one a channel, 3"),
        ("std = [1, 0, 1]", "expected numbers above 0"),
        ("image_size = [24, 24]", "the model takes [24, 32]"),
        ("class_names = [", "not valid TOML"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(content: str, says: str, tmp_path: Path) -> None:
    """In one line that names the file and the nearest valid key, or what was expected."""
    with pytest.raises(SetupError) as caught:
        told(tmp_path, content)
    assert says in str(caught.value)
    assert str(tmp_path / "own.toml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_of_any_size_is_told_its_size(tmp_path: Path) -> None:
    """By image_size, and refused without."""
    ends = ModelSignature(None, 1, (spec.only_classes(2),))
    assert told(tmp_path, "image_size = [9, 7]", ends).shape == (9, 7, 1)
    with pytest.raises(SetupError, match="images of any size"):
        told(tmp_path, "", ends)


def test_classes_are_named_or_numbered() -> None:
    """A name first; a number unless some class is named by another's number."""
    assert [PETS.label(text) for text in ("dog", "1", "01", "bird", "3")] == [1, 1, 1, None, None]
    assert [DIGITS.label(text) for text in ("7", "noise", "10", "11")] == [7, 10, 10, None]
    shifted = replace(PETS, class_names=("1", "2", "three"))
    assert [shifted.label(text) for text in ("1", "2", "three", "0")] == [0, 1, 2, None]
    assert PETS.nearest("catt") == "did you mean cat?"


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (1.0, 0.0)])
def test_pixels_become_the_range(pixel_range: tuple[float, float]) -> None:
    """0 its first number, 255 its second, evenly between, as float32."""
    found = replace(DIGITS, pixel_range=pixel_range).to_input(GREYS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.ravel(), np.linspace(*pixel_range, 256), rtol=1e-6, atol=1e-6)


def test_the_default_is_a_division_by_255() -> None:
    """Bit for bit, as users' own code does it."""
    np.testing.assert_array_equal(DIGITS.to_input(GREYS), GREYS.astype(np.float32) / np.float32(255))


def test_a_spec_in_words() -> None:
    """What convert shows, so that a wrong default is seen."""
    assert str(DIGITS) == "28x28 grey images, pixels 0 to 1; 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, noise"
    own = replace(PETS, pixel_range=(-1.0, 1.0), mean=(0.5, 0.25, 0.0))
    assert str(own) == "32x24 RGB images, pixels -1 to 1, mean 0.5, 0.25, 0; cat, dog, fish"


def test_each_channel_has_its_mean_and_deviation() -> None:
    """As models trained on ImageNet want it."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    own = replace(PETS, mean=mean, std=std)
    pixels = np.random.default_rng(0).integers(0, 256, (2, *own.shape), np.uint8)
    np.testing.assert_allclose(own.to_input(pixels), (pixels / 255 - mean) / std, rtol=1e-5, atol=1e-6)
    low, high = own.input_range
    assert (low, high) == pytest.approx((-0.485 / 0.229, (1 - 0.406) / 0.225))
