"""Reading images: the one rule for every kind, and a refusal that names what it refuses."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.core.errors import SetupError
from harness.images import dataset
from harness.images.spec import ModelSpec
from tests.conftest import DIGITS

INK, PAPER = 40, 200


def page() -> np.ndarray:
    """A grey 28x28 page with an ink bar."""
    pixels = np.full((28, 28), PAPER, np.uint8)
    pixels[5:20, 12:16] = INK
    return pixels


def test_both_layouts_are_read_in_name_order(tmp_path: Path) -> None:
    """Files <class>_<n>.ext and folders <class>/ give the same labels."""
    flat, nested = tmp_path / "flat", tmp_path / "nested"
    for label in (3, 10, 0):
        (nested / str(label)).mkdir(parents=True)
        flat.mkdir(exist_ok=True)
        Image.fromarray(page()).save(flat / f"{label}_1.png")
        Image.fromarray(page()).save(nested / str(label) / "any name.png")
    (flat / ".DS_Store").write_bytes(b"hidden files are no images")
    assert dataset.load(flat, DIGITS).labels.tolist() == [0, 10, 3]
    assert dataset.load(nested, DIGITS).labels.tolist() == [0, 10, 3]
    assert dataset.load(nested, DIGITS).names == ("0/any name.png", "10/any name.png", "3/any name.png")


@pytest.mark.parametrize("nested", [False, True])
def test_hidden_files_and_litter_are_left_out_and_named(nested: bool, tmp_path: Path) -> None:
    """At any depth, in both layouts, even where they are images; in one line, the most frequent first."""
    for label in (0, 1):
        folder = tmp_path / str(label) if nested else tmp_path
        for name in (f"{label}_1.png", ".ipynb_checkpoints/0_1.png", "__MACOSX/0/._0_1.png", "@eaDir/0_1.png"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(page() + np.uint8(label)).save(folder / name)
        for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
            (folder / name).write_bytes(b"left by an operating system")
    data = dataset.load(tmp_path, DIGITS)
    assert data.names == (("0/0_1.png", "1/1_1.png") if nested else ("0_1.png", "1_1.png"))
    (note,) = data.notes
    assert note.startswith("hidden files, system files and tables are not among the images: ")
    assert note.endswith(" and 1 more names")
    assert ".ipynb_checkpoints/ (2 times)" in data.left_out if nested else ".ipynb_checkpoints/" in data.left_out
    assert len(data.left_out) == 6


def test_a_hidden_parent_does_not_hide_the_set(tmp_path: Path) -> None:
    """A set below ~/.cache is read."""
    folder = tmp_path / ".cache" / "__MACOSX"
    folder.mkdir(parents=True)
    Image.fromarray(page()).save(folder / "0_1.png")
    assert dataset.load(folder, DIGITS).names == ("0_1.png",)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    """A broken link in either layout, and a pipe, which would block for ever."""
    (tmp_path / "1").mkdir()
    Image.fromarray(page()).save(tmp_path / "0_1.png")
    for name in ("0_2.png", "1/3.png"):
        (tmp_path / name).symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "0_4.png")
    data = dataset.load(tmp_path, DIGITS, skip_bad=True)
    assert data.names == ("0_1.png",)
    assert sorted(data.skipped) == [
        f"{name} (not a regular file, or a broken link)" for name in ("0_2.png", "0_4.png", "1/3.png")
    ]


def test_repeated_images_are_counted(tmp_path: Path) -> None:
    """By pixels, whatever their names and classes."""
    for name in ("0_1.png", "0_2.png", "1_1.bmp"):
        Image.fromarray(page()).save(tmp_path / name)
    Image.fromarray(255 - page()).save(tmp_path / "0_3.png")
    assert dataset.load(tmp_path, DIGITS).notes == ("2 of 4 images repeat another's pixels",)


def test_pixels_become_tensors_between_zero_and_one() -> None:
    """0 becomes 0.0, 255 becomes 1.0, as float32."""
    tensor = DIGITS.to_input(np.array([0, 51, 255], np.uint8).reshape(1, 3, 1))
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor[0, :, 0], np.array([0, 0.2, 1], np.float32))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "LA", "1", "I;16", "I", "F"])
def test_every_image_mode_becomes_the_same_grey(mode: str, tmp_path: Path) -> None:
    """Colour, palette, transparent, 16-bit, 32-bit, float and CMYK images of one page read alike."""
    grey = page()
    expected = grey
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "I":
        image = Image.fromarray(grey.astype(np.int32) * 257)
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    elif mode == "1":
        image, expected = Image.fromarray(grey > 100), np.where(grey > 100, 255, 0)
    else:
        image = Image.fromarray(grey).convert(mode)
    path = tmp_path / ("image.tiff" if mode in ("CMYK", "F", "I") else "image.png")
    image.save(path)
    np.testing.assert_allclose(dataset.read_image(path, DIGITS)[..., 0], expected, atol=1)


def test_transparency_is_white_paper(tmp_path: Path) -> None:
    """A fully transparent image reads as white, whatever colour hides below."""
    Image.new("RGBA", (28, 28), (0, 0, 0, 0)).save(tmp_path / "image.png")
    assert (dataset.read_image(tmp_path / "image.png", DIGITS) == 255).all()


def test_another_size_is_resized_whole(tmp_path: Path) -> None:
    """A page four times as wide and twice as high keeps its bar in place."""
    big = np.repeat(np.repeat(page(), 2, axis=0), 4, axis=1)
    Image.fromarray(big).save(tmp_path / "image.png")
    read = dataset.read_image(tmp_path / "image.png", DIGITS)
    assert read.shape == (28, 28, 1)
    assert read[12, 13:15, 0].max() < INK + 5
    assert read[12, :10, 0].min() > PAPER - 5


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    """A photograph stored on its side reads upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees
    Image.fromarray(np.ascontiguousarray(np.rot90(page()))).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(dataset.read_image(tmp_path / "turned.png", DIGITS)[..., 0], page())


