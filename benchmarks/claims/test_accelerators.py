"""Whether the shipped variants answer alike on a GPU, on every image: a GPU in software, half an hour on two cores."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.claims.conftest import Claim
from benchmarks.conftest import MODEL, TEST_IMAGES, VARIANTS
from harness.artifacts.manifest import Variant
from harness.cli import main
from harness.core.outcome import Outcome
from harness.records import record
from tests.needs import SWIFTSHADER, needs


def test_every_variant_passes_on_a_gpu(
    variants: dict[str, Variant],
    tmp_path: Path,
    benchmark: BenchmarkFixture,
    claim: Claim,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """float32, dynamic_range and int8 PASS on the CPU and on LiteRT's GPU accelerator, on all of data/test."""
    needs("accelerators")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(SWIFTSHADER[0]))
    path = tmp_path / "check.json"
    words = ["check", "--models", str(VARIANTS), "--reference", str(MODEL), "--data", str(TEST_IMAGES)]
    words += ["--accelerator", "cpu,gpu", "--no-latency", "--json", str(path)]
    benchmark.pedantic(main, args=(words,), rounds=1)
    cells = record.read(path).cells
    flips = {f"{cell.name}_flips": cell.parity.flips for cell in cells if cell.parity}
    open_or_failed = sum(cell.verdict.outcome is not Outcome.PASS for cell in cells)
    assert len(cells) == 2 * len(variants)
    claim("accelerators: cells of cpu and gpu that do not pass", open_or_failed, at_most=0, **flips)
