"""Reading images: the one rule for every kind, and a refusal that names what it refuses."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import dataset
from harness.errors import SetupError

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
    assert dataset.load(flat).labels.tolist() == [0, 10, 3]
    assert dataset.load(nested).labels.tolist() == [0, 10, 3]
    assert dataset.load(nested).names == ("0/any name.png", "10/any name.png", "3/any name.png")


def test_pixels_become_tensors_between_zero_and_one() -> None:
    """0 becomes 0.0, 255 becomes 1.0, as float32."""
    tensor = dataset.to_input(np.array([0, 51, 255], np.uint8))
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor, [0, 0.2, 1])


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
    np.testing.assert_allclose(dataset.read_image(path)[..., 0], expected, atol=1)


def test_transparency_is_white_paper(tmp_path: Path) -> None:
    """A fully transparent image reads as white, whatever colour hides below."""
    Image.new("RGBA", (28, 28), (0, 0, 0, 0)).save(tmp_path / "image.png")
    assert (dataset.read_image(tmp_path / "image.png") == 255).all()


def test_another_size_is_resized_whole(tmp_path: Path) -> None:
    """A page four times as wide and twice as high keeps its bar in place."""
    big = np.repeat(np.repeat(page(), 2, axis=0), 4, axis=1)
    Image.fromarray(big).save(tmp_path / "image.png")
    read = dataset.read_image(tmp_path / "image.png")
    assert read.shape == (28, 28, 1)
    assert read[12, 13:15, 0].max() < INK + 5
    assert read[12, :10, 0].min() > PAPER - 5


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    """A photograph stored on its side reads upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees
    Image.fromarray(np.ascontiguousarray(np.rot90(page()))).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(dataset.read_image(tmp_path / "turned.png")[..., 0], page())


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
    "seven_1.jpg": (b"", "not <class>_<n>.<ext>"),
    "7.jpg": (b"", "not <class>_<n>.<ext>"),
    "11_1.jpg": (b"", "class 11, the classes are 0-10"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_among_good_ones_is_named(name: str, tmp_path: Path) -> None:
    """The set is refused with the file's name and what is wrong; with skip_bad it is left out and listed."""
    content, what = BAD_FILES[name]
    Image.fromarray(page()).save(tmp_path / "0_1.png")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SetupError) as caught:
        dataset.load(tmp_path)
    assert name in str(caught.value)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
    kept = dataset.load(tmp_path, skip_bad=True)
    assert kept.names == ("0_1.png",)
    assert len(kept.skipped) == 1
    assert name in kept.skipped[0]


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    """Half a JPEG is refused, not read as a half-grey image."""
    Image.fromarray(page()).save(tmp_path / "0_1.jpg")
    whole = (tmp_path / "0_1.jpg").read_bytes()
    (tmp_path / "0_2.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(SetupError, match=r"0_2\.jpg"):
        dataset.load(tmp_path)


def test_many_bad_files_stay_one_line(tmp_path: Path) -> None:
    """Three are named, the rest are counted."""
    for number in range(9):
        (tmp_path / f"0_{number}.jpg").write_bytes(b"")
    with pytest.raises(SetupError, match=r"9 files: .* and 6 more"):
        dataset.load(tmp_path)


def test_a_missing_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    """Neither is an empty dataset."""
    with pytest.raises(SetupError, match="there is none"):
        dataset.load(tmp_path / "nowhere")
    with pytest.raises(SetupError, match="there is none"):
        dataset.load(tmp_path)


def test_the_hash_knows_names_labels_and_pixels() -> None:
    """Any of them changed changes the hash; the same three give the same one."""
    images = np.stack([page(), 255 - page()])[..., None]
    hashes = {
        dataset.build(images, [0, 1], ["a", "b"]).sha256,
        dataset.build(images, [1, 1], ["a", "b"]).sha256,
        dataset.build(images, [0, 1], ["a", "c"]).sha256,
        dataset.build(images[::-1], [0, 1], ["a", "b"]).sha256,
    }
    assert len(hashes) == 4
    assert dataset.build(images.copy(), [0, 1], ["a", "b"]).sha256 in hashes