def bomb(width: int, height: int) -> bytes:
    """A few bytes of PNG that claim to be a huge image."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


BAD_FILES = {
    "1_2.jpg": (b"", "empty file"),
    "1_3.jpg": (b"this is text", "not an image"),
    "1_4.png": (bomb(5000, 5000), "5000x5000 pixels"),
    "1_5.png": (bomb(60000, 60000), "million pixels"),
    "seven_1.jpg": (b"", "says class seven; the classes are"),
    "7.jpg": (b"", "not <class>_<n>.<ext>"),
    "11_1.jpg": (b"", "says class 11; the classes are 0, 1, 2, 3"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_among_good_ones_is_named(name: str, tmp_path: Path) -> None:
    """The set is refused with the file's name and what is wrong; with skip_bad it is left out and listed."""
    content, what = BAD_FILES[name]
    Image.fromarray(page()).save(tmp_path / "0_1.png")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SetupError) as caught:
        dataset.load(tmp_path, DIGITS)
    assert name in str(caught.value)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
    kept = dataset.load(tmp_path, DIGITS, skip_bad=True)
    assert kept.names == ("0_1.png",)
    assert len(kept.skipped) == 1
    assert name in kept.skipped[0]


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    """Half a JPEG is refused, not read as a half-grey image."""
    Image.fromarray(page()).save(tmp_path / "0_1.jpg")
    whole = (tmp_path / "0_1.jpg").read_bytes()
    (tmp_path / "0_2.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(SetupError, match=r"0_2\.jpg"):
        dataset.load(tmp_path, DIGITS)


def test_many_bad_files_stay_one_line(tmp_path: Path) -> None:
    """Three are named, the rest are counted."""
    for number in range(9):
        (tmp_path / f"0_{number}.jpg").write_bytes(b"")
    with pytest.raises(SetupError, match=r"9 files: .* and 6 more"):
        dataset.load(tmp_path, DIGITS)


def test_a_missing_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    """Neither is an empty dataset."""
    with pytest.raises(SetupError, match="there is none"):
        dataset.load(tmp_path / "nowhere", DIGITS)
    with pytest.raises(SetupError, match="there is none"):
        dataset.load(tmp_path, DIGITS)


def test_the_hash_knows_names_labels_and_pixels() -> None:
    """Any of them changed changes the hash; the same three give the same one."""
    images = np.stack([page(), 255 - page()])[..., None]
    hashes = {
        dataset.build(images, [0, 1], ["a", "b"], DIGITS).sha256,
        dataset.build(images, [1, 1], ["a", "b"], DIGITS).sha256,
        dataset.build(images, [0, 1], ["a", "c"], DIGITS).sha256,
        dataset.build(images[::-1], [0, 1], ["a", "b"], DIGITS).sha256,
    }
    assert len(hashes) == 4
    assert dataset.build(images.copy(), [0, 1], ["a", "b"], DIGITS).sha256 in hashes


PETS = ModelSpec(image_size=(20, 30), channels=3, class_names=("cat", "dog", "fish"))


def test_colour_stays_and_grey_is_repeated_for_an_rgb_model(tmp_path: Path) -> None:
    """RGB, palette and transparent images keep their colours, grey ones get three equal channels, which is said."""
    colour = np.zeros((20, 30, 3), np.uint8)
    colour[:, :15], colour[:, 15:] = (200, 40, 90), (10, 250, 30)
    whole = Image.fromarray(colour)
    (tmp_path / "dog").mkdir()
    for name, image in (("RGB", whole), ("RGBA", whole.convert("RGBA")), ("palette", whole.quantize(4))):
        image.save(tmp_path / "dog" / f"{name}.png")
    (tmp_path / "fish").mkdir()
    for number, grey in enumerate((page(), page().astype(np.uint16) * 257, page() > 100)):
        Image.fromarray(grey).save(tmp_path / "fish" / f"{number}.png")
    data = dataset.load(tmp_path, PETS)
    assert data.labels.tolist() == [1, 1, 1, 2, 2, 2]
    assert data.images.shape == (6, 20, 30, 3)
    np.testing.assert_array_equal(data.images[:3], np.stack([colour] * 3))
    assert (data.images[3:] == data.images[3:, :, :, :1]).all()
    assert data.notes[0] == "3 of 6 images are grey; the model takes RGB"
    assert not any("grey" in note for note in dataset.take(data, np.arange(3)).notes)


def test_a_folder_of_no_class_is_named_with_the_nearest(tmp_path: Path) -> None:
    """Misspelt, or another's; files and folders may name classes, or number them."""
    for name in ("cat", "dogg"):
        (tmp_path / name).mkdir()
        Image.fromarray(page()).save(tmp_path / name / "1.png")
    Image.fromarray(page()).save(tmp_path / "fish_1.png")
    Image.fromarray(page()).save(tmp_path / "2_2.png")
    with pytest.raises(SetupError, match=r"dogg/ \(1 files, folder name says class dogg; did you mean dog\?\)"):
        dataset.load(tmp_path, PETS)
    assert dataset.load(tmp_path, PETS, skip_bad=True).labels.tolist() == [2, 0, 2]


def test_parts_of_a_set_are_the_whole() -> None:
    """Input tensors in batches, and all at once."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, *PETS.shape), np.uint8)
    data = dataset.build(pixels, [0] * 7, list("abcdefg"), PETS)
    np.testing.assert_array_equal(np.concatenate(list(data.batches(3))), data.inputs())
