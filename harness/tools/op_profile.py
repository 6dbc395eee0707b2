"""Where a variant's time goes on a device, by kernel and by layer, and the least that its work could take."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from converters import calibration
from harness.artifacts import manifest
from harness.core import shapes
from harness.core.errors import SetupError
from harness.images import dataset
from harness.run import execute, job, worker
from harness.run.devices import benchmark_model
from harness.run.devices.base import Device
from harness.run.devices.benchmark_model import BenchmarkModel, ProfiledStep
from harness.run.devices.local import Local
from harness.tools import classifier, roofline
from harness.tools.classifier import TFLITE
from harness.tools.roofline import Peak, Work

RUNS = 100
OPERATOR, DELEGATED, INVOKE = 2, 8, 1  # types of events of LiteRT's profiler
Event = tuple[str, int, int, int]  # tag, type, index, microseconds
FAMILIES = {  # the graph's operations -> words of the kernels that do them; matched in order
    ("CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D"): ("Convolution", "Fully Connected"),
    ("ADD",): ("Add",),
    ("MUL",): ("Multiply",),
    ("MEAN",): ("Mean",),
}


@dataclass(frozen=True)
class Step:
    """One kernel, in the order of execution. work: of its operation in the graph. None if that is not known."""

    kernel: str
    delegated: bool
    seconds: float
    work: Work | None


@dataclass(frozen=True)
class Profile:
    """One variant. latency_s: its median without the profiler; the steps' times are scaled to add up to it."""

    steps: tuple[Step, ...]
    latency_s: float
    profiled_s: float
    work: tuple[Work, ...]
    quantized: bool
    peak: Peak

    def by_kernel(self) -> list[tuple[str, int, float]]:
        """Name, number and seconds of each kind of kernel, the slowest first."""
        kernels: dict[str, list[float]] = defaultdict(list)
        for step in self.steps:
            kernels[step.kernel].append(step.seconds)
        rows = ((name, len(seconds), sum(seconds)) for name, seconds in kernels.items())
        return sorted(rows, key=lambda row: -row[2])

    @property
    def delegated_share(self) -> float:
        """The share of time in delegated kernels."""
        return sum(step.seconds for step in self.steps if step.delegated) / self.latency_s

    @property
    def macs(self) -> int:
        return sum(work.macs for work in self.work)

    @property
    def moved_bytes(self) -> int:
        return sum(work.moved_bytes for work in self.work)

    @property
    def peak_macs_per_s(self) -> float:
        return self.peak.int8_macs_per_s if self.quantized else self.peak.float_macs_per_s

    @property
    def min_s(self) -> float:
        """The roofline: every operation at the peak of arithmetic or of memory, whichever takes longer."""
        return sum(
            max(work.macs / self.peak_macs_per_s, work.moved_bytes / self.peak.bytes_per_s) for work in self.work
        )


def variant(
    models: Path,
    name: str,
    folder: Path,
    images: int,
    device: Device | None = None,
    benchmark: BenchmarkModel | None = None,
    *,
    skip_bad: bool = False,
) -> Profile:
    """Profile a variant of a folder, or a .tflite file, on some images of another folder, here or on a device.

    benchmark: its profiler, in place of the runtime's. Raises SetupError.
    """
    path = Path(name)
    if path.suffix != TFLITE:
        path = manifest.find(manifest.read(models), name, models).path(models)
    takes = classifier.open_model(path, models).spec
    chosen = calibration.choose(dataset.load(folder, takes, skip_bad=skip_bad), images)
    return measure(path, chosen.inputs(), path.stem, device, benchmark)


def measure(
    path: Path,
    images: npt.NDArray[np.float32],
    kind: str,
    device: Device | None = None,
    benchmark: BenchmarkModel | None = None,
) -> Profile:
    """Profile a .tflite file on one thread. Raises SetupError if the device is emulated, or the profiler is missing or
    another one."""
    content, device = path.read_bytes(), device or Local()
    files = {worker.PROFILED: content, **roofline.products()}
    with tempfile.TemporaryDirectory(prefix="harness-profile-") as job_folder, device:
        if device.probe().emulated:
            raise SetupError(f"{device.uri}: is emulated: its times say nothing; profile on a real device")
        written = job.write_profile(Path(job_folder), files, images, RUNS, events=benchmark is None)
        outputs = execute.run(written, lambda *_: None, device)
        for failure in outputs.failures.values():
            raise SetupError(f"{path}: the profile failed ({failure.reasons[0]}); expected ai-edge-litert 2.3 there")
        if job.PROFILE not in outputs.results:
            raise KeyboardInterrupt
        times = outputs.results[job.PROFILE].arrays
        if benchmark:
            profiled = benchmark_model.operations(device, benchmark, written, worker.PROFILED)
        else:
            profiled = _of_events(times["events"], path)
    latency_s = float(np.median(times["samples"]))
    total = sum(step.seconds for step in profiled)
    work = roofline.work(content)
    known = _matched([step.kernel for step in profiled], work)
    return Profile(
        steps=tuple(
            Step(step.kernel, step.delegated, step.seconds * latency_s / total, operation)
            for step, operation in zip(profiled, known, strict=True)
        ),
        latency_s=latency_s,
        profiled_s=total,
        work=tuple(work),
        quantized=kind.startswith(("int8", "dynamic")),
        peak=roofline.peak(times),
    )


def _of_events(content: npt.NDArray[np.uint8], path: Path) -> list[ProfiledStep]:
    """What the runtime's profiler told: JSON, of each run the tag, type, index and microseconds of each event."""
    decoded = shapes.decode(content.tobytes(), list[list[tuple[str, int, int, int]]], f"{path}: its profile")
    common = min(len(run) for run in decoded)
    runs = [run for run in decoded if len(run) == common]
    steps, profiled_s = operations(runs, path), _profiled_us(runs) / 1e6
    taken = np.sort([[event[3] for event in run] for run in steps], axis=0)
    seconds = taken[: len(taken) * 4 // 5].mean(axis=0)  # whole microseconds: a median would lose more than the mean
    seconds *= profiled_s / seconds.sum()
    return [
        ProfiledStep(event[0], event[1] == DELEGATED, float(taken))
        for event, taken in zip(steps[0], seconds, strict=True)
    ]


def operations(runs: list[list[Event]], path: Path) -> list[list[Event]]:
    """The events of operations, run by run. Raises SetupError if they do not add up: the profiler is another one."""
    steps = [[event for event in run if event[1] in (OPERATOR, DELEGATED)] for run in runs]
    total = float(np.median([sum(event[3] for event in run) for run in steps]))
    if not 0.1 < total / _profiled_us(runs) < 1.1:
        raise SetupError(
            f"{path}: the profiler's operations do not add up to the inference; expected ai-edge-litert 2.3"
        )
    return steps


def _profiled_us(runs: list[list[Event]]) -> float:
    """The median time of an inference."""
    return float(np.median([sum(event[3] for event in run if event[:2] == ("Invoke", INVOKE)) for run in runs]))


def _matched(kernels: Sequence[str], work: Sequence[Work]) -> list[Work | None]:
    """The operation of each kernel, by order within a family. None if the numbers differ."""
    matched: list[Work | None] = [None] * len(kernels)
    for operations, words in FAMILIES.items():
        places = [place for place, name in enumerate(kernels) if name.startswith(words)]
        family = [operation for operation in work if operation.operation in operations]
        if len(places) == len(family):
            for place, operation in zip(places, family, strict=True):
                matched[place] = operation
    return matched
