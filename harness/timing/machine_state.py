"""What the machine's state says of a block: was it throttled, slowed down, or not alone?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.run.job import UNAVAILABLE
from harness.run.latency_run import LatencyRun
from harness.run.worker import STATE
from harness.timing.figures import MarkedBlock

FREQUENCY_FALL = 0.95  # of the highest frequency seen
OTHERS_BUSY = 0.25  # of its cores' time: the system counts in hundredths of a second, a few in a block
STOLEN = 0.02  # of its cores' time
OWN_SHARE = 0.97  # of the time on the processor, of one thread
SHOWN = ("frequency_hz", "temperature_c", "throttled", "throttle_count", "battery_percent")

Array = npt.NDArray[np.float64]


def marked(runs: Sequence[LatencyRun], threads: int) -> tuple[MarkedBlock, ...]:
    """The blocks of all processes in which something was seen, and what."""
    top = max((_highest(run.column("frequency_hz")) for run in runs), default=float("nan"))
    found = []
    for process, run in enumerate(runs, start=1):
        for block, cell in enumerate(run.order):
            if marks := tuple(_marks(run, block, threads, top)):
                found.append(MarkedBlock(process, block, cell, marks))
    return tuple(found)


def machine(runs: Sequence[LatencyRun]) -> dict[str, Any]:
    """Each source's lowest, median and highest reading, or "unavailable"; the cores bound to, and their governor."""
    shown: dict[str, Any] = {}
    for name in SHOWN:
        readings = np.concatenate([run.column(name).ravel() for run in runs])
        readings = readings[np.isfinite(readings)]
        shown[name] = (
            {"lowest": float(readings.min()), "median": float(np.median(readings)), "highest": float(readings.max())}
            if readings.size
            else UNAVAILABLE
        )
    others = np.concatenate([_others(run) for run in runs])
    others = others[np.isfinite(others)]
    shown["others_share"] = (
        {"lowest": float(others.min()), "median": float(np.median(others)), "highest": float(others.max())}
        if others.size
        else UNAVAILABLE
    )
    return shown | {"cores": list(runs[0].cores) or UNAVAILABLE, "governor": runs[0].governor}


def _marks(run: LatencyRun, block: int, threads: int, top: float) -> list[str]:
    states = dict(zip(STATE, run.state[block].T, strict=True))
    wall = states["clock_s"][-1] - states["clock_s"][0]
    found = []
    if (lowest := _lowest(states["frequency_hz"])) < FREQUENCY_FALL * top:
        found.append(f"frequency fell to {lowest / 1e9:.2f} of {top / 1e9:.2f} GHz")
    if _highest(states["throttled"]) > 0:
        found.append(f"throttled: {int(_highest(states['throttled'])):#x}")
    if (times := states["throttle_count"][-1] - states["throttle_count"][0]) > 0:
        found.append(f"throttled {int(times)} times")
    if (others := _others(run)[block]) > OTHERS_BUSY:
        found.append(f"other programs kept {others:.0%} of its cores busy")
    if (stolen := (states["steal_s"][-1] - states["steal_s"][0]) / wall) > STOLEN:
        found.append(f"the hypervisor took {stolen:.0%} of its cores' time")
    if threads == 1 and (own := (states["cpu_s"][-1] - states["cpu_s"][0]) / wall) < OWN_SHARE:
        found.append(f"had a core {own:.0%} of the time")
    return found


def _others(run: LatencyRun) -> Array:
    """The share of its cores' time that others took, from the block before each to the one after it."""
    clock, others = run.column("clock_s"), run.column("others_s")
    last = len(clock) - 1
    before, after = np.maximum(np.arange(last + 1) - 1, 0), np.minimum(np.arange(last + 1) + 1, last)
    return np.asarray((others[after, -1] - others[before, 0]) / (clock[after, -1] - clock[before, 0]))


def _highest(readings: Array) -> float:
    return float(np.max(readings, where=np.isfinite(readings), initial=-np.inf))


def _lowest(readings: Array) -> float:
    return float(np.min(readings, where=np.isfinite(readings), initial=np.inf))
