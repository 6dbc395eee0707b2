"""One shard on one device: the job, how its host runs it, and the answer. Plain data that Dask can carry."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.core.cell import Accelerator
from harness.core.errors import SetupError
from harness.core.files import sha256
from harness.core.progress import Progress
from harness.images.dataset import Dataset
from harness.run import execute, job, worker
from harness.run.devices import benchmark_model
from harness.run.devices.base import Device, DeviceRecord, UnreachableError, described
from harness.run.devices.benchmark_model import BenchmarkModel
from harness.run.execute import Outputs
from harness.run.job import Machine
from harness.run.latency_plan import LatencyPlan


class RefusedError(SetupError):
    """A host refuses the job, for a reason that another attempt would not change."""


@cache
def worker_sha256() -> str:
    return sha256(Path(worker.__file__).read_bytes())


@dataclass(frozen=True)
class ShardJob:
    """What is asked of a device: the answers to a shard's images, and latency where there is a plan.

    number, of: which of how many shards. first: of those with images. contents: of the .tflite files, by variant.
    parallel: threads, 0 for all cores. count: instructions, too. worker_sha256: of the sender's worker.
    """

    number: int
    of: int
    first: bool
    data: Dataset
    contents: Mapping[str, bytes]
    accelerators: tuple[Accelerator, ...] = ("cpu",)
    plan: LatencyPlan | None = None
    parallel: int = job.ALL_CORES
    count: bool = False
    worker_sha256: str = field(default_factory=worker_sha256)


@dataclass(frozen=True)
class ShardAnswer:
    """The answer of a device, and its properties."""

    outputs: Outputs
    device: DeviceRecord

    @property
    def machine(self) -> Machine:
        """The machine that ran the worker, as the worker reports it."""
        return next((result.machine for result in self.outputs.results.values()), Machine())


def run_shard(
    asked: ShardJob,
    device: Device,
    progress: Progress = lambda task, done, total: None,
    benchmark: BenchmarkModel | None = None,
) -> ShardAnswer:
    """Run a job on a device that is not opened yet; on an emulated one without latency.

    What was finished before a crash, a hang, a cut connection or Ctrl-C is in the answer. benchmark: run beside the
    latency. Raises RefusedError where the worker is of another version, SetupError where nothing can be measured.
    """
    if asked.worker_sha256 != worker_sha256():
        raise RefusedError(
            f"the host of {device.uri} has worker file {worker_sha256()[:12]}, the job is for "
            f"{asked.worker_sha256[:12]}; install the same tflite-harness on both hosts"
        )
    with tempfile.TemporaryDirectory(prefix="harness-job-") as folder, device:
        probed = device.probe()
        plan = None if probed.emulated else asked.plan
        if plan and probed.cores and plan.threads > probed.cores:
            raise SetupError(f"--threads {plan.threads}: {device.uri} has {probed.cores} cores; expected no more")
        written = job.write(
            Path(folder), asked.contents, asked.data, plan, asked.parallel, asked.accelerators, count=asked.count
        )
        outputs = execute.run(written, progress, device)
        after = _state(device) if plan else {}
        beside = None
        if benchmark and asked.first and not probed.emulated and not outputs.interrupted:
            beside = benchmark_model.run(device, benchmark, written, list(asked.contents), plan.threads if plan else 1)
    return ShardAnswer(outputs, described(probed, device.traffic, after, beside))


def _state(device: Device) -> Mapping[str, Any]:
    """A device's state now. Empty if it is gone."""
    try:
        return device.probe().state
    except UnreachableError:
        return {}
