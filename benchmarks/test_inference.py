"""Inference of the shipped variants, one image at a time, on real images."""

from __future__ import annotations

from itertools import cycle

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import VARIANTS
from converters.manifest import KINDS, Variant
from harness import worker
from harness.dataset import Dataset


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_inference(
    kind: str, threads: int, variants: dict[str, Variant], data: Dataset, benchmark: BenchmarkFixture
) -> None:
    """One invoke, the input set beforehand."""
    benchmark.extra_info |= {"sha256": variants[kind].sha256, **worker.machine()}
    model = worker.Model(variants[kind].path(VARIANTS).read_bytes(), threads)
    images = cycle(model.quantize(data.inputs()[::10]))
    benchmark.pedantic(model.invoke, setup=lambda: model.set(next(images)), rounds=200, warmup_rounds=20)
