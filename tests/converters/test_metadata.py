"""TFLite metadata: what other readers get from a file, and that its answers stay the same to the bit."""

from __future__ import annotations

import io
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from converters import interpreter, metadata
from converters.metadata import About
from harness.artifacts import flatbuffer, manifest
from harness.artifacts import metadata as stored
from harness.cli import main
from harness.images import dataset
from harness.images.spec import ModelSpec
from tests.conftest import CALIBRATION, DIGITS, TEST_IMAGES


class Reader:
    """A table of a flatbuffer, read by the format's own rules: an offset to each field stands in its vtable."""

    def __init__(self, content: bytes, place: int) -> None:
        self.content, self.place = content, place

    @classmethod
    def root(cls, content: bytes) -> Reader:
        return cls(content, struct.unpack_from("<I", content)[0])

    def _field(self, number: int) -> int:
        vtable = self.place - struct.unpack_from("<i", self.content, self.place)[0]
        (size,) = struct.unpack_from("<H", self.content, vtable)
        offset = struct.unpack_from("<H", self.content, vtable + 4 + 2 * number)[0] if 4 + 2 * number < size else 0
        return self.place + offset if offset else 0

    def _followed(self, place: int) -> int:
        return place + int(struct.unpack_from("<I", self.content, place)[0])

    def byte(self, number: int) -> int:
        return self.content[self._field(number)]

    def uint(self, number: int) -> int:
        return int(struct.unpack_from("<I", self.content, self._field(number))[0])

    def text(self, number: int) -> str:
        if not (field := self._field(number)):
            return ""
        start = self._followed(field)
        (size,) = struct.unpack_from("<I", self.content, start)
        return self.content[start + 4 : start + 4 + size].decode()

    def table(self, number: int) -> Reader:
        return Reader(self.content, self._followed(self._field(number)))

    def tables(self, number: int) -> list[Reader]:
        if not (field := self._field(number)):
            return []
        start = self._followed(field)
        (size,) = struct.unpack_from("<I", self.content, start)
        return [Reader(self.content, self._followed(start + 4 + 4 * i)) for i in range(size)]

    def floats(self, number: int) -> list[float]:
        start = self._followed(self._field(number))
        (size,) = struct.unpack_from("<I", self.content, start)
        return list(struct.unpack_from(f"<{size}f", self.content, start + 4))


def read(content: bytes) -> Reader:
    entry = flatbuffer.metadata(flatbuffer.read(content), stored.ENTRY)
    assert entry is not None
    assert entry[4:8] == b"M001"
    return Reader.root(entry)


@pytest.mark.parametrize("kind", manifest.KINDS)
def test_metadata_is_read_and_answers_stay_the_same(kind: str, tiny_variants: Path) -> None:
    """Names, author, licence, source, size, normalization and labels; every output equal to the bit."""
    variant = manifest.read(tiny_variants)[kind]
    content = variant.path(tiny_variants).read_bytes()
    about = About("Ann Author", "MIT License")
    described = metadata.add(content, kind, variant.source_sha256, "tiny", DIGITS, about)
    assert described == metadata.add(content, kind, variant.source_sha256, "tiny", DIGITS, about)
    model = read(described)
    assert (model.text(0), model.text(4), model.text(5)) == ("tiny", "Ann Author", "MIT License")
    assert variant.source_sha256 in model.text(1)
    (graph,) = model.tables(3)
    ((image,), (answer,)) = graph.tables(2), graph.tables(3)
    assert image.table(3).byte(0) == 2  # ImageProperties
    properties = image.table(3).table(1)
    assert (properties.byte(0), properties.table(1).uint(0), properties.table(1).uint(1)) == (2, 28, 28)
    (unit,) = image.tables(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ([0.0], [255.0])
    (labels,) = answer.tables(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    with zipfile.ZipFile(io.BytesIO(described)) as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(DIGITS.class_names)
    data = dataset.take(dataset.load(CALIBRATION, DIGITS), np.arange(0, 220, 20))
    assert np.array_equal(interpreter.predict(described, data), interpreter.predict(content, data))


def test_normalization_is_of_pixels_of_0_to_255() -> None:
    """(pixel - mean) / std is what the model's spec makes of a pixel, for any range, mean and deviation."""
    digits = replace(DIGITS, pixel_range=(-1.0, 1.0))
    colours = ModelSpec((8, 8), 3, ("a", "b"), (0.0, 1.0), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for spec in (DIGITS, digits, colours):
        pixels = np.random.default_rng(0).integers(0, 256, spec.shape, np.uint8)
        mean, std = metadata.normalization(spec)
        assert np.allclose((pixels - np.array(mean)) / np.array(std), spec.to_input(pixels), atol=1e-6)


def test_inspect_reads_it_and_survives_damage(tiny_variants: Path) -> None:
    """All that is written comes back; a file without it has none; a damaged one is one line, whatever its bytes."""
    variant = manifest.read(tiny_variants)["int8"]
    content = variant.path(tiny_variants).read_bytes()
    assert stored.read(content, flatbuffer.read(content)) is None
    described = metadata.add(content, "int8", variant.source_sha256, "tiny", DIGITS, About("Ann", "MIT"))
    model = flatbuffer.read(described)
    told = stored.read(described, model)
    assert told
    assert (told.name, told.author, told.licence) == ("tiny", "Ann", "MIT")
    assert (told.mean, told.std, told.labels) == ((0.0,), (255.0,), DIGITS.class_names)
    assert variant.source_sha256 in told.description
    entry = flatbuffer.metadata(model, stored.ENTRY)
    assert entry
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(entry)
        damaged[random.integers(len(entry))] ^= 1 << random.integers(8)
        flatbuffer.set_metadata(model, stored.ENTRY, bytes(damaged[: random.integers(8, len(entry) + 1)]))
        with suppress(ValueError):
            stored.read(described, model)


def test_convert_writes_metadata_only_if_asked(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By --metadata, or an author or licence; the manifest's hashes are those of the files."""
    images = ["--calibration", str(CALIBRATION), "--data", str(TEST_IMAGES), "--variants", "float32"]
    assert main(["convert", str(tiny_model), "--out", str(tmp_path / "plain"), *images]) == 0
    assert main(["convert", str(tiny_model), "--out", str(tmp_path / "told"), *images, "--author", "Ann"]) == 0
    plain, told = ((tmp_path / name / "float32.tflite").read_bytes() for name in ("plain", "told"))
    assert flatbuffer.metadata(flatbuffer.read(plain), stored.ENTRY) is None
    assert read(told).text(4) == "Ann"
    variant = manifest.read(tmp_path / "told")["float32"]
    assert manifest.verify(tmp_path / "told", variant, variant.source_sha256) == told
    assert main(["inspect", str(tmp_path / "told" / "float32.tflite")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "metadata: tiny; by Ann; float32 of the Keras model tiny, whose SHA-256 is" in shown
    assert "metadata: 11 labels: 0, 1, 2" in shown
    assert "metadata: input = (pixel - 0) / 255 for pixels of 0 to 255" in shown
