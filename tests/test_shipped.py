"""The main job on what ships: the ResNet-164, its calibration set, its test images."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from harness.artifacts import manifest
from harness.cli import main
from tests.conftest import ROOT, SHIPPED, TEST_IMAGES, stored_reference


def test_the_shipped_model_is_small_and_plain() -> None:
    """Under 10 MB, weights and architecture only: no optimizer state."""
    assert SHIPPED.stat().st_size < 10_000_000
    with zipfile.ZipFile(SHIPPED) as archive:
        config = archive.read("config.json")
    assert not json.loads(config)["compile_config"]
    assert b"FusedBatchNormalization" not in config


@pytest.fixture(scope="module")
def variants(shipped_variants: Path) -> Path:
    """The shipped model's variants and its outputs on the committed test images."""
    return Path(shutil.copytree(stored_reference(SHIPPED, TEST_IMAGES), shipped_variants, dirs_exist_ok=True))


def test_from_model_to_verdict(
    variants: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defaults convert and check: PASS, every batch norm folded, float32 without a flip, at least 99 % right."""
    monkeypatch.chdir(ROOT)
    entries = manifest.read(variants)
    assert set(entries) == set(manifest.KINDS)
    assert all((v.batch_norms_folded, v.batch_norms_kept) == (163, {}) for v in entries.values())
    record = tmp_path / "run" / "check.json"
    code = main(["check", "--models", str(variants), "--json", str(record), "--quick"])
    shown = capsys.readouterr().out
    assert code == 0, shown
    shipped = json.loads(record.read_text())
    parities = {cell["variant"]: cell["parity"] for cell in shipped["cells"]}
    assert parities["float32"]["flips"] == 0
    for parity in parities.values():
        assert parity["images"] == 2200
        assert parity["reference_accuracy"] >= 0.99
        assert parity["accuracy"] >= 0.985
    assert main(["verdict", str(record)]) == 0
    assert [stage["target"] for stage in shipped["cells"][-1]["stages"]] == ["float32", "int8"]


def test_no_broken_variant_passes(
    variants: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`harness selftest` on what ships, by the default limits: every case as expected, exit code 0."""
    monkeypatch.chdir(ROOT)
    assert main(["selftest", "--models", str(variants)]) == 0, capsys.readouterr().out
    assert "23 of 23 cases as expected" in capsys.readouterr().out
