"""`harness device benchmark`: our latency beside litert-benchmark's, in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.output import terminal
from harness.tools import litert_benchmark
from harness.tools.litert_benchmark import Comparison, Turn
from tests.conftest import refusal


def test_both_sides_measure_the_same_file(
    tiny_variants: Path, few_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two turns, one begun by each side: times of the same size, whatever the machine does meanwhile."""
    done: list[tuple[str, int, int]] = []
    (result,) = litert_benchmark.variants(
        tiny_variants, ("int8",), few_images, 1, 2, lambda task, count, total: done.append((task, count, total))
    )
    assert result.kind == "int8"
    assert len(result.turns) == 2
    assert all(0.1 < turn.ratio < 10 for turn in result.turns)
    assert done == [("int8 beside litert-benchmark", n, 2) for n in (1, 2)]


def test_the_table_has_medians_and_their_range() -> None:
    """The median of each side and of the turns' ratios, which need not be that of the medians."""
    turns = (Turn(1e-3, 1e-3), Turn(2e-3, 1e-3), Turn(3e-3, 1.5e-3))
    table = terminal.benchmark([Comparison("int8", turns)]).splitlines()
    assert table[0].split() == ["variant", "ours", "litert-benchmark", "ours", "/", "theirs", "range", "over", "turns"]
    assert table[-1].split() == ["int8", "2.00", "ms", "1.00", "ms", "2.000", "1.000", "to", "2.000"]


def test_what_cannot_be_measured_is_refused(
    tiny_variants: Path, few_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown variant, more threads than cores, no turns: one line each."""
    words = ["device", "benchmark", "--models", str(tiny_variants), "--data", str(few_images)]
    assert "has no variant 'int4'; it has dynamic_range, float32, int8" in refusal(
        capsys, main([*words, "--variants", "int4"])
    )
    assert "--threads 9999: expected 1 to " in refusal(capsys, main([*words, "--threads", "9999"]))
    assert "--turns 0: expected a whole number, at least 1" in refusal(capsys, main([*words, "--turns", "0"]))
