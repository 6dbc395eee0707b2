"""What every device offers: probe, push, run, pull."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec
from msgspec import field, structs

from harness.core.errors import AbsentError
from harness.core.progress import Progress
from harness.core.shapes import Shape
from harness.run.job import Job

SILENCE_LIMIT_S = 300.0
RESULT = "{result}"  # in a program's arguments: a file for it to write
INPUTS = "{inputs}"  # a folder of files for it to read
LIBRARY_PATHS = ("LD_LIBRARY_PATH", "ADSP_LIBRARY_PATH")  # the linker's, and Qualcomm's for its NPU
MAX_RESULT_FILE_BYTES = 100_000


class UnreachableError(AbsentError):
    """A device that cannot be reached, or no longer; the message says what to do."""


@dataclass(frozen=True)
class Executed:
    """The result of a command. A nonzero exit code is data."""

    code: int
    out: str
    error: str
    result: bytes = b""  # the file that it was to write: see Device.program


@dataclass(frozen=True)
class Ended:
    """How a worker ended: exit code (negative: a signal), its last task, the last line that it printed."""

    code: int | None  # None: it was silent too long and was stopped
    task: str | None
    tail: str
    variant: str | None = None  # the one it was measuring, in a task of several
    doing: str = ""  # what takes long there: compiling for an accelerator


State = Mapping[str, bool | int | float | str]


class Probe(Shape):
    """What a device is; None for what cannot be read there.

    emulated: its processor is imitated in software: answers count, times do not. state: what may slow it down, read
    without root; "unavailable" for what could not be read.
    """

    uri: str
    name: str
    machine: str  # aarch64, armv7l, x86_64, ...
    system: str
    cores: int | None = None
    memory_bytes: int | None = None
    emulated: bool = False
    state: State = field(default_factory=dict)


class Traffic(msgspec.Struct):
    """Bytes that went to the device by what they were (runtime, models, inputs, worker, plan), and back from it."""

    pushed_bytes: dict[str, int] = field(default_factory=dict)
    pulled_bytes: int = 0

    def pushed(self, what: str, size: int) -> None:
        self.pushed_bytes[what] = self.pushed_bytes.get(what, 0) + size


class BenchmarkFigures(Shape):
    """What Google's benchmark_model measured of a variant; None for what it did not say. inference_s: the average."""

    flags: str
    inference_s: float | None = None
    init_s: float | None = None
    first_s: float | None = None
    warmup_s: float | None = None
    median_s: float | None = None
    min_s: float | None = None
    max_s: float | None = None
    p5_s: float | None = None
    p95_s: float | None = None
    runs: int | None = None
    problem: str = ""


class DeviceRecord(Probe):
    """A device that ran a job. state_after: after the times were taken; empty if none were, or it was gone."""

    state_after: State = field(default_factory=dict)
    benchmark_model: Mapping[str, BenchmarkFigures] | None = None  # by kind of variant
    traffic: Traffic = field(default_factory=Traffic)


def described(
    probe: Probe, traffic: Traffic, state_after: State, benchmark_model: Mapping[str, BenchmarkFigures] | None = None
) -> DeviceRecord:
    return DeviceRecord(
        **structs.asdict(probe), state_after=state_after, benchmark_model=benchmark_model, traffic=traffic
    )


def hindrances(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """Reasons to distrust a device's times, from its states before and after; "unavailable" is none."""
    states = before, after
    reasons = {
        "throttled": "it is throttled; cool it",
        "under_voltage": "its voltage is too low; use a stronger power supply",
        "battery_saver": "its battery saver is on; turn it off",
    }
    seen = [reason for key, reason in reasons.items() if any(state.get(key) is True for state in states)]
    degrees = [state.get("thermal_status") for state in states]
    heat = max((degree for degree in degrees if isinstance(degree, int)), default=0)
    if heat:
        seen.append(f"its thermal status is {heat} (0 is cool); let it cool")
    if before.get("throttled_since_boot") is False and after.get("throttled_since_boot") is True and not seen:
        seen.append("it was throttled meanwhile; cool it")
    return tuple(seen)


def placed(word: str, places: Mapping[str, str]) -> str:
    """A program's argument with paths for its marks."""
    for mark, path in places.items():
        word = word.replace(mark, path)
    return word


class Device(Protocol):
    """A place where jobs run; `with` takes and gives back what it needs there.

    An unreachable device is an exception (UnreachableError), a failed worker is data (Ended).
    """

    traffic: Traffic

    @property
    def uri(self) -> str: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def probe(self) -> Probe:
        """What it is, and what state it is in."""

    def push(self, job: Job) -> Job:
        """Bring the job there, verified. The job to run: the same, or one that an interrupted run left unfinished."""

    def run(self, job: Job, progress: Progress, *, silence_limit_s: float = SILENCE_LIMIT_S) -> Ended:
        """Run the worker to its end; it leaves out tasks that have a result."""

    def pull(self, job: Job) -> None:
        """Bring the results that are there into the job's folder, verified."""

    def program(
        self,
        path: Path,
        arguments: Sequence[str],
        job: Job,
        timeout_s: float,
        inputs: Mapping[str, bytes] | None = None,
    ) -> Executed:
        """Run a program of this machine there, after push.

        In the arguments {files} stands for the folder of the job's files, {result} for a file whose content comes back,
        and {inputs} for a folder of the inputs, by name, where the program's libraries may be, too.
        """
