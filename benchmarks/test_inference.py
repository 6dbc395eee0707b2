"""The shipped variants stage by stage, one image at a time, on real images: to compare runs of one machine.

    pytest benchmarks/test_inference.py --benchmark-only --benchmark-autosave
    pytest benchmarks/test_inference.py --benchmark-only --benchmark-compare --benchmark-compare-fail=median:10%

Figures to publish come from `harness check`: fresh processes, interleaved, with intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import VARIANTS
from harness.artifacts.manifest import KINDS, Variant
from harness.core import cores
from harness.images.dataset import Dataset
from harness.run import worker

THREADS = sorted({1, min(2, cores.usable())})

Load = Callable[[], worker.Interpreter]


@pytest.fixture(params=THREADS, ids=lambda threads: f"{threads}-threads")
def threads(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=KINDS)
def load(
    request: pytest.FixtureRequest, threads: int, variants: dict[str, Variant], benchmark: BenchmarkFixture
) -> Load:
    """Loads the variant, its tensors allocated; the benchmark says which file, what ran it, and where."""
    variant = variants[request.param]
    content = variant.path(VARIANTS).read_bytes()
    benchmark.extra_info |= {"kind": variant.kind, "sha256": variant.sha256, "threads": threads, **worker.machine()}
    return lambda: worker.load(content, threads)


def test_load(load: Load, benchmark: BenchmarkFixture) -> None:
    """From bytes in memory to an interpreter with its tensors allocated."""
    benchmark.pedantic(load, rounds=20, warmup_rounds=1)


def test_first_inference(load: Load, data: Dataset, benchmark: BenchmarkFixture) -> None:
    """The first invoke of an interpreter."""
    image = load().quantize(data.inputs()[:1])[0]

    def fresh() -> tuple[tuple[worker.Interpreter], dict[str, object]]:
        model = load()
        model.set(image)
        return (model,), {}

    benchmark.pedantic(lambda model: model.invoke(), setup=fresh, rounds=20, warmup_rounds=1)


def test_inference(load: Load, data: Dataset, benchmark: BenchmarkFixture) -> None:
    """One invoke, the input set beforehand."""
    model = load()
    images = cycle(model.quantize(data.inputs()[::10]))
    benchmark.pedantic(model.invoke, setup=lambda: model.set(next(images)), rounds=300, warmup_rounds=50)


def test_preprocessing(load: Load, data: Dataset, benchmark: BenchmarkFixture) -> None:
    """One decoded image to the tensor that the variant takes."""
    model = load()
    images = cycle(data.images[::10, None])
    benchmark.pedantic(
        lambda image: model.quantize(data.spec.to_input(image)), setup=lambda: ((next(images),), {}), rounds=300
    )
