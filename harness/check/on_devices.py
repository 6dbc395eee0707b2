"""One check on several devices at once, each on a thread of its own."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from harness.check import pipeline
from harness.check.pipeline import CheckedRun, Subject
from harness.core.errors import SetupError
from harness.core.progress import Progress
from harness.judge.policy import Policy
from harness.records.baseline import Baseline
from harness.run.devices import local, uri
from harness.run.devices.base import Device
from harness.run.devices.benchmark_model import BenchmarkModel
from harness.run.latency_plan import LatencyPlan


@dataclass(frozen=True)
class OnDevice:
    """What became of a check on one device: a run, or why there is none."""

    uri: str
    run: CheckedRun | None
    problem: SetupError | None = None


def run(
    devices: Sequence[Device],
    subject: Subject,
    progress: Progress,
    *,
    plan: LatencyPlan | None,
    limits: Policy,
    baseline: Baseline | None = None,
    benchmark: BenchmarkModel | None = None,
) -> list[OnDevice]:
    """In the order of the devices; this machine, whose time the others take, comes before them."""
    if not subject.host and any(device.uri != local.URI for device in devices):
        subject = pipeline.with_host(subject, progress)
    stop = threading.Event()

    def one(device: Device, progress: Progress) -> OnDevice:
        def unless_stopped(task: str, done: int, total: int) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            progress(task, done, total)

        try:
            done = pipeline.check(
                device, subject, unless_stopped, plan=plan, limits=limits, baseline=baseline, benchmark=benchmark
            )
        except SetupError as error:
            return OnDevice(device.uri, None, error)
        return OnDevice(device.uri, done)

    if len(devices) == 1:
        return [one(devices[0], progress)]
    results: dict[int, OnDevice] = {}
    here = [number for number, device in enumerate(devices) if device.uri == local.URI]
    there = [number for number in range(len(devices)) if number not in here]
    for number in here:
        results[number] = one(devices[number], progress)
    with ThreadPoolExecutor(max(1, len(there))) as pool:
        futures = {n: pool.submit(one, devices[n], _named(devices[n], progress)) for n in there}
        try:
            results |= {number: future.result() for number, future in futures.items()}
        except KeyboardInterrupt:
            stop.set()  # each thread ends at its worker's next word; what it has by then is kept
            results |= {number: future.result() for number, future in futures.items()}
    return [results[number] for number in range(len(devices))]


def open_all(uris: Sequence[str], *, keep: bool) -> list[Device]:
    """The devices of some addresses. Raises SetupError, also for one that is named twice."""
    for number, one in enumerate(uris):
        if one in uris[:number]:
            raise SetupError(f"--device {one}: named twice; name each device once")
    return [uri.device(one, keep=keep) for one in uris]


def slug(name: str) -> str:
    """A device's address as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")


_ONE_AT_A_TIME = threading.Lock()


def _named(device: Device, progress: Callable[[str, int, int], None]) -> Progress:
    def named(task: str, done: int, total: int) -> None:
        with _ONE_AT_A_TIME:
            progress(f"{device.uri}: {task}", done, total)

    return named
