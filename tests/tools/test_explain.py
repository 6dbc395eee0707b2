"""`harness explain` on tiny variants: sound ones, and ones broken in ways that it must name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from converters import calibration, quantize
from harness.cli import main
from harness.core.errors import SetupError
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.tools import explain
from tests.conftest import CALIBRATION, DIGITS

# litert-quantizer's own interpreter, when it quantizes in this process
pytestmark = pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all_tensors`")


@pytest.fixture(scope="session")
def data() -> Dataset:
    return dataset.take(dataset.load(CALIBRATION, DIGITS), np.arange(0, 220, 20))


def test_a_sound_variant_has_no_cause(tiny_variants: Path, data: Dataset) -> None:
    """int8: every layer paired with float32's, none clipped, no cause named."""
    float32, quantized = ((tiny_variants / f"{kind}.tflite").read_bytes() for kind in ("float32", "int8"))
    found = explain.explain(float32, quantized, data.inputs())
    assert len(found.layers) > 30
    assert all(layer.clipped is not None and layer.clipped < 0.02 for layer in found.layers[:-1])  # softmax saturates
    assert not [cause for cause in found.causes if "clipping" in cause or "input" in cause or "fallback" in cause]
    assert found.layers[0].snr_db > 30
    assert found.ranked[0].lost_db == max(layer.lost_db for layer in found.layers)


def test_float32_beside_itself_is_equal(tiny_variants: Path, data: Dataset) -> None:
    """No error anywhere, cosine 1."""
    content = (tiny_variants / "float32.tflite").read_bytes()
    found = explain.explain(content, content, data.inputs()[:2])
    assert {layer.snr_db for layer in found.layers} == {explain.NO_ERROR_DB}
    assert all(layer.cosine == pytest.approx(1) for layer in found.layers)
    assert not found.causes


def test_too_narrow_ranges_are_named_as_clipping(tiny_variants: Path, data: Dataset) -> None:
    """Quantized with a quarter of the ranges that the images need; the input, quantized well, is not blamed."""
    content = (tiny_variants / "float32.tflite").read_bytes()
    ranges = calibration.measure(content, data)
    entry = next(iter(ranges))
    quarter = np.float32(0.25)
    narrow = {
        name: limits if name == entry else (limits[0] * quarter, limits[1] * quarter) for name, limits in ranges.items()
    }
    found = explain.explain(content, quantize.make("int8", content, narrow), data.inputs())
    assert any(cause.startswith("clipping range") for cause in found.causes)


def test_a_wrong_input_range_is_named_first(tiny_variants: Path, data: Dataset) -> None:
    """Made for pixels of 0..0.1: nine tenths of the input's range are clipped."""
    content = (tiny_variants / "float32.tflite").read_bytes()
    dark = dataset.build(data.images, data.labels.tolist(), data.names, replace(DIGITS, pixel_range=(0.0, 0.1)))
    narrow = quantize.make("int8", content, calibration.measure(content, dark))
    found = explain.explain(content, narrow, data.inputs())
    assert found.causes[0].startswith("wrong input quantization")


def test_from_the_command_line(
    tiny_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table, and a page with the profile; a variant that is not there is refused."""
    page = tmp_path / "int8.html"
    arguments = ["--models", str(tiny_variants), "--data", str(few_images), "--images", "3"]
    assert main(["explain", "int8", *arguments, "--html", str(page)]) == 0
    assert "layers beside float32's on 3 images" in capsys.readouterr().out
    assert "data:image/svg+xml" in page.read_text()
    assert main(["explain", "int4", *arguments]) == 2
    assert "has no variant 'int4'" in capsys.readouterr().err


def test_files_without_common_layers_are_refused(tiny_variants: Path, data: Dataset) -> None:
    """Broken bytes are, too."""
    content = (tiny_variants / "float32.tflite").read_bytes()
    with pytest.raises(SetupError, match="interpreter refuses"):
        explain.explain(content, content[:1000], data.inputs()[:1])
