"""What the way to a device costs beside the work done there: a check on a virtual phone of this processor."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.claims.conftest import Claim
from benchmarks.claims.paired import ratio, seconds
from benchmarks.conftest import VARIANTS
from harness.artifacts import manifest
from harness.artifacts.manifest import Variant
from harness.images.dataset import Dataset
from harness.run import execute, job
from harness.run.devices import uri
from harness.run.devices.local import Local
from harness.run.devices.virtual import Virtual
from tests.needs import needs


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[Virtual]:
    found = Virtual("phone", tmp_path / "phone", platform.machine())
    needs("devices")
    found.start()
    yield found
    found.remove()


def test_overhead(
    variants: dict[str, Variant],
    data: Dataset,
    phone: Virtual,
    tmp_path: Path,
    benchmark: BenchmarkFixture,
    claim: Claim,
) -> None:
    """Over adb a second run, which sends no files, takes at most 10 % longer than one here, on data/test."""
    pushed: list[set[str]] = []

    def once(address: str) -> float:
        folder = tmp_path / f"job-{time.monotonic_ns()}"
        folder.mkdir()
        written = job.write(folder, manifest.contents(VARIANTS, variants), data, None, job.ALL_CORES)

        def whole() -> None:
            with uri.device(address) if address else Local() as device:
                device.probe()
                assert not execute.run(written, lambda *_: None, device).failures
                pushed.append(set(device.traffic.pushed_bytes))

        return seconds(whole)

    address = phone.start()
    once(address), once("")  # the first run brings runtime, models and images
    pushed.clear()
    found = benchmark.pedantic(ratio, args=(lambda: once(address), lambda: once(""), 5), rounds=1)
    assert set().union(*pushed) <= {"plan"}
    claim("device: a check over adb / one here", found[0], at_most=1.10, phone_s=found[1], here_s=found[2])
