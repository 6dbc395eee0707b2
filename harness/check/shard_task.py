"""One shard on one device: what is asked of the host that has the device, what it does, and what it answers.

`perform` is all that a lab worker runs. It takes data alone: the worker file is its own copy, and it refuses a job
that names another by its hash.
"""

from __future__ import annotations

import tempfile
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.artifacts import manifest
from harness.artifacts.manifest import Variant
from harness.check import message, pipeline
from harness.check.message import RefusedError
from harness.core.errors import SetupError
from harness.core.files import sha256
from harness.core.outcome import Outcome, Verdict
from harness.core.progress import Progress
from harness.images import dataset, spec
from harness.images.shards import Shard
from harness.records import evidence
from harness.run import execute, job, worker
from harness.run.devices import local, uri
from harness.run.devices.base import described
from harness.run.execute import Outputs
from harness.run.job import Result
from harness.run.latency_plan import LatencyPlan

FILE, RESULT = "file.", "result."  # of arrays' names

_busy: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  # by device: one job at a time


class Stopped(BaseException):
    """Raised by a progress callback to end a job that nobody waits for any more."""


class DeviceFailedError(Exception):
    """A device that could not do its work; another one may."""


@dataclass(frozen=True)
class Answer:
    """What became of a shard. kept: which of its images could be used [n], uint8 digests [n, 32], their means [n]."""

    kept: npt.NDArray[np.int64]
    skipped: tuple[str, ...]
    digests: npt.NDArray[np.uint8]
    pixels: npt.NDArray[np.float64]
    outputs: Outputs
    device: Mapping[str, Any]


def address(device: str) -> str:
    """What a device of a lab is called on its own host: local://NAME is local there."""
    return local.URI if device.startswith(f"{local.URI}:") else device


@cache
def worker_sha256() -> str:
    return sha256(Path(worker.__file__).read_bytes())


def ask(
    device: str, shard: Shard, models: Path, variants: Mapping[str, Variant], plan: LatencyPlan | None, parallel: int
) -> bytes:
    """The message that asks for a shard's answers, and for latency where there is a plan."""
    joined, ends = message.blobs(shard.contents)
    header = {
        "device": device,
        "worker_sha256": worker_sha256(),
        "spec": asdict(next(iter(variants.values())).spec),
        "shard": shard.number,
        "plan": asdict(plan) if plan else None,
        "parallel": parallel,
    }
    files = {
        f"{FILE}{variant.file}": np.frombuffer(variant.path(models).read_bytes(), np.uint8)
        for variant in variants.values()
    }
    return message.pack(
        header,
        {
            "names": np.array(shard.names),
            "labels": np.array(shard.labels, np.int64),
            "contents": joined,
            "ends": ends,
            f"{FILE}{manifest.FILE}": np.frombuffer(manifest.encode(dict(variants)), np.uint8),
            **files,
        },
    )


def perform(content: bytes, progress: Progress = lambda task, done, total: None) -> bytes:
    """Do what a message asks, and pack the answer. Never raises: what went wrong is an answer, too."""
    try:
        header, arrays = message.unpack(content)
        if header["worker_sha256"] != worker_sha256():
            raise RefusedError(
                f"the lab worker for {header['device']} has worker file {worker_sha256()[:12]}, the job names "
                f"{header['worker_sha256'][:12]}; install the same tflite-harness on both hosts"
            )
        with _busy[header["device"]]:
            return _perform(header, arrays, progress)
    except RefusedError as error:
        return message.pack({"refused": str(error)}, {})
    except Stopped:
        raise
    except SetupError as error:
        return message.pack({"failed": str(error)}, {})
    except Exception as error:  # a fault of ours must reach the person, not Dask's log
        return message.pack({"failed": f"{type(error).__name__}: {error}"}, {})


def _perform(header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]], progress: Progress) -> bytes:
    contents = message.unblob(arrays["contents"], arrays["ends"])
    shard = Shard(header["shard"], tuple(arrays["names"].tolist()), tuple(arrays["labels"].tolist()), contents)
    data = dataset.decode(shard, spec.build(header["spec"], "the job"))
    found: dict[str, npt.NDArray[Any]] = {
        "kept": np.flatnonzero(np.isin(arrays["names"], np.array(data.names))),
        "digests": dataset.digests(data.images, data.labels, data.names),
        "pixels": evidence.pixels(data),
    }
    if not len(data):
        return message.pack({"skipped": data.skipped, "failures": {}, "machines": {}, "device": {}}, found)
    with tempfile.TemporaryDirectory(prefix="harness-job-") as folder:
        models, place = Path(folder) / "models", Path(folder) / "job"
        models.mkdir()
        place.mkdir()
        for name in (name for name in arrays if name.startswith(FILE)):
            (models / name.removeprefix(FILE)).write_bytes(arrays[name].tobytes())
        variants = manifest.read(models)
        with uri.device(address(header["device"])) as device:
            probed = device.probe()
            plan = LatencyPlan(**header["plan"]) if header["plan"] and not probed.emulated else None
            written = job.write(place, manifest.contents(models, variants), data, plan, header["parallel"])
            outputs = execute.run(written, progress, device)
            after = pipeline.state_after(device) if plan else {}
    for task, result in outputs.results.items():
        found |= {f"{RESULT}{task}/{name}": array for name, array in result.arrays.items()}
    return message.pack(
        {
            "skipped": data.skipped,
            "failures": {task: [failure.outcome, failure.reasons] for task, failure in outputs.failures.items()},
            "device": described(probed, device.traffic, after),
            "machines": {task: result.machine for task, result in outputs.results.items()},
        },
        found,
    )


def understand(content: bytes) -> Answer:
    """Raises RefusedError: the host will not do this job. DeviceFailedError: the device did not."""
    header, arrays = message.unpack(content)
    if "refused" in header:
        raise RefusedError(header["refused"])
    if "failed" in header:
        raise DeviceFailedError(header["failed"])
    results = {
        task: Result(
            {
                name.removeprefix(f"{RESULT}{task}/"): array
                for name, array in arrays.items()
                if name.startswith(f"{RESULT}{task}/")
            },
            machine,
        )
        for task, machine in header["machines"].items()
    }
    failures = {task: Verdict(Outcome(outcome), tuple(why)) for task, (outcome, why) in header["failures"].items()}
    return Answer(
        arrays["kept"],
        tuple(header["skipped"]),
        arrays["digests"],
        arrays["pixels"],
        Outputs(results, failures, False),
        header["device"],
    )
