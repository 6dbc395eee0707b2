"""Photographs as phones and archives have them: large, on their side, HEIC, AVIF, 16 bits, palettes, CMYK.

What a format holds is read by OpenCV, too, which shares no decoder's rules with Pillow.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from harness.images import dataset
from harness.images.spec import ModelSpec

SPEC = ModelSpec((24, 32), 3, ("0", "1"))


def scene(width: int, height: int) -> Image.Image:
    """A smooth picture in colour, other at each corner."""
    y, x = np.mgrid[:60, :80] / 80
    small = np.stack([255 * x, 255 * y, 200 - 100 * x * y], axis=-1).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def close(content: bytes, expected: Image.Image | np.ndarray, within: float = 4) -> None:
    """What is read is what is expected, resized alike."""
    read = dataset.try_read(content, SPEC)
    assert isinstance(read, np.ndarray), read
    expected = expected if isinstance(expected, Image.Image) else Image.fromarray(expected)
    expected = expected.convert("RGB").resize((32, 24), Image.Resampling.BILINEAR)
    assert np.abs(read.astype(int) - np.asarray(expected, int)).max() <= within


@pytest.mark.parametrize(("width", "height"), [(5656, 4242), (8000, 6000)])
def test_large_jpegs_are_read_smaller(width: int, height: int) -> None:
    """24 and 48 megapixels: never unpacked whole, the same picture, upright if it lay on its side."""
    large = scene(width, height)
    close(encoded(large, "JPEG", quality=90), scene(80, 60))
    exif = Image.Exif()
    exif[0x0112] = 6
    close(encoded(large.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=exif), scene(80, 60))
    with Image.open(io.BytesIO(encoded(large, "JPEG"))) as image:
        dataset._reduce(image)
        assert image.width * image.height <= dataset.MAX_PIXELS


def test_other_large_images_are_refused() -> None:
    """A PNG cannot be unpacked smaller; the reason gives its own size."""
    refused = dataset.try_read(encoded(Image.new("L", (5000, 4000)), "PNG", compress_level=1), SPEC)
    assert refused == "5000x4000 pixels, more than 16 million"


def test_of_an_mpo_the_first_frame_counts() -> None:
    """As phones and stereo cameras write them."""
    content = encoded(scene(80, 60), "MPO", save_all=True, append_images=[Image.new("RGB", (80, 60))])
    close(content, scene(80, 60))


def test_heic_is_read_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the reason names it."""
    pillow_heif.register_heif_opener()
    content = encoded(scene(80, 60), "HEIF", quality=95)
    close(content, scene(80, 60), 8)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "HEIF"])
    refused = dataset.try_read(content, SPEC)
    assert isinstance(refused, str)
    assert refused.startswith("HEIC, which needs pillow-heif")
    assert "HEIC" in str(dataset._not_read(content[:12]))
    assert dataset._not_read(b"\0\0\0\x20ftypavif").startswith("AVIF, which needs Pillow 11.3")


def test_avif_is_read() -> None:
    """By Pillow itself."""
    close(encoded(scene(80, 60), "AVIF", quality=95), scene(80, 60), 8)


def opencv(content: bytes, flags: int) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), flags))


def test_sixteen_bits_are_scaled() -> None:
    """65535 is white: OpenCV's samples divided by 257."""
    ramp = np.linspace(0, 65535, 80 * 60).reshape(60, 80).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        content = encoded(Image.fromarray(ramp), kind)
        samples = opencv(content, -1)
        np.testing.assert_array_equal(samples, ramp)
        close(content, np.round(samples / 257).astype(np.uint8), 1)


def test_a_palette_with_transparency_is_laid_on_white() -> None:
    """One colour of the palette is see-through: OpenCV's alpha on white."""
    picture = scene(80, 60).quantize(16)
    content = encoded(picture, "PNG", transparency=3)
    pixels = opencv(content, -1).astype(float)
    assert (pixels[..., 3] == 0).any()
    alpha = pixels[..., 3:] / 255
    close(content, np.round(pixels[..., 2::-1] * alpha + 255 * (1 - alpha)).astype(np.uint8), 2)


@pytest.mark.parametrize("marked", [True, False])
def test_cmyk_jpegs_are_inverted_with_and_without_adobes_mark(marked: bool) -> None:
    """As OpenCV reads them: white paper is white."""
    content = encoded(scene(80, 60).convert("CMYK"), "JPEG", quality=95)
    start = content.index(b"\xff\xeeddd"[:2])
    if not marked:
        length = int.from_bytes(content[start + 2 : start + 4], "big")
        content = content[:start] + content[start + 2 + length :]
    assert (b"Adobe" in content) == marked
    close(content, np.ascontiguousarray(opencv(content, 1)[..., ::-1]), 6)
    close(content, scene(80, 60), 8)


def test_resizing_is_tensorflows_with_antialias() -> None:
    """Beside tf.image.resize: within a level with antialias=True, far off without when it shrinks."""
    tensorflow = pytest.importorskip("tensorflow")
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    read = dataset.try_read(encoded(Image.fromarray(noise), "PNG"), SPEC)
    assert isinstance(read, np.ndarray)
    smooth, rough = (
        np.abs(tensorflow.image.resize(noise, (24, 32), antialias=antialias).numpy() - read).max()
        for antialias in (True, False)
    )
    assert smooth <= 1
    assert rough > 50


def test_a_file_is_read_as_its_bytes_are(tmp_path: Path) -> None:
    """From a path as from memory."""
    (tmp_path / "a.jpg").write_bytes(encoded(scene(80, 60), "JPEG"))
    np.testing.assert_array_equal(
        dataset.try_read(tmp_path / "a.jpg", SPEC), dataset.try_read((tmp_path / "a.jpg").read_bytes(), SPEC)
    )
