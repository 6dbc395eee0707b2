"""One shard on one device: the job, what its host does with it, and the answer. Plain data, as Dask carries it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.core.files import sha256
from harness.core.progress import Progress
from harness.images import dataset
from harness.images.shards import Shard
from harness.images.spec import ModelSpec
from harness.run import execute, job, worker
from harness.run.devices.base import Device, DeviceRecord, State, UnreachableError, described
from harness.run.execute import Outputs
from harness.run.latency_plan import LatencyPlan


class RefusedError(Exception):
    """A host does not run such jobs, and says in one line why: no other attempt will help."""


@cache
def worker_sha256() -> str:
    return sha256(Path(worker.__file__).read_bytes())


@dataclass(frozen=True)
class ShardJob:
    """What is asked of a device: the answers to a shard's images, and latency where there is a plan.

    contents: of the .tflite files, by kind. parallel: threads, 0 for all cores. worker_sha256: of the sender's worker.
    """

    shard: Shard
    spec: ModelSpec
    contents: Mapping[str, bytes]
    plan: LatencyPlan | None = None
    parallel: int = job.ALL_CORES
    worker_sha256: str = field(default_factory=worker_sha256)


@dataclass(frozen=True)
class ShardAnswer:
    """kept: which of the shard's images could be used [n]; their digests uint8 [n, 32] and means as float input [n]."""

    kept: npt.NDArray[np.int64]
    skipped: tuple[str, ...]
    digests: npt.NDArray[np.uint8]
    input_means: npt.NDArray[np.float64]
    outputs: Outputs
    device: DeviceRecord | None  # None if no image could be used


def run_shard(asked: ShardJob, device: Device, progress: Progress = lambda task, done, total: None) -> ShardAnswer:
    """Run a job on a device that is not opened yet.

    Raises RefusedError where its worker is of another version, SetupError where nothing can be measured.
    """
    if asked.worker_sha256 != worker_sha256():
        raise RefusedError(
            f"the host of {device.uri} has worker file {worker_sha256()[:12]}, the job is for "
            f"{asked.worker_sha256[:12]}; install the same tflite-harness on both hosts"
        )
    data = dataset.decode(asked.shard, asked.spec)
    outputs, about = Outputs({}, {}, False), None
    if len(data):
        with tempfile.TemporaryDirectory(prefix="harness-job-") as folder, device:
            probed = device.probe()
            plan = None if probed.emulated else asked.plan
            written = job.write(Path(folder), asked.contents, data, plan, asked.parallel)
            outputs = execute.run(written, progress, device)
            about = described(probed, device.traffic, state_after(device) if plan else {})
    return ShardAnswer(
        kept=np.flatnonzero(np.isin(asked.shard.names, data.names)),
        skipped=data.skipped,
        digests=dataset.digests(data.images, data.labels, data.names),
        input_means=data.input_means(),
        outputs=outputs,
        device=about,
    )


def state_after(device: Device) -> State:
    """A device's state once more; empty where it is gone."""
    try:
        return device.probe().state
    except UnreachableError:
        return {}
