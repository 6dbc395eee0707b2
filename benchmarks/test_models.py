"""How fast a model's variants are here: each on every accelerator and number of threads that this machine has.

    pytest benchmarks --benchmark-only                                  # the shipped model
    pytest benchmarks --benchmark-only --models DIR --data DIR          # your own
    pytest benchmarks --benchmark-only --benchmark-autosave             # keep the figures, and with the next run:
    pytest benchmarks --benchmark-only --benchmark-compare --benchmark-compare-fail=median:10%

To compare runs of one machine. Figures to publish come from `harness check`: fresh processes, interleaved, with
intervals.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import ROOT, VARIANTS
from benchmarks.figures import FIGURES, Setting
from harness.artifacts import manifest
from harness.artifacts.manifest import KINDS, Variant
from harness.core import cores
from harness.core.cell import ACCELERATORS, Cell
from harness.core.errors import SetupError
from harness.images.dataset import Dataset
from harness.run import worker
from tests.needs import absent

Load = Callable[[], worker.Interpreter]

MEMORY = """
import sys
import numpy as np
from pathlib import Path
from harness.run import worker
file, threads, accelerator, images = sys.argv[1:]
content, images = Path(file).read_bytes(), np.load(images)
worker.find_runtime()
before = worker.resident(reset_peak=True)[1]
model = worker.load(content, int(threads), accelerator)
worker.measure(model, model.quantize(images), 0, 2 * len(images))
print(worker.resident()[0] - before)
"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A case for each variant on each accelerator; on the processor with one thread, and with two where it has them."""
    if "setting" not in metafunc.fixturenames:
        return
    folder = metafunc.config.getoption("--models")
    try:
        kinds = KINDS if folder == VARIANTS else tuple(manifest.read(folder))
    except SetupError as error:
        raise pytest.UsageError(str(error)) from error
    metafunc.parametrize(
        "setting",
        [
            Setting(Cell(kind, accelerator), threads)
            for kind in kinds
            for accelerator in ACCELERATORS
            for threads in sorted({1, min(2, cores.usable()) if accelerator in worker.CPUS else 1})
            if threads == 1 or metafunc.function is not test_evaluation  # every instance has one
        ],
        ids=str,
    )


@pytest.fixture(scope="session")
def missing() -> dict[str, str]:
    """Why this machine has no figures of an accelerator, once that was seen."""
    return {}


@pytest.fixture
def file(setting: Setting, variants: dict[str, Variant], pytestconfig: pytest.Config) -> Path:
    return variants[setting.cell.variant].path(pytestconfig.getoption("--models"))


@pytest.fixture
def row(setting: Setting, pytestconfig: pytest.Config) -> dict[str, float]:
    """This setting's figures, for the table at the end."""
    return pytestconfig.stash[FIGURES].setdefault(setting, {})


@pytest.fixture
def load(
    setting: Setting,
    file: Path,
    variants: dict[str, Variant],
    missing: dict[str, str],
    request: pytest.FixtureRequest,
) -> Load:
    """Loads the variant, ready to run; the benchmark says which file it is, and what runs it.

    Where an accelerator is not here, does not take this model, or is imitated by the processor, tests.needs.absent
    decides. The interpreter on the processor is always here: its errors are errors.
    """
    content, accelerator = file.read_bytes(), setting.cell.accelerator
    if accelerator in missing:
        absent(accelerator, missing[accelerator])
    try:
        ran = worker.load(content, setting.threads, accelerator).ran()
    except (worker.NotRunError, worker.NoAcceleratorError) as error:
        if accelerator == "cpu":
            raise
        if isinstance(error, worker.NoAcceleratorError):
            missing[accelerator] = str(error)
        absent(accelerator, f"{setting.cell}: {error}")
    if ran["software"]:
        missing[accelerator] = "imitated by the processor, its times say nothing"
        absent(accelerator, missing[accelerator])
    variant, benchmark = variants[setting.cell.variant], request.getfixturevalue("benchmark")
    benchmark.extra_info |= {"cell": str(setting.cell), "threads": setting.threads, "ran": ran, **worker.machine()}
    benchmark.extra_info |= {"sha256": variant.sha256, "size_bytes": variant.size_bytes}
    return lambda: worker.load(content, setting.threads, accelerator)


def seconds(benchmark: BenchmarkFixture, *quantiles: float) -> list[float]:
    """Quantiles of the rounds; NaN under --benchmark-disable."""
    rounds = benchmark.stats.stats.data if benchmark.stats else [float("nan")]
    return [float(value) for value in np.quantile(rounds, quantiles)]


def test_load(
    load: Load,
    setting: Setting,
    file: Path,
    row: dict[str, float],
    data: Dataset,
    tmp_path: Path,
    benchmark: BenchmarkFixture,
) -> None:
    """From bytes in memory to a model that is ready to run; and the memory that it takes, in a process of its own."""
    benchmark.group = "load"
    benchmark.pedantic(load, rounds=5, warmup_rounds=1)
    np.save(tmp_path / "images.npy", worker.timed_images(data.inputs())[:8])
    command = [sys.executable, "-c", MEMORY, str(file), str(setting.threads), setting.cell.accelerator]
    done = subprocess.run(
        [*command, str(tmp_path / "images.npy")], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    benchmark.extra_info["memory_bytes"] = row["memory_bytes"] = float(done.stdout.splitlines()[-1])
    row["size_bytes"] = file.stat().st_size
    (row["load_s"],) = seconds(benchmark, 0.5)


def test_first_inference(load: Load, row: dict[str, float], data: Dataset, benchmark: BenchmarkFixture) -> None:
    """The first inference of a model that was just loaded."""
    benchmark.group = "first inference"
    image = load().quantize(data.inputs()[:1])[0]

    def fresh() -> tuple[tuple[worker.Interpreter], dict[str, object]]:
        model = load()
        model.set(image)
        return (model,), {}

    benchmark.pedantic(lambda model: model.invoke(), setup=fresh, rounds=5)
    (row["first_s"],) = seconds(benchmark, 0.5)


def test_inference(load: Load, row: dict[str, float], data: Dataset, benchmark: BenchmarkFixture) -> None:
    """One inference of one image after another, each set beforehand; ends when the output was read."""
    benchmark.group = "inference"
    model = load()
    images = cycle(model.quantize(worker.timed_images(data.inputs())))
    benchmark.pedantic(model.invoke, setup=lambda: model.set(next(images)), rounds=200, warmup_rounds=50)
    row["median_s"], row["p90_s"] = seconds(benchmark, 0.5, 0.9)
    benchmark.extra_info["p90_s"] = row["p90_s"]


def test_evaluation(
    load: Load, setting: Setting, file: Path, row: dict[str, float], data: Dataset, benchmark: BenchmarkFixture
) -> None:
    """The predictions of 256 images, as `harness check` makes them: on the processor one instance a core."""
    benchmark.group = "evaluation"
    images = worker.timed_images(data.inputs())
    task = {"name": str(setting.cell), "parallel": 0, "accelerator": setting.cell.accelerator}
    benchmark.pedantic(worker.answers, args=({task["name"]: file.read_bytes()}, images, task), rounds=3)
    benchmark.extra_info["images_per_s"] = row["images_per_s"] = len(images) / seconds(benchmark, 0.5)[0]


def test_preprocessing(data: Dataset, benchmark: BenchmarkFixture) -> None:
    """One decoded image to the floating-point tensor that a model takes."""
    benchmark.group = "preprocessing"
    images = cycle(worker.timed_images(data.images)[:, None])
    benchmark.pedantic(data.spec.to_input, setup=lambda: ((next(images),), {}), rounds=300)
