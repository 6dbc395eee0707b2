"""What the machine's state says of a block: was it throttled, slowed down, or not alone?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.run.job import UNAVAILABLE
from harness.run.latency_plan import Mode
from harness.run.latency_run import LatencyRun
from harness.run.worker import STATE
from harness.timing.figures import DisturbedBlock

MAX_DISTURBED = 0.2  # of the blocks
MIN_FREQUENCY = 0.95  # of the highest frequency seen
MAX_OTHERS = 0.25  # of its cores' time: the system counts in hundredths of a second, a few in a block
MAX_STOLEN = 0.02  # of its cores' time
MIN_PROCESSOR = 0.97  # of the time on the processor, of one thread
SOURCES = ("frequency_hz", "temperature_c", "throttled", "throttle_count", "battery_percent")

Array = npt.NDArray[np.float64]


def disturbed(runs: Sequence[LatencyRun], threads: int) -> tuple[DisturbedBlock, ...]:
    """The blocks of all processes in which something disturbed the worker, and what."""
    top = max((highest(run.column("frequency_hz")) for run in runs), default=float("nan"))
    return tuple(
        DisturbedBlock(process, block, cell, disturbances)
        for process, run in enumerate(runs, start=1)
        for block, cell in enumerate(run.order)
        if (disturbances := tuple(_disturbances(run, block, threads, top)))
    )


def busy(runs: Sequence[LatencyRun]) -> list[str]:
    """The modes in which others took the processor from the worker in too many blocks, in sentences."""
    taken: dict[Mode, list[bool]] = {}
    for run in runs:
        wall = run.column("clock_s")[:, -1] - run.column("clock_s")[:, 0]
        stolen = (run.column("steal_s")[:, -1] - run.column("steal_s")[:, 0]) / wall > MAX_STOLEN
        taken.setdefault(run.mode, []).extend(((_others(run) > MAX_OTHERS) | stolen).tolist())
    return [
        f"{mode}: other programs took the processor in {sum(blocks)} of {len(blocks)} blocks"
        for mode, blocks in taken.items()
        if sum(blocks) > MAX_DISTURBED * len(blocks)
    ]


def readings(runs: Sequence[LatencyRun]) -> dict[str, Any]:
    """Each source's lowest, median and highest reading, or "unavailable"; the cores bound to, and their governor."""
    sources = {name: _range([run.column(name) for run in runs]) for name in SOURCES}
    sources["others_share"] = _range([_others(run) for run in runs])
    return sources | {"cores": list(runs[0].cores) or UNAVAILABLE, "governor": runs[0].governor}


def _range(columns: Sequence[Array]) -> dict[str, float] | str:
    values = np.concatenate([column.ravel() for column in columns])
    values = values[np.isfinite(values)]
    if not values.size:
        return UNAVAILABLE
    return {"lowest": float(values.min()), "median": float(np.median(values)), "highest": float(values.max())}


def _disturbances(run: LatencyRun, block: int, threads: int, top: float) -> Iterator[str]:
    states = dict(zip(STATE, run.state[block].T, strict=True))
    wall = states["clock_s"][-1] - states["clock_s"][0]
    if (slowest := lowest(states["frequency_hz"])) < MIN_FREQUENCY * top:
        yield f"frequency fell to {slowest / 1e9:.2f} of {top / 1e9:.2f} GHz"
    if highest(states["throttled"]) > 0:
        yield f"throttled: {int(highest(states['throttled'])):#x}"
    if (times := states["throttle_count"][-1] - states["throttle_count"][0]) > 0:
        yield f"throttled {int(times)} times"
    if (others := _others(run)[block]) > MAX_OTHERS:
        yield f"other programs kept {others:.0%} of its cores busy"
    if (stolen := (states["steal_s"][-1] - states["steal_s"][0]) / wall) > MAX_STOLEN:
        yield f"the hypervisor took {stolen:.0%} of its cores' time"
    if threads == 1 and (share := (states["cpu_s"][-1] - states["cpu_s"][0]) / wall) < MIN_PROCESSOR:
        yield f"had a core {share:.0%} of the time"


def _others(run: LatencyRun) -> Array:
    """The share of its cores' time that others took, from the block before each to the one after it."""
    clock, others = run.column("clock_s"), run.column("others_s")
    last = len(clock) - 1
    before, after = np.maximum(np.arange(last + 1) - 1, 0), np.minimum(np.arange(last + 1) + 1, last)
    return np.asarray((others[after, -1] - others[before, 0]) / (clock[after, -1] - clock[before, 0]))


def highest(values: Array) -> float:
    """The highest of those that could be read; minus infinity if none could."""
    return float(np.max(values, where=np.isfinite(values), initial=-np.inf))


def lowest(values: Array) -> float:
    return float(np.min(values, where=np.isfinite(values), initial=np.inf))
