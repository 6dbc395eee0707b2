"""How long the command takes to start, beside Python itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from statistics import median

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.claims.conftest import Claim
from benchmarks.claims.paired import seconds
from benchmarks.conftest import ROOT


def test_help(benchmark: BenchmarkFixture, claim: Claim) -> None:
    """`harness --help` takes at most 8 times as long as `python -c pass`: no heavy import on start-up."""

    def run(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    def turn() -> Sequence[float]:
        return seconds(lambda: run("-m", "harness", "--help")), seconds(lambda: run("-c", "pass"))

    turn()  # fills the caches
    pairs = benchmark.pedantic(lambda: [turn() for _ in range(20)], rounds=1)
    times = median(ours for ours, _ in pairs) / median(bare for _, bare in pairs)
    claim("start: harness --help / python -c pass", times, at_most=8)
