"""How long an inference takes, and whether the figures can be trusted: what a record keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import field

from harness.core.outcome import Interval, Verdict
from harness.core.shapes import Shape

SAMPLES_FOR = {0.9: 64, 0.95: 130, 0.99: 662}  # MLPerf LoadGen's early stopping, 99 % confidence


class Memory(Shape):
    """Resident bytes of a worker that holds one variant, beyond what it held before the variant was loaded."""

    peak_bytes: int
    steady_bytes: int


class Bucket(Shape):
    """A minute of a sustained run, or a tenth of a short one. None for what cannot be read.

    core_share: of the time that the worker had a processor, less than its threads if others or a quota took it away.
    throttled: at any time.
    """

    begin_s: float
    mean: float
    median: float
    p90: float
    core_share: float
    temperature_c: float | None = None  # at most
    frequency_hz: float | None = None  # the median
    throttled: bool | None = None


class OverTime(Shape):
    """A sustained run.

    plateau_s: when the mean time of an inference settled; None if it had not by the end. slowdown: the plateau's mean
    / the first bucket's. throttled_s: begin of the first throttled bucket; None if there was none.
    """

    bucket_s: float
    buckets: tuple[Bucket, ...]
    plateau_s: float | None
    slowdown: float | None
    throttled_s: float | None


class Energy(Shape):
    """Joules of an inference, all that the source sees of the device while one follows another.

    ratio: to those of `base`, from blocks side by side. source: what was read. None for what was not.
    """

    joules: float | None
    interval: Interval | None
    watts: float | None
    source: str
    base: str | None = None
    ratio: float | None = None
    ratio_interval: Interval | None = None


class Latency(Shape):
    """A cell's seconds per inference in one mode, the input set and the output not yet read.

    Of a sustained run those of its plateau; of cold starts from the file on disk to the end of the first inference.

    Intervals of 95 %, over processes and blocks. A percentile is None below SAMPLES_FOR it. load: to an interpreter
    with its tensors allocated; first: the first inference after it; both medians over processes.
    remarks: drift, several modes, outliers, in words. memory_interval: of the peak.
    """

    median: float
    median_interval: Interval | None
    p90: float | None
    p90_interval: Interval | None
    p95: float | None
    p99: float | None
    load: float
    first: float
    samples: int
    processes: int
    memory: Memory | None = None
    remarks: tuple[str, ...] = ()
    load_interval: Interval | None = None
    first_interval: Interval | None = None
    memory_interval: Interval | None = None
    over_time: OverTime | None = None
    energy: Energy | None = None


class Ratio(Shape):
    """Time of `cell` / time of `base`, from blocks measured side by side; interval of 95 %."""

    cell: str
    base: str
    ratio: float
    interval: Interval | None


class AAControl(Shape):
    """The same file twice in every process: time of its second interpreter / of its first. passes: it is 1."""

    cell: str
    ratio: float
    interval: Interval | None
    passes: bool

    def __str__(self) -> str:
        text = f"{self.cell}'s file twice: ratio {self.ratio:.3f}"
        return text + (f" ({self.interval.low:.3f} to {self.interval.high:.3f})" if self.interval else "")


class DisturbedBlock(Shape):
    """A block in which the machine was not as before. process, block: counted from 1 and 0."""

    process: int
    block: int
    cell: str
    disturbances: tuple[str, ...]


class Timing(Shape):
    """All that one check measured of speed, over its cells.

    gated: whether it counts towards the check's outcome: the policy limits latency, or a worker crashed over it.
    machine: each source's lowest, median and highest reading over all blocks, or "unavailable".
    changes: against the same cell in a baseline, whose name is the ratio's `base`.
    """

    verdict: Verdict
    gated: bool
    control: AAControl | None
    ratios: tuple[Ratio, ...]
    processes: int
    blocks: int
    disturbed: tuple[DisturbedBlock, ...]
    machine: Mapping[str, Any] = field(default_factory=dict)
    changes: tuple[Ratio, ...] = ()
