"""How long an inference takes, and whether the figures can be trusted: what a record keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.core.outcome import Interval, Outcome, Verdict

SAMPLES_FOR = {0.9: 64, 0.95: 130, 0.99: 662}  # MLPerf LoadGen's early stopping, 99 % confidence
UNAVAILABLE = "unavailable"
UNMEASURED = "latency was not measured: "  # begins a record's note


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

    def to_json(self) -> dict[str, Any]:
        """The published shape."""
        shape = asdict(self)
        verdict = shape.pop("verdict")
        return {"verdict": verdict["outcome"], "reasons": list(verdict["reasons"]), **shape}


def latency_from_json(stored: Mapping[str, Any]) -> Latency:
    """The figures that a record keeps. Raises KeyError or TypeError."""
    table = dict(stored)
    for key in ("median_interval", "p90_interval"):
        table[key] = _interval(table[key])
    memory = table.pop("memory")
    return Latency(**table | {"memory": Memory(**memory) if memory else None, "remarks": tuple(table["remarks"])})


def timing_from_json(stored: Mapping[str, Any]) -> Timing:
    """The same of a whole check. Raises KeyError, TypeError or ValueError."""
    table = dict(stored)
    table["verdict"] = Verdict(Outcome(table["verdict"]), tuple(table.pop("reasons")))
    if control := table["control"]:
        table["control"] = Control(**control | {"interval": _interval(control["interval"])})
    for key in ("ratios", "changes"):
        table[key] = tuple(Ratio(**ratio | {"interval": _interval(ratio["interval"])}) for ratio in table[key])
    table["marked"] = tuple(MarkedBlock(**block | {"marks": tuple(block["marks"])}) for block in table["marked"])
    return Timing(**table)


def _interval(stored: Mapping[str, float] | None) -> Interval | None:
    return Interval(**stored) if stored else None
