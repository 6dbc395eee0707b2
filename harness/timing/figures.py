"""How long an inference takes, and whether the figures can be trusted: what a record keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.core.outcome import Interval, Verdict

SAMPLES_FOR = {0.9: 64, 0.95: 130, 0.99: 662}  # MLPerf LoadGen's early stopping, 99 % confidence


@dataclass(frozen=True)
class Memory:
    """Resident bytes of a worker that holds one variant, beyond what it held before the variant was loaded."""

    peak_bytes: int
    steady_bytes: int


@dataclass(frozen=True)
class Latency:
    """One variant's seconds per inference, the input set and the output not yet read.

    Intervals of 95 %, over processes and blocks. A percentile is none below SAMPLES_FOR it. load: to an interpreter
    with its tensors allocated; first: the first inference after it; both medians over processes.
    remarks: drift, several modes, outliers, in words.
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


@dataclass(frozen=True)
class Ratio:
    """Time of `kind` / time of `base`, from blocks measured side by side; interval of 95 %."""

    kind: str
    base: str
    ratio: float
    interval: Interval | None


@dataclass(frozen=True)
class Control:
    """The same file twice in every process: time of its second interpreter / of its first. even: as it should be 1."""

    kind: str
    ratio: float
    interval: Interval | None
    even: bool


@dataclass(frozen=True)
class MarkedBlock:
    """A block in which the machine was not as before. process, block: counted from 1 and 0; marks: what was seen."""

    process: int
    block: int
    kind: str
    marks: tuple[str, ...]


@dataclass(frozen=True)
class Timing:
    """All that one check measured of speed, over its variants.

    gated: whether it counts towards the check's outcome: the policy limits latency, or a worker crashed over it.
    machine: each source's lowest, median and highest reading over all blocks, or "unavailable".
    changes: against the same kind in a baseline, whose name is the ratio's `base`.
    """

    verdict: Verdict
    gated: bool
    control: Control | None
    ratios: tuple[Ratio, ...]
    processes: int
    blocks: int
    marked: tuple[MarkedBlock, ...]
    machine: Mapping[str, Any] = field(default_factory=dict)
    changes: tuple[Ratio, ...] = ()
