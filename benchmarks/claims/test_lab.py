"""What a lab costs and what it saves: the engine's overhead, two workers beside one, memory whatever the images.

HARNESS_LAB_IMAGES: how many images the large set has (default 200,000); they are made for the run, and not kept.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.claims.conftest import Claim
from benchmarks.claims.paired import ratio, seconds
from benchmarks.conftest import ROOT, VARIANTS
from converters.convert import Images, convert
from harness.artifacts import manifest
from harness.artifacts.manifest import Variant
from harness.check.shard_task import ShardJob
from harness.cluster.client import Cluster
from harness.core import cores
from harness.images.dataset import Dataset
from harness.run import execute, job
from harness.run.devices.local import Local
from tests.cluster.conftest import Lab
from tests.conftest import CALIBRATION, save_model

IMAGES = int(os.environ.get("HARNESS_LAB_IMAGES", "200000"))
FEW = IMAGES // 10


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A scheduler on loopback."""
    found = Lab(tmp_path)
    found.scheduler()
    yield found
    for name in list(found.processes):
        found.kill(name)


def test_engine_overhead(
    variants: dict[str, Variant], data: Dataset, lab: Lab, tmp_path: Path, benchmark: BenchmarkFixture, claim: Claim
) -> None:
    """A job over a Dask worker takes at most 5 % longer than the same job run here: data/test, three variants."""
    lab.worker("one")
    lab.ready("one")

    def here() -> float:
        folder = tmp_path / f"job-{time.monotonic_ns()}"
        folder.mkdir()

        def whole() -> None:
            written = job.write(folder, manifest.contents(VARIANTS, variants), data, None, job.ALL_CORES)
            assert not execute.run(written, lambda *_: None, Local()).failures

        return seconds(whole)

    with Cluster(lab.address) as engine:

        def there() -> float:
            def whole() -> None:
                asked = ShardJob(0, 1, True, data, manifest.contents(VARIANTS, variants))
                assert not engine.submit("local://one", asked).result().outputs.failures

            return seconds(whole)

        here(), there()  # caches and imports
        share, ours, plain = benchmark.pedantic(ratio, args=(there, here, 5), rounds=1)
    claim("lab: a job over a Dask worker / the same here", share, at_most=1.05, lab_s=ours, here_s=plain)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model, its int8 variant, and two tables of renderings of data/test's images."""
    import pyarrow
    from pyarrow import parquet

    folder = tmp_path_factory.mktemp("large")
    save_model(folder / "tiny.keras", depth=11)
    convert(folder / "tiny.keras", folder / "variants", Images(CALIBRATION), kinds=("int8",))
    rng = np.random.default_rng(0)
    files = sorted((ROOT / "data" / "test").iterdir())
    pictures = [(int(file.name.split("_")[0]), np.asarray(Image.open(file).convert("L"))) for file in files]
    schema = pyarrow.schema([("image", pyarrow.binary()), ("label", pyarrow.int64()), ("name", pyarrow.string())])
    for name, count in (("all", IMAGES), ("few", FEW)):
        with parquet.ParquetWriter(folder / f"{name}.parquet", schema) as table:
            for start in range(0, count, 1000):
                rows = [_rendered(pictures[i % len(pictures)], rng, i) for i in range(start, min(start + 1000, count))]
                table.write_table(pyarrow.Table.from_pylist(rows, schema))
    return folder


def _rendered(picture: tuple[int, Any], rng: np.random.Generator, number: int) -> dict[str, Any]:
    """Shifted, lit and made noisy anew."""
    label, pixels = picture
    moved = np.roll(pixels, rng.integers(-2, 3, 2), (0, 1)) * rng.uniform(0.8, 1.0) + rng.normal(0, 4, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(moved, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return {"image": buffer.getvalue(), "label": label, "name": f"{label}_{number}.jpg"}


SCRIPT = """
import json, re, sys, time
from pathlib import Path
from harness.check import pipeline, subject
from harness.check.engine import LocalEngine
from harness.check.references import KerasReferences
from harness.cluster.client import Cluster
from harness.core import shapes
from harness.core.progress import NO_BARS
from harness.images import shards
from harness.judge import policy
from msgspec.structs import replace
from tests.conftest import quiet_step
folder, data, record, address, *devices = sys.argv[1:]
models, model = Path(folder) / "variants", Path(folder) / "tiny.keras"
what = subject.load(models, model, policy.load())
begin = time.monotonic()
with (Cluster(address) if address else LocalEngine(devices)) as engine, KerasReferences(model, models, quiet_step) as r:
    source = shards.open_source(Path(folder) / data, what.spec)
    check = pipeline.Check(what, source, tuple(devices), Path(record), 4096, parallel=1)
    (run,) = pipeline.run_all([check], engine, r, NO_BARS)
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())  # of this program alone
print(json.dumps({"s": time.monotonic() - begin, "peak_kb": int(peak[1]),
                  "record": shapes.encode(replace(run.record.body, started="")).decode()}))
"""


def run(folder: Path, data: str, record: Path, address: str, *devices: str) -> dict[str, Any]:
    """Seconds, peak memory and the record of a check in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), data, str(record), address, *devices],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_large_set(large: Path, lab: Lab, tmp_path: Path, benchmark: BenchmarkFixture, claim: Claim) -> None:
    """Two workers do 1.7 times the images of one, where there are cores; memory and verdict stay as they are.

    Peak memory is that of a tenth of the images, within 10 %; the verdict is that of one process, byte for byte.
    """
    lab.worker("one")
    lab.worker("two")
    lab.ready("one", "two")
    both = ("local://one", "local://two")

    def all_of_it() -> dict[str, Any]:
        reference = run(large, "all.parquet", tmp_path / "here.json", "", "local")  # computes Keras's answers, too
        few = [run(large, "few.parquet", tmp_path / f"few{i}.json", lab.address, *both) for i in range(2)][1]
        one = run(large, "all.parquet", tmp_path / "one.json", lab.address, both[0])
        two = run(large, "all.parquet", tmp_path / "two.json", lab.address, *both)
        assert reference["record"] == one["record"] == two["record"]
        return {
            "images": IMAGES,
            "one_images_per_s": IMAGES / one["s"],
            "two_images_per_s": IMAGES / two["s"],
            "ratio": one["s"] / two["s"],
            "peak_mb": two["peak_kb"] / 1e3,
            "peak_few_mb": few["peak_kb"] / 1e3,
            "memory_ratio": two["peak_kb"] / few["peak_kb"],
        }

    found = benchmark.pedantic(all_of_it, rounds=1)
    benchmark.extra_info |= found
    claim("lab: peak memory of a large set / of a tenth of it", found["memory_ratio"], at_most=1.1)
    if cores.usable() >= 4:  # two workers, the check and the scheduler
        claim("lab: images a second of two workers / of one", found["ratio"], at_least=1.7)
