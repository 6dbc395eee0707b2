"""How long the command takes to start, beside Python itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from statistics import median

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import ROOT
from benchmarks.test_speed import seconds


def test_help(benchmark: BenchmarkFixture) -> None:
    """`harness --help` takes at most 8 times as long as `python -c pass`: no heavy import on start-up."""
    target = 8

    def run(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    def turn() -> Sequence[float]:
        return seconds(lambda: run("-m", "harness", "--help")), seconds(lambda: run("-c", "pass"))

    turn()  # fills the caches
    pairs = benchmark.pedantic(lambda: [turn() for _ in range(20)], rounds=1)
    times = median(ours for ours, _ in pairs) / median(bare for _, bare in pairs)
    benchmark.extra_info |= {"ratio": times, "target": target}
    assert times <= target
