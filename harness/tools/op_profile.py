"""Where a variant's time goes on this machine, by kernel and by layer, and the least that its work could take."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters import calibration
from harness.artifacts import manifest
from harness.core.errors import SetupError
from harness.images import dataset
from harness.run import worker
from harness.tools import classifier, roofline
from harness.tools.classifier import TFLITE
from harness.tools.profiler_process import DELEGATED, INVOKE, OPERATOR
from harness.tools.roofline import Peak, Work

RUNS = 100
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


def variant(models: Path, name: str, folder: Path, images: int, *, skip_bad: bool = False) -> Profile:
    """Profile a variant of a folder, or a .tflite file, on some images of another folder. Raises SetupError."""
    path = Path(name)
    if path.suffix != TFLITE:
        path = manifest.find(manifest.read(models), name, models).path(models)
    takes = classifier.open_model(path, models).spec
    chosen = calibration.choose(dataset.load(folder, takes, skip_bad=skip_bad), images)
    return measure(path, chosen.inputs(), path.stem)


def measure(path: Path, images: npt.NDArray[np.float32], kind: str) -> Profile:
    """Profile a .tflite file on one thread. Raises SetupError if the runtime has no profiler, or another one."""
    content = path.read_bytes()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        latency_s, prepared = alone.submit(_bare, content, images).result()
        peak = alone.submit(roofline.peak, 1).result()
    runs = _events(path, prepared)
    steps, profiled_s = operations(runs, path), _profiled_us(runs) / 1e6
    taken = np.sort([[event[3] for event in run] for run in steps], axis=0)
    seconds = taken[: len(taken) * 4 // 5].mean(axis=0)  # whole microseconds: a median would lose more than the mean
    seconds *= latency_s / seconds.sum()
    work = roofline.work(content)
    known = _matched([event[0] for event in steps[0]], work)
    return Profile(
        steps=tuple(
            Step(event[0], event[1] == DELEGATED, float(taken), operation)
            for event, taken, operation in zip(steps[0], seconds, known, strict=True)
        ),
        latency_s=latency_s,
        profiled_s=profiled_s,
        work=tuple(work),
        quantized=kind.startswith(("int8", "dynamic")),
        peak=peak,
    )


def operations(runs: list[list[Any]], path: Path) -> list[list[Any]]:
    """The events of operations, run by run. Raises SetupError if they do not add up: the profiler is another one."""
    steps = [[event for event in run if event[1] in (OPERATOR, DELEGATED)] for run in runs]
    total = float(np.median([sum(event[3] for event in run) for run in steps]))
    if not 0.1 < total / _profiled_us(runs) < 1.1:
        raise SetupError(
            f"{path}: the profiler's operations do not add up to the inference; expected ai-edge-litert 2.3"
        )
    return steps


def _profiled_us(runs: list[list[Any]]) -> float:
    """The median time of an inference."""
    return float(np.median([sum(event[3] for event in run if event[:2] == ["Invoke", INVOKE]) for run in runs]))


def _bare(content: bytes, images: npt.NDArray[np.float32]) -> tuple[float, Any]:
    """Median seconds of an inference, by the worker's own loop, and one prepared image."""
    worker.pin(1)
    model = worker.load(content, 1)
    prepared = model.quantize(images)
    worker.warm_up(model, prepared, {"warmup_s": 0.3, "block_s": 0.04})
    return float(np.median(worker.measure(model, prepared, 0, RUNS))), prepared[0]


def _events(path: Path, prepared: Any) -> list[list[Any]]:
    with tempfile.TemporaryDirectory(prefix="harness-profile-") as folder:
        file = Path(folder) / "input.npy"
        np.save(file, prepared)
        done = subprocess.run(
            [sys.executable, "-m", "harness.tools.profiler_process", str(path), str(file), str(RUNS)],
            capture_output=True,
            text=True,
        )
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line), "no message")
        raise SetupError(f"{path}: the runtime's profiler failed ({last}); expected ai-edge-litert 2.3 on this machine")
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    common = min(len(run) for run in runs)
    return [run for run in runs if len(run) == common]


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
