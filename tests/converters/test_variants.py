"""The kinds that are made when asked for: float16, float ends, int16 activations, mixed precision."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from converters import calibration, mixed
from harness.artifacts import manifest
from harness.artifacts.manifest import MIXED, RECOVERED
from harness.cli import main
from harness.images import dataset
from tests.conftest import CALIBRATION, DIGITS, FEW_IMAGES_POLICY, ROOT, stored_reference, stored_variants

KINDS = tuple(kind for kind in manifest.KNOWN_KINDS if kind != RECOVERED)  # that one: test_recovery.py
ALL = ("--variants", ",".join(KINDS), "--max-flips", "0")


def convert(model: Path, out: Path, *more: str) -> int:
    return main(["convert", str(model), "--out", str(out), *more])


@pytest.fixture(scope="session")
def extra(tiny_model: Path, few_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds, mixed precision without any flip among them, and the reference outputs on `few_images`."""
    out = tmp_path_factory.mktemp("extra") / "out"
    shutil.copytree(stored_variants(tiny_model, *ALL), out)
    return Path(shutil.copytree(stored_reference(tiny_model, few_images), out, dirs_exist_ok=True))


def operations(content: bytes) -> Counter[str]:
    return Counter(one["op_name"] for one in Interpreter(model_content=content)._get_ops_details())


def test_every_kind_is_named_alike_everywhere(extra: Path) -> None:
    """File, manifest entry; input and output as the name says."""
    variants = manifest.read(extra)
    assert set(variants) == set(KINDS)
    for kind, variant in variants.items():
        assert variant.path(extra).name == f"{kind}.tflite"
        ends = {variant.input.dtype, variant.output.dtype}
        expected = {"int8": "int8", "int16x8": "int16"}.get(kind, "float32")
        assert ends == {expected}
        assert bool(variant.input.scale) == (expected != "float32")


def test_float16_halves_the_weights(extra: Path) -> None:
    """Smaller than float32 by nearly a half, and float16 constants inside."""
    content = (extra / "float16.tflite").read_bytes()
    assert len(content) < 0.7 * (extra / "float32.tflite").stat().st_size
    assert np.float16 in {tensor["dtype"] for tensor in Interpreter(model_content=content).get_tensor_details()}


def test_int16_activations_have_int8_weights(extra: Path) -> None:
    """Both types, and no float left between integer ends."""
    details = Interpreter(model_path=str(extra / "int16x8.tflite")).get_tensor_details()
    assert {np.int16, np.int8} <= {tensor["dtype"] for tensor in details}
    assert np.float32 not in {tensor["dtype"] for tensor in details}


def test_files_declare_the_op_versions_they_need(extra: Path) -> None:
    """int8 convolutions are version 3 (TensorFlow Lite 1.14), hybrid ones 5 (2.4); no unused operation is listed."""
    variants = manifest.read(extra)
    assert variants["float32"].op_versions["CONV_2D"] == 1
    assert variants["int8"].op_versions["CONV_2D"] == 3
    assert variants["dynamic_range"].op_versions["CONV_2D"] == 5
    assert "RELU" not in variants["int8"].op_versions
    assert variants["dynamic_range"].oldest_runtime == "2.4.0"
    for kind, variant in variants.items():
        assert set(variant.op_versions) == set(operations(variant.path(extra).read_bytes())) - {"DELEGATE"}, kind


def test_mixed_leaves_float_what_hurts_most(tiny_variants: Path) -> None:
    """One tensor's range made far too narrow: what makes and reads it stays float, the rest becomes int8."""
    float32 = (tiny_variants / "float32.tflite").read_bytes()
    data = dataset.take(dataset.load(CALIBRATION, DIGITS), np.arange(0, 220, 2))
    ranges = calibration.measure(float32, data)
    layers = mixed.layers(float32)
    spoilt = layers[8][-1]
    sound = mixed.choose(float32, ranges, data, len(data))
    low, high = (limit / np.float32(50) for limit in ranges[spoilt])
    choice = mixed.choose(float32, {**ranges, spoilt: (low, high)}, data, sound.flips_all_int8 + 2)
    assert choice.flips_all_int8 > 20
    assert choice.flips <= sound.flips_all_int8 + 2
    assert layers[8][0] in choice.float_layers
    assert len(choice.float_layers) < choice.layers / 2
    assert {"DEQUANTIZE", "QUANTIZE", "CONV_2D"} <= set(operations(choice.content))
    assert sound.float_layers == ()


def test_mixed_keeps_within_its_budget(extra: Path) -> None:
    """No flip of the calibration images, as asked; the manifest says on how many images and with which layers."""
    told = manifest.read(extra)[MIXED].mixed
    assert told is not None
    assert (told.max_flips, told.flips, told.images) == (0, 0, 220)
    assert told.flips_all_int8 > 0
    assert 0 < len(told.float_layers) < told.layers


def test_mixed_needs_a_budget(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for by name without --max-flips, or with less than none."""
    assert convert(tiny_model, tmp_path / "out", "--variants", MIXED) == 2
    assert "--max-flips" in capsys.readouterr().err
    assert convert(tiny_model, tmp_path / "out", "--max-flips", "-1") == 2
    assert "at least 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kinds", "latency"),
    [(["float16", "int8_float_io", MIXED], "--quick"), (["int16x8"], "--no-latency")],  # int16x8 is slow
)
def test_check_judges_the_other_kinds(
    kinds: list[str], latency: str, extra: Path, tiny_model: Path, few_images: Path, tmp_path: Path
) -> None:
    """One row each, with figures; all PASS."""
    record = tmp_path / "check.json"
    arguments = ["check", "--models", str(extra), "--reference", str(tiny_model), "--data", str(few_images)]
    arguments += ["--variants", ",".join(kinds), latency, "--policy", str(FEW_IMAGES_POLICY), "--json", str(record)]
    assert main(arguments) == 0
    rows = json.loads(record.read_text())["cells"]
    assert sorted(row["variant"] for row in rows) == sorted(kinds)
    assert all(row["parity"]["flips"] is not None for row in rows)
    assert all(bool(row["latency"]) == (latency == "--quick") for row in rows)


def test_the_same_bytes_again(extra: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Converted anew, by another process, every kind is byte-identical."""
    assert convert(tiny_model, tmp_path, *ALL) == 0
    for kind in KINDS:
        assert (tmp_path / f"{kind}.tflite").read_bytes() == (extra / f"{kind}.tflite").read_bytes(), kind


def test_calibration_is_the_training_side(extra: Path) -> None:
    """The manifest names the calibration set of the kinds that have one, and of no other."""
    for kind, variant in manifest.read(extra).items():
        assert (variant.calibration_size == 220) == kind.startswith("int"), kind
    assert CALIBRATION.is_relative_to(ROOT)
